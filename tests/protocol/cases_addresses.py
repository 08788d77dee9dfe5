"""Addresses, charsets and texts that other programs stumble over."""
import os
import time

from peers import case


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


@case("L32")
def utf8_without_smtputf8(w):
    c = w.client()
    c.hello()
    c.do(b"MAIL FROM:<\xc3\xbc@x.test>\r\n", 553)
    c.do("RCPT TO:<b@y.test>", 503)
    c.do(b"VRFY \xc3\xbc@x.test\r\n", 252)
    c.do("DATA", 503)
    c.close()


@case("L37")
def paths(w):
    c = w.client()
    c.hello()
    for line in ("MAIL FROM:< >", "MAIL FROM:", "MAIL FROM <a@x>", "MAIL FROM:a@", "MAIL FROM:a@x.test>"):
        c.do(line, 501)
    c.do("MAIL FROM:a@x.test", 250)  # old devices leave the brackets out
    c.do("RSET", 250)
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
