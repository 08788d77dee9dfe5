#!/usr/bin/env python3
"""What a stop waits for, for how long, and what it does not wait for: silent relays, resolvers, secrets, clients and disks.

  tests/protocol/stops.py BINARY [CASE...] [--keep]     (CASE: silence, bounds, twice, ... default all)

Each case starts an engine of its own in a folder of its own. Exit code 1: something failed.
"""
import contextlib
import os
import signal
import socket
import sys
import threading
import time

import machine
from machine import HANGS, check, connect, n_queued, restart, send, wait_for_reply

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import free_ports, is_read, wait_for  # noqa: E402

CASES = []


def case(run):
    CASES.append((run.__name__, run))
    return run


class Silent:
    """Takes connections on a port, says `words` one after the other, each after a line of the client, and then nothing more."""

    def __init__(self, *words, wants_line=True):
        self.words, self.wants_line, self.held, self.n_silent = words, wants_line, [], 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            self.held.append(self.socket.accept()[0])
            threading.Thread(target=self.talk, args=(self.held[-1],), daemon=True).start()

    def talk(self, client):
        with contextlib.suppress(ConnectionError):  # the engine may have given the connection up
            for i, word in enumerate(self.words):
                if i > 0:
                    client.recv(4096)
                client.sendall(word)
            if self.words and self.wants_line:
                client.recv(4096)
        self.n_silent += 1


class Full:
    """A port whose queue of connections is full: the kernel answers no further one."""

    def __init__(self):
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(0)
        self.port = self.socket.getsockname()[1]
        self.held = []
        for _ in range(4):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(("127.0.0.1", self.port))
            self.held.append(s)


class Resolver:
    """A name server that never answers."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.asked = set()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            data = self.socket.recv(2048)
            self.asked.add(data[13:13 + data[12]].decode())


def head(resolver, more=""):
    return (f'engine {{ hostname = "mx.test", listen = "127.0.0.1:{{port}}", http = "127.0.0.1:{more or free_ports(1)[0]}", owner = "o@x.test", dsn = "none", '
            f'workers = 2, resolver = "127.0.0.1:{resolver.port}" }}\n')


def relay(name, port, keys="", host="127.0.0.1"):
    return (f'relay "{name}" {{ host = "{host}", port = {port}, {keys if "tls" in keys else "tls = {q}none{q}, ".format(q=chr(34)) + keys} }}\n'
            f'route "{name}" {{ to = "{name}.test", via = "{name}" }}\n')


EHLO = b"220 hi\r\n", b"250-x\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 AUTH PLAIN XOAUTH2\r\n"
LOGIN = 'auth = "plain", user = "u", password = "p"'


@case
def silence(world):
    """Nothing of what a connection needs before it can send holds the stop; nor do clients that say nothing. All mail is there at the next start."""
    resolver, full = Resolver(), Full()
    peers = {"greeting": Silent(), "hello": Silent(b"220 hi\r\n"), "starttls": Silent(*EHLO), "handshake": Silent(*EHLO, b"220 go\r\n"),
             "implicit": Silent(), "auth": Silent(*EHLO)}
    keys = {"starttls": 'tls = "starttls"', "handshake": 'tls = "starttls"', "implicit": 'tls = "implicit"', "auth": LOGIN}
    plain, tokens = Silent(*EHLO, wants_line=False), Silent()
    http = free_ports(1)[0]
    world.write("secrets/refresh", "r", mode=0o600)
    text = head(resolver, http) + "".join(relay(name, peer.port, keys.get(name, "")) for name, peer in peers.items())
    text += relay("connect", full.port)
    text += relay("command", plain.port, f'auth = "plain", user = "u", password = {HANGS % 1}')
    text += relay("token", plain.port, f'auth = "xoauth2", user = "u", oauth = {{ client = "c", refresh = secret "refresh", token_url = "http://127.0.0.1:{tokens.port}/t" }}')
    text += relay("name", 25, host="relay.names.test")
    text += 'relay "own" { mx = true }\nroute "own" { to = "own.test", via = "own" }\nroute "undecided" { to = "undecided.test", mx = ".x.test", via = "own" }\n'
    engine = world.engine(text)
    rcpts = [*peers, "connect", "command", "token", "name", "own", "undecided"]
    clients = [connect(engine.port), connect(engine.port)]
    clients[1].sendall(b"EHLO t\r\n")
    wait_for_reply(clients[1], b"250 ")
    for name in rcpts:
        send(engine.port, f"a@{name}.test")
    control = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    for s, request in zip(control, (b'{"cmd":', b'{"cmd":"status"}\n' * 2000)):
        s.connect(os.path.join(engine.spool, "control.sock"))
        s.setblocking(False)
        s.send(request)
    clients.append(connect(http, greet=False))
    clients[-1].sendall(b"GET /metrics HTTP/1.1\r\n")
    wait_for(lambda: all(p.n_silent for p in [*peers.values(), tokens]) and {"relay", "own", "undecided"} <= resolver.asked, 30, 0.05, "all hang")
    queue = {}

    def hang():  # the own delivery is queued; a busy machine may let a time-out pass, and that one is deferred
        queue.update(engine.status()["queue"])
        return queue["sending"] + queue["deferred"] == len(rcpts) - 2 and queue["sending"] > 0
    wait_for(hang, 20, 0.05, f"all but the own delivery and the undecided one: {queue}")
    deferred = len(engine.events("deferred"))
    at = time.monotonic()
    engine.p.send_signal(signal.SIGTERM)
    engine.p.wait(60)
    took = time.monotonic() - at
    print(f"NOTE stopped after {took:.1f} s")
    check(engine.p.returncode == 0, engine.p.returncode)
    check(took < 6, f"{took:.1f} s: {[line for line in engine.text().splitlines() if 'ev=stopping' in line]}")
    restart(world, engine)
    status = engine.status()
    check(n_queued(engine) == len(rcpts) == status["journal"]["recipients"], f"{status['queue']} {status['journal']}")
    check(len(engine.events("deferred")) == deferred and not engine.events("failed"), f"deferred or failed for the stop: {engine.events('deferred')[deferred:]}")
    for s in clients + control:
        s.close()
    return engine


def stopping_lines(engine):
    return [line for line in engine.text().splitlines() if "ev=stopping" in line]


def under_way(world):
    """An engine with a message whose end the relay does not answer, and a client in the middle of a message; engine, client."""
    resolver = Resolver()
    sink = world.sink(rules=["dot.test dot stall"])
    rcpt = Silent(b"220 hi\r\n", b"250 x\r\n", b"250 m\r\n")
    engine = world.engine(head(resolver) + relay("dot", sink.ports[0]) + relay("rcpt", rcpt.port))
    for name in ("dot", "rcpt"):
        send(engine.port, f"a@{name}.test")
    client = connect(engine.port)
    client.sendall(b"EHLO t\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@dot.test>\r\nDATA\r\n")
    wait_for_reply(client, b"354")
    client.sendall(b"From: a@x.test\r\n\r\nhalf")
    wait_for(lambda: is_read(client), 20, 0.02, "half of the message is in")
    wait_for(lambda: engine.status()["queue"]["sending"] == 2, 20, 0.05, f"both are being sent: {engine.status()['queue']}")
    return engine, client


@case
def bounds(world):
    """A client in the middle of a message has 10 s, then relays have 30 s to answer; the log says meanwhile what the stop waits for."""
    engine, client = under_way(world)
    at = time.monotonic()
    engine.p.send_signal(signal.SIGTERM)
    client.settimeout(30)
    got = client.recv(1000)
    closed = time.monotonic() - at
    wait_for(lambda: sum("waits_for=\"relays" in line and "n=2" in line for line in stopping_lines(engine)) == 1, 40, 0.1, "the log says what it waits for")
    check(sum("waits_for=\"clients" in line and "n=1" in line for line in stopping_lines(engine)) == 1, stopping_lines(engine))
    engine.p.wait(60)
    took = time.monotonic() - at
    print(f"NOTE the client was closed after {closed:.1f} s ({got!r}); stopped after {took:.1f} s")
    check(got.startswith(b"421 ") and 9.5 < closed < 20, f"{got!r} after {closed:.1f} s")
    check(engine.p.returncode == 0, engine.p.returncode)
    check(39 < took < 60, f"{took:.1f} s")
    check([e["class"] for e in engine.events("deferred")] == ["ambiguous"], "the message whose end was sent may have arrived")
    restart(world, engine)
    check(n_queued(engine) == 2, engine.status()["queue"])
    engine.kill()  # the relays would hold its stop again


@case
def twice(world):
    """A second signal ends the engine within 5 s, by SIGTERM or SIGINT; nothing that was acknowledged is lost."""
    engine, client = under_way(world)
    engine.p.send_signal(signal.SIGTERM)
    wait_for(lambda: stopping_lines(engine), 20, 0.02, "the stop has begun")
    at = time.monotonic()
    engine.p.send_signal(signal.SIGINT)
    engine.p.wait(60)
    took = time.monotonic() - at
    print(f"NOTE stopped after {took:.1f} s")
    check(engine.p.returncode == 0, engine.p.returncode)
    check(took < 15, f"{took:.1f} s")
    check(any("at once" in line for line in stopping_lines(engine)), stopping_lines(engine))
    restart(world, engine)
    check(n_queued(engine) == 2, engine.status()["queue"])
    client.close()
    engine.kill()  # the relays would hold its stop again


if __name__ == "__main__":
    sys.exit(machine.main(CASES, __doc__))
