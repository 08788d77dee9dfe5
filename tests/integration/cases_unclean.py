"""A message that ends the engine again and again, as far as the engine can tell."""
import json
import os
import socket

from common import case, event, events, holds, restart, same, send
from harness import free_ports, wait_for

POLICY = """
engine { hostname = "mail.shop.example", listen = "127.0.0.1:{port}", retry = { "1s" } }
relay "slow" { host = "127.0.0.1", port = PORT, tls = "none" }
route "all" { to = "*", via = "slow" }
"""


@case("unclean", "killed three times while a relay stalls: the message is held and says why; released, it goes", 120)
def held_after_three_stops(world):
    stalls = world.sink("stalls", rules=["* dot stall"])
    engine = world.engine(POLICY.replace("PORT", str(stalls.ports[0])))
    id = send(engine, "stalled@a.example")
    holds("0 unclean stops; " in events(engine, "started", 1)[0]["text"], "the first start")
    for n in range(3):
        wait_for(lambda: engine.status()["queue"]["sending"] == 1, 20, why=f"being sent, round {n}")
        engine.kill()
        restart(engine)
        started = events(engine, "started", n + 2)[-1]["text"]
        holds(started.startswith("1 message, 1 recipient in the journal; 1 unclean stop; 0 damaged records; ")
              and started.endswith("at most 1 duplicate"), started)
    row = event(engine, "held", id=id)
    holds("three times" in json.dumps(row), row)
    rows = engine.queue()["rows"]
    same([r["state"] for r in rows], ["held"], "state")
    holds("ended without warning three times" in rows[0]["reason"], rows[0])
    send(engine, "other@a.example")
    wait_for(lambda: engine.status()["queue"]["sending"] == 1, 20, why="other mail goes on")
    world.run("queue", "release", "--spool", engine.spool, "--to", "stalled@a.example")
    wait_for(lambda: engine.status()["queue"]["sending"] == 2, 20, why="released, it goes after all")
    same(os.stat(world.path("spool", "inflight")).st_mode & 0o777, 0o600, "mode of inflight")
    engine.kill()


@case("unclean", "held and cancelled while a relay stalls, then killed: both are held after the start, and are not sent again", 120)
def wishes_survive(world):
    stalls = world.sink("stalls", rules=["* dot stall"])
    engine = world.engine(POLICY.replace("PORT", str(stalls.ports[0])))
    for name in ("held", "cancelled", "released", "plain"):
        send(engine, f"{name}@{name}.example")
    wait_for(lambda: engine.status()["queue"]["sending"] == 4, 20, why="being sent")
    for action, name in (("hold", "held"), ("cancel", "cancelled"), ("cancel", "released"), ("release", "released")):
        same(world.run("queue", action, "--spool", engine.spool, "--to", f"{name}.example")[0], 0, action)
    same(engine.status()["queue"]["sending"], 4, "all are still being sent")
    engine.kill()
    restart(engine)
    started = events(engine, "started", 2)[-1]["text"]
    holds(started.endswith("at most 2 duplicates"), started)
    wait_for(lambda: engine.status()["queue"]["sending"] == 2, 20, why="those that nobody holds are sent again")
    rows = {r["rcpt"].split("@")[0]: r for r in engine.queue()["rows"]}
    same({n: r["state"] for n, r in rows.items()},
         {"held": "held", "cancelled": "held", "released": "sending", "plain": "sending"}, "states")
    holds("may have been delivered; an operator held it" in rows["held"]["reason"], rows["held"])
    holds("may have been delivered; an operator cancelled it" in rows["cancelled"]["reason"], rows["cancelled"])
    same(world.run("queue", "cancel", "--spool", engine.spool, "--to", "cancelled.example")[0], 0, "cancel")
    event(engine, "cancelled", rcpt="cancelled@cancelled.example")
    engine.kill()


@case("unclean", "killed while sending, and the next starts fail: the start that succeeds still says what may be sent twice", 120)
def failed_starts_between(world):
    stalls = world.sink("stalls", rules=["* dot stall"])
    http = free_ports(1)[0]
    policy = POLICY.replace("PORT", str(stalls.ports[0])).replace("engine { ", f'engine {{ http = "127.0.0.1:{http}", ')
    engine = world.engine(policy)
    send(engine, "stalled@a.example")
    wait_for(lambda: engine.status()["queue"]["sending"] == 1, 20, why="being sent")
    for n, port in enumerate([engine.port, http, http]):  # before the journal is read, and after it
        engine.kill()
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", port))
            s.listen()
            for _ in range(2):
                engine.spawn()
                same(engine.p.wait(60), 1, f"exit code, port {port}")
        restart(engine)
        started = events(engine, "started", n + 2)[-1]["text"]
        holds("; 1 unclean stop; " in started and started.endswith("at most 1 duplicate"), f"round {n}: {started}")
        if n < 2:
            wait_for(lambda: engine.status()["queue"]["sending"] == 1, 20, why=f"being sent, round {n}")
    rows = engine.queue()["rows"]
    same([r["state"] for r in rows], ["held"], "three kills, not nine starts")
    engine.kill()
