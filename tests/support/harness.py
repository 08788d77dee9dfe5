"""Starts engines and sinks of the program under test, on free loopback ports, in a folder of their own.

Python's standard library only. Every wait is bounded; a failure shows the logs.
"""
import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def only_known(wanted, known, what="case"):
    """Ends the program when one of the names is not known; it says which there are."""
    unknown = [name for name in wanted if name not in known]
    if unknown:
        print(f"there is no {what} {', '.join(unknown)}; there are: {', '.join(sorted(known))}", file=sys.stderr)
        sys.exit(2)


class Ports:
    """Which ports the tests of this machine use, of all processes: a lock for each on one octet of a common file, until its
    process ends. Without it, a port that is to answer nobody would sooner or later be the listener of a test beside this one."""

    def __init__(self):
        self.fd = os.open(os.path.join(tempfile.gettempdir(), f"hikyaku-test-ports-{os.getuid()}"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.given, self.lock = set(), threading.Lock()

    def take(self, port):
        with self.lock:  # a process never waits for its own locks
            if port in self.given:
                return False
            try:
                fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            except OSError:
                return False
            self.given.add(port)
            return True


PORTS = Ports()


def free_ports(n):
    """n ports that nobody listens at and no test will, below those that the kernel gives to outgoing connections of cases beside
    this one."""
    ports = []
    while len(ports) < n:
        with socket.socket() as s:
            port = random.randrange(10240, 32768)
            with contextlib.suppress(OSError):
                s.bind(("127.0.0.1", port))
                if PORTS.take(port):
                    ports.append(port)
    return ports


def wait_for(what, seconds=30, every=0.02, why="condition"):
    """Calls `what` until it is true; its value. AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {why}")
        time.sleep(every)


def let_pass(seconds, what):
    """Time that is part of what is tried, such as a relay that is slow; `what` says in words what takes it. Nothing may be
    expected to have happened by then: for that, wait_for() waits. No other line of the tests sleeps (tests/check_sleeps.sh)."""
    time.sleep(seconds)


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as s:
            return s.recv(4) == b"220 " or s.recv(1) is not None
    except OSError:
        return False


def is_read(client):
    """Whether the other side of this IPv4 connection has taken all that was sent from its queue. (/proc/net/tcp: both ends are here.)"""
    def end(address):
        return f"{int.from_bytes(socket.inet_aton(address[0]), sys.byteorder):08X}:{address[1]:04X}"
    mine, theirs = end(client.getsockname()), end(client.getpeername())
    with open("/proc/net/tcp") as f:
        queues = {(row[1], row[2]): row[4].split(":") for row in map(str.split, f.readlines()[1:])}
    sending, waiting = queues.get((mine, theirs), ["0", "0"])[0], queues.get((theirs, mine), ["0", "0"])[1]
    return int(sending, 16) == 0 and int(waiting, 16) == 0


def n_connections(port):
    """Connections to this port that their client has not let go."""
    with open("/proc/net/tcp") as f:
        rows = [row.split() for row in f.readlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] in ("01", "08") for row in rows)  # ESTABLISHED, CLOSE_WAIT


class World:
    """A folder with engines and sinks; use as a context manager."""

    def __init__(self, binary, keep=False):
        self.binary = os.path.abspath(binary)
        self.dir = tempfile.mkdtemp(prefix="hikyaku-test-")
        self.keep = keep
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, kind, value, tb):
        for p in reversed(self.processes):
            p.kill()
        if kind is not None:
            for name in sorted(os.listdir(self.dir)):
                if name.endswith(".log"):
                    with open(os.path.join(self.dir, name), errors="replace") as f:
                        tail = f.read()[-6000:]
                    print(f"---- {name}\n{tail}")
        if not self.keep:
            shutil.rmtree(self.dir, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def write(self, name, text, mode=0o644):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, mode)
        return path

    def run(self, *args, stdin=b"", timeout=60, check=True, env=None):
        """The program with these arguments; (exit code, stdout, stderr)."""
        if isinstance(stdin, str):
            stdin = stdin.encode()
        p = subprocess.run([self.binary, *map(str, args)], input=stdin, capture_output=True, timeout=timeout, cwd=self.dir,
                           env={**os.environ, **(env or {})})
        out, err = p.stdout.decode(errors="replace"), p.stderr.decode(errors="replace")
        if "Sanitizer" in err:
            raise AssertionError(err)
        if check and p.returncode != 0:
            raise AssertionError(f"{args}: exit {p.returncode}\n{out}{err}")
        return p.returncode, out, err

    def start(self, name, argv, **kw):
        process = Process(self, name, argv, **kw)
        self.processes.append(process)
        return process

    def sink(self, name="sink", ports=1, rules=(), store=True, extra=()):
        numbers = free_ports(ports)
        argv = [self.binary, "sink", "--quiet"]
        for port in numbers:
            argv += ["--listen", f"127.0.0.1:{port}"]
        for rule in rules:
            argv += ["--rule", rule.format(*numbers)]
        if store:
            argv += ["--store", self.path(name)]
        sink = self.start(name, argv + list(extra))
        sink.ports = numbers
        for port in numbers:
            wait_for(lambda: answers(port), why=f"sink on {port}")
        return sink

    def received(self, name="sink"):
        """Lines of a sink's index."""
        path = self.path(name, "index.jsonl")
        return read_lines(path)

    def engine(self, policy, name="engine", spool="spool", env=None, wait=True, log="info", binary=None):
        """Starts an engine on a policy text with {port}; engine.port is where it listens."""
        port = free_ports(1)[0]
        path = self.write(f"{name}.lua", policy.replace("{port}", str(port)))
        engine = self.start(name, [binary or self.binary, "run", path, "--spool", self.path(spool), "--log", log], env=env)
        engine.port, engine.spool, engine.policy = port, self.path(spool), path
        if wait:
            wait_for(lambda: engine.is_alive() and answers(port), 60, why=f"{name} listens on {port}")
        return engine


def read_lines(path):
    if not os.path.exists(path):
        return []
    rows = []
    with open(path, errors="replace") as f:
        for line in f:
            if line.endswith("\n"):
                rows.append(json.loads(line))
    return rows


class Process:
    def __init__(self, world, name, argv, env=None, cwd=None, before=None):
        self.world, self.name, self.argv = world, name, argv
        self.env = {**os.environ, **(env or {})}
        self.cwd = cwd or world.dir
        self.before = before  # called in the new process before the program is
        self.log = world.path(f"{name}.log")
        self.spawn()

    def spawn(self):
        with open(self.log, "ab") as log:
            self.p = subprocess.Popen([str(a) for a in self.argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, cwd=self.cwd,
                                      preexec_fn=self.before)

    def is_alive(self):
        code = self.p.poll()
        if code is not None:
            raise AssertionError(f"{self.name} ended with {code}: {self.text()[-3000:]}")
        return True

    def text(self):
        with open(self.log, errors="replace") as f:
            return f.read()

    def stop(self, signo=signal.SIGTERM, timeout=60):
        """Asks it to end; its exit code. A sanitizer's report is a failure."""
        if self.p.poll() is None:
            self.p.send_signal(signo)
            try:
                self.p.wait(timeout)
            except subprocess.TimeoutExpired:
                self.p.kill()
                self.p.wait()
                raise AssertionError(f"{self.name} did not stop within {timeout} s") from None
        if "Sanitizer" in self.text() or "runtime error" in self.text() or "hikyaku: bug" in self.text():
            raise AssertionError(f"{self.name}: {self.text()[-8000:]}")
        return self.p.returncode

    def kill(self):
        if self.p.poll() is None:
            self.p.kill()
            self.p.wait()

    # an engine's
    def events(self, kind=None):
        rows = read_lines(os.path.join(self.spool, "events.jsonl"))
        return [r for r in rows if kind is None or r["ev"] == kind]

    def status(self):
        self.is_alive()
        return json.loads(self.world.run("status", "--json", "--spool", self.spool)[1])

    def queue(self, *select):
        return json.loads(self.world.run("queue", "list", "--json", "--spool", self.spool, *select)[1])

    def is_empty(self):
        # the journal counts who is on the way from one worker to another, too
        status = self.status()
        return sum(status["queue"].values()) == 0 and status["journal"]["recipients"] == 0

    def wait_empty(self, seconds=60):
        wait_for(self.is_empty, seconds, 0.1, f"{self.name}'s queue is empty; {self.status()['queue']}")
