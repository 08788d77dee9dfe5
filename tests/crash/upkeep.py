"""Operators at work while mail flows: nothing is sent twice, nothing stays behind; and who waits for days holds no disk."""
import signal

from common import Came, Sent, ask, check_sums, drained, end_load, holds, none, note, part, policy_of, n_queued, queue_rows, restart, retry_all, sound_log, start_load
from harness import free_ports, let_pass, wait_for

POLICY = """
engine { hostname = "upkeep.example", listen = "127.0.0.1:{port}", owner = "o@upkeep.example", retry = { "1s" }, workers = 2, dsn = "none",
         bounds = { segment = "1M", cold_after = "1s" } }
relay "one" { host = "127.0.0.1", port = P0, tls = "none", connections = 4 }
relay "two" { host = "127.0.0.1", port = P1, tls = "none", connections = 4 }
route "a"    { to = "a.example", via = { "one", "two" } }
route "rest" { to = "*", via = { "two", "one" } }
-- VERSION
"""

WAITS = """
engine { hostname = "waits.example", listen = "127.0.0.1:{port}", owner = "o@waits.example", retry = { "1h" }, workers = 2, dsn = "none",
         bounds = { segment = "1M", cold_after = "1s" } }
relay "takes" { host = "127.0.0.1", port = P0, tls = "none", connections = 4 }
relay "waits" { host = "127.0.0.1", port = P1, tls = "none", connections = 2 }
route "days" { to = "days.example", via = "waits" }
route "rest" { to = "*", via = "takes" }
"""


@part("reloads, pauses, drains and restarts under load: nothing sent twice, nothing stuck", 150)
def operators(world, options, rng):
    rounds = 120 if options.long else 16
    sink = world.sink("sink", ports=2, rules=["*:{0} dot 15% 451 4.3.0 busy", "*:{1} rcpt 15% 450 4.2.1 later"])
    policy = policy_of(POLICY, sink.ports)
    engine = world.engine(policy, log="warn")
    with open(engine.policy) as f:
        text = f.read()
    load = start_load(world, engine, 1000000, rate=200, size=6000, domains="a.example,b.example", connections=8)
    acts = []
    for k in range(rounds):
        let_pass(rng.uniform(0.1, 0.5), "mail flows until the next act")
        act = rng.choice(["reload", "pause", "drain", "resume", "retry", "restart"])
        acts.append(act)
        relay, other = rng.sample(["one", "two"], 2)
        if act == "reload":  # with other names: recipients are planned anew
            world.write(f"{engine.name}.lua", text.replace("VERSION", f"version {k}").replace('route "a"', f'route "a{k}"'))
            world.run("reload", "--spool", engine.spool)
        elif act == "restart":
            holds(engine.stop() == 0, "stops cleanly under load")
            restart(engine)
        elif act == "retry":
            world.run("queue", "retry", "--state", "deferred", "--spool", engine.spool, check=False)
        else:
            more = {"pause": ["--for", "1s"], "drain": ["--to", other, "--for", "2s"], "resume": []}[act]
            code, _, err = world.run("relay", act, relay, *more, "--spool", engine.spool, check=False)
            holds(code == 0 or "leads back" in err, f"relay {act}: {err}")
    load.p.send_signal(signal.SIGTERM)
    load.p.wait(30)
    for relay in ("one", "two"):
        world.run("relay", "resume", relay, "--spool", engine.spool)
    drained(world, engine, 60)
    holds(engine.stop() == 0, "stops cleanly")
    sink.stop(signal.SIGTERM)
    log = sound_log(engine)
    sent, came = Sent(world.path("ids.txt")), Came(world.received())
    note(f"operators: {rounds} acts, {len(sent.acked)} acknowledged, {came.duplicates()} sent twice, {len(sent.acked - set(came.copies))} lost")
    holds("unclean" not in log, "a clean stop is not taken for one")
    check_sums(sent, came, bound=0)


@part("one recipient in fifty waits for days: the journal files of the others become free", 120)
def longwait(world, options, rng):
    n = 20000 if options.long else 1500
    sink = world.sink("sink")
    engine = world.engine(policy_of(WAITS, [sink.ports[0], free_ports(1)[0]]), log="warn")
    load = start_load(world, engine, n, rate=0 if options.long else 400, size=20000, domains="a.example=49,days.example=1", connections=8)
    end_load(load, 300)

    def journal():
        return ask(engine.spool, {"cmd": "status"})["journal"]

    def waiting():
        return len(queue_rows(engine.spool))
    written = n * 20000 >> 20
    wait_for(lambda: n_queued(engine.spool) == sum(row["rcpt"].endswith("@days.example") for row in queue_rows(engine.spool)),
             60, 0.2, "only who waits is left")
    # 20 KB each, a segment is copied when less than a quarter lives: what waits takes at most four times itself, beside
    # the open segments and the pool of free ones
    left = waiting()
    most = (left * 20000 * 4 >> 20) + 4
    wait_for(lambda: journal()["segments"] - journal()["free"] <= most, 60, 0.2, f"at most {most} segments are held; {journal()}")
    held = journal()["segments"] - journal()["free"]
    engine.kill()
    restart(engine)
    holds(waiting() == left, f"{waiting()} of {left} wait after a kill")
    retried = Came(world.received()).copies
    again = retry_all(engine.spool)
    holds(again["ok"] and again["n"] > 0, f"who was tried is tried again: {again}")
    holds(waiting() == left, "who waits still waits")
    holds(engine.stop() == 0, "stops cleanly")
    sound_log(engine)
    sent = Sent(world.path("ids.txt"))
    holds(len(sent.acked) == n and len(retried) == n - left, f"{len(sent.acked)} acknowledged, {len(retried)} delivered, {left} wait, of {n}")
    none([s for s, c in retried.items() if c > 1], "sent twice")
    note(f"long wait: {written} MB written, {left} recipients wait and hold {held} segments of 1 MB")
