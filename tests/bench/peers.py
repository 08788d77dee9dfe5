"""Who takes part: generator and sink, Hikyaku, Postfix and Haraka. All on loopback, all in the world's folder.

Everything started here leads a process group of its own; `end_all` ends what is left of them.
"""
import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import time

from harness import ROOT, answers, free_ports, let_pass, wait_for
from measure import Cost, family_cpu_us

STARTED = []


def spawn(argv, **kw):
    kw.setdefault("stdin", subprocess.DEVNULL)
    kw.setdefault("stdout", subprocess.DEVNULL)
    kw.setdefault("stderr", subprocess.DEVNULL)
    p = subprocess.Popen([str(a) for a in argv], start_new_session=True, **kw)
    STARTED.append(p)
    return p


def end(p, patience=5):
    """Ends a process group that `spawn` made."""
    for sig, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 5)):
        try:
            os.killpg(p.pid, sig)
        except (ProcessLookupError, PermissionError):
            pass
        try:
            p.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        if sig == signal.SIGTERM and not group_lives(p.pid):
            break
    if p in STARTED:
        STARTED.remove(p)


def group_lives(pgid):
    try:
        os.killpg(pgid, 0)
        return True
    except (ProcessLookupError, PermissionError):
        return False


def end_all():
    for p in list(STARTED):
        end(p, 1)


class Wrong(Exception):
    """A run whose figures would be lies."""


class Sink:
    """hikyaku sink that ends by itself after n messages and says how many recipients they had."""

    def __init__(self, world, n, tls=None):
        self.n, self.port = n, free_ports(1)[0]
        argv = [world.binary, "sink", "--quiet", "--json", "--max", n, "--listen", f"127.0.0.1:{self.port}"]
        if tls is not None:
            argv += ["--cert", tls.cert, "--key", tls.key]
        self.p = spawn(argv, stdout=subprocess.PIPE, text=True)
        self.report = None
        wait_for(lambda: answers(self.port), why="sink")

    def wait(self, seconds, is_alive):
        limit = time.monotonic() + seconds
        while True:
            try:
                out, _ = self.p.communicate(timeout=1)
                break
            except subprocess.TimeoutExpired:
                if not is_alive() or time.monotonic() > limit:
                    end(self.p)
                    out, _ = self.p.communicate()
                    got = json.loads(out)["messages"] if out else "?"
                    raise Wrong(f"the sink had {got} of {self.n} messages after {seconds} s") from None
        STARTED.remove(self.p)
        self.report = json.loads(out)

    def end(self):
        end(self.p)


class Tls:
    """A key and a certificate for localhost, signed by itself."""

    def __init__(self, world):
        self.cert, self.key = world.path("sink.crt"), world.path("sink.key")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                        "-keyout", self.key, "-out", self.cert], check=True, capture_output=True)


class Shape:
    """What a row sends."""

    def __init__(self, n, size, connections, recipients=1):
        self.n, self.size, self.connections, self.recipients = n, size, connections, recipients

    def of(self, n):
        return Shape(max(n, self.connections), self.size, self.connections, self.recipients)


def source(port, shape):
    # smtp-source: -d keeps connections, -N numbers recipients
    argv = ["smtp-source", "-d", "-s", shape.connections, "-m", shape.n, "-l", shape.size, "-r", shape.recipients, "-f", "a@bench.example",
            "-t", "u@docomo.ne.jp"]
    return spawn(argv + (["-N"] if shape.recipients > 1 else []) + [f"127.0.0.1:{port}"])


def timed(port, sink, shape, limit=300, is_alive=lambda: True):
    """Messages a second, from the start of the generator to the last message at the sink."""
    start = time.monotonic()
    p = source(port, shape)
    try:
        sink.wait(limit, is_alive)
        took = time.monotonic() - start
    finally:
        end(p, 0.2)  # the sink has everything; a generator that still says QUIT to it is of no interest
        sink.end()
    if sink.report["recipients"] != shape.n * shape.recipients:
        raise Wrong(f"{sink.report['recipients']} recipients at the sink, not {shape.n * shape.recipients}")
    return shape.n / took


def fewer(shape, divisor):
    """For those who take longer a message; but never so few that starting processes is all there is."""
    return shape.of(max(500 if shape.connections > 1 else 150, shape.n // divisor))


def direct(world, shape):
    sink = Sink(world, shape.n)
    return timed(sink.port, sink, shape)


POLICY = """
engine {{ hostname = "bench.example", listen = "127.0.0.1:{{port}}", owner = "o@bench.example", log = "error"{workers} }}
for i = 1, 3 do
  relay("r" .. i) {{ host = "{host}", port = {sink}, {tls}, connections = 8, messages_per_connection = 100000 }}
end
route "phones" {{ priority = 10, to = carriers.all, via = {{ "r1", "r2" }} }}
route "free"   {{ priority = 20, to = domains.freemail, via = {{ "r2", "r3" }} }}
route "rest"   {{ priority = 90, to = "*", via = {{ "r3", "r1" }} }}
"""


def policy(sink_port, tls=None, workers=0):
    return POLICY.format(workers=f", workers = {workers}" if workers else "", sink=sink_port,
                         host="localhost" if tls else "127.0.0.1",
                         tls=f'tls = "starttls", ca = "{tls.cert}"' if tls else 'tls = "none"')


class Hikyaku:
    """A fresh process for every run, over one spool: empty between runs, its journal files written before, as in service."""

    name = "Hikyaku"

    def __init__(self, world, tls=None, workers=0, binary=None):
        self.world, self.tls, self.workers, self.binary, self.why_not = world, tls, workers, binary, None
        self.spool = "spool" if binary is None else "spool-before"  # an older program need not read what a newer one wrote

    def start(self, sink_port, env=None):
        for name in glob.glob(self.world.path(self.spool, "events*")):
            shutil.rmtree(name) if os.path.isdir(name) else os.unlink(name)
        return self.world.engine(policy(sink_port, self.tls, self.workers), name=f"engine-{time.monotonic_ns()}", spool=self.spool, log="error", env=env,
                                 binary=self.binary)

    def finish(self, engine):
        """Ends an engine that has sent everything."""
        try:
            engine.wait_empty(20)
            code = engine.stop()
            if code != 0:
                raise Wrong(f"the engine ended with {code}")
        except AssertionError as e:
            engine.kill()
            shutil.rmtree(engine.spool, ignore_errors=True)  # the next run must not send what this one left
            raise Wrong(f"the engine did not finish: {e}") from None
        finally:
            self.world.processes.remove(engine)

    def warm(self):
        """Some 250 MB through the journal, twice, so that no run pays for making its files: those of a new spool are small at
        first, and the last of the small ones is replaced in the second run."""
        try:
            self.measure(Shape(2500, 102400, 20))
            self.measure(Shape(2500, 102400, 20))
        except (Wrong, AssertionError) as e:
            print(f"the warm-up went wrong: {e}")

    def measure(self, shape):
        sink = Sink(self.world, shape.n, self.tls)
        engine = self.start(sink.port)
        try:
            before, syncs = Cost(engine.p.pid), engine.status()["journal"]["syncs"]
            rate = timed(engine.port, sink, shape, is_alive=engine.is_alive)
            cost = Cost(engine.p.pid) - before
            syncs = engine.status()["journal"]["syncs"] - syncs
        finally:
            self.finish(engine)
        n = shape.n
        return {"rate": rate, "cpu_us": cost.ran_us / n, "user_us": cost.user_us / n, "system_us": cost.system_us / n,
                "voluntary": cost.voluntary / n, "involuntary": cost.involuntary / n, "syncs": syncs / n,
                "relay_connections": sink.report["connections"] - 1}  # one was ours, to see that it listens

    def close(self):
        pass


MASTER = """
127.0.0.1:{port} inet n - n - 250 smtpd
pickup    unix  n - n 60   1 pickup
cleanup   unix  n - n -    0 cleanup
qmgr      unix  n - n 300  1 qmgr
rewrite   unix  - - n -    - trivial-rewrite
bounce    unix  - - n -    0 bounce
defer     unix  - - n -    0 bounce
trace     unix  - - n -    0 bounce
verify    unix  - - n -    1 verify
flush     unix  n - n 1000 0 flush
proxymap  unix  - - n -    - proxymap
proxywrite unix - - n -    1 proxymap
smtp      unix  - - n -    - smtp
relay     unix  - - n -    - smtp
showq     unix  n - n -    - showq
error     unix  - - n -    - error
retry     unix  - - n -    - error
discard   unix  - - n -    - discard
anvil     unix  - - n -    1 anvil
scache    unix  - - n -    1 scache
"""
MAIN = """
compatibility_level = 3.6
queue_directory = {queue}
data_directory = {data}
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = bench.example
mydestination =
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{sink}
maillog_file =
smtpd_peername_lookup = no
smtp_dns_support_level = disabled
default_process_limit = 100
smtpd_client_connection_count_limit = 0
smtpd_recipient_limit = 1000
default_destination_concurrency_limit = 50
initial_destination_concurrency = 20
in_flow_delay = 0
alias_maps =
alias_database =
local_recipient_maps =
"""


class Postfix:
    """An instance of its own in the foreground; relays everything to one sink."""

    name = "Postfix"

    def __init__(self, world):
        self.world, self.dir = world, world.path("postfix")
        self.port, self.p, self.why_not = free_ports(1)[0], None, None
        if os.geteuid() != 0:
            self.why_not = "Postfix must be started by root"
        elif not shutil.which("postfix") or not os.path.exists("/usr/lib/postfix/sbin/master"):
            self.why_not = "Postfix is not installed"
        else:
            os.makedirs(self.dir)
            os.makedirs(world.path("postfix-queue"))
            os.makedirs(world.path("postfix-data"))
            shutil.chown(world.path("postfix-data"), "postfix")
            os.chmod(world.dir, 0o755)
            world.write("postfix/master.cf", MASTER.format(port=self.port))

    def start(self, sink_port):
        self.world.write("postfix/main.cf", MAIN.format(queue=self.world.path("postfix-queue"), data=self.world.path("postfix-data"), sink=sink_port))
        # Without -d it would leave our process group, and nobody would end it.
        subprocess.run(["postfix", "-c", self.dir, "check"], check=True, capture_output=True)
        self.p = spawn(["/usr/lib/postfix/sbin/master", "-c", self.dir, "-d"])
        wait_for(lambda: answers(self.port), 60, why="Postfix listens")

    def stop(self):
        end(self.p)
        self.p = None
        # The sink ends with its last message: what it could not answer any more would be sent to the next.
        subprocess.run(["postsuper", "-c", self.dir, "-d", "ALL"], check=False, capture_output=True)

    def measure(self, shape):
        few = fewer(shape, 20)
        sink = Sink(self.world, few.n)
        self.start(sink.port)
        try:
            before = family_cpu_us(self.p.pid)
            rate = timed(self.port, sink, few)
            return {"rate": rate, "cpu_us": (family_cpu_us(self.p.pid) - before) / few.n}
        finally:
            self.stop()

    def close(self):
        if self.p is not None:
            self.stop()


PLUGIN = """'use strict'
const constants = require('haraka-constants')
exports.register = function () {
    this.register_hook('rcpt', 'take')
    this.register_hook('get_mx', 'way')
}
exports.take = function (next, connection) {
    connection.relaying = true
    next(constants.ok)
}
exports.way = function (next) {
    next(constants.ok, { priority: 0, exchange: '127.0.0.1', port: Number(process.env.SINK_PORT) })
}
"""


class Haraka:
    """Accepts into its own queue (without fsync: its 250 does not mean "on disk"); a process for each core."""

    name = "Haraka"
    VERSION = "3.3.0"  # the last that runs with Node 20

    def __init__(self, world):
        self.world, self.dir = world, world.path("haraka")
        self.port, self.p, self.why_not = free_ports(1)[0], None, None
        self.home = os.path.join(ROOT, "build", "haraka")
        self.why_not = self.install()
        if self.why_not is None:
            self.write_config()

    def install(self):
        """None, or why there is none."""
        if not shutil.which("node") or not shutil.which("npm"):
            return "Haraka needs node and npm"
        done = os.path.join(self.home, f"installed-{self.VERSION}")
        if os.path.exists(done):
            return None
        os.makedirs(self.home, exist_ok=True)
        with open(os.path.join(self.home, "package.json"), "w") as f:
            f.write('{ "private": true }\n')
        try:
            r = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--omit=optional", "--ignore-scripts", f"haraka@{self.VERSION}"],
                               cwd=self.home, capture_output=True, text=True, timeout=180)
        except subprocess.TimeoutExpired:
            return "npm install haraka took more than 3 minutes"
        if r.returncode != 0:
            return "npm install haraka failed: " + (r.stderr.strip().splitlines() or ["?"])[-1][:200]
        with open(done, "w"):
            pass
        return None

    def write_config(self):
        write = self.world.write
        write("haraka/plugins/to_sink.js", PLUGIN)
        write("haraka/config/plugins", "to_sink\n")
        write("haraka/config/me", "bench.example\n")
        write("haraka/config/smtp.ini", f"listen=127.0.0.1:{self.port}\nnodes={os.cpu_count()}\n")
        write("haraka/config/log.ini", "level=error\n")
        write("haraka/config/outbound.ini", "enable_tls=false\nlocal_mx_ok=true\nconcurrency_max=100\n")
        shutil.copy(os.path.join(self.home, "node_modules/haraka/config/connection.ini"), self.world.path("haraka/config/connection.ini"))
        os.makedirs(os.path.join(self.dir, "queue"))

    def start(self, sink_port):
        with open(self.world.path("haraka.log"), "ab") as log:
            self.p = spawn(["node", os.path.join(self.home, "node_modules/haraka/bin/haraka"), "-c", self.dir], stdout=log, stderr=log,
                           cwd=self.dir, env={**os.environ, "SINK_PORT": str(sink_port)})
        wait_for(self.greets, 60, 0.1, "Haraka listens")
        let_pass(1, "the other processes of Haraka's cluster start, which nothing shows")

    def greets(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as s:
                return s.recv(4) == b"220 "
        except OSError:
            return False

    def stop(self):
        end(self.p, 2)
        self.p = None
        shutil.rmtree(os.path.join(self.dir, "queue"), ignore_errors=True)
        os.makedirs(os.path.join(self.dir, "queue"))

    def measure(self, shape):
        few = fewer(shape, 10)
        sink = Sink(self.world, few.n)
        self.start(sink.port)
        try:
            before = family_cpu_us(self.p.pid)
            rate = timed(self.port, sink, few)
            return {"rate": rate, "cpu_us": (family_cpu_us(self.p.pid) - before) / few.n}
        finally:
            self.stop()

    def close(self):
        if self.p is not None:
            self.stop()
