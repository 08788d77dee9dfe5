"""Where content ends and what comes out of it: bare line ends, dots, chunks."""
import os
import re
import socket
import ssl
import time

from harness import is_read, wait_for
from peers import Client, PLAIN, SMUG, case


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


@case("L06")
def own_fields_are_removed(w):
    c = w.client()
    c.pre()
    c.send(b"X-Hikyaku-Scenario: spring\r\nX-HIKYAKU-Tag: a\r\n" + w.header() + b"x\r\n.\r\n")
    c.expect(250)
    c.close()
    w.delivered()
    assert not w.sink.has(b"ikyaku-Scenario") and not w.sink.has(b"IKYAKU-Tag")


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


@case("L08")
def dot_lines_come_out_stuffed_again(w):
    """What the relay gets, octet by octet, whether the engine knows that there are no dot lines or has to look."""
    block = b"0123456789abcde.0123456789abcdef0123456789abcdef0123456789abcd\r\n" * 40
    texts = (b"plain\r\n", block, block[:-70] + b"\r\n", b"\r\n\r\n", b".\r\n", b"..\r\n", b".first\r\n", block + b".\r\n" + block,
             block + b"a\r\n.b\r\n" + block, b".\r\n.\r\n")
    for text in texts:
        stuffed = re.sub(rb"^\.", b"..", text, flags=re.M) + b".\r\n"
        bare = (b"." if text[:1] == b"." else b"") + re.sub(rb"\r\n(?=\.)", b"\n", text) + b".\r\n"  # behind a bare LF a dot is content
        for how, data in (("DATA", stuffed), ("bare LF", bare), ("BDAT", text)):
            c = w.client()
            c.hello()
            c.envelope()
            content = w.header() + data
            if how == "BDAT":
                c.send(b"BDAT %d LAST\r\n" % len(content))
            else:
                c.do("DATA", 354)
            for at in range(0, len(content), 61):
                c.send(content[at:at + 61])
            c.expect(250)
            c.close()
            raw = w.sink.wait(w.marker.strip(), 10.0).split(b"\r\n\r\n", 1)[1]
            assert raw == stuffed, f"{how}: {raw[:80]!r} for {text[:80]!r}"


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
    wait_for(lambda: not w.n_sessions_files(), 20, 0.05, "the file of a dropped body goes")
    c.close()


@case("L35")
def tls_ends_inside_a_chunk(w):
    c = Client(w.engine.implicit, secure=True)
    c.hello()
    c.do(f"AUTH PLAIN {PLAIN}", 235)
    c.envelope()
    c.send(b"BDAT 100\r\nnever ended")
    wait_for(lambda: is_read(c.socket), 20, 0.01, "the engine has the part of the chunk")
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
    w.alive()  # what came before it would be out by then
    assert not w.sink.has(b"never ended")


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
    wait_for(lambda: len(arrived()) >= 4, 20, 0.05, "all four arrive")
    assert arrived() == {b'"abc..def"@docomo.ne.jp', b'"abc."@ezweb.ne.jp', b'".abc"@docomo.ne.jp', b'"a...b"@ezweb.ne.jp'}, arrived()


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
