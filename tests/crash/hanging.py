"""The disk hangs: no open, write or sync returns. A stop says that it waits for the disk, and however it ends, nothing is lost.
While it hangs or fails, no further mail is sent; so few come twice after a kill.
"""
import concurrent.futures
import os
import re
import signal
import time

from common import Came, Fresh, Sent, ask, disk_library, drained, holds, none, note, part, policy_of, restart, sound_log, start_load, with_disk
from failing import answer, healthz
from harness import free_ports, let_pass, wait_for

POLICY = """
engine { hostname = "hanging.example", listen = "127.0.0.1:{port}", owner = "o@hanging.example", retry = { "1s" }, workers = 2, dsn = "none" }
relay "takes" { host = "127.0.0.1", port = P0, tls = "none", connections = 4 }
relay "defers" { host = "127.0.0.1", port = P1, tls = "none", connections = 4 }
route "later" { to = "later.example", via = "defers" }
route "rest" { to = "*", via = "takes" }
"""


def lines(engine, *words):
    return [line for line in engine.text().splitlines() if all(word in line for word in words)]


class Hanging:
    """An engine under load whose disk hangs from some moment on, and that is asked to stop then."""

    def __init__(self, world, name, library):
        self.world = world
        self.sink = world.sink(f"sink-{name}", ports=2, rules=["*:{1} dot 50% 451 4.3.0 busy"])
        self.fresh = Fresh(world, f"sink-{name}")
        self.hang, self.name = world.path(f"{name}.hangs"), name
        os.mkdir(world.path(name), 0o700)
        env = with_disk(library, world.path(name), hang=self.hang)
        env["ASAN_OPTIONS"] += ":detect_leaks=0"  # what clients handed in is in the hands of a disk that may answer later: it is not freed
        self.engine = world.engine(policy_of(POLICY, self.sink.ports), name=f"{name}/policy/engine", spool=f"{name}/spool", env=env)
        self.load = start_load(world, self.engine, 4000, size=2000, domains="a.example=2,later.example", connections=8, name=f"{name}.ids")
        wait_for(lambda: self.n_acked() > 100, 60, 0.02, "mail is taken")
        with open(self.hang, "w"):
            pass
        before = -1
        while before != self.n_acked():  # all clients wait for the disk now
            before = self.n_acked()
            wait_for(lambda: self.is_still(before), 30, 0.01, "nobody is answered any more")
        if name == "reloaded":
            self.engine.p.send_signal(signal.SIGHUP)  # the thread that serves operators reads the policy
            wait_for(lambda: ask(self.engine.spool, {"cmd": "status"}, timeout=1) is None, 20, 0.05, "operators get no answer")
        self.at = time.monotonic()
        self.engine.p.send_signal(signal.SIGTERM)

    def n_acked(self):
        path = self.world.path(f"{self.name}.ids")
        if not os.path.exists(path):
            return 0
        with open(path, "rb") as f:
            return sum(b" acked " in line for line in f)

    def is_still(self, before):
        """Half a second without an answer, or another count."""
        end = time.monotonic() + 0.5
        wait_for(lambda: self.n_acked() != before or time.monotonic() > end, 5, 0.05, "half a second")
        return True

    def waits_for(self, what):
        wait_for(lambda: lines(self.engine, "ev=stopping", f'waits_for="{what}'), 60, 0.05, f"the log says that the stop waits for {what}")

    def end_by_second_signal(self):
        at = time.monotonic()
        self.engine.p.send_signal(signal.SIGTERM)
        holds(self.engine.p.wait(30) == 1, "a second SIGTERM ends it, and its exit code says that the journal was not closed")
        took = time.monotonic() - at
        holds(took < 10, f"the second SIGTERM ended it after {took:.1f} s")
        holds(lines(self.engine, "ev=stopping", "ended without waiting"), "the log says how it ended")
        note(f"a second SIGTERM ended it after {took:.1f} s")

    def sums(self, how):
        """The disk answers again; the next start loses nothing."""
        self.load.p.send_signal(signal.SIGKILL)
        self.load.p.wait()
        if os.path.exists(self.hang):
            os.unlink(self.hang)
        restart(self.engine)
        drained(self.world, self.engine, 60)
        sent, came = Sent(self.world.path(f"{self.name}.ids")), Came(self.fresh.rows())
        none(sent.acked - set(came.copies), f"{how}: acknowledged and lost")
        holds(self.engine.stop() == 0, "a clean stop on a sound disk")
        sound_log(self.engine)
        said = re.findall(r"; (at most|maybe more than) (\d+) duplicate", lines(self.engine, "ev=started")[1])[0]
        holds(said[0] != "at most" or came.duplicates() <= int(said[1]), f"{how}: {came.duplicates()} duplicates, but {said}")
        note(f"{how}: {len(sent.acked)} acknowledged, 0 lost, {came.duplicates()} came twice, {' '.join(said)} as the start says")


@part("the disk hangs during a stop: the log says so; a second signal, kill -9 or a disk that answers again end it, nothing is lost", 240)
def hanging(world, options, rng):
    library = disk_library(world)
    names = "twice", "killed", "healed", "reloaded"
    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        runs = dict(zip(names, pool.map(lambda name: Hanging(world, name, library), names)))
    runs["reloaded"].waits_for("the thread that serves operators")
    runs["reloaded"].end_by_second_signal()
    for name in names[:3]:
        runs[name].waits_for("clients")
    for name in names[:3]:
        run = runs[name]
        run.waits_for("the disk: the journal")
        told = time.monotonic() - run.at
        holds(run.engine.p.poll() is None, "it waits for the disk")
    note(f"the log names the disk {told:.1f} s after SIGTERM")

    runs["twice"].end_by_second_signal()
    runs["twice"].sums("a second SIGTERM")
    runs["reloaded"].sums("a second SIGTERM during a reload that hangs")

    runs["killed"].engine.kill()
    runs["killed"].sums("kill -9")

    run = runs["healed"]
    holds(ask(run.engine.spool, {"cmd": "status"}, timeout=1) is None, "the control socket is closed by then")
    os.unlink(run.hang)
    holds(run.engine.p.wait(60) == 0, "a disk that answers again ends the stop in order")
    run.sums("a disk that answers again")


CONNECTIONS = 4
UNWRITTEN_MOST = 1024  # jobs of a worker that may end without their results being written
COMMIT_RESULTS = 100  # of the commit that was under way when the trouble began
STALLED = """
engine { hostname = "stalled.example", listen = "127.0.0.1:{port}", owner = "o@stalled.example", workers = 1, dsn = "none",
         http = "127.0.0.1:HTTP" }
relay "takes" { host = "127.0.0.1", port = P0, tls = "none", connections = C }
route "rest" { to = "*", via = "takes" }
"""


class Stalled:
    """An engine with much mail in memory, whose disk hangs or fails from some moment on until a file goes."""

    def __init__(self, world, library, how, latency, ending):
        self.world, self.name, self.how = world, f"{how}-{latency}-{ending}", how
        name, self.queued = self.name, 400 if latency else UNWRITTEN_MOST + 1500  # some go before the trouble begins
        self.sink = world.sink(f"sink-{name}", ports=1, extra=["--latency", str(latency)])
        self.index = world.path(f"sink-{name}", "index.jsonl")
        self.trouble = world.path(f"{name}.{how}")
        os.mkdir(world.path(name), 0o700)
        env = with_disk(library, world.path(name), **{how: self.trouble})
        env["ASAN_OPTIONS"] += ":detect_leaks=0"
        self.http = free_ports(1)[0]
        policy = policy_of(STALLED, self.sink.ports).replace("= C ", f"= {CONNECTIONS} ").replace(":HTTP", f":{self.http}")
        self.engine = world.engine(policy, name=f"{name}/policy/engine", spool=f"{name}/spool", env=env)
        world.run("relay", "pause", "takes", "--spool", self.engine.spool)
        load = start_load(world, self.engine, self.queued, size=2000, connections=8, name=f"{name}.ids")
        holds(load.p.wait(90) == 0, "all mail is taken")
        world.run("relay", "resume", "takes", "--spool", self.engine.spool)
        wait_for(self.n_came, 30, 0.005, "mail flows")
        with open(self.trouble, "w"):
            pass
        self.n_before = self.n_came()
        wait_for(lambda: lines(self.engine, "ev=deliveries", "state=stopped"), 60, 0.02, "the log says that deliveries stop")
        self.n_stopped = self.n_came()

    def n_came(self):
        if not os.path.exists(self.index):
            return 0
        with open(self.index, "rb") as f:
            return f.read().count(b"\n")

    def stays_stopped(self):
        let_pass(4, "mail that would be sent while the disk takes no results")
        n = self.n_came()
        self.n_meanwhile = n - self.n_before
        holds(n - self.n_stopped <= 2 * CONNECTIONS, f"{self.name}: {n - self.n_stopped} came after deliveries had stopped")
        holds(self.n_meanwhile <= UNWRITTEN_MOST + 2 * CONNECTIONS + COMMIT_RESULTS, f"{self.name}: {self.n_meanwhile} came while the disk took nothing")
        holds(n < self.queued, "all mail was sent before: the test has shown nothing")
        journal, health = ask(self.engine.spool, {"cmd": "status"})["journal"], {"hang": "hanging", "broken": "failing"}[self.how]
        holds(journal["health"] == health and not journal["takes_results"], f"status says {journal}")
        holds(healthz(self.http) == (503, health + "\n"), f"/healthz says {healthz(self.http)}")
        gauges = answer(self.http, "/metrics")[1].splitlines()
        holds("hikyaku_deliveries_stopped 1" in gauges and f"hikyaku_spool_{health} 1" in gauges, f"metrics: {gauges}")
        said = self.world.run("status", "--spool", self.engine.spool)[1]
        holds("sent" in said and "the kernel's log" in " ".join(said.split()), said)
        said = self.world.run("queue", "list", "--limit", "5", "--spool", self.engine.spool)[1]
        holds(re.search(r" queued +\w+ +disk ", said), said)

    def goes_on(self):
        os.unlink(self.trouble)
        drained(self.world, self.engine, 90)
        came = Came(self.world.received(f"sink-{self.name}"))
        sent = Sent(self.world.path(f"{self.name}.ids"))
        none(sent.acked - set(came.copies), f"{self.name}: acknowledged and lost")
        holds(came.duplicates() == 0, f"{self.name}: {came.duplicates()} came twice without a kill")
        holds(lines(self.engine, "ev=deliveries", "state=going"), "the log says that deliveries go on")
        holds(healthz(self.http) == (200, "ok\n"), f"/healthz says {healthz(self.http)}")
        holds("hikyaku_deliveries_stopped 0" in answer(self.http, "/metrics")[1].splitlines(), "the metric says that deliveries go on")
        holds(self.engine.stop() == 0, "a clean stop")
        sound_log(self.engine)
        note(f"{self.name}: {self.n_meanwhile} of {self.queued} sent while the disk took nothing, all sent when it answered, 0 twice")

    def is_killed(self):
        self.engine.kill()
        os.unlink(self.trouble)
        restart(self.engine)
        drained(self.world, self.engine, 90)
        came, sent = Came(self.world.received(f"sink-{self.name}")), Sent(self.world.path(f"{self.name}.ids"))
        none(sent.acked - set(came.copies), f"{self.name}: acknowledged and lost")
        told = re.findall(r"at most (\d+) duplicate", lines(self.engine, "ev=started")[1])
        holds(told, f"no maximum: {lines(self.engine, 'ev=started')[1]}")
        bound = UNWRITTEN_MOST + 2 * CONNECTIONS
        holds(came.duplicates() <= int(told[0]) <= bound, f"{self.name}: {came.duplicates()} duplicates, told were {told[0]}, bound {bound}")
        holds(self.engine.stop() == 0, "a clean stop")
        sound_log(self.engine)
        note(f"{self.name}: kill -9: {came.duplicates()} of {self.queued} came twice, at most {told[0]} as the start says, bound {bound}")


@part("the disk hangs or fails while much mail waits: deliveries stop, go on by themselves, and kill -9 repeats few", 240)
def stalled(world, options, rng):
    library = disk_library(world)

    def one(how, latency, ending):
        run = Stalled(world, library, how, latency, ending)
        run.stays_stopped()
        run.goes_on() if ending == "answers" else run.is_killed()
    # a fast relay is stopped by the bound of unwritten results, a slow one by the time that a write takes
    runs = [(how, latency, ending) for latency in (0, 100) for how in ("hang", "broken") for ending in ("answers", "killed")]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for run in [pool.submit(one, *run) for run in runs]:
            run.result()
