"""Clients that send too much, too long, too early or not at all."""
import json
import socket
import struct
import subprocess
import threading
import time

from harness import wait_for
from peers import case


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


@case("L31")
def nothing_left_after_a_refusal(w):
    c = w.client()
    c.pre()
    c.send(w.header() + b"bare\rcr\r\n.\r\n")
    c.expect(550)
    c.do("RCPT TO:<b@y.test>", 503)
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


@case("L53")
def many_idle_connections(w):
    before = w.engine.rss_kib()
    idle = [w.client() for _ in range(150)]
    grown = w.engine.rss_kib() - before
    w.alive()
    for c in idle:
        c.close()
    assert grown < 150 * 64, f"{grown} KiB for 150 idle connections"


@case("L56")
def clients_that_go_in_every_way(w):
    """400 that go in the middle of a command, of DATA, behind the dot, in clear and in TLS: no session stays."""
    def sessions():
        out = subprocess.run([w.engine.program, "status", "--json", "--spool", f"{w.engine.dir}/spool"], check=True, capture_output=True)
        return json.loads(out.stdout)["sessions"]

    def go(c, how):
        if how == "reset":
            c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif how == "half-close":
            c.socket.shutdown(socket.SHUT_WR)
        c.close()  # with what it was answered unread

    said = [b"NOO", b"NOOP\r\n" * 20, b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n",
            b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nBDAT 1000\r\nSubject: x\r\n\r\nhalf"]
    for i in range(400):
        how = ("reset", "half-close", "close")[i % 3]
        c = w.client(port=w.engine.implicit, secure=True) if i % 8 == 0 else w.client()
        c.hello()
        c.send(said[i % 4])
        if i % 4 == 2:
            c.expect(250)
            c.expect(250)
            c.expect(354)
            c.send(b"Subject: half\r\n\r\n" + b"x" * (i * 50) + (b"\r\n.\r\n" if i % 5 == 0 else b""))
        go(c, how)
    wait_for(lambda: sessions() == 0, 20, 0.05, "no session stays")
