#!/usr/bin/env python3
"""Half load for a long time with everything that goes wrong in between; memory and descriptors must stay flat.

  tests/bench/soak.py BINARY [--minutes N] [--rate N] [--keep]

Every 20 s the policy changes and is loaded again: in turn a sound one, one whose functions raise for a share of the
recipients (they are parked and asked again by the next), and a broken file (which must change nothing). Every 60 s one
of the two relays is gone for 10 s. Without --rate half of what goes through in a short burst is sent. Asserted:
every acknowledged message was delivered (from the event log); resident memory and open descriptors, taken as the least
of every minute, grow by less than the bounds; the journal's disk space as well.
"""
import argparse
import glob
import json
import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import World, answers, free_ports, let_pass, wait_for  # noqa: E402

POLICY = """
engine { hostname = "soak.example", listen = "127.0.0.1:{port}", http = false, owner = "o@soak.example",
         retry = { "2s", "5s" }, dsn = "none", log = "error", bounds = { body_memory = "32M" } }
relay "a" { host = "127.0.0.1", port = %(a)d, tls = "none", connections = 16 }
relay "b" { host = "127.0.0.1", port = %(b)d, tls = "none", connections = 16 }
local function shaky(r)
  if %(raises)s and r:hash("soak") < 0.02 then error("a script that fails") end
  return true
end
route "phones" { priority = 10, to = carriers.all, when = shaky, via = { "a", "b" } }
route "free"   { priority = 20, to = domains.freemail, via = function(r) return { "b", "a" } end }
route "rest"   { priority = 90, to = "*", when = shaky, via = { "b", "a" } }
"""
BURST = 20000  # messages, from the first one to an empty queue
WARM_UP = 0.5  # of the run, at least three minutes: queues, pools and the recycled segments reach their size
# Growth over the rest of the run. The C library keeps what the largest backlog needed, so that one step up is no leak
# (100 MiB went back to 30 with malloc_trim); in an hour at 500 a second this is 27 octets a message.
MEMORY_BOUND_MIB = 24
FD_BOUND = 8


def rss_mib(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) / 1024


def n_fds(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def disk_mib(folder):
    total = 0
    for name in glob.glob(folder + "/**", recursive=True):
        try:
            if "events" not in os.path.basename(name):
                total += os.lstat(name).st_blocks * 512
        except FileNotFoundError:
            pass
    return total / 2**20


def slope(points):
    """Least squares: units of y for one unit of x."""
    n = len(points)
    mx, my = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    down = sum((x - mx) ** 2 for x, _ in points)
    return sum((x - mx) * (y - my) for x, y in points) / down if down else 0.0


def least_per_bucket(samples, seconds):
    """Of every bucket the least value: what is left when bursts are over."""
    least = {}
    for at, value in samples:
        k = int(at / seconds)
        if k not in least or value < least[k]:
            least[k] = value
    return [(k * seconds, v) for k, v in sorted(least.items())]


class Tail:
    """Counts events as the log grows, over rotation."""

    def __init__(self, spool):
        self.path = os.path.join(spool, "events.jsonl")
        self.f = None
        self.counts = {}
        self.rest = b""

    def read(self):
        while True:
            if self.f is None:
                if not os.path.exists(self.path):
                    return
                self.f = open(self.path, "rb")
            whole, newline, rest = (self.rest + self.f.read()).rpartition(b"\n")
            self.rest = rest
            for line in whole.split(b"\n") if newline else ():
                kind = json.loads(line)["ev"]
                self.counts[kind] = self.counts.get(kind, 0) + 1
            if os.stat(self.path).st_ino == os.fstat(self.f.fileno()).st_ino:
                return
            self.f = None


def start_sink(world, name, port, latency=5):
    """Only accepts: no store, so that disk and sink do not become the load."""
    sink = world.start(name, [world.binary, "sink", "--quiet", "--listen", f"127.0.0.1:{port}", "--latency", str(latency)])
    wait_for(lambda: answers(port), why=f"sink on {port}")
    return sink


def load(world, engine, n, rate, extra=()):
    argv = [world.binary, "load", "--server", f"127.0.0.1:{engine.port}", "-n", str(n), "-c", "20", "--json",
            "--domains", "docomo.ne.jp=3,ezweb.ne.jp=2,gmail.com=3,example.com=4", *extra]
    if rate:
        argv += ["--rate", str(rate)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def retry_ambiguous(world, engine):
    """What was cut off behind its dot waits ten minutes by itself."""
    world.run("queue", "retry", "--class", "ambiguous", "--spool", engine.spool, check=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=int, default=0, help="messages a second; default: half of what it can")
    parser.add_argument("--latency", type=int, default=5, help="milliseconds a relay takes for a message")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    with World(args.binary, keep=args.keep) as world:
        run(args, world)


def run(args, world):
    a, b = free_ports(2)
    sinks = {"a": start_sink(world, "sink-a", a, args.latency), "b": start_sink(world, "sink-b", b, args.latency)}
    ports = {"a": a, "b": b}
    engine = world.engine(POLICY % {"a": a, "b": b, "raises": "false"}, log="error")
    tail = Tail(engine.spool)
    n_acked = 0
    rate = args.rate
    if not rate:
        began = time.monotonic()
        burst = json.loads(load(world, engine, BURST, 0).communicate(timeout=120)[0].splitlines()[-1])
        n_acked += burst["acked"]
        engine.wait_empty(120)
        rate = int(n_acked / (time.monotonic() - began) / 2)
    print(f"{rate} messages a second for {args.minutes:g} minutes", flush=True)
    generator = load(world, engine, int(rate * args.minutes * 60), rate)
    pid = engine.p.pid
    began = time.monotonic()
    memory, fds, disk = [], [], []
    reloads = outages = 0
    down = None
    while generator.poll() is None:
        at = time.monotonic() - began
        if at > args.minutes * 60 * 2 + 120:
            raise AssertionError("the load does not come to its end")
        engine.is_alive()
        tail.read()
        memory.append((at, rss_mib(pid)))
        fds.append((at, n_fds(pid)))
        if len(memory) % 120 == 0:
            print(f"{at:6.0f} s: {memory[-1][1]:.1f} MiB, {fds[-1][1]} descriptors, {tail.counts}", flush=True)
        if int(at / 20) > reloads:
            reloads += 1
            text = POLICY % {"a": a, "b": b, "raises": "true" if reloads % 3 == 1 else "false"}
            if reloads % 3 == 2:
                text += "\nroute 'broken' { to ="
            world.write("engine.lua", text.replace("{port}", str(engine.port)))
            engine.p.send_signal(signal.SIGHUP)
            disk.append((at, disk_mib(engine.spool)))
        if down is None and int(at / 60) > outages:
            outages += 1
            down = ("a" if outages % 2 else "b", at)
            sinks[down[0]].stop(signal.SIGTERM)
        elif down is not None and at - down[1] > 10:
            sinks[down[0]] = start_sink(world, f"sink-{down[0]}", ports[down[0]], args.latency)
            down = None
        let_pass(1, "a second between two acts of the operator")
    result = json.loads(generator.communicate()[0].splitlines()[-1])
    n_acked += result["acked"]
    if down is not None:
        sinks[down[0]] = start_sink(world, f"sink-{down[0]}", ports[down[0]], args.latency)
    world.write("engine.lua", (POLICY % {"a": a, "b": b, "raises": "false"}).replace("{port}", str(engine.port)))
    engine.p.send_signal(signal.SIGHUP)
    wait_for(lambda: retry_ambiguous(world, engine) or engine.is_empty(), 300, 0.5, "the queue is empty")
    wait_for(lambda: tail.read() or tail.counts.get("delivered", 0) >= n_acked, 20, 0.2, f"{n_acked} delivered, {tail.counts}")
    if engine.stop() != 0:
        raise AssertionError("the engine did not stop cleanly")
    report(result, tail.counts, n_acked, memory, fds, disk, reloads, outages)


def report(result, counts, n_acked, memory, fds, disk, reloads, outages):
    took = memory[-1][0]
    warm = max(took * WARM_UP, 180)
    bucket = min(60, took / 10)
    problems = []
    for name, unit, samples, bucket, bound in (("memory", "MiB", memory, bucket, MEMORY_BOUND_MIB), ("descriptors", "", fds, bucket, FD_BOUND),
                                               ("disk", "MiB", disk, max(bucket, 60), 192)):
        points = [p for p in least_per_bucket(samples, bucket) if p[0] >= warm]
        per_second = slope(points) if len(points) > 2 else 0.0
        grown = per_second * (took - warm)
        values = sorted(v for _, v in samples)
        print(f"{name:12} median {values[len(values) // 2]:.0f} {unit}, least {values[0]:.0f}, most {values[-1]:.0f}; slope {per_second * 3600:+.1f} {unit} an hour "
              f"({grown:+.1f} in this run, bound {bound})")
        if len(points) > 2 and grown > bound:
            problems.append(f"{name} grows")
    print(f"{n_acked} acknowledged, {counts.get('delivered', 0)} delivered, {counts.get('deferred', 0)} deferred, {counts.get('parked', 0)} parked, "
          f"{result.get('refused', 0)} refused; {reloads} reloads, {outages} outages; {json.dumps(result)}")
    if counts.get("parked", 0) == 0 or counts.get("deferred", 0) == 0 and outages:
        problems.append("scripts and relays did not fail as they should have")
    if problems:
        raise AssertionError("; ".join(problems))
    print("all good")


if __name__ == "__main__":
    main()
