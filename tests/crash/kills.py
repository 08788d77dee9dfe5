"""kill -9 at random moments under load: relays that defer, refuse and close; reloads, pauses, drains and retries meanwhile.

DESIGN.md 3.6 bounds the duplicates: dots that were out with the result unwritten, at most two per relay connection, and
one commit's results; for each kill.
"""
import os
import random
import re
import signal
import threading

from common import Came, Sent, check_sums, drained, end_load, holds, note, part, policy_of, restart, seq_of, sound_log, start_load
from harness import let_pass

CONNECTIONS = 6  # a relay
COMMIT_RESULTS = 64  # results that one commit may hold, generously
RESTART_MOST = 5.0  # seconds until the listener answers again, with some thousand queued, under sanitizers on a busy machine

POLICY = """
engine { hostname = "crash.example", listen = "127.0.0.1:{port}", owner = "o@crash.example", retry = { "1s", "2s" },
         workers = 2, dsn = "none", bounds = { segment = "4M", cold_after = "1s" } }
relay "sound"   { host = "127.0.0.1", port = P0, tls = "none", connections = CONNECTIONS }
relay "defers"  { host = "127.0.0.1", port = P1, tls = "none", connections = CONNECTIONS }
relay "breaks"  { host = "127.0.0.1", port = P2, tls = "none", connections = CONNECTIONS }
route "phones" { priority = 10, to = carriers.all, via = { "defers", "sound" } }
route "free"   { priority = 20, to = domains.freemail, via = { "breaks", "sound" } }
route "rest"   { priority = 90, to = "*", via = { "sound", "defers" } }
-- VERSION
""".replace("CONNECTIONS", str(CONNECTIONS))

RULES = [
    "*:{1} dot 10% 451 4.3.0 busy",
    "*:{1} rcpt 5% 450 4.2.1 later",
    "*:{2} dot 5% close",
    "*:{2} rcpt 5% close",
    "*:{2} rcpt 5% 550 5.7.1 blocked",
    "*:{2} data 3% close",
]


class Operator(threading.Thread):
    """Reloads, pauses, drains and retries, all the time; an engine that is away just now does not answer."""

    def __init__(self, world, engine, policy, rng):
        super().__init__(daemon=True)
        self.world, self.engine, self.policy, self.rng = world, engine, policy, rng
        self.is_over, self.done = threading.Event(), 0
        self.failure = None

    def run(self):
        try:
            while not self.is_over.wait(self.rng.uniform(0.05, 0.4)):
                self.act()
        except Exception as why:  # told by the main thread
            self.failure = why

    def act(self):
        relay = self.rng.choice(["sound", "defers", "breaks"])
        # never to the one that refuses for good: a failure is told by the event log only, which a kill may cut short
        other = "sound" if relay != "sound" else "defers"
        action = self.rng.choice([
            ["relay", "pause", relay, "--for", "1s"],
            ["relay", "drain", relay, "--to", other, "--for", "1s"],
            ["relay", "resume", relay],
            ["queue", "retry", "--class", "rate_limited"],
            ["queue", "retry", "--state", "deferred"],
            ["reload"],
        ])
        if action == ["reload"]:
            # at once: an engine that starts just now must not read half of it
            os.replace(self.world.write("next.lua", self.policy.replace("VERSION", f"version {self.done}")), self.engine.policy)
        code, _, err = self.world.run(*action, "--spool", self.engine.spool, check=False)
        self.done += code == 0
        if "unknown" in err or "usage" in err.lower():
            raise AssertionError(f"{action}: {err}")

    def end(self):
        self.is_over.set()
        self.join()
        for relay in ("sound", "defers", "breaks"):
            self.world.run("relay", "resume", relay, "--spool", self.engine.spool, check=False)
        if self.failure is not None:
            raise self.failure


@part("kill -9 under load with bad relays, reloads, pauses, drains and retries: 0 lost, duplicates within the bound", 300)
def kills(world, options, rng):
    wanted = options.kills or (500 if options.long else 50)
    rate = 500
    sink = world.sink("sink", ports=3, rules=RULES)
    policy = policy_of(POLICY, sink.ports)
    engine = world.engine(policy, log="warn")
    with open(engine.policy) as f:
        operator = Operator(world, engine, f.read(), random.Random(rng.random()))
    load = start_load(world, engine, 1000000, rate=rate, domains="docomo.ne.jp=3,ezweb.ne.jp=2,gmail.com=3,example.com=4")
    operator.start()
    slowest = 0
    for _ in range(wanted):
        let_pass(min(0.05 + rng.expovariate(1 / 0.35), 2.0), "mail flows until the kill")
        holds(load.p.poll() is None, "the generator has ended")
        engine.kill()
        slowest = max(slowest, restart(engine))
    load.p.send_signal(signal.SIGTERM)
    end_load(load, 60)
    operator.end()
    drained(world, engine, 400 if options.long else 90)
    holds(engine.stop() == 0, "the engine stops cleanly")
    sink.stop(signal.SIGTERM)
    sound_log(engine)
    sent, came = Sent(world.path("ids.txt")), Came(world.received())
    failed = {seq_of(e["rcpt"]) for e in engine.events() if e["ev"] in ("failed", "expired")}
    # "breaks" closes after the dot now and then: those are ambiguous and come once more by design
    by_faults = sum(1 for e in engine.events("deferred") if e.get("class") == "ambiguous")
    bound = wanted * (2 * 3 * CONNECTIONS + COMMIT_RESULTS) + by_faults
    note(f"kills: {wanted} kills, {operator.done} operator's acts, {len(sent.acked)} acknowledged, {len(sent.unknown)} unknown, {len(sent.refused)} refused, "
         f"{len(failed)} failed by reply, {len(sent.acked - set(came.copies) - failed)} lost, {came.duplicates()} duplicates (bound {bound}), "
         f"slowest restart {slowest:.2f} s")
    check_sums(sent, came, failed, bound)
    # what each start says is a maximum, so their sum is one
    texts = [e["text"] for e in engine.events("started")]
    told = [re.search(r"at most (\d+) duplicates?$", text) for text in texts]
    holds(all(told), f"no maximum: {texts}")
    total = sum(int(t.group(1)) for t in told)
    note(f"kills: {came.duplicates()} duplicates of at most {total} told at {len(told)} starts, and {by_faults} by faults")
    holds(came.duplicates() <= total + by_faults, f"{came.duplicates()} duplicates, told were {total}, by faults {by_faults}")
    holds(not os.listdir(os.path.join(engine.spool, "damaged")), "something was found damaged")
    holds(slowest < RESTART_MOST, f"the slowest restart took {slowest:.2f} s")
