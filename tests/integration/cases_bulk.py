"""Many messages by several relays, one of them bad: nothing lost, nothing by a relay that its plan does not name."""
import collections
import json

from common import case, end, has_sanitizer, holds, same
from harness import wait_for

POLICY = """
engine { hostname = "mail.shop.example", listen = "127.0.0.1:{port}", retry = { "1s" } }
relay "bad"  { host = "127.0.0.1", port = PORT0, tls = "none" }
relay "good" { host = "127.0.0.1", port = PORT1, tls = "none" }
relay "last" { host = "127.0.0.1", port = PORT2, tls = "none" }
route "a"    { to = "a.example", via = { "bad", "good" } }
route "b"    { to = "b.example", via = { "good", "last" } }
route "c"    { to = { "c.example", ".c.example" }, via = { step "bad" { tries = 60 }, "last" } }
route "rest" { to = "*", via = "last" }
"""
ALLOWED = {"a.example": (0, 1), "b.example": (1, 2), "c.example": (0, 2), "sub.c.example": (0, 2), "d.example": (2,)}


def drain(world, engine, seconds):
    """Until the queue is empty. What may have been delivered waits ten minutes by itself: asked for at once, as an
    operator would after looking."""
    def is_empty():
        world.run("queue", "retry", "--class", "ambiguous", "--spool", engine.spool, check=False)
        return engine.is_empty()
    wait_for(is_empty, seconds, 0.5, f"the queue is empty: {engine.status()['queue']}")


@case("bulk", "thousands of messages by three relays, one of them refusing and dropping connections", 200)
def bulk_by_three_relays(world):
    n = world.messages or (3000 if has_sanitizer(world) else 20000)
    sink = world.sink(ports=3, rules=[":{0} dot 5% 451 4.3.0 busy", ":{0} rcpt 1% 554 5.7.1 blocked by DNSBL", ":{0} dot 0.5% close",
                                      ":{0} mail 0.5% close"])
    policy = POLICY
    for i, port in enumerate(sink.ports):
        policy = policy.replace(f"PORT{i}", str(port))
    engine = world.engine(policy, log="warn")
    _, out, _ = world.run("load", "--json", "--server", f"127.0.0.1:{engine.port}", "-n", n, "-c", 20, "--size", "2K", "--domains",
                          "a.example=3,b.example=2,c.example=2,sub.c.example,d.example", "--ids", world.path("ids"), timeout=150)
    load = json.loads(out)
    same((load["acked"], load["refused"], load["unknown"]), (n, 0, 0), "acknowledged, refused, unknown")
    drain(world, engine, 100)
    came = collections.Counter()
    for row in world.received():
        came[row["load"]] += 1
        domain = row["to"][0].rsplit("@")[1]
        holds(sink.ports.index(row["port"]) in ALLOWED[domain], f"{row['to']} by relay {sink.ports.index(row['port'])}")
    lost = [i for i in range(n) if f"{load['run']}-{i}" not in came]
    same(lost[:10], [], "lost")
    same(len(came), n, "messages")
    end(engine)
    ambiguous = sum(1 for e in engine.events() if e.get("class") == "ambiguous")
    twice = sum(c - 1 for c in came.values())
    holds(twice <= ambiguous, f"{twice} duplicates, but only {ambiguous} connections died after the dot")
    holds(len(engine.events("deferred")) > 0, "the sink refused nothing")
