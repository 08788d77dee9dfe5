#!/usr/bin/env python3
"""What the machine and its neighbours do to the engine: slow and too many clients, descriptors, odd files, clocks, logs, signals.

  tests/protocol/machine.py BINARY [CASE...] [--keep]     (CASE: L53, D13, flood, ... default all)

Each case starts an engine of its own in a folder of its own. Exit code 1: something failed.
"""
import argparse
import base64
import glob
import json
import os
import re
import resource
import shutil
import signal
import smtplib
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import World, answers, free_ports, is_read, let_pass, only_known, read_lines, wait_for  # noqa: E402

CASES = []
PASSWORD = "canary-machine-5f"


class Skip(Exception):
    pass


def case(name):
    def register(run):
        CASES.append((name, run))
        return run
    return register


def check(condition, what):
    if not condition:
        raise AssertionError(what)


POLICY = """
engine { hostname = "mx.test", listen = "127.0.0.1:{port}", http = %(http)s, owner = "o@x.test", dsn = "none", retry = { "1s" }, workers = 1,
         bounds = { %(bounds)s } %(engine)s }
relay "sink" { host = "127.0.0.1", port = %(sink)d, tls = "none", connections = 4, %(relay)s }
route "all" { to = "*", via = "sink" }
"""


def policy(sink, bounds="", engine="", relay="", http="false"):
    return POLICY % {"sink": sink, "bounds": bounds, "engine": engine, "relay": relay, "http": http}


def rss_kib(engine):
    with open(f"/proc/{engine.p.pid}/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))


def cpu_seconds(engine):
    with open(f"/proc/{engine.p.pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def connect(port, greet=True):
    s = socket.create_connection(("127.0.0.1", port), 10)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if greet:
        check(s.recv(1000)[:4] == b"220 ", "no greeting")
    return s


def wait_for_reply(s, code):
    s.settimeout(20)
    got = b""
    while code not in got:
        part = s.recv(65536)
        check(part, f"closed instead of {code!r}: {got!r}")
        got += part


def closed_within(s, seconds, drip=b"", every=0.3):
    """What came until the end of the connection; sends `drip` octet by octet meanwhile."""
    got, at = b"", time.monotonic()
    drip = iter(drip)
    s.settimeout(every)
    while time.monotonic() - at < seconds:
        try:
            part = s.recv(65536)
            if not part:
                return got
            got += part
        except TimeoutError:
            pass
        except OSError:
            return got
        octet = next(drip, None)
        if octet is not None:
            try:
                s.sendall(bytes([octet]))
            except OSError:
                return got
    raise AssertionError(f"not closed within {seconds} s; got {got!r}")


def send(port, rcpt="b@y.test", text="hello", n=1):
    with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=30) as s:
        for _ in range(n):
            s.sendmail("a@x.test", [rcpt], f"From: a@x.test\r\nTo: {rcpt}\r\nSubject: t\r\n\r\n{text}\r\n")


def arrives(world, engine, n=1, name="sink", seconds=20):
    before = len(world.received(name))
    send(engine.port, n=n)
    wait_for(lambda: len(world.received(name)) >= before + n, seconds, 0.02, "an ordinary message is delivered")


def is_sanitized(binary):
    with open(binary, "rb") as f:
        return b"__asan_init" in f.read()


def n_established(port):
    """Connections that the engine holds on this port."""
    n = 0
    with open("/proc/net/tcp") as f:
        for line in f.readlines()[1:]:
            fields = line.split()
            n += fields[1].endswith(f":{port:04X}") and fields[3] == "01"
    return n


# --- L53: slow and idle clients ---

def certificate(world):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj", "/CN=mx.test",
                    "-keyout", world.path("key.pem"), "-out", world.path("cert.pem")], check=True, capture_output=True)
    os.chmod(world.path("key.pem"), 0o600)


@case("L53")
def slow_clients(world):
    """Deadlines are for the whole command, and for a rate of content; octets that trickle do not move them."""
    certificate(world)
    sink = world.sink()
    tls = free_ports(1)[0]
    text = policy(sink.ports[0], 'command = "2s", data = "2s"').replace(
        'listen = "127.0.0.1:{port}"', f'listen = {{ "127.0.0.1:{{port}}", {{ addr = "127.0.0.1:{tls}", tls = "implicit", cert = "cert.pem", key = "key.pem" }} }}')
    engine = world.engine(text)
    results = {}

    def run(name, client, *rest):
        try:
            results[name] = closed_within(client, *rest)
        except (AssertionError, OSError) as e:
            results[name] = e

    def data():
        s = connect(engine.port)
        s.sendall(b"EHLO t\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n")
        wait_for_reply(s, b"354")
        return s

    def reads_nothing():
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        s.connect(("127.0.0.1", engine.port))
        s.settimeout(1)
        try:
            for _ in range(100):
                s.sendall(b"EHLO t\r\n" * 8192)
        except OSError:
            pass
        return s

    hello = bytes.fromhex("16030100c8010000c40303") + b"x" * 200
    clients = {"command": (connect(engine.port), 12, b"NOOP aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), "silent": (connect(engine.port), 12),
               "data": (data(), 12, b"Subject: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), "tls": (connect(tls, False), 12, hello),
               "tls-silent": (connect(tls, False), 12)}
    threads = [threading.Thread(target=run, args=(name, *rest)) for name, rest in clients.items()]
    for t in threads:
        t.start()
    never = reads_nothing()
    arrives(world, engine)
    for t in threads:
        t.join()
    for name, got in results.items():
        check(isinstance(got, bytes), f"{name}: {got}")
    for name in ("command", "silent", "data"):
        check(b"421 4.4.2" in results[name], f"{name}: {results[name]!r}")
    wait_for(lambda: n_established(engine.port) == 0, 20, 0.2, "a client that reads nothing is let go")
    never.close()
    return engine


@case("L53")
def a_thousand_idle_clients(world):
    """1000 idle connections, plain and then TLS: small, and in nobody's way."""
    certificate(world)
    sink = world.sink()
    tls = free_ports(1)[0]
    text = policy(sink.ports[0], "connections_per_client = 5000, connections = 5000").replace(
        'listen = "127.0.0.1:{port}"', f'listen = {{ "127.0.0.1:{{port}}", {{ addr = "127.0.0.1:{tls}", tls = "implicit", cert = "cert.pem", key = "key.pem" }} }}')
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    engine = world.engine(text)
    arrives(world, engine, 20)
    before = rss_kib(engine)
    plain = [connect(engine.port) for _ in range(1000)]
    each = (rss_kib(engine) - before) / 1000
    took = time.monotonic()
    arrives(world, engine, 100)
    took = (time.monotonic() - took) / 100
    before = rss_kib(engine)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    secure = [context.wrap_socket(connect(tls, False)) for _ in range(100)]
    each_tls = (rss_kib(engine) - before) / 100
    print(f"NOTE idle connection: {each:.1f} KiB plain, {each_tls:.1f} KiB TLS; a message meanwhile {took * 1000:.1f} ms")
    if not is_sanitized(world.binary):
        check(each <= 4 and each_tls <= 40, f"{each} and {each_tls} KiB a connection")
    check(took < 0.5, f"{took} s a message")
    for s in plain + secure:
        s.close()
    return engine


@case("flood")
def too_many_clients(world):
    """Beyond the bounds clients hear 421 and are let go; those inside are served."""
    sink = world.sink()
    engine = world.engine(policy(sink.ports[0], "connections_per_client = 50, connections = 60"))
    inside = smtplib.SMTP("127.0.0.1", engine.port, "client.example", timeout=10)
    held, refused = [], 0
    for _ in range(400):
        s = socket.create_connection(("127.0.0.1", engine.port), 5)
        s.settimeout(5)
        line = s.recv(200)
        if line[:4] == b"220 ":
            held.append(s)
        else:
            check(line == b"" or line[:3] == b"421", line)
            refused += 1
            s.close()
    check(40 <= len(held) <= 50 and refused >= 350, f"{len(held)} held, {refused} refused")
    inside.sendmail("a@x.test", ["b@y.test"], "From: a@x.test\r\n\r\nx\r\n")
    wait_for(lambda: len(world.received()) == 1, 10, 0.02, "the one inside is served")
    for s in held:
        s.close()
    inside.close()
    wait_for(lambda: connect_or_none(engine.port), 10, 0.1, "places are free again")
    arrives(world, engine)
    return engine


def connect_or_none(port):
    try:
        connect(port).close()
        return True
    except (AssertionError, OSError):
        return False


@case("fds")
def no_descriptor_left(world):
    """Descriptors run out: no spinning, those inside are served, all is well afterwards; the control socket too."""
    sink = world.sink()
    engine = world.engine(policy(sink.ports[0], "connections_per_client = 5000, connections = 5000", http=f'"127.0.0.1:{free_ports(1)[0]}"'))
    arrives(world, engine)
    inside = smtplib.SMTP("127.0.0.1", engine.port, "client.example", timeout=20)
    n = len(os.listdir(f"/proc/{engine.p.pid}/fd"))
    resource.prlimit(engine.p.pid, resource.RLIMIT_NOFILE, (n + 20, n + 20))
    held = []
    for _ in range(100):
        s = socket.socket()
        s.setblocking(False)
        try:
            s.connect(("127.0.0.1", engine.port))
        except BlockingIOError:
            pass
        held.append(s)
    control = socket.socket(socket.AF_UNIX)
    control.settimeout(2)
    control.connect(os.path.join(engine.spool, "control.sock"))
    wait_for(lambda: "descriptor" in engine.text(), 20, 0.05, "the log says that there is no descriptor")
    before = cpu_seconds(engine)
    let_pass(2, "the time whose CPU use is measured")
    used = cpu_seconds(engine) - before
    check(used < 0.6, f"{used:.2f} s CPU in 2 s without a descriptor: it spins")
    inside.sendmail("a@x.test", ["b@y.test"], "From: a@x.test\r\n\r\nx\r\n")  # taken; the relay's connection may have to wait
    for s in held:
        s.close()
    control.close()
    wait_for(lambda: len(world.received()) == 2, 20, 0.05, "the one inside is served")
    inside.close()
    arrives(world, engine)
    print(f"NOTE without a descriptor: {used / 2 * 100:.1f} % CPU")
    return engine


@case("replies")
def replies_nobody_reads(world):
    """A client that pipelines without an end and reads late gets every reply; one that never reads costs little."""
    sink = world.sink()
    engine = world.engine(policy(sink.ports[0]))
    s = connect(engine.port)
    n = 200000
    thread = threading.Thread(target=lambda: s.sendall(b"NOOP\r\n" * n))
    thread.start()
    let_pass(1, "the client reads late")
    got = 0
    s.settimeout(10)
    while got < n:
        part = s.recv(1 << 20)
        check(part, f"closed after {got} replies")
        got += part.count(b"\n")
    thread.join()
    s.close()
    before = rss_kib(engine)
    held = []
    for _ in range(40):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        s.connect(("127.0.0.1", engine.port))
        s.settimeout(0.1)
        try:
            for _ in range(40):
                s.sendall(b"EHLO t\r\n" * 8192)
        except OSError:
            pass
        held.append(s)
    grown = rss_kib(engine) - before
    print(f"NOTE a client that reads no replies: {grown / 40:.0f} KiB")
    check(grown < 40 * 1500, f"{grown} KiB")
    arrives(world, engine)
    for s in held:
        s.close()
    return engine


# --- HTTP and the control socket ---

def http(port, request, seconds=3):
    with socket.create_connection(("127.0.0.1", port), 5) as s:
        s.settimeout(seconds)
        got = b""
        try:
            s.sendall(request)
            while b"\r\n\r\n" not in got or len(got.split(b"\r\n\r\n", 1)[1]) < int(re.search(rb"Content-Length: (\d+)", got).group(1)):
                part = s.recv(65536)
                if not part:
                    break
                got += part
        except (OSError, AttributeError):
            pass
        return got


@case("A05")
def http_requests(world):
    """Framing, foreign hosts, paths, secrets: /healthz and /metrics only (A05 A08 A10 A14)."""
    sink = world.sink()
    port = free_ports(1)[0]
    os.makedirs(world.path("secrets"), mode=0o700)
    world.write("secrets/relay", PASSWORD + "\n", mode=0o600)
    engine = world.engine(policy(sink.ports[0], http=f'"127.0.0.1:{port}"') + f"""
relay "other" {{ host = "127.0.0.1", port = {sink.ports[0]}, tls = "none", auth = "plain", user = "alice", password = secret "relay" }}
route "other" {{ priority = 1, to = "other.test", via = "other" }}
""")
    send(engine.port, "u@other.test")
    ok = b"Host: 127.0.0.1\r\n\r\n"
    check(b"200 OK" in http(port, b"GET /healthz HTTP/1.1\r\n" + ok), "healthz")
    metrics = http(port, b"GET /metrics HTTP/1.1\r\n" + ok)
    check(b"200 OK" in metrics, metrics[:200])
    for request, code in ((b"GET /metrics HTTP/1.1\r\nHost: evil.test:8025\r\n\r\n", b" 421 "), (b"GET /metrics HTTP/1.1\r\n\r\n", b" 421 "),
                          (b"GET /metrics HTTP/1.1\r\nHost: localhost.evil.test\r\n\r\n", b" 421 "), (b"GET /metrics HTTP/1.1\r\nX-Host: localhost\r\n\r\n", b" 421 "),
                          (b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1.evil.test\r\n\r\n", b" 421 "), (b"GET / HTTP/1.1\r\n\r\n\r\nHost:x", b" 421 "),
                          (b"GET / HTTP/1.1\r\n\r\nHost: localhost\r\n\r\n", b" 421 "),
                          (b"GET /..%2f..%2fetc/passwd HTTP/1.1\r\n" + ok, b" 404 "), (b"GET /../../etc/passwd HTTP/1.1\r\n" + ok, b" 404 "),
                          (b"GET /%00 HTTP/1.1\r\n" + ok, b" 404 "), (b"GET /metrics\0 HTTP/1.1\r\n" + ok, b" 404 "), (b"POST /metrics HTTP/1.1\r\n" + ok, b" 404 "),
                          (b"GET http://evil.test/metrics HTTP/1.1\r\n" + ok, b" 404 "), (b"GET /v1/queue HTTP/1.1\r\n" + ok, b" 404 "),
                          (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\nTransfer-Encoding: chunked, x\r\n" + ok + b"FFFFFFFFFFFFFFFF\r\n", b" 404 ")):
        got = http(port, request)
        check(code in got, f"{request!r}: {got[:200]!r}")
    for request in (b"A" * 100000, b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 100000 + b"\r\n", b"\0" * 20000, b"\r\n" * 3):
        got = http(port, request, 2)
        check(b" 200 " not in got, got[:100])
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    for s in slow:
        try:
            s.sendall(b"G")
        except OSError:
            pass
    arrives(world, engine)
    for s in slow:
        s.close()
    wait_for(lambda: b"200 OK" in http(port, b"GET /healthz HTTP/1.1\r\n" + ok), 15, 0.1, "healthz answers again")
    for text in (metrics, json.dumps(engine.status()), world.run("relay", "list", "--json", "--spool", engine.spool)[1], engine.text()):
        check(PASSWORD not in (text if isinstance(text, str) else text.decode()), "the password is shown")
    return engine


@case("control")
def control_socket(world):
    """Only the owner may open it; what is no request is refused, what has no end is cut."""
    sink = world.sink()
    engine = world.engine(policy(sink.ports[0]))
    path = os.path.join(engine.spool, "control.sock")
    mode = stat.S_IMODE(os.stat(path).st_mode) | stat.S_IMODE(os.stat(engine.spool).st_mode)
    check(mode & 0o077 == 0, f"mode {mode:o}")

    def ask(request, seconds=5):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(seconds)
            s.connect(path)
            try:
                s.sendall(request)
                return s.recv(65536)
            except OSError:
                return b""

    for request in (b"hello\n", b"{}\n", b"[]\n", b"null\n", b'{"cmd":1}\n', b'{"cmd":"nothing"}\n', b"\n", b"[" * 30000 + b"\n", b'{"cmd":"status","cmd":"status"}\n',
                    b'{"cmd":"queue","where":"while true do end"}\n', b'{"cmd":"queue list","to":5,"relay":{},"older":-1e400}\n', b'{"cmd":"\xff\xfe"}\n', b'{"cmd":"relay pause"}\n'):
        got = ask(request)
        check(got.endswith(b"\n") and json.loads(got)["ok"] is False or b"1e400" in request or b"where" in request, f"{request[:60]!r}: {got[:200]!r}")
    check(ask(b"x" * 100000) == b"", "an endless request is answered")
    held = [socket.socket(socket.AF_UNIX) for _ in range(100)]
    for s in held:
        s.connect(path)
    arrives(world, engine)
    for s in held:
        s.close()
    wait_for(lambda: b'"ok":true' in ask(b'{"cmd":"status"}\n').replace(b" ", b""), 10, 0.1, "the control socket answers again")
    return engine


# --- the spool ---

def stopped_engine_with_mail(world, n=3):
    """A spool with n deferred messages; the engine has stopped."""
    port = free_ports(1)[0]
    engine = world.engine(policy(port, engine=', expire = "2d"'))
    send(engine.port, n=n)
    wait_for(lambda: len(engine.events("deferred")) >= n, 20, 0.05, "deferred")
    check(engine.stop() == 0, "stop")
    return engine, port


def restart(world, engine, ok=True):
    engine.spawn()
    if ok:
        wait_for(lambda: engine.is_alive() and answers(engine.port), 30, 0.05, "restart")
        return
    try:
        engine.p.wait(20)
    except subprocess.TimeoutExpired:
        raise AssertionError("it starts although it should not, or hangs") from None
    check(engine.p.returncode not in (0, None) and engine.p.returncode > 0, f"exit {engine.p.returncode}: {engine.text()[-800:]}")


def n_queued(engine):
    return sum(engine.status()["queue"].values())


@case("D13")
def odd_files(world):
    """Odd files among the journal's and the big bodies: nothing hangs, nothing is lost, nothing outside is touched."""
    engine, _ = stopped_engine_with_mail(world)
    journal = os.path.join(engine.spool, "journal")
    segments = sorted(os.listdir(journal))
    outside = world.write("outside", "do not touch\n")
    for where in ("journal", "big", "damaged"):
        d = os.path.join(engine.spool, where)
        os.mkfifo(os.path.join(d, "fifo"))
        os.mkfifo(os.path.join(d, "999999990"))
        os.symlink(outside, os.path.join(d, "symlink"))
        os.symlink(outside, os.path.join(d, "999999991"))
        os.symlink("/dev/zero", os.path.join(d, "999999992"))
        os.mkdir(os.path.join(d, "folder"))
        open(os.path.join(d, "name\nwith newline"), "w").close()
        open(os.path.join(d, "empty"), "w").close()
        os.link(outside, os.path.join(d, "hardlink"))
        with open(os.path.join(d, "sparse"), "w") as f:
            f.truncate(1 << 32)
    # the same under names that the journal itself gives
    shape = re.sub(r"\d", "9", segments[0])
    for i, kind in enumerate(("empty", "fifo", "symlink", "folder", "zeros", "copy")):
        name = os.path.join(journal, shape[:-1 - len(os.path.splitext(shape)[1])] + str(i) + os.path.splitext(shape)[1])
        if os.path.lexists(name):
            continue
        if kind == "fifo":
            os.mkfifo(name)
        elif kind == "symlink":
            os.symlink(outside, name)
        elif kind == "folder":
            os.mkdir(name)
        elif kind == "copy":
            shutil.copy(os.path.join(journal, segments[0]), name)
        else:
            with open(name, "wb") as f:
                f.write(b"\0" * (4096 if kind == "zeros" else 0))
    restart(world, engine)
    check(n_queued(engine) == 3, f"{n_queued(engine)} of 3 are there")
    check(engine.stop() == 0, "stop")
    with open(outside) as f:
        check(f.read() == "do not touch\n", "a file outside was written")
    return engine


def crc32c(data):
    crc = 0xffffffff
    for octet in data:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


HEAD, HEAD_COPY = 60, 2048  # octets of a segment's header with its checksum; where it stands once more
SEGMENT_FREE = 1


def live_segments(journal):
    """[(name, header)] of the segments that are in use."""
    found = []
    for name in sorted(os.listdir(journal)):
        with open(os.path.join(journal, name), "rb") as f:
            head = f.read(HEAD)
        if name.startswith("seg-") and head[40] != SEGMENT_FREE:
            found.append((name, head))
    return found


def patch(path, at, octets):
    """Writes octets there; what was there before."""
    with open(path, "r+b") as f:
        f.seek(at)
        was = f.read(len(octets))
        f.seek(at)
        f.write(octets)
    return was


@case("D13")
def future_version(world):
    """A journal of a later format: refused, with nothing changed. A broken header: its copy is read. Both broken: set aside whole
    and told, so that it can be put back."""
    engine, _ = stopped_engine_with_mail(world)
    journal, damaged = os.path.join(engine.spool, "journal"), os.path.join(engine.spool, "damaged")
    check(live_segments(journal), "no segment holds the mail")
    live, head = live_segments(journal)[0]
    check(crc32c(head[:56]) == int.from_bytes(head[56:60], "little"), "the header is not as this test knows it")
    later = head[:8] + b"\x03" + head[9:56]
    path = os.path.join(journal, live)
    was = patch(path, 0, later + crc32c(later).to_bytes(4, "little"))
    restart(world, engine, ok=False)
    check("has format 3, this engine reads 1 and 2: start the version" in engine.text(), engine.text()[-500:])
    patch(path, 0, was)
    restart(world, engine)
    check(n_queued(engine) == 3 and engine.stop() == 0, "the mail is there")
    for at in (0, 16, 56):
        live, head = live_segments(journal)[-1]
        path = os.path.join(journal, live)
        patch(path, at, bytes([head[at] ^ 0xff]))
        restart(world, engine)
        check(n_queued(engine) == 3 and not os.listdir(damaged) and engine.stop() == 0, f"octet {at}: the copy is not read")
        now = dict(live_segments(journal)).get(live)
        if now is not None and now[at] == head[at] ^ 0xff:  # else the engine wrote it anew
            patch(path, at, head[at:at + 1])
        live, head = live_segments(journal)[-1]
        path = os.path.join(journal, live)
        for start in (0, HEAD_COPY):
            patch(path, start + at, bytes([head[at] ^ 0xff]))
        restart(world, engine)
        check(live in os.listdir(damaged) and f"damaged/{live}" in engine.text(), f"octet {at}: not set aside and told: {os.listdir(damaged)}")
        check(n_queued(engine) in (0, 3) and engine.stop() == 0, "stop")
        for start in (0, HEAD_COPY):
            patch(os.path.join(damaged, live), start + at, head[at:at + 1])
        os.rename(os.path.join(damaged, live), os.path.join(journal, live))
        restart(world, engine)
        check(n_queued(engine) == 3, f"octet {at}: {n_queued(engine)} of 3 after it was put back")
        check(engine.stop() == 0, "stop")
    return None


@case("D13")
def unsafe_permissions(world):
    """A spool that others may write to, or that belongs to somebody else, is refused."""
    engine, _ = stopped_engine_with_mail(world)
    for path, mode in ((engine.spool, 0o777), (engine.spool, 0o720), (os.path.join(engine.spool, "journal"), 0o777), (os.path.join(engine.spool, "big"), 0o703)):
        was = stat.S_IMODE(os.stat(path).st_mode)
        os.chmod(path, mode)
        restart(world, engine, ok=False)
        check("chmod" in engine.text() or "written by others" in engine.text(), engine.text()[-500:])
        os.chmod(path, was)
    if os.geteuid() == 0:
        os.chown(engine.spool, 12345, -1)
        restart(world, engine, ok=False)
        check("belongs to" in engine.text(), engine.text()[-500:])
        os.chown(engine.spool, 0, -1)
    lock = os.path.join(engine.spool, "lock")
    os.unlink(lock)
    os.symlink("/etc/passwd", lock)
    restart(world, engine, ok=False)
    os.unlink(lock)
    path = os.path.join(engine.spool, "events.jsonl")  # a neighbour's file behind a link is not written to
    shutil.move(path, path + ".kept")
    os.symlink(world.path("made-through-a-link"), path)
    restart(world, engine, ok=False)
    check(not os.path.exists(world.path("made-through-a-link")), "the link was followed")
    os.unlink(path)
    shutil.move(path + ".kept", path)
    restart(world, engine)
    check(n_queued(engine) == 3, "the mail is there")
    return engine


@case("D14")
def hostile_octets_come_back(world):
    """Envelope, header, reply and login with every octet that is allowed: the same after a restart, nothing bleeds into its neighbour."""
    sink = world.sink(rules=['y.test rcpt 451 4.3.0 "}},{{"ev":"delivered" %s%n \\n\\r'])
    engine = world.engine(policy(sink.ports[0], engine=', expire = "2d"'))
    raw = ["a..b", '"q\\"uo\\\\te, <x>"', "%s%n%x", "a'; drop--", "`id`$(id)", "{rcpt}{id}", "=cmd|calc", "+1", "very." * 12 + "long"]
    with smtplib.SMTP("127.0.0.1", engine.port, "client.example", timeout=20) as s:
        s.ehlo("[1.2.3.4]")
        s.docmd('MAIL FROM:<"a\\ b,c"@x.test> ENVID=x+2By+20z RET=HDRS')
        taken = []
        for local in raw:
            code, text = s.docmd(f"RCPT TO:<{local}@y.test> ORCPT=rfc822;b+2B+3D@y.test NOTIFY=FAILURE")
            if code == 250:
                taken.append(local)
            else:
                check(code in (501, 553), (local, code, text))
        check(len(taken) >= 6, taken)
        s.docmd("DATA")
        s.send(b"From: \"x\\\"\" <a@x.test>\r\nSubject: =?utf-8?q?a=00=0D=0AInjected:_1?=\r\nX-Odd: \x80\xff\x1b[2J\t\x01\r\nTo: b@y.test\r\n\r\nbody \x80\xff\x01\r\n.\r\n")
        code, text = s.getreply()
        check(code == 250, text)
    wait_for(lambda: len({e["rcpt"] for e in engine.events("deferred")}) == len(taken), 20, 0.05, "deferred")

    def shown():
        rows = engine.queue()
        rows = rows["rows"]
        return sorted(json.dumps({k: v for k, v in r.items() if k in ("rcpt", "to", "recipient", "from", "sender", "id", "route")}, sort_keys=True) for r in rows)

    before = shown()
    check(len(before) == len(taken), before)
    engine.kill()
    restart(world, engine)
    check(shown() == before, f"{before}\n{shown()}")
    for line in read_lines(os.path.join(engine.spool, "events.jsonl")):
        check(line["ev"] != "delivered", line)
    show = world.run("queue", "list", "--spool", engine.spool)[1]
    check("\x1b" not in show and "\x01" not in show, repr(show))
    engine.stop()
    sink.stop()
    open_sink = world.sink("second")
    with open(engine.policy) as f:
        text = f.read().replace(f"port = {sink.ports[0]}", f"port = {open_sink.ports[0]}")
    with open(engine.policy, "w") as f:
        f.write(text)
    restart(world, engine)
    wait_for(lambda: sum(len(r.get("recipients", r.get("to", [None]))) if isinstance(r.get("recipients", r.get("to")), list) else 1 for r in world.received("second")) >= 1 and
             engine.is_empty(), 20, 0.1, "delivered after the restart")
    bodies = [open(p, "rb").read() for p in glob.glob(world.path("second", "*.eml"))]
    check(bodies and all(b"X-Odd: \x80\xff\x1b[2J\t\x01\r\n" in b and b"\r\n\r\nbody \x80\xff\x01\r\n" in b for b in bodies), bodies)
    return engine


# --- clocks ---

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"


@case("D16")
def clock_jumps(world):
    """The wall clock goes ten years on, a day back, and in steps: what waits goes on, ids stay unique. `expire` is a date: what
    is older when the engine looks is over, as it says; everything else arrives."""
    if not os.path.exists(FAKETIME):
        raise Skip("libfaketime is not installed")
    sink = world.sink("busy", rules=["* rcpt 451 4.3.0 later"])
    stamp = world.write("faketime", "+0\n")
    asan = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip() if is_sanitized(world.binary) else ""
    env = {"LD_PRELOAD": f"{asan} {FAKETIME}".strip(), "FAKETIME_TIMESTAMP_FILE": stamp, "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
           "ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0"}
    engine = world.engine(policy(sink.ports[0], engine=', expire = "2d", parked = "2d"').replace('retry = { "1s" }', 'retry = { "2s" }'), env=env)

    def jump(text):
        with open(stamp, "w") as f:
            f.write(text + "\n")

    send(engine.port, "first@y.test")
    wait_for(lambda: engine.events("deferred"), 20, 0.05, "deferred")
    for text in ("+3650d", "-1d", "-30", "-60", "+0", "+30"):
        n = len(engine.events("deferred"))
        jump(text)
        send(engine.port, f"at{text}@y.test")
        wait_for(lambda: len(engine.events("deferred")) > n, 20, 0.05, f"attempts go on after {text}")
    wait_for(lambda: len(engine.events("accepted")) == 7, 20, 0.05, "the event log has all seven")
    ids = [e["id"] for e in engine.events("accepted")]
    check(len(set(ids)) == 7, ids)
    jump("@2038-01-19 03:14:05")
    send(engine.port, "y2038@y.test")
    wait_for(lambda: any(e["rcpt"] == "y2038@y.test" for e in engine.events("deferred")), 20, 0.05, "2038")
    jump("+0")
    sink.stop()
    world.start("sink", [world.binary, "sink", "--quiet", "--listen", f"127.0.0.1:{sink.ports[0]}", "--store", world.path("sink")])
    # what was tried while the clock was wrong waits by that clock; the operator's word is enough
    world.run("queue", "retry", "--state", "deferred", "--spool", engine.spool)
    wait_for(lambda: len(world.received()) + len(engine.events("expired")) >= 8, 40, 0.1, "all are delivered when the clock is right again")
    over = engine.events("expired")
    print(f"NOTE {len(over)} of 8 were over when the clock was ahead")
    check(len(world.received()) + len(over) == 8 and not engine.events("failed"), f"{len(world.received())} delivered, over: {over}")
    check(all(e["attempts"] > 0 and e["time"][:4] in ("2036", "2038") for e in over), f"over before its date: {over}")
    return engine


# --- two engines, logs, signals ---

@case("D17")
def two_engines_one_spool(world):
    sink = world.sink()
    engine = world.engine(policy(sink.ports[0]))
    other = world.engine(policy(sink.ports[0]), name="other", wait=False)
    try:
        other.p.wait(20)
    except subprocess.TimeoutExpired:
        raise AssertionError("a second engine runs on the same spool") from None
    check(other.p.returncode > 0 and f"process {engine.p.pid}" in other.text(), other.text()[-500:])
    arrives(world, engine)
    for _ in range(3):
        engine.kill()
        restart(world, engine)
    arrives(world, engine)
    return engine


@case("D19")
def nobody_reads_the_log(world):
    """stderr is a pipe that nobody reads, closed, or a full disk: mail flows, what is dropped is counted."""
    sink = world.sink()
    port = free_ports(1)[0]
    path = world.write("pipe.lua", policy(sink.ports[0]).replace("{port}", str(port)))
    for kind in ("stopped", "closed", "full", "none"):
        r, w = os.pipe()
        err = w
        if kind == "full":
            err = os.open("/dev/full", os.O_WRONLY)
        argv = [world.binary, "run", path, "--spool", world.path("pipe-spool"), "--log", "debug"]
        if kind == "none":
            argv = ["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-'] + argv
        p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=err, stderr=err)
        os.close(w)
        if kind == "full":
            os.close(err)
        if kind == "closed":
            os.close(r)
        try:
            wait_for(lambda: answers(port), 20, 0.05, f"{kind}: starts")
            before = len(world.received())
            took = time.monotonic()
            for _ in range(8):
                send(port, n=100)
            wait_for(lambda: len(world.received()) >= before + 800, 30, 0.05, f"{kind}: mail flows")
            took = time.monotonic() - took
            p.send_signal(signal.SIGHUP)
            send(port)
            wait_for(lambda: len(world.received()) >= before + 801, 30, 0.05, f"{kind}: mail flows after SIGHUP")
            p.send_signal(signal.SIGTERM)
            check(p.wait(20) == 0, f"{kind}: exit {p.returncode}")
            print(f"NOTE log {kind}: 800 messages in {took:.2f} s")
        finally:
            if p.poll() is None:
                p.kill()
                p.wait()
            if kind != "closed":
                os.close(r)
    return None


@case("D19")
def the_event_log_goes_away(world):
    """The event log is moved away (logrotate) and made anew at SIGHUP; a folder in its place harms nobody."""
    sink = world.sink()
    engine = world.engine(policy(sink.ports[0]))
    arrives(world, engine)
    wait_for(lambda: engine.events("delivered"), 20, 0.05, "the event log has caught up with the mail")
    path = os.path.join(engine.spool, "events.jsonl")
    os.rename(path, path + ".1")
    engine.p.send_signal(signal.SIGHUP)
    wait_for(lambda: os.path.exists(path), 10, 0.05, "a new event log")
    arrives(world, engine)
    wait_for(lambda: len(engine.events("delivered")) == 1, 10, 0.05, "events go to the new one")
    os.rename(path, path + ".2")
    os.mkdir(path)
    engine.p.send_signal(signal.SIGHUP)
    wait_for(lambda: "ev=event_log what=reopen" in engine.text(), 10, 0.05, "the log says that the event log cannot be opened")
    arrives(world, engine, 5)
    os.rmdir(path)
    engine.p.send_signal(signal.SIGHUP)
    arrives(world, engine)
    return engine


@case("D20")
def stopped_in_the_middle(world):
    """SIGTERM with 100 sessions in DATA and deliveries behind the final dot: idle ones hear 421, replies are waited for, nothing is lost or doubled."""
    sink = world.sink(extra=["--latency", "2000"])
    engine = world.engine(policy(sink.ports[0], "connections_per_client = 500", relay="messages_per_connection = 1").replace("connections = 4", "connections = 40"))
    idle = [connect(engine.port) for _ in range(10)]
    busy = []
    for i in range(100):
        s = connect(engine.port)
        s.sendall(f"EHLO t\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<d{i}@y.test>\r\nDATA\r\n".encode())
        busy.append(s)
    for s in busy:
        wait_for_reply(s, b"354")
        s.sendall(b"From: a@x.test\r\n\r\nhalf")
    wait_for(lambda: all(is_read(s) for s in busy), 20, 0.02, "half of each message is in")
    for i in range(60):
        send(engine.port, f"u{i}@y.test")
    print(f"NOTE {engine.status()['queue']['sending']} deliveries are under way at the stop")
    engine.p.send_signal(signal.SIGTERM)
    at = time.monotonic()
    for s in idle:
        s.settimeout(10)
        got = s.recv(1000)
        check(got[:3] == b"421", got)
    wait_for(lambda: not connect_or_none(engine.port), 5, 0.05, "no new connections")
    acked = 0
    for s in busy[:50]:  # half of them end their message
        s.sendall(b"\r\n.\r\n")
    for s in busy[:50]:
        got = s.recv(1000)
        check(got[:3] in (b"250", b"421", b"451", b""), got)
        acked += got[:3] == b"250"
    for s in busy[50:]:
        s.close()
    engine.p.wait(60)
    took = time.monotonic() - at
    check(engine.p.returncode == 0, engine.p.returncode)
    sent = [e for e in engine.events("delivered")]
    print(f"NOTE stopped after {took:.1f} s; {len(sent)} of {60 + acked} delivered, {acked} of 50 taken after SIGTERM")
    check(took < 40, f"{took} s")
    restart(world, engine)
    wait_for(lambda: engine.is_empty(), 60, 0.2, "the rest is delivered")
    rows = world.received()
    check(len(rows) == 60 + acked, f"{len(rows)} arrived of {60 + acked}")
    for s in idle + busy:
        s.close()
    return engine


def login(port, user, password, wait=True):
    """A session with a login under way, or its reply."""
    s = connect(port)
    s.settimeout(20)
    s.sendall(b"EHLO t\r\n")
    s.recv(1000)
    s.sendall(b"AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode()) + b"\r\n")
    return s.recv(1000) if wait else s


HANGS = 'secret("hang%d", { command = { "sleep", "600" } })'


@case("A21")
def logins_whose_secret_hangs(world):
    """Strangers try logins whose secret is a command that hangs: other logins, operators and the stop do not wait for it."""
    sink = world.sink()
    world.write("secrets/good", PASSWORD + "\n", mode=0o600)
    port = free_ports(1)[0]
    engine = world.engine(f"""
engine {{ hostname = "mx.test", http = false, workers = 1, listen = {{ "127.0.0.1:{{port}}", {{ addr = "127.0.0.1:{port}", users = {{
    bad = {{ password = {HANGS % 8} }}, worse = {{ password = {HANGS % 9} }}, good = {{ password = secret "good" }} }} }} }} }}
relay "good" {{ host = "127.0.0.1", port = {sink.ports[0]}, tls = "none" }}
route "good" {{ to = "*", via = "good" }}
""")
    strangers = [login(port, ("bad", "worse", "nobody")[i % 3], "guess", wait=False) for i in range(12)]
    at = time.monotonic()
    check(login(port, "good", PASSWORD)[:3] == b"235", "the other login")
    arrives(world, engine, seconds=8)
    check(world.run("status", "--spool", engine.spool)[0] == 0, "status")
    check(world.run("reload", "--spool", engine.spool)[0] == 0, "reload")
    check(login(port, "good", PASSWORD)[:3] == b"235", "the other login after the reload")
    engine.p.send_signal(signal.SIGTERM)
    engine.p.wait(30)
    check(time.monotonic() - at < 8, f"{time.monotonic() - at:.1f} s")
    for s in strangers:
        s.close()
    return engine


@case("A21")
def relays_whose_secret_hangs(world):
    """Three relays whose secret is a command that hangs: the mail of the fourth goes out at once."""
    sink = world.sink(extra=["--auth"])
    world.write("secrets/good", PASSWORD + "\n", mode=0o600)
    relays = "".join(f'relay "hangs{i}" {{ host = "127.0.0.1", port = {sink.ports[0]}, tls = "none", auth = "plain", user = "u{i}", password = {HANGS % i} }}\n'
                     f'route "hangs{i}" {{ to = "h{i}.test", via = "hangs{i}" }}\n' for i in range(3))
    engine = world.engine(policy(sink.ports[0], relay='auth = "plain", user = "u", password = secret "good"').replace('route "all"', relays + 'route "all"'))
    at = time.monotonic()
    for i in range(3):
        send(engine.port, f"a@h{i}.test")
    arrives(world, engine, seconds=8)
    check(time.monotonic() - at < 8, f"{time.monotonic() - at:.1f} s")
    return engine


@case("A22")
def a_reload_takes_a_login_away(world):
    """A login, or a network, that a reload takes away sends nothing more in the sessions that are open; others go on."""
    sink = world.sink()
    ports = free_ports(2)
    text = f"""
engine {{ hostname = "mx.test", http = false, workers = 2, listen = {{ "127.0.0.1:{{port}}",
  {{ addr = "127.0.0.1:{ports[0]}", users = {{ old = {{ password = "{PASSWORD}" }}, kept = {{ password = "{PASSWORD}" }} }} }},
  {{ addr = "127.0.0.1:{ports[1]}", users = {{ kept = {{ password = "{PASSWORD}" }} }}, allow = {{ "127.0.0.0/8" }} }} }} }}
relay "sink" {{ host = "127.0.0.1", port = {sink.ports[0]}, tls = "none" }}
route "all" {{ to = "*", via = "sink" }}
"""
    engine = world.engine(text)
    sessions = {}
    for name, port, user in (("old", ports[0], "old"), ("old-busy", ports[0], "old"), ("kept", ports[0], "kept"), ("network", ports[1], None)):
        s = sessions[name] = smtplib.SMTP("127.0.0.1", port, "client.example", timeout=20)
        s.ehlo()
        if user:
            s.login(user, PASSWORD)
        s.mail("a@x.test")
        if name != "old-busy":
            s.rset()
    with open(engine.policy) as f:
        now = f.read()
    with open(engine.policy, "w") as f:
        f.write(now.replace(f'old = {{ password = "{PASSWORD}" }}, ', "").replace(', allow = { "127.0.0.0/8" }', ""))
    check(world.run("reload", "--spool", engine.spool)[0] == 0, "reload")
    for name in ("old", "old-busy", "network"):
        try:
            code = sessions[name].rcpt("b@y.test")[0] if name == "old-busy" else sessions[name].mail("a@x.test")[0]
        except smtplib.SMTPServerDisconnected:
            code = 421
        check(code == 421, f"{name}: {code}")
    sessions["kept"].sendmail("a@x.test", ["b@y.test"], "Subject: x\r\n\r\nx\r\n")
    wait_for(lambda: len(world.received()) == 1, 20, 0.05, "the mail of the login that stays")
    for s in sessions.values():
        s.close()
    return engine


# ---

def main(cases, description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    only_known(args.cases, {n for n, _ in cases} | {run.__name__ for _, run in cases})
    n_good = n_bad = 0
    for name, run in cases:
        if args.cases and name not in args.cases and run.__name__ not in args.cases:
            continue
        at = time.monotonic()
        try:
            with World(args.binary, keep=args.keep) as world:
                engine = run(world)
                if engine is not None and engine.p.poll() is None:
                    check(engine.stop() == 0, "the engine did not stop cleanly")
                for process in world.processes:
                    check("Sanitizer" not in process.text() and "runtime error" not in process.text(), process.text()[-6000:])
                    check(PASSWORD not in process.text(), "the password is in a log")
            verdict = "ok"
            n_good += 1
        except Skip as e:
            verdict = f"SKIP {e}"
        except (AssertionError, OSError, ValueError, KeyError, AttributeError, smtplib.SMTPException, subprocess.SubprocessError) as e:
            n_bad += 1
            verdict = f"FAILED: {type(e).__name__}: {e}"
        if verdict.startswith("SKIP"):
            print(f"SKIP {name} {run.__name__}: {verdict[5:]}")
        print(f"{name} {run.__name__:36} {time.monotonic() - at:6.2f} s  {verdict}", flush=True)
    print(f"{n_good} passed, {n_bad} failed")
    return 1 if n_bad else 0


if __name__ == "__main__":
    sys.exit(main(CASES, __doc__))
