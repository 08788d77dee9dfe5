"""A power cut: what was not forced to the disk may be gone, in any order.

The engine runs with disk.so in front, which writes down everything done to the spool together with the acknowledgements,
in one order. Then the disk is rebuilt as it may have been at many moments: files hold what was synced, of later writes a
random subset of 512-octet sectors; folders hold the entries that were synced, of later ones a random subset. The engine is
started on each of these, and every id acknowledged before the cut must have been delivered before it, or be known.
"""
import datetime
import json
import os
import random
import shutil
import signal
import struct
import tempfile
import threading
import time

from common import (Came, Fresh, Sent, ask, disk_library, end_load, fast_folder, holds, none, note, part, policy_of, queue_rows,
                    retry_all, seq_of, sound_log, start_load, with_disk)
from harness import Process, free_ports, let_pass, wait_for

ENTRY = struct.Struct("=c3xIQQQQq")
SECTOR = 512
ALL_SYNCED_MS = 3000  # a result is synced after 20 ms; a machine under load may take long to get there

POLICY = """
engine { hostname = "cut.example", listen = "127.0.0.1:{port}", owner = "o@cut.example", retry = { "1s", "1h" }, workers = 2, dsn = "none",
         bounds = { segment = "1M", cold_after = "1s", min_free = "1M" } }
relay "takes"  { host = "127.0.0.1", port = P0, tls = "none", connections = 6 }
relay "defers" { host = "127.0.0.1", port = P1, tls = "none", connections = 4, cap = "400/s" }
relay "dead"   { host = "127.0.0.1", port = P2, tls = "none" }
route "stays" { priority = 1, to = "stay.example", via = "dead" }
route "later" { priority = 2, to = "later.example", via = "defers" }
route "rest"  { priority = 9, to = "*", via = "takes" }
"""


class Log:
    """The written log, with data where it lies in the file."""

    def __init__(self, path):
        self.data = open(path, "rb").read()
        self.entries = []
        at = 0
        while at + ENTRY.size <= len(self.data):
            what, name_n, folder, ino, off, n, ms = ENTRY.unpack_from(self.data, at)
            at += ENTRY.size
            name = self.data[at:at + name_n].decode()
            at += name_n
            self.entries.append((what.decode(), folder, ino, off, n, ms, name, at))
            at += n if what == b"W" else 0
        holds(at == len(self.data), "the log ends in an entry")


class File:
    def __init__(self):
        self.synced = bytearray()
        self.pending = []  # (offset, data) or (size, None)

    def sync(self):
        for at, data in self.pending:
            apply(self.synced, at, data)
        self.pending.clear()

    def after_cut(self, rng, keep):
        if not self.pending:
            return self.synced
        out = bytearray(self.synced)
        for at, data in self.pending:
            if data is None:
                if rng.random() < keep:
                    apply(out, at, None)
                continue
            start = 0
            while start < len(data):
                n = min(SECTOR - (at + start) % SECTOR, len(data) - start)
                if keep >= 1 or rng.random() < keep:
                    apply(out, at + start, data[start:start + n])
                start += n
        return out


def apply(content, at, data):
    if data is None:
        if at < len(content):
            del content[at:]
        else:
            content.extend(bytes(at - len(content)))
        return
    if at > len(content):
        content.extend(bytes(at - len(content)))
    content[at:at + len(data)] = data


class Folder:
    def __init__(self):
        self.synced = {}  # name -> File or Folder
        self.pending = []  # (name removed or None, name added or None, what)

    def now(self):
        out = dict(self.synced)
        for op in self.pending:
            self.change(out, op)
        return out

    @staticmethod
    def change(entries, op):
        gone, added, what = op
        if gone is not None:
            entries.pop(gone, None)
        if added is not None:
            entries[added] = what

    def sync(self):
        self.synced = self.now()
        self.pending.clear()

    def after_cut(self, rng, keep):
        out = dict(self.synced)
        for op in self.pending:
            if keep >= 1 or rng.random() < keep:
                self.change(out, op)
        return out


class Disk:
    """What is on it, and what is on its way there."""

    def __init__(self, log, root_ino):
        self.log, self.at, self.acked = log, 0, []
        self.root = Folder()
        self.by_ino = {root_ino: self.root}

    def run_to(self, end):
        while self.at < end:
            self.step(*self.log.entries[self.at])
            self.at += 1

    def step(self, what, folder, ino, at, n, ms, name, data_at):
        if what == "A":
            self.acked.append(name)
        elif what in "CM":
            new = Folder() if what == "M" else File()
            self.by_ino[ino] = new
            self.by_ino[folder].pending.append((None, name, new))
        elif what == "W":
            self.by_ino[ino].pending.append((at, bytes(self.log.data[data_at:data_at + n])))
        elif what == "T":
            self.by_ino[ino].pending.append((at, None))
        elif what == "S":
            self.by_ino[ino].sync()
        elif what == "U":
            self.by_ino[folder].pending.append((name, None, None))
        elif what == "R":
            old, new = name.split("\0")
            source, target = self.by_ino[folder], self.by_ino[ino]
            moved = source.now().get(old)
            if source is target:
                source.pending.append((old, new, moved))
            else:
                source.pending.append((old, None, None))
                target.pending.append((None, new, moved))

    def write(self, path, rng, keep, folder=None):
        """The disk after a cut now, in a real folder."""
        os.makedirs(path, exist_ok=True)
        for name, what in (folder or self.root).after_cut(rng, keep).items():
            if isinstance(what, Folder):
                self.write(os.path.join(path, name), rng, keep, what)
                os.chmod(os.path.join(path, name), 0o700)
            elif what is not None and not name.endswith(".sock"):
                with open(os.path.join(path, name), "wb") as f:
                    f.write(what.after_cut(rng, keep))
                os.chmod(os.path.join(path, name), 0o600)


# ---- recording ----

def record(world, options, rng):
    """Runs the engine with the library: (log, number of the root, what the sink got, id -> number, number -> time of its result)."""
    library = disk_library(world)
    root = world.path("disk")
    os.mkdir(root, 0o700)
    sink = world.sink("sink", ports=2, rules=["*:{1} dot 60% 451 4.3.0 busy", "*:{0} dot 3% close"], extra=["--latency", "20"])
    policy = policy_of(POLICY, sink.ports + free_ports(1))
    n = 8000 if options.long else 900
    env = with_disk(library, root, log=world.path("disk.calls"), kill=rng.randrange(300, 900))
    engine = world.engine(policy, name="recorded", spool="disk/spool", env=env, wait=False, log="warn")
    wait_for(lambda: os.path.exists(os.path.join(engine.spool, "control.sock")) or engine.p.poll() is not None, 30, why="the engine starts")
    load = start_load(world, engine, n, rate=150, size=16000, domains="a.example=6,later.example=3,stay.example=1", connections=12)
    killed_ms = []
    for kill in (rng.randrange(200, 500), rng.randrange(200, 500), rng.randrange(800, 2000), None):
        wait_for(lambda: engine.p.poll() is not None or load.p.poll() is not None, 120, why="the engine kills itself")
        if engine.p.poll() is None:
            break
        killed_ms.append(time.time() * 1000)
        engine.env.pop("DISK_KILL", None)
        if kill is not None:
            engine.env["DISK_KILL"] = str(kill)
        engine.spawn()
    end_load(load, 300)
    let_pass(2.5, "segments are freed and copied after the load, as part of what is recorded")
    stats = ask(engine.spool, {"cmd": "status"}) or {}
    code = engine.stop()
    if code == -signal.SIGKILL and "DISK_KILL" in engine.env:  # the load was over before the last of the calls to be killed at
        killed_ms.append(time.time() * 1000)
    else:
        holds(code == 0, f"the recorded engine stops cleanly: {code}")
    sink.stop(signal.SIGTERM)
    sent = Sent(world.path("ids.txt"))
    ids, ended_ms = dict(sent.ids), {}
    for e in engine.events():
        if e.get("rcpt", "").startswith("user") and e.get("id"):
            ids[e["id"]] = seq_of(e["rcpt"])
        if e["ev"] == "delivered":
            at_ms = datetime.datetime.fromisoformat(e["time"]).timestamp() * 1000
            # the event outlives a kill; the result may not, and is no promise before it is synced
            if not any(at_ms <= ms <= at_ms + ALL_SYNCED_MS for ms in killed_ms):
                ended_ms[seq_of(e["rcpt"])] = at_ms
    log = Log(world.path("disk.calls"))
    n_freed = sum(1 for e in log.entries if e[0] == "W" and e[3] == 0 and e[4] == 4096)
    note(f"power cut: recorded {len(log.entries)} calls, {len(log.data) >> 20} MB, {len(sent.acked)} acknowledged, {n_freed} segment headers written; "
         f"journal {json.dumps(stats.get('journal', {}))[:300]}")
    return log, os.stat(root).st_ino, Came(world.received()), ids, ended_ms


def is_start(log, i):
    """A state file that is written says "not clean" at the start; the lock was just taken."""
    return any(e[0] == "T" and e[3] == 0 for e in log.entries[max(0, i - 12):i])


def choose_cuts(log, n, rng):
    """Moments: after acknowledgements, after changes of folders and syncs, anywhere, and soon after each start."""
    acks = [i + 1 for i, e in enumerate(log.entries) if e[0] == "A"]
    special = [i for i, e in enumerate(log.entries) if e[0] in "CRUMST" or (e[0] == "W" and e[3] == 0)]
    starts = [i for i, e in enumerate(log.entries) if e[0] == "R" and e[6].startswith("state.new") and is_start(log, i)]
    cuts = []
    for i in range(n):
        kind = i % 8
        if kind < 3:
            cuts.append(rng.choice(acks))
        elif kind < 6:
            cuts.append(min(rng.choice(special) + rng.randrange(2), len(log.entries)))
        elif kind < 7:
            cuts.append(rng.randrange(1, len(log.entries)))
        else:
            cuts.append(min(rng.choice(starts) + rng.randrange(120), len(log.entries)))
    return sorted(cuts)


# ---- starting on what is left ----

class Tester:
    """One at a time of these starts the engine on a rebuilt disk."""

    def __init__(self, world, number, came, ids, ended_ms):
        self.world, self.number, self.came, self.ids, self.ended_ms = world, number, came, ids, ended_ms
        self.sink = world.sink(f"after{number}")
        self.policy = policy_of(POLICY, [self.sink.ports[0]] * 3).replace('"1h"', '"1s"')
        self.fresh = Fresh(world, f"after{number}")
        self.slowest = 0

    def start(self, spool):
        """The engine on this spool; on another port when somebody took the free one in the meantime."""
        log = self.world.path(f"after{self.number}.log")
        for _ in range(5):
            path = self.world.write(f"after{self.number}.lua", self.policy.replace("{port}", str(free_ports(1)[0])))
            if os.path.exists(log):
                os.unlink(log)
            engine = Process(self.world, f"after{self.number}", [self.world.binary, "run", path, "--spool", spool, "--log", "warn"])
            wait_for(lambda: engine.p.poll() is not None or os.path.exists(os.path.join(spool, "control.sock")), 60, 0.01, "the engine starts")
            if engine.p.poll() is None or "in use" not in engine.text():
                break
        return engine

    def check(self, folder, label, acked, cut_ms, is_full):
        spool = os.path.join(folder, "spool")
        at = time.monotonic()
        engine = self.start(spool)
        try:
            rows = list(wait_for(lambda: engine.is_alive() and queue_rows(spool), 60, 0.01, f"{label}: the engine answers"))
            self.slowest = max(self.slowest, time.monotonic() - at)
            known = {seq_of(r["recipient"]) for r in rows}
            if is_full:
                self.deliver_all(engine, spool, label)
                holds(engine.stop() == 0, f"{label}: stops cleanly")
        finally:
            engine.kill()
        text = sound_log(engine)
        holds("ev=damaged" not in text and "damaged/" not in text, f"{label}: damage is reported: {text[-3000:]}")
        fresh = Came(self.fresh.rows())
        before = {s for s, times in self.came.at_ms.items() if min(times) <= cut_ms}
        long_ago = {s for s, ms in self.ended_ms.items() if ms <= cut_ms - ALL_SYNCED_MS}
        want = {self.ids[i] for i in acked if i in self.ids} - before
        none(want - known - set(fresh.copies), f"{label}: acknowledged and lost")
        none(known & long_ago, f"{label}: delivered long before and back again")
        if is_full:
            none((want & known) - set(fresh.copies), f"{label}: known, and not delivered")
        for s, hashes in fresh.hashes.items():
            holds(len(hashes | self.came.hashes.get(s, set())) == 1, f"{label}: content of {s} differs")

    def deliver_all(self, engine, spool, label):
        def is_empty():  # the journal counts what moves between workers in just this moment
            engine.is_alive()
            answer = ask(spool, {"cmd": "status"})
            if answer is not None and sum(answer["queue"].values()) == answer["journal"]["recipients"] == 0:
                return True
            retry_all(spool)
            return False
        wait_for(is_empty, 60, 0.1, f"{label}: everything known is delivered")


@part("power cuts: any subset of what was not synced is lost; nothing acknowledged is", 300)
def powercut(world, options, rng):
    n = options.states or (10000 if options.long else 240)
    log, root, came, ids, ended_ms = record(world, options, rng)
    disk = Disk(log, root)
    cuts = choose_cuts(log, n, rng)
    base = tempfile.mkdtemp(prefix="hikyaku-cut-", dir=fast_folder(1 << 30) or world.dir)
    lock, failures, done = threading.Lock(), [], [0]

    def next_state(number):
        """Rebuilds the disk at the next moment: (label, acknowledged, time, whether everything is to be delivered)."""
        with lock:
            i = done[0]
            if i >= len(cuts) or failures:
                return None
            done[0] += 1
            if i % 1000 == 0 and i > 0:
                note(f"power cut: {i} of {n} states")
            seed = rng.randrange(1 << 62)
            dice = random.Random(seed)
            keep = dice.choice((0, 0, 0.1, 0.5, 0.5, 0.9, 1))
            disk.run_to(cuts[i])
            disk.write(os.path.join(base, str(number)), dice, keep)
            label = f"cut after call {cuts[i]} of {len(log.entries)}, {int(keep * 100)} % of the unsynced kept (seed {seed})"
            return label, list(disk.acked), log.entries[cuts[i] - 1][5], i % 10 == 0

    def work(number):
        tester = Tester(world, number, came, ids, ended_ms)
        folder = os.path.join(base, str(number))
        try:
            while (state := next_state(number)) is not None:
                copy = world.path(f"state{number}")
                if options.keep:
                    shutil.rmtree(copy, ignore_errors=True)
                    shutil.copytree(folder, copy)
                tester.check(folder, *state)
                shutil.rmtree(folder)
        except BaseException as why:
            failures.append(str(why))
        slowest.append(tester.slowest)

    slowest = []
    threads = [threading.Thread(target=work, args=(k,)) for k in range(options.jobs)]
    try:
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        shutil.rmtree(base, ignore_errors=True)
    holds(not failures, "\n".join(failures))
    note(f"power cut: {done[0]} states, 0 lost; slowest start {max(slowest):.2f} s")
