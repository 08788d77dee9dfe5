"""A recorded journal, damaged on purpose, given to the engine: cut at record boundaries and at every octet of the last
three records, pages of the last commit missing, bits flipped. Never a crash, never a sound record lost, and what was
acknowledged and cannot be read is set aside and reported.

What one record may look like is for tests/unit/journal; here the whole engine starts on each file.
"""
import os
import random
import re
import shutil
import tempfile
import threading

from common import Sent, fast_folder, holds, none, note, part, policy_of, queue_rows, seq_of
from harness import Process, free_ports, wait_for

MESSAGES = 24
SEGMENT_HEADER, RECORD_HEADER = 4096, 64

POLICY = """
engine { hostname = "journals.example", listen = "127.0.0.1:{port}", owner = "o@journals.example", retry = { "1h" }, workers = 1, dsn = "none",
         bounds = { segment = "1M", min_free = "1M" } }
relay "dead" { host = "127.0.0.1", port = P0, tls = "none" }
route "rest" { to = "*", via = "dead" }
"""


class Journal:
    """A spool whose one segment holds MESSAGES accepted messages, left by a kill; and where its records stand."""

    def __init__(self, world):
        self.policy = policy_of(POLICY, free_ports(1))
        engine = world.engine(self.policy, name="recorded", spool="recorded", log="error")
        world.run("relay", "pause", "dead", "--spool", engine.spool)
        world.run("load", "--server", f"127.0.0.1:{engine.port}", "-n", MESSAGES, "-c", 1, "--size", 2000, "--ids", world.path("ids.txt"))
        sent = Sent(world.path("ids.txt"))
        holds(len(sent.acked) == MESSAGES, f"{len(sent.acked)} of {MESSAGES} acknowledged")
        engine.kill()
        self.spool, self.seqs = engine.spool, sent.acked
        folder = os.path.join(self.spool, "journal")
        contents = {name: open(os.path.join(folder, name), "rb").read() for name in os.listdir(folder) if name.startswith("seg-")}
        self.name = max(contents, key=lambda n: contents[n].count(b"X-Load-Id: "))
        self.data = contents[self.name]
        holds(self.data.count(b"X-Load-Id: ") == MESSAGES, "all messages are in one segment")
        self.records = self.find_records()

    def find_records(self):
        """(at, end, number of the message or None), by the magic that every record's header begins with."""
        magic, at, out = self.data[SEGMENT_HEADER:SEGMENT_HEADER + 4], SEGMENT_HEADER, []
        starts = [m.start() for m in re.finditer(re.escape(magic), self.data) if m.start() % 8 == 0 and m.start() >= SEGMENT_HEADER]
        end = len(self.data.rstrip(b"\0"))
        for i, at in enumerate(starts):
            to = starts[i + 1] if i + 1 < len(starts) else end
            load = re.search(rb"X-Load-Id: [0-9a-f]+-(\d+)", self.data[at:to])
            out.append((at, to, int(load.group(1)) if load else None))
        return out

    def messages_before(self, at):
        """Numbers of the messages whose records end at or before `at`."""
        return {seq for _, to, seq in self.records if seq is not None and to <= at}


class Tester:
    def __init__(self, world, number, journal, base):
        self.world, self.number, self.journal = world, number, journal
        self.folder = os.path.join(base, str(number))
        self.name = f"damaged{number}"

    def start(self, data, label):
        """The engine on this segment: (numbers it knows, its log, names in damaged/)."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.journal.spool, self.folder, ignore=lambda folder, names: [n for n in names if n.endswith(".sock")])
        with open(os.path.join(self.folder, "journal", self.journal.name), "r+b") as f:
            f.write(data)
        path = self.world.write(f"{self.name}.lua", self.journal.policy.replace("{port}", str(free_ports(1)[0])))
        log = self.world.path(f"{self.name}.log")
        if os.path.exists(log):
            os.unlink(log)
        engine = Process(self.world, self.name, [self.world.binary, "run", path, "--spool", self.folder, "--log", "info"])
        try:
            rows = wait_for(lambda: engine.is_alive() and queue_rows(self.folder), 30, 0.005, f"{label}: the engine answers")
        finally:
            engine.kill()
        text = engine.text()
        for sign in ("Sanitizer", "runtime error", "hikyaku: bug"):
            holds(sign not in text, f"{label}: {text[-4000:]}")
        return {seq_of(r["recipient"]) for r in rows}, text, os.listdir(os.path.join(self.folder, "damaged"))

    def cut(self, at):
        """Everything from `at` on was never written: what stands before it whole is there, nothing is called damaged."""
        data = self.journal.data[:at] + bytes(len(self.journal.data) - at)
        known, text, aside = self.start(data, f"cut at {at}")
        # the octets that fill up a record are no part of it
        missing = self.journal.messages_before(at) - known
        none(missing, f"cut at {at}: sound records lost")
        holds(not aside, f"cut at {at}: an unsynced tail is called damaged: {aside}")

    def lost_pages(self, seed):
        """Of the last record's pages some did not arrive."""
        rng = random.Random(seed)
        start, end, seq = [r for r in self.journal.records if r[2] is not None][-1]
        data = bytearray(self.journal.data)
        for at in range(start - start % 512, end, 512):
            if rng.random() < 0.5:
                data[max(at, start):min(at + 512, end)] = bytes(min(at + 512, end) - max(at, start))
        known, text, aside = self.start(bytes(data), f"pages lost (seed {seed})")
        none(self.journal.messages_before(start) - known, f"pages lost (seed {seed}): sound records lost")
        holds(not aside, "an unsynced record is called damaged")

    def flip(self, at, bit):
        """A bit rots in a record that was acknowledged long ago: it is set aside, all others are there."""
        data = bytearray(self.journal.data)
        data[at] ^= 1 << bit
        known, text, aside = self.start(bytes(data), f"bit {bit} of {at} flipped")
        start, end, seq = next(r for r in self.journal.records if r[0] <= at < r[1])
        others = self.journal.seqs - {seq}
        none(others - known, f"bit {bit} of {at} flipped: other records lost")
        if seq not in known:
            holds(aside, f"bit {bit} of {at} flipped: {seq} is gone and nothing is set aside")
            holds("ev=damaged" in text and re.search(r"[1-9]\d* damaged record", text), f"not reported: {text}")

    def header(self, at, bit):
        """A bit rots in the segment's header: its copy is read, everything is there and nothing is set aside."""
        data = bytearray(self.journal.data)
        data[at] ^= 1 << bit
        known, _, aside = self.start(bytes(data), f"bit {bit} of the header's {at} flipped")
        none(self.journal.seqs - known, f"bit {bit} of the header's {at} flipped: records lost")
        holds(not aside, f"a header that stands twice is called damaged: {aside}")


def plan(journal, options, rng):
    out = []
    for at, to, _ in journal.records:
        out.append(("cut", at))
    end = journal.records[-1][1]
    tail = range(journal.records[-3][0], end + 1)
    out += [("cut", at) for at in (tail if options.long else rng.sample(tail, 60))]
    out += [("lost_pages", rng.randrange(1 << 30)) for _ in range(300 if options.long else 20)]
    middle = [r for r in journal.records[:-4] if r[2] is not None]
    for _ in range(1000 if options.long else 40):
        at, to, _ = rng.choice(middle)
        where = rng.randrange(at, at + RECORD_HEADER) if rng.random() < 0.5 else rng.randrange(at, to)
        out.append(("flip", where, rng.randrange(8)))
    out += [("header", where, rng.randrange(8)) for where in (range(60) if options.long else rng.sample(range(60), 6))]
    rng.shuffle(out)
    return out


@part("recorded journals, cut, with lost pages and flipped bits: no crash, no sound record lost, damage reported", 150)
def journals(world, options, rng):
    journal = Journal(world)
    todo, n, failures, lock = plan(journal, options, rng), 0, [], threading.Lock()
    n = len(todo)
    base = tempfile.mkdtemp(prefix="hikyaku-journals-", dir=fast_folder(1 << 28) or world.dir)

    def work(number):
        tester = Tester(world, number, journal, base)
        while True:
            with lock:
                if not todo or failures:
                    return
                what, *args = todo.pop()
            try:
                getattr(tester, what)(*args)
            except BaseException as why:
                failures.append(f"{what} {args}: {why}")

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    try:
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        shutil.rmtree(base, ignore_errors=True)
    holds(not failures, "\n".join(failures))
    note(f"journals: the engine started on {n} damaged journals of {len(journal.records)} records")
