#!/usr/bin/env python3
"""Other mail flows on while somebody misbehaves: its rate and its times against an undisturbed run.

  tests/protocol/disturb.py BINARY [--seconds N] [--rate N] [--only NAME,...] [--quick]

An even load (hikyaku load --rate) goes through a sound relay. One disturbance after the other runs beside it: slow
clients, endless lines, idle and short-lived connections by the thousand, no descriptor left, a relay that never reads,
one that answers octet by octet, one that cuts every connection, a script that loops, an enormous message. One line
each: rate, p99 of the 250, p99 from acceptance to delivery. Exit code 1: the rate fell below 0.8 of the undisturbed
one, or a p99 rose above the bound (the greater of 10 times the undisturbed one and half a second; --quick, which may run
beside other tests: three seconds), three times one after the other: something else on the machine also takes time, but not
each time.
"""
import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "support")]
from harness import World, let_pass, only_known, wait_for  # noqa: E402
from relays import Relay  # noqa: E402

POLICY = """
engine { hostname = "mx.test", listen = "127.0.0.1:{port}", http = false, owner = "o@x.test", dsn = "none", retry = { "2s" }, log = "error",
         bounds = { connections = 5000, connections_per_client = 5000 } }
relay "sound" { host = "127.0.0.1", port = %(sound)d, tls = "none", connections = 4 }
relay "deaf"  { host = "127.0.0.1", port = %(deaf)d, tls = "none", timeout = { data = "2s", command = "2s" } }
relay "slow"  { host = "127.0.0.1", port = %(slow)d, tls = "none" }
relay "cuts"  { host = "127.0.0.1", port = %(cuts)d, tls = "none" }
local function loops(r) while true do end end
route "deaf" { to = "deaf.test", via = "deaf" }
route "slow" { to = "slow.test", via = "slow" }
route "cuts" { to = "cuts.test", via = "cuts" }
route "loop" { to = "loop.test", when = loops, via = "sound" }
route "rest" { to = "*", via = "sound" }
"""


class Bench:
    def __init__(self, world, args):
        self.world, self.args = world, args
        self.relays = {"deaf": Relay(on={"DATA": lambda c: (c.say(b"354 go\r\n"), c.stall())}, receive_buffer=4096),
                       "slow": Relay(on={k: self.drips(v) for k, v in (("EHLO", b"250 slow\r\n"), ("MAIL", b"250 ok\r\n"), ("RCPT", b"250 ok\r\n"), ("DATA", b"354 go\r\n"), ("dot", b"250 ok\r\n"))}),
                       "cuts": Relay(on={"RCPT": self.cut})}
        sink = world.sink("sound", store=False)
        ports = {name: relay.port for name, relay in self.relays.items()}
        self.engine = world.engine(POLICY % {"sound": sink.ports[0], **ports}, log="error")
        self.port = self.engine.port
        self.is_on = False

    @staticmethod
    def drips(data):
        def run(c):
            c.drip(data, 0.05)
            return b""
        return run

    @staticmethod
    def cut(c):
        c.sock.close()
        return b""

    def connect(self, port=None):
        s = socket.create_connection(("127.0.0.1", port or self.port), 5)
        s.settimeout(0.05)
        return s

    def threads(self, n, run):
        ts = [threading.Thread(target=self.guarded, args=(run,), daemon=True) for _ in range(n)]
        for t in ts:
            t.start()
        return ts

    def guarded(self, run):
        while self.is_on:
            try:
                run()
            except (OSError, EOFError):
                let_pass(0.01, "a moment until the next try of who disturbs")

    # --- disturbances: started, then measured; is_on ends them ---

    def nothing(self):
        return []

    def slow_clients(self):
        held = [self.connect() for _ in range(200)]
        for s in held[100:]:
            s.sendall(b"EHLO t\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n")

        def run():
            for s in held:
                s.sendall(b"N")
            let_pass(0.2, "the clients are slow")
        self.held = held
        return self.threads(1, run)

    def endless_lines(self):
        part = b"A" * 65536

        def run():
            s = self.connect()
            try:
                s.sendall(b"NOOP ")
                while self.is_on:
                    s.sendall(part)
            finally:
                s.close()
                let_pass(0.02, "the clients come again a moment later")
        return self.threads(4, run)

    def idle(self):
        self.held = [self.connect() for _ in range(1000)]
        return []

    def churn(self):
        def run():
            s = self.connect()
            s.close()
        return self.threads(2, run)

    def no_descriptor(self):
        pid = self.engine.p.pid
        n = len(os.listdir(f"/proc/{pid}/fd"))
        self.limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (n + 10, self.limits[1]))
        self.held = []
        for _ in range(100):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(("127.0.0.1", self.port))
            self.held.append(s)
        return []

    def send_to(self, domain, size, every, n=1):
        def run():
            s = self.connect()
            s.settimeout(5)
            f = s.makefile("rb")
            f.readline()
            body = b"x" * 70 + b"\r\n"
            for command in [b"EHLO t", b"MAIL FROM:<a@x.test>"] + [b"RCPT TO:<u%d@%s>" % (i, domain.encode()) for i in range(n)] + [b"DATA"]:
                s.sendall(command + b"\r\n")
                while f.readline()[3:4] == b"-":
                    pass
            s.sendall(b"From: a@x.test\r\n\r\n" + body * (size // len(body)) + b".\r\n")
            f.readline()
            s.close()
            let_pass(every, "the time between two messages of who disturbs")
        return self.threads(1, run)

    def relay_never_reads(self):
        return self.send_to("deaf.test", 2_000_000, 0.1)

    def relay_by_octets(self):
        return self.send_to("slow.test", 1000, 0.02)

    def relay_cuts(self):
        return self.send_to("cuts.test", 1000, 0.02)

    def script_loops(self):
        return self.send_to("loop.test", 1000, 0.01, n=5)

    def big_messages(self):
        return self.send_to("big.test", 20_000_000, 0.1)

    # ---

    def measure(self, name, start):
        self.held, self.is_on = [], True
        begun = len(self.engine.events())
        n = int(self.args.rate * self.args.seconds)
        load = subprocess.Popen([self.world.binary, "load", "--server", f"127.0.0.1:{self.port}", "-n", str(n), "-c", "8", "--rate", str(self.args.rate), "--size", "4K",
                                 "--domains", "load.test", "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        wait_for(lambda: len(self.engine.events()) > begun, 20, 0.02, f"{name}: the load has begun")
        at = time.monotonic()
        threads = start()
        out = load.communicate(timeout=120)[0]
        self.is_on = False
        for s in self.held:
            s.close()
        for t in threads:
            t.join(10)
        if name == "no_descriptor":
            resource.prlimit(self.engine.p.pid, resource.RLIMIT_NOFILE, self.limits)
        took = time.monotonic() - at
        result = json.loads(out.splitlines()[-1])

        def delays():
            self.engine.is_alive()
            return sorted(e.get("delay_ms", 0) for e in self.engine.events()[begun:] if e["ev"] == "delivered" and e["rcpt"].endswith("@load.test"))

        got = wait_for(lambda: (d := delays()) and len(d) >= result["acked"] and d, 30, 0.3, f"{name}: all of the load is delivered")
        if result["acked"] != n:
            raise AssertionError(f"{name}: {n - result['acked']} of {n} were not acknowledged: {result}")
        return {"rate": result["per_second"], "p50": result["p50_ms"], "p99": result["p99_ms"], "delivered": got[int(len(got) * 0.99)], "took": took}


TRIES = 3
DISTURBANCES = ("slow_clients", "endless_lines", "idle", "churn", "no_descriptor", "relay_never_reads", "relay_by_octets", "relay_cuts", "script_loops", "big_messages")


def print_row(name, got, alone):
    print(f"{name:20} {got['rate']:8.0f} {got['rate'] / alone['rate']:9.2f} {got['p50']:9.1f} {got['p99']:9.1f} {got['delivered']:14.0f}", flush=True)


def complaints(got, alone, bound_ms):
    share = got["rate"] / alone["rate"]
    return [*([f"{share:.2f} of the rate"] if share < 0.8 else []),
            *(f"{key} {got[key]:.0f} ms" for key in ("p99", "delivered") if got[key] > max(10 * alone[key], bound_ms))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--only", default="")
    parser.add_argument("--quick", action="store_true", help="3 s each at 150 a second")
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.rate = 3, 150
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY and hard < 8192 else 8192, hard))
    names = [n for n in args.only.split(",") if n] or DISTURBANCES
    only_known(names, DISTURBANCES, "disturbance")
    bad = []
    with World(args.binary) as world:
        bench = Bench(world, args)
        bench.measure("warm-up", bench.nothing)
        alone = bench.measure("nothing", bench.nothing)
        print(f"{'':20} {'rate/s':>8} {'of alone':>9} {'250 p50':>9} {'250 p99':>9} {'delivered p99':>14}   ms")
        print_row("nothing", alone, alone)
        for name in names:
            for _ in range(TRIES):
                got = bench.measure(name, getattr(bench, name))
                print_row(name, got, alone)
                wrong = [f"{name}: {what}" for what in complaints(got, alone, 3000 if args.quick else 500)]
                if not wrong:
                    break
                alone = bench.measure("nothing", bench.nothing)
                print_row("nothing", alone, alone)
            bad += wrong
        bench.engine.stop()
    for line in bad:
        print("FAILED", line)
    n_bad = len({line.split(":")[0] for line in bad})
    print(f"{len(names) - n_bad} passed, {n_bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
