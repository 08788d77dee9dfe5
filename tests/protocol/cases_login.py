"""TLS, logins, and who may send as whom."""
import base64
import socket
import ssl
import statistics
import subprocess
import time

from peers import PLAIN, Client, case


def openssl(w, arguments, text, port=None, quiet=True):
    quiet = ["-quiet", "-ign_eof"] if quiet and "-sess_in" not in arguments else []
    return subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port or w.engine.implicit}", *quiet, *arguments], input=text, capture_output=True, timeout=20)


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
