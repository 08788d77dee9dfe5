"""What the cases share: their registry, handing mail in, and reading what arrived."""
import json
import os
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import threading

from harness import answers, free_ports, wait_for

CASES = []


class Skip(Exception):
    """A peer is not there."""


class Case:
    def __init__(self, group, words, seconds, run):
        self.group, self.words, self.seconds, self.run = group, words, seconds, run
        self.name = run.__name__


def case(group, words, seconds=60):
    def add(run):
        CASES.append(Case(group, words, seconds, run))
        return run
    return add


def raise_on_terminate():
    def stop(signo, frame):
        raise AssertionError("the case's time is over")
    signal.signal(signal.SIGTERM, stop)


def need(program):
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise Skip(f"{program} is not installed")
    return path


def same(got, expected, what):
    if got != expected:
        raise AssertionError(f"{what}: {got!r} instead of {expected!r}")


def holds(condition, what):
    if not condition:
        raise AssertionError(what)


# ---- mail in ----

def message(to="someone@a.example", sender="Shop <shop@shop.example>", subject="hello", body="hi\r\n", extra=""):
    text = f"From: {sender}\r\nTo: {to}\r\nSubject: {subject}\r\nDate: Tue, 01 Dec 2026 10:00:00 +0900\r\n" \
           f"Message-ID: <{abs(hash((to, subject, body)))}@shop.example>\r\n{extra}\r\n{body}"
    return text.encode()


def raw_send(port, recipients, content, sender="shop@shop.example", mail_options="", rcpt_options=""):
    """Hands in octets as they are; the queue id. Addresses go as written, not as a library would quote them."""
    if isinstance(recipients, str):
        recipients = [recipients]
    with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=60) as s:
        s.ehlo()
        for command in [f"MAIL FROM:<{sender}>{mail_options}"] + [f"RCPT TO:<{r}>{rcpt_options}" for r in recipients]:
            code, text = s.docmd(command)
            holds(code == 250, f"{command}: {code} {text!r}")
        code, text = s.data(content)
        holds(code == 250, f"end of data: {code} {text!r}")
        found = re.search(rb"queued as (\S+)", text)
        holds(found, f"no id in {text!r}")
        return found.group(1).decode()


def send(engine, recipients, content=None, **options):
    first = recipients if isinstance(recipients, str) else recipients[0]
    return raw_send(engine.port, recipients, content or message(first), **options)


# ---- mail out ----

def mail(world, n, name="sink", seconds=30):
    """The first n messages of a sink: (index row, octets)."""
    rows = wait_for(lambda: len(world.received(name)) >= n and world.received(name), seconds,
                    why=f"{n} messages in {name}; there are {len(world.received(name))}")
    out = []
    for row in rows:
        with open(world.path(name, f"{row['n']}.eml"), "rb") as f:
            out.append((row, f.read()))
    return out


def fields(content):
    """The header fields in order, octet-exact, and the body."""
    head, _, body = content.partition(b"\r\n\r\n")
    return re.split(rb"\r\n(?![ \t])", head), body


def field(content, name):
    found = [f for f in fields(content)[0] if f.lower().startswith(name.lower().encode() + b":")]
    return found[0] if found else None


def event(engine, kind, seconds=20, **having):
    """Waits for an event with these values."""
    def look():
        for row in engine.events(kind):
            if all(row.get(k) == v for k, v in having.items()):
                return row
        return None
    return wait_for(look, seconds, 0.05, f"event {kind} {having}")


def events(engine, kind, n, seconds=20):
    """The events of a kind when there are n; the log is written a little later than the mail goes."""
    wait_for(lambda: len(engine.events(kind)) >= n, seconds, 0.05, f"{n} events {kind}; there are {len(engine.events(kind))}")
    return engine.events(kind)


def end(engine):
    """A clean stop: exit code 0 and no report of a sanitizer."""
    same(engine.stop(), 0, "exit code")


def restart(engine):
    """The same engine again, after its end."""
    engine.spawn()
    wait_for(lambda: engine.is_alive() and answers(engine.port), 60, why="the engine listens again")


def rewrite(engine, policy):
    with open(engine.policy, "w") as f:
        f.write(policy.replace("{port}", str(engine.port)))


def sink_at(world, port, name="sink", addresses=("127.0.0.1",), rules=(), extra=()):
    """A sink on this port of each address."""
    argv = [world.binary, "sink", "--quiet", "--store", world.path(name)]
    for address in addresses:
        argv += ["--listen", f"{address}:{port}"]
    for rule in rules:
        argv += ["--rule", rule]
    sink = world.start(name, argv + list(extra))

    def up():
        try:
            with socket.create_connection((addresses[-1].strip("[]"), port), timeout=1) as s:
                return len(s.recv(4)) > 0
        except OSError:
            return False
    wait_for(up, why=f"sink on {port}")
    return sink


def certificate(world, name="localhost"):
    """A self-signed certificate for localhost and 127.0.0.1: (certificate, key)."""
    need("openssl")
    cert, key = world.path(f"{name}.crt"), world.path(f"{name}.key")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
                    "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1"], check=True, capture_output=True)
    return cert, key


class Wire:
    """A server that takes everything and keeps each line of the clients as it was on the wire."""

    def __init__(self):
        self.lines = []
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", free_ports(1)[0]))
        self.listener.listen(20)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(s,), daemon=True).start()

    def _serve(self, s):
        in_data = False
        with s, s.makefile("rb") as lines:
            s.sendall(b"220 wire\r\n")
            for line in lines:
                self.lines.append(line)
                verb = line[:4].upper()
                if in_data:
                    if line != b".\r\n":
                        continue
                    in_data = False
                elif verb == b"DATA":
                    in_data = True
                    s.sendall(b"354 go on\r\n")
                    continue
                elif verb == b"QUIT":
                    s.sendall(b"221 bye\r\n")
                    return
                s.sendall(b"250 ok\r\n")

    def close(self):
        self.listener.close()


def has_sanitizer(world):
    with open(world.binary, "rb") as f:
        content = f.read()
    return b"__asan_init" in content or b"__tsan_init" in content


def shown(world, *args):
    """A command's JSON answer."""
    return json.loads(world.run(*args, "--json")[1])
