"""Caps hold at the server, by its own clock, whatever happens to the engine."""
import os
import signal
import socket
import threading
import time

from common import case, end, holds, restart, rewrite, same, send
from harness import wait_for

POLICY = """
engine { hostname = "mail.shop.example", listen = "127.0.0.1:{port}", retry = { "1s" }, workers = 2 }
relay "capped" { host = "127.0.0.1", port = PORT, tls = "none", cap = "10/2s" }
route "a"    { to = "a.example", via = "capped" }
route "rest" { to = "*", via = "capped" }
"""


def windows_over(world, n=10, window_ms=2000):
    """Pairs of arrivals, n apart, that are closer than the window."""
    at = sorted(row["at_ms"] for row in world.received())
    return [(i, at[i + n] - at[i]) for i in range(len(at) - n) if at[i + n] - at[i] < window_ms]


@case("caps", "10 in 2 seconds: no window above, over reload, restart and kill -9, by the sink's timestamps", 100)
def cap_holds(world):
    sink = world.sink()
    policy = POLICY.replace("PORT", str(sink.ports[0]))
    engine = world.engine(policy)

    def add(first, n):
        for i in range(first, first + n):
            send(engine, f"u{i}@{'ab'[i % 2]}.example")

    def sent(n):
        wait_for(lambda: len(world.received()) >= n, 40, 0.01, f"{n} messages")
    add(0, 30)
    sent(8)
    rewrite(engine, policy.replace("rest", "others"))
    world.run("reload", "--spool", engine.spool)
    sent(18)
    same(engine.stop(), 0, "exit code")
    restart(engine)
    add(30, 20)
    sent(30)
    os.kill(engine.p.pid, signal.SIGKILL)
    engine.p.wait()
    restart(engine)
    sent(50)
    engine.wait_empty(30)
    same(windows_over(world), [], "windows above the cap")
    took = (max(r["at_ms"] for r in world.received()) - min(r["at_ms"] for r in world.received())) / 1000
    holds(took < 30, f"far slower than the cap: {took} s for 50 messages")
    end(engine)


@case("caps", "a cap counts recipients where it says so; refused attempts count, too")
def cap_of_recipients(world):
    sink = world.sink(rules=["c.example rcpt 550 5.1.1 no such user"])
    engine = world.engine(f"""
        engine {{ hostname = "mail.shop.example", listen = "127.0.0.1:{{port}}", dsn = "none" }}
        relay "r" {{ host = "127.0.0.1", port = {sink.ports[0]}, tls = "none", cap = "6 recipients/2s", recipients_per_message = 3 }}
        route "all" {{ to = "*", via = "r" }}
    """)
    started = time.time() * 1000
    for n in range(4):
        send(engine, [f"u{n}{i}@a.example" for i in range(3)])
    for n in range(6):
        send(engine, f"x{n}@c.example")
    engine.wait_empty(40)
    at = sorted(row["at_ms"] for row in world.received() for _ in row["to"])
    same(len(at), 12, "recipients")
    same([(i, at[i + 6] - at[i]) for i in range(6) if at[i + 6] - at[i] < 2000], [], "windows above the cap")
    holds(time.time() * 1000 - started >= 3500, "18 recipients in less than 2 windows after the first")
    end(engine)


class Stamps:
    """A server on one connection at a time that notes to the nanosecond when each MAIL came, before it answers."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.at = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(client,), daemon=True).start()

    def talk(self, client):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client, client.makefile("rb") as lines:
            client.sendall(b"220 stamps.test\r\n")
            is_content = False
            for line in lines:
                if is_content and line != b".\r\n":
                    continue
                answer = b"250 ok\r\n"
                if is_content:
                    is_content = False
                elif line[:4].upper() == b"MAIL":
                    self.at.append(time.monotonic_ns())
                elif line[:4].upper() == b"DATA":
                    is_content, answer = True, b"354 go on\r\n"
                elif line[:4].upper() == b"QUIT":
                    return
                client.sendall(answer)


@case("caps", "50 a second over one connection: the 51st MAIL is a whole second behind the first, to the nanosecond", 60)
def whole_windows(world):
    server = Stamps()
    engine = world.engine(f"""
        engine {{ hostname = "mail.shop.example", listen = "127.0.0.1:{{port}}", dsn = "none" }}
        relay "r" {{ host = "127.0.0.1", port = {server.port}, tls = "none", cap = "50/s", connections = 1 }}
        route "all" {{ to = "*", via = "r" }}
    """)
    for n in range(300):
        send(engine, f"u{n}@a.example")
    wait_for(lambda: len(server.at) >= 300, 40, 0.05, "300 messages")
    at = sorted(server.at)
    same([at[i + 50] - at[i] for i in range(len(at) - 50) if at[i + 50] - at[i] < 1_000_000_000], [], "windows above the cap, in ns")
    holds(at[-1] - at[0] < 15_000_000_000, "far slower than the cap")
    end(engine)
