"""The peers of run.py: the engine under test, a client that sends what it likes, a sink that keeps every octet."""
import base64
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import free_ports, wait_for  # noqa: E402

PASSWORD = "canary-7Jw2"
PLAIN = base64.b64encode(b"\0alice\0" + PASSWORD.encode()).decode()


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
                    raw = bytearray()
                    while not raw.endswith(b"\r\n.\r\n") and raw != b".\r\n":
                        part = stream.readline()
                        if not part:
                            return
                        raw += part
                    with self.changed:
                        self.messages.append((sender, list(recipients), bytes(raw)))
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
        wait_for(self.listens, 60, 0.05, "the engine listens")

    def listens(self):
        if self.process.poll() is not None:
            raise SystemExit("the engine did not start:\n" + self.read_log())
        try:
            socket.create_connection(("127.0.0.1", self.plain), 1).close()
            return True
        except OSError:
            return False

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


CASES = []


def case(name):
    def register(function):
        CASES.append((name, function))
        return function
    return register


class World:
    def __init__(self, engine):
        self.engine, self.sink, self.n = engine, engine.sink, 0

    def client(self, port=None, **options):
        return Client(port or self.engine.plain, **options)

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
