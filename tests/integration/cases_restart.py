"""Crashes and starts again. (tests/crash kills the engine under load, many times.)"""
import collections
import json

from common import case, end, restart, same, sink_at
from harness import free_ports, wait_for

POLICY = """
engine { hostname = "mail.shop.example", listen = "127.0.0.1:{port}", retry = { "1s" } }
relay "r" { host = "127.0.0.1", port = PORT, tls = "none" }
route "all" { to = "*", via = "r" }
"""


@case("restart", "500 messages queued for a dead relay, kill -9, start again with the relay up: each arrives once", 90)
def killed_with_a_queue(world):
    port = free_ports(1)[0]
    engine = world.engine(POLICY.replace("PORT", str(port)), log="warn")
    _, out, _ = world.run("load", "--json", "--server", f"127.0.0.1:{engine.port}", "-n", 500, "-c", 10, timeout=60)
    load = json.loads(out)
    same(load["acked"], 500, "acknowledged")
    engine.kill()
    sink_at(world, port)
    restart(engine)
    wait_for(lambda: len(world.received()) >= 500, 40, why="500 messages")
    engine.wait_empty(30)
    came = collections.Counter(row["load"] for row in world.received())
    same(came, collections.Counter({f"{load['run']}-{i}": 1 for i in range(500)}), "arrivals")
    end(engine)
    restart(engine)
    engine.wait_empty(5)
    same(len(world.received()), 500, "arrivals after another start")
    end(engine)
