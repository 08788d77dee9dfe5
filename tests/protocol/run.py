#!/usr/bin/env python3
"""Hostile and awkward SMTP clients against the real engine.

usage: run.py ENGINE [CASE...]       (ENGINE: path of the hikyaku binary; CASE: L01, L22, ... default all)

Starts ENGINE with a policy that sends everything to a small receiving server in this program, which keeps every octet
it is given. After each case an ordinary message must still go through. Exit 0: all good.
"""
import base64
import os
import re
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time

PASSWORD = "canary-7Jw2"
PLAIN = base64.b64encode(b"\0alice\0" + PASSWORD.encode()).decode()


# --- the receiving end ---

class Sink:
    """Takes mail; keeps (sender, recipients, raw content with its end) of every message."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.messages = []
        self.changed = threading.Condition()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.socket.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        stream = connection.makefile("rwb")
        sender, recipients = None, []

        def say(text):
            stream.write(text + b"\r\n")
            stream.flush()

        try:
            say(b"220 sink")
            while line := stream.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    say(b"250-sink\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 100000000")
                elif verb == b"MAIL":
                    sender, recipients = line, []
                    say(b"250 ok")
                elif verb == b"RCPT":
                    recipients.append(line)
                    say(b"250 ok")
                elif verb == b"DATA":
                    say(b"354 go")
                    raw = b""
                    while not raw.endswith(b"\r\n.\r\n") and raw != b".\r\n":
                        part = stream.readline()
                        if not part:
                            return
                        raw += part
                    with self.changed:
                        self.messages.append((sender, list(recipients), raw))
                        self.changed.notify_all()
                    say(b"250 taken")
                elif verb == b"QUIT":
                    say(b"221 bye")
                    return
                else:
                    say(b"250 ok")
        except (OSError, ValueError):
            pass
        finally:
            connection.close()

    def wait(self, marker, seconds=10.0):
        """The raw content of the message that holds `marker`."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while True:
                for _, _, raw in self.messages:
                    if marker in raw:
                        return raw
                left = deadline - time.monotonic()
                if left <= 0 or not self.changed.wait(left):
                    raise AssertionError(f"no message with {marker!r} came out within {seconds} s")

    def has(self, marker):
        with self.changed:
            return any(marker in raw or marker in sender for sender, _, raw in self.messages)


# --- the engine ---

POLICY = """
engine {{ hostname = "mx.test", spool = "spool", http = false, owner = "owner@x.test", log = "info",
  listen = {{ "127.0.0.1:{plain}",
    {{ addr = "127.0.0.1:{starttls}", tls = "starttls", cert = "cert.pem", key = "key.pem",
      users = {{ alice = {{ password = "{password}", sender = {{ "x.test" }} }}, bob = {{ password = "other-9" }} }} }},
    {{ addr = "127.0.0.1:{implicit}", tls = "implicit", cert = "cert.pem", key = "key.pem",
      users = {{ alice = {{ password = "{password}" }} }} }},
    {{ addr = "{outside}:{public}", tls = "starttls", cert = "cert.pem", key = "key.pem", users = {{ alice = {{ password = "{password}" }} }} }} }} }}
relay "sink" {{ host = "127.0.0.1", port = {sink}, tls = "none", sends_as = "*" }}
route "all" {{ to = "*", via = "sink" }}
"""


def outside_address():
    """An address of this machine that is not loopback; a second loopback address where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.1", 9))
            return s.getsockname()[0]
        except OSError:
            return "127.0.0.2"


def free_ports(n):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Engine:
    def __init__(self, program):
        self.program = program
        self.dir = tempfile.mkdtemp(prefix="hky-protocol-")
        self.sink = Sink()
        self.plain, self.starttls, self.implicit, self.public = free_ports(4)
        self.outside = outside_address()
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                        "-nodes", "-days", "30", "-subj", "/CN=mx.test", "-keyout", f"{self.dir}/key.pem",
                        "-out", f"{self.dir}/cert.pem"], check=True, capture_output=True)
        os.chmod(f"{self.dir}/key.pem", 0o600)
        with open(f"{self.dir}/policy.lua", "w") as f:
            f.write(POLICY.format(plain=self.plain, starttls=self.starttls, implicit=self.implicit,
                                  sink=self.sink.port, password=PASSWORD, public=self.public, outside=self.outside))
        self.log = open(f"{self.dir}/log", "wb")
        self.process = subprocess.Popen([program, "run", f"{self.dir}/policy.lua"], stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.plain), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the engine did not start:\n" + self.read_log())
                time.sleep(0.05)

    def read_log(self):
        with open(f"{self.dir}/log", errors="replace") as f:
            return f.read()

    def rss_kib(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError("the engine did not stop within 30 s")
        log = self.read_log()
        for bad in ("AddressSanitizer", "runtime error:", "LeakSanitizer", "ThreadSanitizer"):
            assert bad not in log, f"{bad} in the log:\n{log[-4000:]}"
        assert code == 0, f"exit code {code}:\n{log[-2000:]}"
        for canary in (PASSWORD, PLAIN, base64.b64encode(PASSWORD.encode()).decode()):
            assert canary not in log, "a password is in the log"
        shutil.rmtree(self.dir, ignore_errors=True)


class Client:
    """One connection; `codes` of what comes back."""

    def __init__(self, port, secure=False, greet=True, address="127.0.0.1"):
        self.socket = socket.create_connection((address, port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        if secure:
            self.start_tls()
        if greet:
            self.expect(220)

    def start_tls(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.socket = context.wrap_socket(self.socket, server_hostname="mx.test")

    def send(self, data):
        data = data.encode() if isinstance(data, str) else data
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def reply(self, seconds=10):
        """(code, text) of the next reply; (0, "") when the connection ended."""
        lines = []
        self.socket.settimeout(seconds)
        while True:
            while b"\n" not in self.buffer:
                try:
                    part = self.socket.recv(65536)
                except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
                    part = b""
                if not part:
                    return 0, ""
                self.buffer += part
            line, self.buffer = self.buffer.split(b"\n", 1)
            lines.append(line.rstrip(b"\r").decode(errors="replace"))
            if lines[-1][3:4] != "-":
                return int(lines[-1][:3]), "\n".join(lines)

    def expect(self, *codes):
        got = self.reply()
        assert got[0] in codes, f"expected {codes}, got {got}"
        return got[1]

    def do(self, line, *codes):
        self.send(line if isinstance(line, bytes) else line + "\r\n")
        return self.expect(*codes)

    def all_codes(self, seconds=3):
        """Codes until the connection ends or nothing comes."""
        codes = []
        try:
            while True:
                code, _ = self.reply(seconds)
                codes.append(code)
                if code == 0:
                    return codes
        except (TimeoutError, socket.timeout):
            return codes

    def close(self):
        self.socket.close()

    def hello(self):
        return self.do("EHLO t", 250)

    def envelope(self, sender="a@x.test", recipient="b@y.test"):
        self.do(f"MAIL FROM:<{sender}>", 250)
        self.do(f"RCPT TO:<{recipient}>", 250)

    def pre(self):
        self.hello()
        self.envelope()
        self.do("DATA", 354)


# --- cases ---

CASES = []


def case(name):
    def register(function):
        CASES.append((name, function))
        return function
    return register


class World:
    def __init__(self, engine):
        self.engine, self.sink, self.n = engine, engine.sink, 0

    def client(self, **options):
        return Client(self.engine.plain, **options)

    def header(self):
        self.n += 1
        self.marker = f"X-Test-ID: case-{self.n}-{os.getpid()}\r\n".encode()
        return b"From: a@x.test\r\nTo: b@y.test\r\nSubject: t\r\n" + self.marker + b"\r\n"

    def delivered(self, seconds=10.0):
        """The content as it came out, checked for clean line ends, unstuffed, without its header."""
        raw = self.sink.wait(self.marker.strip(), seconds)
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n", raw), "bare CR or LF came out"
        assert raw.count(b"\r\n.\r\n") == 1, "an end of data inside"
        body = raw[:-3].split(b"\r\n\r\n", 1)[1]
        return re.sub(rb"^\.", b"", body, flags=re.M)

    def outside(self):
        """A client that comes from elsewhere; None where this machine has no other address."""
        if self.engine.outside.startswith("127."):
            print("SKIP this machine has only loopback addresses")
            return None
        return Client(self.engine.public, address=self.engine.outside)

    def n_sessions_files(self):
        return os.listdir(f"{self.engine.dir}/spool/big")

    def alive(self):
        c = self.client()
        c.pre()
        c.send(self.header() + b"alive\r\n.\r\n")
        c.expect(250)
        c.do("QUIT", 221)
        c.close()
        assert self.delivered(5.0) == b"alive\r\n"


SMUG = (b"MAIL FROM:<admin@x.test>\r\nRCPT TO:<v@y.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil\r\n.\r\n")
SMUG_TEXT = SMUG[:-3]


def smuggle(w, middle, body):
    c = w.client()
    c.pre()
    c.send(w.header() + b"one" + middle + SMUG)
    codes = c.all_codes(1)
    c.close()
    if body is None:
        assert codes == [550], codes
    else:
        assert codes == [250], codes
        assert w.delivered() == body
    with w.sink.changed:
        assert not any(b"admin@" in sender for sender, _, _ in w.sink.messages), "a second envelope"


@case("L01")
def lf_dot_lf(w):
    smuggle(w, b"\n.\n", b"one\r\n.\r\n" + SMUG_TEXT)


@case("L02")
def lf_dot_crlf(w):
    smuggle(w, b"\n.\r\n", b"one\r\n.\r\n" + SMUG_TEXT)


@case("L04")
def bare_cr(w):
    for middle in (b"\r.\r", b"\r.\n", b"\n.\r", b"\r.\r\n", b"\r\n.\r"):
        smuggle(w, middle, None)


@case("L05")
def nul_around_dot(w):
    for middle in (b"\r\n\0.\r\n", b"\r\n.\0\r\n"):
        smuggle(w, middle, None)


@case("L07")
def chunks_come_out_clean(w):
    c = w.client()
    c.hello()
    for text in (b"one\n.\n" + SMUG, b"one\n.\r\n" + SMUG, b"one\r\n.\r\n" + SMUG):
        c.envelope()
        content = w.header() + text
        c.send(b"BDAT %d LAST\r\n" % len(content) + content)
        c.expect(250)
        assert w.delivered() == re.sub(rb"\r?\n", b"\r\n", text)
    c.close()


@case("L08")
def split_everywhere(w):
    text = b"a\r\n.b\r\n..c\r\n\r\n.\r\n"
    for at in range(len(text) + 1):
        c = w.client()
        c.pre()
        head = w.header()
        pieces = [bytes([b]) for b in head + text] if at == 0 else [head + text[:at], text[at:]]
        for piece in pieces:
            c.send(piece)
        c.expect(250)
        c.close()
        assert w.delivered() == b"a\r\nb\r\n.c\r\n\r\n"


@case("L10")
def starttls_injection(w):
    c = Client(w.engine.starttls)
    c.hello()
    c.send(b"STARTTLS\r\nMAIL FROM:<inj@x.test>\r\n")
    codes = c.all_codes(1)
    assert codes in ([220, 0], [0]), codes
    c.close()
    assert not w.sink.has(b"inj@x.test")


@case("L11")
def starttls_in_the_wrong_state(w):
    c = Client(w.engine.starttls)
    c.hello()
    c.do("STARTTLS foo", 501)
    c.do("AUTH LOGIN", 334)
    c.do("STARTTLS", 501)
    c.do("STARTTLS", 220)
    c.start_tls()
    c.do("MAIL FROM:<a@x.test>", 503)
    c.hello()
    c.do("STARTTLS", 503)
    c.do(f"AUTH PLAIN {PLAIN}", 235)
    c.envelope()
    c.do("STARTTLS", 503)
    c.do("DATA", 354)
    c.send(w.header() + b"over TLS\r\n.\r\n")
    c.expect(250)
    c.close()
    assert w.delivered() == b"over TLS\r\n"


@case("L13")
def no_login_in_the_clear(w):
    c = w.outside()
    if c is None:
        return
    assert "AUTH" not in c.hello()
    c.do(f"AUTH PLAIN {PLAIN}", 538, 530)
    c.do("AUTH LOGIN", 538, 530)
    c.do("MAIL FROM:<a@x.test>", 530)
    c.do("STARTTLS", 220)
    c.start_tls()
    assert "AUTH" in c.hello()
    c.do(f"AUTH PLAIN {PLAIN}", 235)
    c.close()


@case("L14")
def malformed_logins(w):
    for line, codes in (("=", (501,)), ("AGE", (501,)), ("A" * 5, (501,)), ("A" * 6, (501,)), ("A" * 7, (501,)),
                        (base64.b64encode(b"a").decode(), (501,)), (base64.b64encode(b"\0\0").decode(), (501,)),
                        (base64.b64encode(b"\0a\r\n\0p").decode(), (501, 535)), ("A" * 65536, (500, 421))):
        c = Client(w.engine.starttls)
        c.hello()
        c.do(f"AUTH PLAIN {line}", *codes)
        c.close()
    c = Client(w.engine.starttls)
    c.hello()
    c.do("AUTH FOO", 504)
    c.do("AUTH LOGIN", 334)
    c.do("*", 501)
    c.close()


@case("L16")
def unknown_users_are_like_known_ones(w):
    took = {"alice": [], "nobody": []}
    texts = set()
    for _ in range(6):
        for name in took:
            token = base64.b64encode(f"\0{name}\0wrong".encode()).decode()
            c = Client(w.engine.implicit, secure=True)
            c.hello()
            start = time.perf_counter()
            texts.add(c.do(f"AUTH PLAIN {token}", 535))
            took[name].append(time.perf_counter() - start)
            c.close()
    assert len(texts) == 1, texts
    c = w.outside() or Client(w.engine.starttls)
    c.hello()
    c.do("VRFY alice@x.test", 252)
    c.do("VRFY nobody@x.test", 252)
    c.do("EXPN alice", 502)
    c.do("RCPT TO:<alice@x.test>", 503, 530)
    c.do("RCPT TO:<nobody@x.test>", 503, 530)
    c.close()
    known, unknown = (statistics.median(took[name]) for name in took)
    assert abs(known - unknown) < 0.05, (known, unknown)
    assert known > 0.9, known


@case("L17")
def endless_line(w):
    before = w.engine.rss_kib()
    c = w.client()
    part = b"A" * 1000000
    c.send(b"NOOP ")
    try:
        for _ in range(100):
            c.socket.sendall(part)
        raise AssertionError("100 MB of one line were read")
    except OSError:
        pass
    codes = c.all_codes(2)
    c.close()
    assert codes[0] in (500, 421, 0) and codes[-1] in (0, 421), codes
    c = w.client()
    c.send(b"NOOP " + b"A" * 3000 + b"\r\nNOOP\r\n")
    c.expect(500)
    c.expect(250)
    for _ in range(3000):
        c.send(b"A")
    c.close()
    assert w.engine.rss_kib() - before < 65536


@case("L19")
def broken_utf8(w):
    for line in (b"MAIL FROM:<\xc3\r\n", b"MAIL FROM:<\xe2\x82@x.test> SMTPUTF8\r\n",
                 b"MAIL FROM:<\xc0\xae@x.test> SMTPUTF8\r\n", b"RCPT TO:<\xed\xa0\x80@x.test>\r\n"):
        c = w.client()
        c.hello()
        if line.startswith(b"RCPT"):
            c.do("MAIL FROM:<a@x.test> SMTPUTF8", 250)
        start = time.monotonic()
        c.send(line)
        c.expect(501, 553)
        assert time.monotonic() - start < 1
        c.close()


@case("L20")
def one_line_of_20_mb(w):
    c = w.client()
    c.pre()
    before = w.engine.rss_kib()
    c.send(w.header())
    part = b"A" * 10000
    for _ in range(2000):
        c.send(part)
    c.send(b"\r\n.\r\n")
    c.expect(250)
    c.close()
    assert len(w.delivered(60.0)) >= 20000000
    assert w.engine.rss_kib() - before < 200000
    c = w.client()
    c.hello()
    c.do("MAIL FROM:<a@x.test> SIZE=99999999999", 552)
    c.close()
    c = w.client()
    c.pre()
    c.send(w.header())
    for _ in range(500):
        c.send(part * 10)
    c.send(b"\r\n.\r\n")
    c.expect(552)
    c.do("NOOP", 250)
    c.close()
    assert w.engine.rss_kib() - before < 200000


@case("L22")
def improper_pipelining(w):
    c = w.client()
    c.send(b"EHLO t\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<nope@>\r\nDATA\r\nMAIL FROM:<evil@x.test>\r\n"
           b"RCPT TO:<b@y.test>\r\n.\r\n")
    codes = c.all_codes(2)
    c.close()
    assert codes[:4] == [250, 250, 501, 554] and codes[-1] == 0 and 354 not in codes, codes
    assert not w.sink.has(b"evil@x.test")


@case("L23")
def other_protocols(w):
    for first in (b"POST / HTTP/1.1\r\nHost: 127.0.0.1:2525\r\nContent-Length: 60\r\n\r\nMAIL FROM:<a@x.test>\r\n",
                  b"GET / HTTP/1.1\r\n\r\n", b"CONNECT x:25 HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"):
        c = w.client()
        c.send(first)
        codes = c.all_codes(2)
        c.close()
        assert codes in ([421, 0], [0]), codes


@case("L25")
def many_recipients(w):
    c = w.client()
    c.hello()
    c.do("MAIL FROM:<a@x.test>", 250)
    c.send(b"".join(b"RCPT TO:<u%d@y.test>\r\n" % i for i in range(1200)))
    codes = [c.reply()[0] for _ in range(1200)]
    assert codes == [250] * 1000 + [452] * 200
    c.do("DATA", 354)
    c.send(w.header() + b"to many\r\n.\r\n")
    c.expect(250)
    c.do("MAIL FROM:<a@x.test>", 250)

    def flood():
        c.send(b"".join(b"RCPT TO:<u%d@y.test>\r\n" % i for i in range(100000)))
    thread = threading.Thread(target=flood)
    thread.start()
    codes = c.all_codes(3)
    c.close()
    thread.join()
    assert codes.count(250) <= 1000 and len(codes) < 2100, len(codes)


@case("L26")
def chunk_in_the_wrong_place(w):
    c = w.client()
    c.hello()
    c.send(b"BDAT 9 LAST\r\nMAIL FROM")
    c.expect(503)
    c.do("NOOP", 250)
    c.do("MAIL FROM:<a@x.test>", 250)
    c.do("RCPT TO:<no@>", 501)
    c.send(b"BDAT 86\r\n" + b"Z" * 86)
    c.expect(503, 554)
    c.send(b"BDAT 6 LAST\r\nZZZZ\r\n")
    c.expect(503, 554)
    c.do("NOOP", 250)
    c.close()


@case("L28")
def chunks_are_opaque(w):
    c = w.client()
    c.hello()
    c.envelope()
    head = w.header()
    c.send(b"BDAT %d\r\n" % (len(head) + 13) + head + b"a\r\n.\r\nMAIL \r\nBDAT 7 LAST\r\nQUIT\r\n\n")
    c.expect(250)
    c.expect(250)
    assert w.delivered() == b"a\r\n.\r\nMAIL \r\nQUIT\r\n\r\n"
    c.envelope()
    head = w.header()
    c.send(b"BDAT %d\r\n" % (len(head) + 3) + head + b"abcBDAT 2 LAST\r\nde")
    c.expect(250)
    c.expect(250)
    c.close()
    assert w.delivered() == b"abcde\r\n"


@case("L29")
def commands_between_chunks(w):
    for command, code in ((b"DATA\r\n", 503), (b"MAIL FROM:<c@x.test>\r\n", 503), (b"RSET\r\n", 250)):
        c = w.client()
        c.hello()
        c.envelope()
        c.send(b"BDAT 5\r\nhello" + command)
        c.expect(250)
        c.expect(code)
        c.close()
    c = w.client()
    c.hello()
    c.envelope()
    big = b"Subject: big\r\n\r\n" + b"x" * 1500000
    c.send(b"BDAT %d\r\n" % len(big) + big)
    c.expect(250)
    assert w.n_sessions_files(), "a big body has its file"
    c.do("RSET", 250)
    deadline = time.monotonic() + 5
    while w.n_sessions_files() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not w.n_sessions_files(), "the file of a dropped body stays"
    c.close()


@case("L31")
def nothing_left_after_a_refusal(w):
    c = w.client()
    c.pre()
    c.send(w.header() + b"bare\rcr\r\n.\r\n")
    c.expect(550)
    c.do("RCPT TO:<b@y.test>", 503)
    c.do("DATA", 503)
    c.close()


@case("L32")
def utf8_without_smtputf8(w):
    c = w.client()
    c.hello()
    c.do(b"MAIL FROM:<\xc3\xbc@x.test>\r\n", 553)
    c.do("RCPT TO:<b@y.test>", 503)
    c.do(b"VRFY \xc3\xbc@x.test\r\n", 252)
    c.do("DATA", 503)
    c.close()


@case("L34")
def old_overflows(w):
    for junk in (b"A" * 0x1250 + b"\x7f\r\n", b"BDAT 1\r\n:BDAT \x7f\r\n", b"A" * 6 + b"\x80" * 0x1e00 + b":\r\n\n",
                 b"BDAT 18446744073709551616 LAST\r\n", b"BDAT -1\r\n", b"BDAT 5 X\r\n",
                 b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nBDAT 10\r\n.\r\n"):
        c = w.client()
        c.hello()
        c.send(junk)
        code, _ = c.reply(3)
        assert code in (500, 501, 503, 250), code
        c.close()


@case("L35")
def tls_ends_inside_a_chunk(w):
    c = Client(w.engine.implicit, secure=True)
    c.hello()
    c.do(f"AUTH PLAIN {PLAIN}", 235)
    c.envelope()
    c.send(b"BDAT 100\r\n0123456789")
    time.sleep(0.1)
    raw = socket.socket(fileno=os.dup(c.socket.fileno()))
    try:
        c.socket.settimeout(1)
        c.socket.unwrap()
    except (OSError, ssl.SSLError):
        pass
    try:
        raw.sendall(b"\n")
        raw.sendall(b"250\r\n")
    except OSError:
        pass
    raw.close()
    c.close()
    time.sleep(0.1)
    assert not w.sink.has(b"0123456789")


@case("L37")
def paths(w):
    c = w.client()
    c.hello()
    for line in ("MAIL FROM:< >", "MAIL FROM:", "MAIL FROM <a@x>", "MAIL FROM:a@x.test"):
        c.do(line, 501)
    c.do("MAIL FROM:<>", 250)
    for path in ("<>", "<@x.test>", "<a@>", "<a@b@c>", "<a@x.test>junk", "<a@x.test", "<a@-x.test>", "<a@x..test>"):
        c.do(f"RCPT TO:{path}", 501, 553)
    c.do("RCPT TO:<postmaster>", 250, 550)
    c.close()


@case("L38")
def odd_paths_are_local_parts(w):
    c = w.client()
    c.hello()
    c.do("MAIL FROM:<a@x.test>", 250)
    for path in ("<@a.test,@b.test:u@y.test>", "<u%ext.test@y.test>", '<"u@ext.test"@y.test>', "<ext.test!u@y.test>"):
        c.do(f"RCPT TO:{path}", 250, 550)
    c.do("DATA", 354)
    c.send(w.header() + b"odd\r\n.\r\n")
    c.expect(250)
    c.close()
    w.delivered()
    with w.sink.changed:
        recipients = [r for _, rs, raw in w.sink.messages if w.marker.strip() in raw for r in rs]
    assert all(b"@y.test>" in r for r in recipients), recipients


@case("L40")
def dots_of_japanese_carriers(w):
    c = w.client()
    c.hello()
    c.do("MAIL FROM:<a@x.test>", 250)
    for path in ("<abc..def@docomo.ne.jp>", "<abc.@ezweb.ne.jp>", "<.abc@docomo.ne.jp>", "<a...b@ezweb.ne.jp>",
                 '<"abc..def"@docomo.ne.jp>'):
        c.do(f"RCPT TO:{path}", 250)
    c.do("DATA", 354)
    c.send(w.header() + b"dots\r\n.\r\n")
    c.expect(250)
    c.close()
    w.delivered()

    def arrived():
        with w.sink.changed:
            return {r.split(b"<")[1].split(b">")[0] for _, rs, raw in w.sink.messages if w.marker.strip() in raw for r in rs}
    deadline = time.monotonic() + 5
    while len(arrived()) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert arrived() == {b'"abc..def"@docomo.ne.jp', b'"abc."@ezweb.ne.jp', b'".abc"@docomo.ne.jp', b'"a...b"@ezweb.ne.jp'}, arrived()


@case("L41")
def lengths(w):
    c = w.client()
    c.hello()
    c.do("MAIL FROM:<a@x.test>", 250)
    label = "d" * 63
    c.do(f"RCPT TO:<{'l' * 64}@y.test>", 250)
    c.do(f"RCPT TO:<{'l' * 65}@y.test>", 501, 553)
    c.do(f"RCPT TO:<a@{label}.test>", 250)
    c.do(f"RCPT TO:<a@{label}d.test>", 501, 553)
    c.do(f"RCPT TO:<a@{'.'.join([label] * 5)}>", 501, 553)
    long = ".".join([label] * 3 + ["d" * 60])  # 252 octets
    c.do(f"RCPT TO:<a@{long}>", 250)  # a path of 256 with its brackets, RFC 5321 4.5.3.1.3
    c.do(f"RCPT TO:<ab@{long}>", 501, 553)
    c.do(f"RCPT TO:<a@{long}d>", 501, 553)
    c.do(f"RCPT TO:<a@{long}ddd>", 501, 553)
    c.do(f"RCPT TO:<{'x' * 1000}@y.test>", 501, 553)
    c.close()


@case("L43")
def shell_and_format_text(w):
    c = w.client()
    c.hello()
    c.do("MAIL FROM:<;for i in 0 1 2 3 4 5 6 7 8 9 a b c d;do read r;done;sh;exit 0;>", 501, 553)
    c.do("MAIL FROM:<a@x.test>", 250)
    for path in ("<${run{\\x2Fbin\\x2Fsh\\t-c\\tid}}@localhost>", "<%s%n%x@y.test>", "<$(id)@y.test>"):
        c.do(f"RCPT TO:{path}", 250, 501, 550, 553)
    c.close()
    for task in os.listdir(f"/proc/{w.engine.process.pid}/task"):
        try:
            with open(f"/proc/{w.engine.process.pid}/task/{task}/children") as f:
                assert f.read() == "", "a child process"
        except FileNotFoundError:
            pass


@case("L44")
def control_octets_in_xtext(w):
    c = w.client()
    c.hello()
    c.do("MAIL FROM:<a@x.test> AUTH=u+0Areject+0A", 501)
    c.do("MAIL FROM:<a@x.test> ENVID=x+0D+0Ay", 501)
    c.do("MAIL FROM:<a@x.test>", 250)
    c.do("RCPT TO:<b@y.test> ORCPT=rfc822;x+0Ay@z", 501)
    c.do("RCPT TO:<b@y.test> ORCPT=" + "A" * 100000, 500, 421)
    c.close()


@case("L46")
def no_open_relay(w):
    c = Client(w.engine.starttls)
    c.hello()
    for line, codes in (("PROXY TCP4 127.0.0.1 127.0.0.1 1 25", (500, 501)), ("XCLIENT ADDR=127.0.0.1", (500, 501)),
                        ("MAIL FROM:<a@x.test>", (530, 550)), ("RCPT TO:<v@ext.test>", (503, 530, 550))):
        c.do(line, *codes)
    c.close()
    c = w.outside()
    if c is None:
        return
    c.hello()
    for line in ("XFORWARD ADDR=127.0.0.1", "PROXY TCP4 127.0.0.1 127.0.0.1 1 25", "XCLIENT LOGIN=alice"):
        c.do(line, 500, 501)
    for path in ("<@a.test,@b.test:u@y.test>", "<u%ext.test@x.test>", '<"u@ext.test"@x.test>', "<ext.test!u@x.test>", "<postmaster>"):
        c.do("MAIL FROM:<a@x.test>", 530, 550)
        c.do(f"RCPT TO:{path}", 503, 530, 550)
        c.do("DATA", 503, 530, 550)
    c.close()


@case("L47")
def logins_keep_to_their_senders(w):
    c = Client(w.engine.starttls)
    c.hello()
    c.do("STARTTLS", 220)
    c.start_tls()
    c.hello()
    c.do(f"AUTH PLAIN {PLAIN}", 235)
    c.do("MAIL FROM:<bob@elsewhere.test>", 553)
    for head in (b"From: bob@elsewhere.test\r\n", b"From: a@x.test\r\nFrom: bob@elsewhere.test\r\n"):
        c.envelope()
        c.do("DATA", 354)
        c.send(head + b"\r\nx\r\n.\r\n")
        c.expect(550)
    c.close()


@case("L49")
def header_bombs(w):
    bombs = (b"To: a@x.test\r\n" * 500000, b"X: a\r\n" + b" b\r\n" * 2500000, b"A: b\r\n" * 1000000, b"Subject: " + b"=?utf-8?q?a?= " * 200000 + b"\r\n",
             b"Content-Type: x/y; " + b"".join(b"name*%d=n;\r\n " % i for i in range(100000)) + b"\r\n",
             b"X" * 65536 + b": v\r\n", b": v\r\n", b" leading space\r\n", b"no header at all\r\n")
    for bomb in bombs:
        c = w.client()
        c.pre()
        start = time.monotonic()
        c.send(bomb + b"\r\nx\r\n.\r\n")
        c.expect(250, 550, 552)
        took = time.monotonic() - start
        assert took < 3, took
        c.close()


@case("L50")
def nested_parts_go_through(w):
    depth = 10000
    text = b"".join(b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (i, i + 1) for i in range(depth))
    kind = b"Content-Type: multipart/mixed; boundary="
    boundary = b"b" * 10240
    for body in (text, b"Content-Type: message/rfc822\r\n\r\n" * 5000, b"--x\r\n\r\np\r\n" * 100000, b"--" + boundary + b"\r\n" + kind + b"\"" + boundary + b"\"\r\n\r\nx\r\n",
                 b"--b\r\n\r\nnever ended\r\n", b"--b\r\n" + kind + b"bb\r\n\r\n--bb\r\n\r\n--b--\r\n--bb--\r\n"):
        c = w.client()
        c.pre()
        start = time.monotonic()
        c.send(w.header() + body + b".\r\n")
        c.expect(250)
        assert time.monotonic() - start < 5
        c.close()
        assert w.delivered() == body


@case("L52")
def binarymime(w):
    c = w.client()
    assert "BINARYMIME" not in c.hello()
    c.do("MAIL FROM:<a@x.test> BODY=BINARYMIME", 555, 501, 504)
    c.do("DATA", 503)
    c.close()


@case("L53")
def many_idle_connections(w):
    before = w.engine.rss_kib()
    idle = [w.client() for _ in range(150)]
    grown = w.engine.rss_kib() - before
    w.alive()
    for c in idle:
        c.close()
    assert grown < 150 * 64, f"{grown} KiB for 150 idle connections"


@case("L55")
def not_a_client_hello(w):
    for junk in (b"garbage\r\n" * 20, b"\x16\x03\x01\xff\xff" + b"\0" * 65535, b"EHLO t\r\n"):
        c = Client(w.engine.implicit, greet=False)
        c.send(junk)
        c.socket.settimeout(5)
        try:
            while c.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        c.close()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", w.engine.implicit), 5) as raw:
        with context.wrap_socket(raw, server_hostname="a" * 60 + ".test") as secure:
            assert secure.recv(4) == b"220 "
    for name in ("../../x", "a" * 255, "x\ny", "192.0.2.1"):
        run = openssl(w, ["-servername", name, "-tls1_2"], b"QUIT\r\n")
        assert b"220 mx.test" in run.stdout, (name, run.stdout[-500:])
    for version in ("-tls1", "-tls1_1"):
        run = openssl(w, [version, "-cipher", "ALL:@SECLEVEL=0"], b"")
        assert b"220 mx.test" not in run.stdout and run.returncode != 0, version
    run = openssl(w, ["-tls1_2"], b"R\n" * 5 + b"Q\n", quiet=False)
    assert b"no renegotiation" in run.stdout + run.stderr or b"alert" in run.stdout + run.stderr or b"error" in run.stderr, (run.stdout, run.stderr)
    session = f"{w.engine.dir}/session"
    openssl(w, ["-tls1_2", "-sess_out", session], b"QUIT\r\n")
    run = openssl(w, ["-tls1_2", "-starttls", "smtp", "-sess_in", session], b"QUIT\r\n", port=w.engine.starttls)
    assert b"Verify return code" in run.stdout or b"221" in run.stdout, run.stdout[-500:]


def openssl(w, arguments, text, port=None, quiet=True):
    quiet = ["-quiet", "-ign_eof"] if quiet and "-sess_in" not in arguments else []
    return subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port or w.engine.implicit}", *quiet, *arguments], input=text, capture_output=True, timeout=20)


@case("L06")
def own_fields_are_removed(w):
    c = w.client()
    c.pre()
    c.send(b"X-Hikyaku-Scenario: spring\r\nX-HIKYAKU-Tag: a\r\n" + w.header() + b"x\r\n.\r\n")
    c.expect(250)
    c.close()
    w.delivered()
    assert not w.sink.has(b"ikyaku-Scenario") and not w.sink.has(b"IKYAKU-Tag")


def sendmail(w, arguments, text, code, server=None):
    """The engine's binary called as sendmail."""
    link = f"{w.engine.dir}/sendmail"
    if not os.path.exists(link):
        os.symlink(os.path.abspath(w.engine.program), link)
    environment = dict(os.environ, HIKYAKU_SERVER=server or f"127.0.0.1:{w.engine.plain}")
    run = subprocess.run([link, *arguments], input=text, env=environment, capture_output=True, timeout=30)
    assert run.returncode == code, f"exit {run.returncode}: {run.stderr.decode(errors='replace')}"
    return run


@case("S01")
def sendmail_t(w):
    """PHP mail(): recipients from the header, Bcc removed, LF line ends."""
    head = w.header().replace(b"\r\n", b"\n").replace(b"To: b@y.test", b"To: A <a@y.test>, b@y.test\nBcc: h@y.test")
    sendmail(w, ["-t", "-i"], head + b"one\n.\ntwo\n", 0)
    assert w.delivered() == b"one\r\n.\r\ntwo\r\n"
    with w.sink.changed:
        sender, recipients, raw = next(m for m in w.sink.messages if w.marker.strip() in m[2])
    assert b"Bcc" not in raw and b"\r\nDate: " in raw and b"\r\nMessage-ID: " in raw
    assert sorted(recipients) == [b"RCPT TO:<%s@y.test>\r\n" % n for n in (b"a", b"b", b"h")], recipients


@case("S02")
def sendmail_of_cron(w):
    """A lone dot ends the message without -i; names without a domain get this machine's."""
    head = w.header().replace(b"\r\n", b"\n").replace(b"From: a@x.test", b"From: root (Cron Daemon)")
    sendmail(w, ["-FCronDaemon", "-B8BITMIME", "-oem", "-fa@x.test", "root"], head + b"out\n.\nlost\n", 0)
    assert w.delivered() == b"out\r\n"
    raw = w.sink.wait(w.marker.strip())
    assert re.search(rb"\r\nFrom: root@\S+ \(Cron Daemon\)\r\n", raw), raw


@case("S03")
def sendmail_exit_codes(w):
    sendmail(w, [], b"x\n", 64)
    sendmail(w, ["-Z"], b"x\n", 64)
    sendmail(w, ["-t"], b"Subject: nobody\n\nx\n", 65)
    sendmail(w, ["a@-y..test"], b"x\n", 67)
    sendmail(w, ["a@y.test"], b"bare\rcr\n", 65)
    unused = free_ports(1)[0]
    run = sendmail(w, ["a@y.test"], b"x\n", 75, server=f"127.0.0.1:{unused}")
    assert b"hikyaku run POLICY" in run.stderr, run.stderr


@case("S04")
def sendmail_bs(w):
    run = sendmail(w, ["-bs"], b"EHLO t\r\nQUIT\r\n", 0)
    assert run.stdout.startswith(b"220 mx.test") and b"\r\n221 " in run.stdout, run.stdout


def main():
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    wanted = set(sys.argv[2:])
    engine = Engine(sys.argv[1])
    world = World(engine)
    n_bad = 0
    for name, function in sorted(CASES, key=lambda c: c[0]):
        if wanted and name not in wanted:
            continue
        start = time.monotonic()
        try:
            function(world)
            assert engine.process.poll() is None, "the engine died"
            world.alive()
            verdict = "ok"
        except (AssertionError, OSError, ValueError) as e:
            n_bad += 1
            verdict = f"FAILED: {type(e).__name__}: {e}"
        print(f"{name} {function.__name__:40} {time.monotonic() - start:6.2f} s  {verdict}", flush=True)
        if engine.process.poll() is not None:
            print(engine.read_log()[-6000:])
            break
    try:
        engine.stop()
    except AssertionError as e:
        n_bad += 1
        print(f"stop FAILED: {e}")
    print("all good" if n_bad == 0 else f"{n_bad} failed")
    return 1 if n_bad else 0


if __name__ == "__main__":
    sys.exit(main())
