"""What the parts share: their registry, the preloaded library, the control socket, and sums over what was sent and what came."""
import collections
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

from harness import answers, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
PARTS = []


class Skip(Exception):
    """This machine cannot do it."""


class Part:
    def __init__(self, name, words, seconds, run):
        self.name, self.words, self.seconds, self.run = name, words, seconds, run


def part(words, seconds):
    """Registers a part: run(world, options, rng); bounded to `seconds` (times 40 with --long)."""
    def add(run):
        PARTS.append(Part(run.__name__, words, seconds, run))
        return run
    return add


def holds(condition, what):
    if not condition:
        raise AssertionError(what)


def none(found, what):
    if found:
        raise AssertionError(f"{what}: {len(found)}, such as {sorted(found)[:10]}")


def note(text):
    print(f"NOTE {text}", flush=True)


# ---- the preloaded library ----

def disk_library(world):
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise Skip("no C compiler")
    out = world.path("disk.so")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", out, os.path.join(HERE, "disk.c"), "-ldl"], check=True)
    return out


def with_disk(library, root, **what):
    """Environment of an engine whose files below `root` are watched, or fail."""
    sanitizer = os.environ.get("ASAN_OPTIONS", "detect_leaks=1")
    env = {"LD_PRELOAD": library, "DISK_ROOT": root, "ASAN_OPTIONS": sanitizer + ":verify_asan_link_order=0"}
    env.update({f"DISK_{k.upper()}": str(v) for k, v in what.items()})
    return env


# ---- the engine ----

def ask(spool, request, timeout=20):
    """One request to the control socket; the answer, or None when there is no engine."""
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(timeout)
            s.connect(os.path.join(spool, "control.sock"))
            s.sendall(json.dumps(request).encode() + b"\n")
            got = b""
            while not got.endswith(b"\n"):
                piece = s.recv(1 << 20)
                if not piece:
                    return None
                got += piece
    except OSError:
        return None
    return json.loads(got)


class Rows(list):
    """True even when empty: there was an answer."""
    __bool__ = lambda self: True  # noqa: E731


def queue_rows(spool):
    answer = ask(spool, {"cmd": "queue", "action": "list", "select": {}, "limit": 1000000})
    return None if answer is None or not answer.get("ok") else Rows(answer["rows"])


def retry_all(spool, **select):
    return ask(spool, {"cmd": "queue", "action": "retry", "select": select or {"all": True}, "dry_run": False, "limit": 0})


def n_queued(spool):
    """Recipients that are not finished; the journal counts those on the way from one worker to another, too."""
    answer = ask(spool, {"cmd": "status"})
    return None if answer is None else max(sum(answer["queue"].values()), answer["journal"]["recipients"])


def restart(engine, seconds=60):
    """Starts it again; how long it took until the listener answered."""
    at = time.monotonic()
    engine.spawn()
    wait_for(lambda: engine.is_alive() and answers(engine.port), seconds, 0.01, "listens again")
    return time.monotonic() - at


def drained(world, engine, seconds):
    """What may have been delivered is tried again after ten minutes, and what three unclean stops have met is held: nobody
    wants to wait here so long."""
    def is_empty():
        engine.is_alive()
        world.run("queue", "retry", "--class", "ambiguous", "--spool", engine.spool, check=False)
        world.run("queue", "release", "--state", "held", "--spool", engine.spool, check=False)
        return n_queued(engine.spool) == 0
    try:
        wait_for(is_empty, seconds, 0.3, "the queue is empty")
    except AssertionError:
        rows = queue_rows(engine.spool) or []
        raise AssertionError(f"the queue does not drain: {len(rows)} left, {json.dumps(rows[:5])}") from None


def sound_log(engine):
    text = engine.text()
    for sign in ("Sanitizer", "runtime error", "hikyaku: bug"):
        holds(sign not in text, f"{engine.name}: {text[-6000:]}")
    return text


def policy_of(text, ports):
    for i, port in enumerate(ports):
        text = re.sub(rf"\bP{i}\b", str(port), text)
    return text


# ---- sums ----

class Sent:
    """What `hikyaku load --ids` was told: numbers acknowledged, refused, and those whose reply never came."""

    def __init__(self, path):
        self.acked, self.refused, self.unknown, self.ids = set(), set(), set(), {}
        with open(path) as f:
            for line in f:
                words = line.split()
                seq = int(words[0])
                getattr(self, words[1]).add(seq)
                if words[1] == "acked":
                    self.ids[words[2]] = seq


class Fresh:
    """The lines a sink's index got since the last look; a long run looks thousands of times, so the letters themselves go."""

    def __init__(self, world, name):
        self.folder, self.path, self.at = world.path(name), world.path(name, "index.jsonl"), 0

    def rows(self):
        if not os.path.exists(self.path):
            return []
        with open(self.path, "rb") as f:
            f.seek(self.at)
            whole = f.read().rpartition(b"\n")[0]
        if not whole:
            return []
        self.at += len(whole) + 1
        rows = [json.loads(line) for line in whole.split(b"\n")]
        for row in rows:
            os.unlink(os.path.join(self.folder, f"{row['n']}.eml"))
        return rows


def seq_of(recipient):
    """user17@example.com -> 17"""
    return int(recipient.split("@")[0][4:])


class Came:
    """What a sink has: copies a number, content hashes, arrival times."""

    def __init__(self, rows):
        self.copies, self.hashes, self.at_ms = collections.Counter(), collections.defaultdict(set), collections.defaultdict(list)
        for row in rows:
            seq = int(row["load"].split("-")[1])
            self.copies[seq] += 1
            self.hashes[seq].add(row["hash"])
            self.at_ms[seq].append(row["at_ms"])

    def duplicates(self):
        return sum(n - 1 for n in self.copies.values())


def check_sums(sent, came, failed=(), bound=None):
    """The four sums of every rig."""
    none(sent.acked - set(came.copies) - set(failed), "acknowledged and lost")
    none(set(came.copies) & sent.refused, "delivered although refused")
    none([s for s, h in came.hashes.items() if len(h) > 1], "content differs between copies")
    holds(sent.acked, "nothing was acknowledged")
    if bound is not None:
        holds(came.duplicates() <= bound, f"{came.duplicates()} duplicates, at most {bound}")


def start_load(world, engine, n, rate=0, size=3000, domains="example.com", connections=20, name="ids.txt"):
    argv = [world.binary, "load", "--server", f"127.0.0.1:{engine.port}", "-n", str(n), "-c", str(connections), "--size", str(size),
            "--domains", domains, "--ids", world.path(name), "--json"]
    if rate:
        argv += ["--rate", str(rate)]
    return world.start("load", argv)


def end_load(load, seconds):
    try:
        load.p.wait(seconds)
    except subprocess.TimeoutExpired:
        load.p.send_signal(signal.SIGKILL)
        raise AssertionError(f"the generator is not done after {seconds} s") from None


def fast_folder(octets):
    """A folder in memory where there is room for it, else None."""
    try:
        st = os.statvfs("/dev/shm")
    except OSError:
        return None
    return "/dev/shm" if st.f_bavail * st.f_frsize > octets and os.access("/dev/shm", os.W_OK) else None
