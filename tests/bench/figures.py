"""The single figures: latency, decisions, start and restart, memory; and what must be reached."""
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import threading
import time

from harness import free_ports, let_pass, read_lines, wait_for
from measure import anon_octets, fdatasync_seconds, median, percentile
from peers import Shape, Sink, Wrong, end, policy, spawn, timed

HERE = os.path.dirname(os.path.abspath(__file__))
TAKEN_LEAST = 0.05  # a mutex taken less often, times a message, is no matter


class Catcher:
    """A server on a thread that notes when the first message's end came, and answers nobody after that."""

    def __init__(self, port=0):
        self.s = socket.socket()
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.s.bind(("127.0.0.1", port))
        self.s.listen(64)
        self.port = self.s.getsockname()[1]
        self.at, self.came, self.open = None, threading.Event(), []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                c, _ = self.s.accept()
            except OSError:
                return
            self.open.append(c)
            threading.Thread(target=self.serve, args=(c,), daemon=True).start()

    def serve(self, c):
        try:
            c.sendall(b"220 catcher\r\n")
            data, in_data = b"", False
            while not self.came.is_set():
                more = c.recv(65536)
                if not more:
                    return
                data += more
                while not self.came.is_set():
                    if in_data:
                        if b"\r\n.\r\n" not in data:
                            break
                        self.at = time.monotonic()
                        c.sendall(b"250 2.0.0 ok\r\n")
                        self.came.set()
                        return
                    verb, is_line, rest = data.partition(b"\r\n")
                    if not is_line:
                        break
                    data = rest
                    verb = verb[:4].upper()
                    in_data = verb == b"DATA"
                    c.sendall({b"EHLO": b"250-catcher\r\n250 PIPELINING\r\n", b"DATA": b"354 go on\r\n"}.get(verb, b"250 ok\r\n"))
        except OSError:
            pass

    def close(self):
        self.s.shutdown(socket.SHUT_RDWR)  # or the accepting thread keeps the port
        self.s.close()
        for c in self.open:
            c.close()


def when_open(port, limit=60):
    """When the port first took a connection; asks each half millisecond."""
    stop = time.monotonic() + limit
    while time.monotonic() < stop:
        try:
            return time.monotonic(), socket.create_connection(("127.0.0.1", port), timeout=5)
        except OSError:
            let_pass(0.0005, "half a millisecond between two tries")
    raise Wrong(f"nothing listens on {port} after {limit} s")


def say(s, text, code):
    if text:
        s.sendall(text.encode())
    reply = b""
    while not re.search(rb"(?m)^\d{3} .*\n", reply):
        more = s.recv(4096)
        if not more:
            raise Wrong(f"the engine closed after {text!r}")
        reply += more
    if not reply.startswith(code):
        raise Wrong(f"{text!r} was answered {reply!r}")


def run_engine(world, path, spool):
    log = open(world.path("figures.log"), "ab")
    start = time.monotonic()
    p = spawn([world.binary, "run", path, "--spool", spool, "--log", "error"], stdout=log, stderr=log, cwd=world.dir)
    log.close()
    return start, p


def stop_engine(p):
    p.terminate()
    p.wait(120)
    end(p)


def first_mail(world, rounds):
    """From exec with an empty spool to the first mail at the relay: {"open_ms", "first_ms"}."""
    opens, firsts = [], []
    for i in range(rounds):
        catcher, port = Catcher(), free_ports(1)[0]
        path = world.write(f"first-{i}.lua", policy(catcher.port).replace("{port}", str(port)))
        start, p = run_engine(world, path, world.path(f"first-{i}"))
        try:
            at, s = when_open(port)
            opens.append(at - start)
            with s:
                say(s, "", b"220")
                say(s, "EHLO bench\r\n", b"250")
                say(s, "MAIL FROM:<a@bench.example>\r\n", b"250")
                say(s, "RCPT TO:<u@docomo.ne.jp>\r\n", b"250")
                say(s, "DATA\r\n", b"354")
                say(s, "From: <a@bench.example>\r\nSubject: first\r\n\r\nfirst\r\n.\r\n", b"250")
            if not catcher.came.wait(20):
                raise Wrong("the first mail did not arrive within 20 s")
            firsts.append(catcher.at - start)
        finally:
            stop_engine(p)
            catcher.close()
    return {"open_ms": median(opens) * 1e3, "first_ms": median(firsts) * 1e3}


def empty_memory(world):
    port = free_ports(1)[0]
    path = world.write("empty.lua", policy(free_ports(1)[0]).replace("{port}", str(port)))
    _, p = run_engine(world, path, world.path("empty"))
    try:
        when_open(port)[1].close()
        let_pass(0.5, "the engine comes to rest before its memory is measured")
        return anon_octets(p.pid)
    finally:
        stop_engine(p)


def wait_for_queue(world, spool, n, patience=60):
    """When the engine had at least n recipients in its queue again."""
    stop = time.monotonic() + patience
    while True:
        queue = json.loads(world.run("status", "--json", "--spool", spool)[1])["queue"]
        if sum(queue.values()) >= n:
            return time.monotonic()
        if time.monotonic() > stop:
            raise Wrong(f"only {sum(queue.values())} of {n} recipients {patience} s after a restart: {queue}")
        let_pass(0.1, "a moment between two looks at the queue")


def restart(world, n):
    """n recipients wait for a relay that is gone; then the engine is ended, started, killed and started again."""
    hold = socket.socket()  # bound, not listening: connections are refused, and nobody else gets the port
    hold.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    hold.bind(("127.0.0.1", 0))
    relay, port = hold.getsockname()[1], free_ports(1)[0]
    spool = world.path("restart")
    path = world.write("restart.lua", policy(relay).replace("{port}", str(port)))
    figures = {"recipients": n, "empty_octets": empty_memory(world)}
    _, p = run_engine(world, path, spool)
    try:
        when_open(port)[1].close()
        start = time.monotonic()
        r = subprocess.run([world.binary, "load", "--json", "--server", f"127.0.0.1:{port}", "-n", str(n), "-c", "50", "--size", "300",
                            "--domains", "docomo.ne.jp,gmail.com,shop.example"], capture_output=True, text=True, timeout=1800)
        if r.returncode != 0 or json.loads(r.stdout)["acked"] != n:
            raise Wrong(f"load: {r.stdout}{r.stderr}"[:500])
        figures["fill_per_second"] = n / (time.monotonic() - start)
        figures["held_octets"] = anon_octets(p.pid)
    finally:
        stop_engine(p)
    figures["spool_octets"] = sum(os.path.getsize(os.path.join(d, f)) for d, _, names in os.walk(spool) for f in names)
    hold.close()
    for kind in ("stopped", "killed"):
        catcher = Catcher(relay)
        start, p = run_engine(world, path, spool)
        try:
            at, s = when_open(port)
            s.close()
            figures[f"{kind}_open_ms"] = (at - start) * 1e3
            if not catcher.came.wait(300):
                raise Wrong("nothing was delivered within 300 s of a restart")
            figures[f"{kind}_first_ms"] = (catcher.at - start) * 1e3
            figures[f"{kind}_all_ms"] = (wait_for_queue(world, spool, n - 64) - start) * 1e3
            let_pass(0.5, "the engine comes to rest before its memory is measured")
            figures[f"{kind}_octets"] = anon_octets(p.pid)
        finally:
            if kind == "stopped":
                p.kill()  # the next start is one after a crash
                p.wait()
                end(p)
            else:
                stop_engine(p)
            catcher.close()
    shutil.rmtree(spool, ignore_errors=True)
    figures["octets_each"] = (max(figures["stopped_octets"], figures["killed_octets"]) - figures["empty_octets"]) / n
    return figures


def seconds_of(text):
    """Seconds of a day-independent clock from an event's time; ms resolution."""
    day, clock = text.rstrip("Z").split("T")
    h, m, s = clock.split(":")
    return int(day[8:10]) * 86400 + int(h) * 3600 + int(m) * 60 + float(s)


def latency(world, engine, rate, seconds):
    """Milliseconds between the events `accepted` (the 250) and `delivered` at half of the rate measured before."""
    per_second = max(50, int(rate / 2))
    n = per_second * seconds
    sink = Sink(world, n)
    running = engine.start(sink.port)
    try:
        r = subprocess.run([world.binary, "load", "--json", "--server", f"127.0.0.1:{running.port}", "-n", str(n), "-c", "50", "--rate", str(per_second),
                            "--domains", "docomo.ne.jp"], capture_output=True, text=True, timeout=seconds * 10 + 60)
        report = json.loads(r.stdout)
        sink.wait(60, running.is_alive)
        wait_for(lambda: len(running.events("delivered")) >= n, 30, 0.2, "all deliveries are in the event log")
        accepted = {e["id"]: seconds_of(e["time"]) for e in running.events("accepted")}
        waits = [(seconds_of(e["time"]) - accepted[e["id"]]) * 1e3 for e in read_lines(os.path.join(running.spool, "events.jsonl"))
                 if e["ev"] == "delivered"]
    finally:
        sink.end()
        engine.finish(running)
    return {"per_second": per_second, "reached_per_second": report["per_second"], "n": n, "reply_p50_ms": report["p50_ms"],
            "reply_p99_ms": report["p99_ms"],
            **{f"p{str(p * 100).rstrip('0').rstrip('.')}_ms": round(percentile(waits, p), 1) for p in (0.5, 0.9, 0.99, 0.999)},
            "most_ms": round(max(waits), 1)}


def compiled(source, out, *options):
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise Wrong("no C compiler")
    subprocess.run([compiler, "-O2", "-D_GNU_SOURCE", *options, "-o", out, os.path.join(HERE, source), "-ldl"], check=True)
    return out


def machine(world):
    """{what the way into the kernel costs: microseconds}"""
    out = subprocess.run([compiled("machine.c", world.path("machine"))], check=True, capture_output=True, text=True, timeout=120).stdout
    return {name: float(us) for name, us in (line.split("\t") for line in out.splitlines())}


def locks(world, engine, n):
    """Mutexes of the engine's own code under full load, the most contended first: [{"where", "taken", "contended"}], a message."""
    library, out = compiled("locks.c", world.path("locks.so"), "-shared", "-fPIC"), world.path("locks.out")
    shape, sink = Shape(n, 4096, 50), Sink(world, n)
    running = engine.start(sink.port, env={"LD_PRELOAD": library, "LOCKS_OUT": out})
    try:
        timed(running.port, sink, shape, is_alive=running.is_alive)
    finally:
        engine.finish(running)
    found = []
    for taken, contended, path, at in (line.split() for line in open(out)):
        if int(taken) >= n * TAKEN_LEAST and os.path.realpath(path) == os.path.realpath(world.binary):
            where = subprocess.run(["addr2line", "-s", "-e", path, at], check=True, capture_output=True, text=True).stdout.split()[0]
            found.append({"where": where, "taken": int(taken) / n, "contended": int(contended) / int(taken)})
    return sorted(found, key=lambda m: -m["contended"])


def decisions(program):
    """{name: decisions a second}"""
    out = subprocess.run([program], check=True, capture_output=True, text=True, timeout=120).stdout
    found = {}
    for text in out.splitlines():
        m = re.match(r"(.+?)\s+(\d+) decisions/s", text)
        if m:
            found[m[1]] = int(m[2])
    return found


def disk(world, rounds, pause=0):
    return statistics.median(fdatasync_seconds(world.dir, pause=pause) for _ in range(rounds))
