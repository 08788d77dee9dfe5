"""Caps hold at the server, by its own clock, over restarts, reloads and kill -9, with four workers.

Counted are MAIL commands: the sink writes down when it saw each. No window of the cap's length may hold one more.
"""
import signal

from common import holds, none, note, part, policy_of, restart, sound_log, start_load
from harness import let_pass

CAPPED, WINDOW_MS = 10, 2000

POLICY = """
engine { hostname = "caps.example", listen = "127.0.0.1:{port}", owner = "o@caps.example", retry = { "1s" }, workers = 4, dsn = "none" }
relay "capped" { host = "127.0.0.1", port = P0, tls = "none", connections = 4, cap = "10/2s" }
relay "open"   { host = "127.0.0.1", port = P1, tls = "none", connections = 4 }
route "a"    { to = "a.example", via = "capped" }
route "b"    { to = "b.example", via = { "capped", "open" } }
route "rest" { to = "*", via = "capped" }
-- VERSION
"""


def windows_over(times):
    times = sorted(times)
    return [times[i + CAPPED] - times[i] for i in range(len(times) - CAPPED) if times[i + CAPPED] - times[i] < WINDOW_MS]


@part("10 in 2 seconds with 4 workers, over restart, reload and kill -9: no window with 11", 120)
def caps(world, options, rng):
    wanted = 60 if options.long else 8
    sink = world.sink("sink", ports=2)
    policy = policy_of(POLICY, sink.ports)
    engine = world.engine(policy, log="warn")
    with open(engine.policy) as f:
        text = f.read()
    load = start_load(world, engine, 150 * wanted, rate=60, size=2000, domains="a.example=2,b.example=1,c.example=2", connections=4)
    acts = []
    for k in range(wanted):
        let_pass(rng.uniform(0.3, 3.0), "mail flows until the next act")
        act = ("kill", "reload", "restart", "kill")[k % 4]
        acts.append(act)
        if act == "reload":
            world.write(f"{engine.name}.lua", text.replace("VERSION", f"version {k}").replace('"rest"', f'"rest{k}"'))
            world.run("reload", "--spool", engine.spool)
        elif act == "kill":
            engine.kill()
            restart(engine)
        else:
            holds(engine.stop() == 0, "stops cleanly")
            restart(engine)
    load.kill()
    let_pass(3, "a window and a half in which the cap is seen to hold")
    rows = [r for r in world.received() if r["port"] == sink.ports[0]]
    holds(engine.stop() == 0, "stops cleanly")
    sound_log(engine)
    sink.stop(signal.SIGTERM)
    mails = [r["mail_at_ms"] for r in rows]
    over = windows_over(mails)
    span = (max(mails) - min(mails)) / WINDOW_MS
    note(f"caps: {len(mails)} messages in {span:.1f} windows of {CAPPED}, {', '.join(acts)}: {len(over)} windows over")
    none(over, "windows of 2 s with more than 10 (milliseconds of 11)")
    holds(len(mails) > span * CAPPED * 0.3, "far slower than the cap")
