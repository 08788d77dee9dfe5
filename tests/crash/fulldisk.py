"""A disk that is really full: 452 to clients, deliveries go on, and mail comes in again when there is room."""
import contextlib
import os
import signal
import subprocess

from common import Came, Sent, Skip, ask, drained, end_load, holds, n_queued, none, note, part, policy_of, sound_log, start_load
from harness import wait_for

POLICY = """
engine { hostname = "full.example", listen = "127.0.0.1:{port}", owner = "o@full.example", retry = { "1s" }, workers = 2, dsn = "none",
         bounds = { segment = "1M", cold_after = "1s", min_free = "1M" } }
relay "takes" { host = "127.0.0.1", port = P0, tls = "none", connections = 4 }
route "rest" { to = "*", via = "takes" }
"""


def refusals(world, name):
    with open(world.path(name)) as f:
        return [line.split(" ", 2)[2].strip() for line in f if line.split()[1] == "refused"]


@contextlib.contextmanager
def small_disk(world, octets):
    """A tmpfs of so many octets; it and what runs on it end with the block."""
    root = world.path("small")
    os.mkdir(root)
    if os.geteuid() != 0:
        raise Skip("needs root, for a small tmpfs")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={octets},mode=700", "tmpfs", root], capture_output=True, text=True)
    if done.returncode != 0:
        raise Skip(f"no tmpfs can be mounted: {done.stderr.strip()}")
    try:
        yield root
    finally:
        for p in world.processes:
            p.kill()
        subprocess.run(["umount", "-l", root], check=False)


@part("a full disk: 452, deliveries go on, mail comes in again when there is room", 120)
def fulldisk(world, options, rng):
    with small_disk(world, 16 << 20) as root:
        run(world, root)


@part("large mail on a disk that fills: min_free stays free, small mail goes on", 60)
def largemail(world, options, rng):
    with small_disk(world, 96 << 20) as root:
        fill_with_large(world, root)


def fill_with_large(world, root):
    sink = world.sink("sink")
    engine = world.engine(policy_of(POLICY.replace('min_free = "1M"', 'min_free = "32M"'), sink.ports), spool="small/spool", log="info")
    world.run("relay", "pause", "takes", "--spool", engine.spool)
    load = start_load(world, engine, 60, size=2 << 20, connections=6, name="large.ids")
    least = 96 << 20
    while load.p.poll() is None:
        fs = os.statvfs(root)
        least = min(least, fs.f_bavail * fs.f_frsize)
    end_load(load, 60)
    sent, said = Sent(world.path("large.ids")), refusals(world, "large.ids")
    holds(10 < len(sent.acked) < 32, f"{len(sent.acked)} of 2 MB go on a disk of 96 MB that keeps 32")
    none({s for s in said if not s.startswith("452")}, "other answers than 452 to a disk that is full for large mail")
    holds(least > 31 << 20, f"{least >> 10} KiB were left free; min_free is 32 MiB")
    small = start_load(world, engine, 20, size=2000, connections=2, name="small.ids")
    end_load(small, 30)
    holds(len(Sent(world.path("small.ids")).acked) == 20, "small mail goes on")
    world.run("relay", "resume", "takes", "--spool", engine.spool)
    drained(world, engine, 60)
    wait_for(lambda: "state=room_for_large" in engine.text(), 20, 0.1, "there is room again")
    holds(engine.text().count("state=low") < 5, "the log says it for each")
    holds(engine.stop() == 0, "the engine stops cleanly")
    sound_log(engine)
    none(sent.acked - set(Came(world.received()).copies), "acknowledged and lost")
    note(f"large mail: {len(sent.acked)} of 2 MB taken, {len(said)} refused, {least >> 20} MiB free at the least")


def run(world, root):
    sink = world.sink("sink")
    engine = world.engine(policy_of(POLICY, sink.ports), spool="small/spool", log="warn")
    world.run("relay", "pause", "takes", "--spool", engine.spool)
    load = start_load(world, engine, 1200, size=20000, connections=8, name="first.ids")
    end_load(load, 60)
    first, said = Sent(world.path("first.ids")), refusals(world, "first.ids")
    holds(100 < len(first.acked) < 800, f"{len(first.acked)} of 24 MB go on a disk of 16 MB")
    none({s for s in said if not s.startswith(("452", "503"))}, "other answers than 452 to a full disk")
    holds(any(s.startswith("452") for s in said), "nobody was told 452")
    # a folder without a free octet: results still find room, in the reserve
    filler = os.path.join(root, "filler")
    with open(filler, "wb", buffering=0) as f:
        try:
            while True:
                f.write(bytes(4096))
        except OSError:
            pass
    engine.kill()  # and it starts on a full disk
    engine.spawn()
    wait_for(lambda: engine.is_alive() and n_queued(engine.spool) is not None, 30, why="the engine starts on a full disk")
    world.run("relay", "resume", "takes", "--spool", engine.spool, check=False)
    wait_for(lambda: len(world.received()) >= len(first.acked), 60, 0.1, "everything is delivered although the disk is full")
    os.unlink(filler)
    wait_for(lambda: ask(engine.spool, {"cmd": "status"})["journal"]["health"] == "good", 30, 0.1, "the journal is well again")

    def takes_again():
        load = start_load(world, engine, 20, size=20000, connections=2, name="second.ids")
        end_load(load, 30)
        return len(Sent(world.path("second.ids")).acked) == 20
    copies = Came(world.received()).copies
    wait_for(takes_again, 30, 0.5, "mail comes in again")
    drained(world, engine, 60)
    holds(engine.stop() == 0, "the engine stops cleanly")
    sound_log(engine)
    sink.stop(signal.SIGTERM)
    none(first.acked - set(copies), "acknowledged and lost")
    none(set(copies) & first.refused, "delivered although refused")
    note(f"full disk: {len(first.acked)} acknowledged, {sum(s.startswith('452') for s in said)} times 452, all delivered with no octet free, then 20 more")
