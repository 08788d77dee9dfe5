"""Caps hold at the server, by its own clock, whatever happens to the engine."""
import os
import signal
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
