"""The n-th call to the disk fails, on the whole engine: once, for a while, or from then on.

disk.so, loaded before the C library, lets the n-th write, sync, open, rename, unlink or fallocate below the spool fail
with EIO or ENOSPC. Whatever happens: no crash; what was acknowledged is delivered, by this engine or the next on a sound
disk; what was refused never arrives; and the queue drains.
"""
import os
import signal
import struct
import subprocess
import threading
import urllib.error
import urllib.request

from common import Came, Fresh, Sent, ask, check_sums, disk_library, drained, holds, note, part, policy_of, restart, sound_log, start_load, with_disk
from harness import answers, free_ports, wait_for

MESSAGES = 60
EIO, ENOSPC = 5, 28
KINDS = ("write", "sync", "open", "rename", "unlink", "fallocate")

POLICY = """
engine { hostname = "failing.example", listen = "127.0.0.1:{port}", owner = "o@failing.example", retry = { "1s" }, workers = 2, dsn = "none",
         bounds = { segment = "1M", cold_after = "1s", min_free = "1M" } }
relay "takes" { host = "127.0.0.1", port = P0, tls = "none", connections = 4 }
relay "defers" { host = "127.0.0.1", port = P1, tls = "none", connections = 4 }
route "later" { to = "later.example", via = "defers" }
route "rest" { to = "*", via = "takes" }
"""


class Bench:
    """A sink of its own; one run of the engine after the other, each with a fresh spool."""

    def __init__(self, world, number, library):
        self.world, self.number, self.shim = world, number, library
        self.sink = world.sink(f"sink{number}", ports=2, rules=["*:{1} dot 50% 451 4.3.0 busy"])
        self.policy = policy_of(POLICY, self.sink.ports)
        self.fresh = Fresh(world, f"sink{number}")
        self.n = 0

    def run(self, fail):
        """One engine with this failure (None: none); calls made by kind."""
        self.n += 1
        name = f"failing{self.number}-{self.n}"
        root, counts = self.world.path(name), self.world.path(f"{name}.counts")
        os.mkdir(root, 0o700)
        env = with_disk(self.shim, root, counts=counts, **({"fail": fail} if fail else {}))
        engine = self.world.engine(self.policy, name=name, spool=f"{name}/spool", env=env, wait=False, log="error")
        ids = f"{name}.ids"
        wait_for(lambda: engine.p.poll() is not None or answers(engine.port), 30, 0.01, "the engine starts, or says why not")
        is_up = engine.p.poll() is None
        if is_up:
            load = start_load(self.world, engine, MESSAGES, size=20000, domains="a.example=2,later.example", connections=4, name=ids)
            try:
                load.p.wait(20)
            except subprocess.TimeoutExpired:  # refused again and again, or left without a word
                load.p.send_signal(signal.SIGKILL)
                load.p.wait()
        else:
            holds(engine.p.returncode == 1 and engine.text().strip() != "", f"ended with {engine.p.returncode} and says nothing")
        used = struct.unpack("7Q", open(counts, "rb").read(56))
        code = None
        if is_up:
            engine.is_alive()
            code = engine.stop(timeout=60) if self.n % 2 == 0 else None
            engine.kill()
        for variable in [k for k in engine.env if k.startswith("DISK_")] + ["LD_PRELOAD"]:
            engine.env.pop(variable, None)
        restart(engine)
        drained(self.world, engine, 40)
        holds(engine.stop() == 0, "the next engine stops cleanly")
        text = sound_log(engine)
        if os.path.exists(self.world.path(ids)):
            sent = Sent(self.world.path(ids))
            came = Came(self.fresh.rows())
            if fail is None:
                holds(len(sent.acked) == MESSAGES and not sent.refused, f"without failures {len(sent.acked)} of {MESSAGES} are acknowledged: {text[-2000:]}")
            if sent.acked:
                check_sums(sent, came)
            holds(not set(came.copies) & sent.refused, "delivered although refused")
        for path in (root,):
            subprocess.run(["rm", "-rf", path], check=True)
        return used, code


def plans(used, options, rng):
    """What to let fail: every n of every kind with --long, a sample otherwise."""
    out = []
    for kind, total in zip(KINDS, used):
        errnos = {"sync": (EIO,), "rename": (EIO, ENOSPC), "unlink": (EIO,)}.get(kind, (EIO, ENOSPC))
        for n in range(1, total + 1):
            for errno in errnos:
                for count in (1, 5, 0):
                    out.append(f"{kind}:{n}:{errno}:{count}")
    if options.long:
        return out
    by_kind = {k: [p for p in out if p.startswith(k + ":")] for k in KINDS}
    sample = []
    for kind, wanted in (("write", 12), ("sync", 10), ("open", 8), ("rename", 5), ("unlink", 2), ("fallocate", 3)):
        sample += rng.sample(by_kind[kind], min(wanted, len(by_kind[kind])))
    return sample


def answer(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as r:
        return r.status, r.read().decode()


def healthz(port):
    try:
        return answer(port, "/healthz")
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


@part("a disk that fails from some sync on: mail is refused with 451; status, /healthz and /metrics say why", 120)
def unwell(world, options, rng):
    sink, http = world.sink("sink", ports=2), free_ports(1)[0]
    policy = policy_of(POLICY, sink.ports).replace("workers = 2", f'workers = 2, http = "127.0.0.1:{http}"')
    os.mkdir(world.path("bad"), 0o700)
    engine = world.engine(policy, spool="bad/spool", log="error",
                          env=with_disk(disk_library(world), world.path("bad"), fail=f"sync:{rng.randrange(30, 50)}:{EIO}:0"))

    def gauge():
        return "hikyaku_spool_failing 1\n" in answer(http, "/metrics")[1]
    holds(healthz(http) == (200, "ok\n") and not gauge(), "sound at the start")
    load = start_load(world, engine, 200, size=20000, connections=4, name="bad.ids")
    wait_for(lambda: healthz(http) == (503, "failing\n"), 30, 0.05, "/healthz says failing")
    holds(gauge(), "hikyaku_spool_failing")
    holds(ask(engine.spool, {"cmd": "status"})["journal"]["health"] == "failing", "status says failing")

    def refusals():
        with open(world.path("bad.ids")) as f:
            return {line.split(" ", 2)[2].strip() for line in f if line.endswith("\n") and line.split()[1] == "refused"}
    wait_for(refusals, 30, 0.05, "somebody is refused")
    load.p.send_signal(signal.SIGKILL)
    load.p.wait()
    holds(all(s.startswith("451 4.3.0 ") for s in refusals()), f"answers to a disk that fails: {refusals()}")
    holds(ask(engine.spool, {"cmd": "status"})["journal"]["health"] == "failing", "status still says failing, not full")
    engine.kill()
    for variable in [k for k in engine.env if k.startswith("DISK_")] + ["LD_PRELOAD"]:
        engine.env.pop(variable, None)
    restart(engine)
    drained(world, engine, 40)
    sent, came = Sent(world.path("bad.ids")), Came(world.received("sink"))
    check_sums(sent, came)
    holds(not set(came.copies) & sent.refused, "delivered although refused")
    holds(healthz(http) == (200, "ok\n") and not gauge(), "sound again")
    holds(engine.stop() == 0, "a clean stop")
    note(f"a failing disk: {len(sent.acked)} acknowledged, {len(sent.refused)} refused, {len(sent.acked - set(came.copies))} lost")


@part("a disk that fails while operators act: each command is answered, SIGTERM ends the engine, a later start is sound", 120)
def acting(world, options, rng):
    for fail in (f"sync:{rng.randrange(60, 80)}:{EIO}:0", f"write:{rng.randrange(60, 80)}:{ENOSPC}:0"):
        sink = world.sink(f"sink-{fail[:4]}", ports=2, rules=["*:{1} dot 451 4.3.0 busy"])
        root = f"operators-{fail[:4]}"
        os.mkdir(world.path(root), 0o700)
        engine = world.engine(policy_of(POLICY, sink.ports).replace('"1s"', '"1h"'), name=root, spool=f"{root}/spool", log="error",
                              env=with_disk(disk_library(world), world.path(root), fail=fail))
        for n in range(300):  # one after the other, so that somebody is in the queue when it fails
            code = world.run("send", "--server", f"127.0.0.1:{engine.port}", "--from", "a@shop.example", f"u{n}@later.example",
                             stdin=b"Subject: x\r\n\r\nx\r\n", check=False)[0]
            if code != 0:
                break
        wait_for(lambda: ask(engine.spool, {"cmd": "status"})["journal"]["health"] != "ok", 60, 0.05, "the disk fails")
        selected = 0
        for _ in range(3):
            for action in ("hold", "release"):
                code, out, err = world.run("queue", action, "--spool", engine.spool, "--to", "later.example", timeout=20, check=False)
                holds("could not be written" in err or out.startswith("0 recipients"), f"queue {action}: {code} {out}{err}")
                selected += "could not be written" in err
                holds(ask(engine.spool, {"cmd": "status"}, timeout=5) is not None, f"status after queue {action}")
        holds(selected > 0, "nobody was in the queue: the test has shown nothing")
        engine.p.send_signal(signal.SIGTERM)
        holds(engine.p.wait(30) == 0, "SIGTERM ends the engine")
        for variable in [k for k in engine.env if k.startswith("DISK_")] + ["LD_PRELOAD"]:
            engine.env.pop(variable, None)
        restart(engine)
        holds(engine.stop() == 0, "a clean stop on a sound disk")


@part("an expression on headers that are on disk waits for them, and says so where they do not come", 120)
def cold(world, options, rng):
    sink, cold = world.sink("sink-cold", ports=2, rules=["*:{1} dot 451 4.3.0 busy"]), world.path("is-cold")
    os.mkdir(world.path("cold"), 0o700)
    engine = world.engine(policy_of(POLICY, sink.ports).replace('"1s"', '"1h"'), name="cold", spool="cold/spool",
                          env=with_disk(disk_library(world), world.path("cold"), cold=cold))
    for n in range(4):
        world.run("send", "--server", f"127.0.0.1:{engine.port}", "--from", "a@shop.example", f"u{n}@later.example",
                  stdin=f"Subject: number {n}\r\n\r\nx\r\n".encode())
    wait_for(lambda: ask(engine.spool, {"cmd": "status"})["queue"]["deferred"] == 4, 30, 0.05, "all wait")
    holds(engine.stop() == 0, "a clean stop")
    restart(engine)  # bodies are in no memory now

    def queue(action, expression):
        return world.run("queue", action, "--spool", engine.spool, "--where", expression, check=False)
    asked = [("list", "r.message:header('Subject'):find('number [12]')", "2 recipients"), ("hold", "r.message:header('Subject') == 'number 3'", "1 recipient held")]
    for action, expression, words in asked:
        with open(cold, "w") as f:
            f.write("x" * 10)  # of four messages: they are asked for three times before all can be read
        code, out, err = queue(action, expression)
        holds(not os.path.exists(cold), f"{action} answers before the headers are there: {code} {out}{err}")
        holds(code == 0 and words in out and "where failed" not in err, f"{action}: {code} {out}{err}")
    with open(cold, "w"):
        pass
    code, out, err = queue("cancel", "r.message:header('Subject'):find('number')")
    holds(code == 1 and "are being read" in err and "the same command again" in err and "r.author" not in err, f"{code} {out}{err}")
    os.unlink(cold)
    code, out, err = queue("cancel", "r.message:header('Subject'):find('number')")
    holds(code == 0 and "4 recipients cancelled" in out, f"{code} {out}{err}")
    holds(engine.stop() == 0, "a clean stop")


@part("the n-th write, sync, open, rename fails, once or for ever: acknowledged is delivered, refused never is", 300)
def failing(world, options, rng):
    library = disk_library(world)
    benches = [Bench(world, k, library) for k in range(2)]
    used, _ = benches[0].run(None)
    todo = plans(used, options, rng)
    n, failures, lock = len(todo), [], threading.Lock()
    rng.shuffle(todo)

    def work(bench):
        while True:
            with lock:
                if not todo or failures:
                    return
                fail = todo.pop()
            try:
                bench.run(fail)
            except BaseException as why:
                failures.append(f"{fail}: {why}")

    threads = [threading.Thread(target=work, args=(b,)) for b in benches]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    holds(not failures, "\n".join(failures))
    note(f"failing calls: {n} runs; a run makes " + ", ".join(f"{u} {k}" for k, u in zip(KINDS, used)))
