"""Crashes and starts again. (tests/crash kills the engine under load, many times.)"""
import collections
import glob
import json
import os
import signal
import time

from common import case, end, event, events, holds, message, restart, same, send, sink_at
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


@case("restart", "stopped at once while the answer to the dot is awaited: ambiguous, not sent again at the next start")
def stopped_behind_the_dot(world):
    sink = world.sink(extra=("--latency", "600000"))
    engine = world.engine(POLICY.replace("PORT", str(sink.ports[0])))
    send(engine, ["a@a.example"])
    wait_for(lambda: world.received(), 20, why="the relay has the message, its answer to the dot is awaited")
    engine.p.send_signal(signal.SIGTERM)
    wait_for(lambda: "taking no new mail" in engine.text(), why="the stop has begun")
    end(engine)
    restart(engine)
    row = event(engine, "deferred", **{"class": "ambiguous"})
    same((row["stage"], row["attempts"]), ("dot", 1), "what is remembered")
    waits = engine.queue()["rows"][0]
    same((waits["attempts"], waits["next_at"] > time.time() + 300), (1, True), f"one attempt, and a long wait: {waits}")
    end(engine)


@case("restart", "mail deferred for a refused login: each start tries it once, and a start with the login repaired sends all")
def repaired_login(world):
    port, refusal = free_ports(1)[0], ("--auth", "--rule", "* auth 535 5.7.8 bad login")
    policy = POLICY.replace('"1s"', '"1h"').replace("PORT, tls", f'{port}, auth = "plain", user = "u", password = "p", connections = 5, tls')
    sink = sink_at(world, port, extra=refusal)
    engine = world.engine(policy, log="warn")
    send(engine, ["first@a.example"])
    event(engine, "deferred", **{"class": "relay_auth"})
    for i in range(5):  # they wait for the end of the pause
        send(engine, [f"u{i}@a.example"])
    for n in range(2, 4):
        same(engine.stop(), 0, "the stop")
        restart(engine)
        wait_for(lambda: len(engine.events("deferred")) >= n, 20, why=f"attempt {n}: the login is tried again at the start")
        wait_for(lambda: engine.status()["queue"]["sending"] == 0, 10, why="nobody else is being sent")
        same(len(engine.events("deferred")), n, "attempts: one for each start")
    same(engine.stop(), 0, "the stop")
    sink.stop()
    sink_at(world, port, name="repaired", extra=("--auth",))
    restart(engine)
    engine.wait_empty(20)
    same(len(world.received("repaired")), 6, "arrivals")
    end(engine)


@case("restart", "kill -9 at the last 250: the event log has every message once")
def killed_with_lines_waiting(world):
    port = free_ports(1)[0]
    engine = world.engine(POLICY.replace("PORT", str(port)), log="warn")
    ids = [send(engine, [f"n{n}@a.example"]) for n in range(20)]
    engine.kill()
    restart(engine)
    rows = collections.Counter(row["id"] for row in events(engine, "accepted", 20))
    same(rows, collections.Counter(ids), "accepted lines")
    end(engine)


def change(path, wanted):
    """Turns one letter of a text in a file on its head, as a bad sector would."""
    with open(path, "r+b") as f:
        at = f.read().rindex(wanted)
        f.seek(at)
        f.write(bytes([wanted[0] ^ 0x20]))


@case("restart", "one octet of a waiting message changes on the disk, in a segment or a large file: it is held, not sent", 120)
def changed_on_the_disk(world):
    port = free_ports(1)[0]
    engine = world.engine(POLICY.replace("PORT", str(port)), log="warn")
    filler = ("x" * 70 + "\r\n")
    medium = send(engine, "medium@a.example", message("medium", body=filler * 8000 + "medium end\r\n" + filler * 100))
    large = send(engine, "large@b.example", message("large", body=filler * 40000 + "large end\r\n" + filler * 100))
    sound = send(engine, "sound@c.example", message("sound", body=filler * 8000))
    for id in (medium, large, sound):
        event(engine, "deferred", id=id)
    end(engine)
    segment, = [name for name in glob.glob(world.path("spool", "journal", "seg-*"))
                if b"medium end" in open(name, "rb").read()]
    change(segment, b"medium end")
    change(world.path("spool", "big", large), b"large end")
    sink_at(world, port)
    restart(engine)
    world.run("queue", "retry", "--spool", engine.spool, "--relay", "r", check=False)  # they may have been due already
    for id in (medium, large):
        row = event(engine, "held", id=id)
        holds("damaged" in json.dumps(row), row)
        holds(f"msg={id}" in engine.text() and "checksum" in engine.text(), engine.text())
        holds(os.path.exists(world.path("spool", "damaged", f"{id}.body")), "a copy in damaged/")
    event(engine, "delivered", id=sound)
    same([row["to"] for row in world.received()], [["sound@c.example"]], "arrivals")
    end(engine)
