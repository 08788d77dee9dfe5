"""The engine's binary called as sendmail."""
import os
import re
import subprocess

from harness import free_ports
from peers import POLICY, case


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


@case("S05")
def sendmail_keeps_names(w):
    """Names in quotes, comments and encoded words are no mailboxes, whatever commas they have; quotes hold an address together."""
    lines = [b'From: "Doe, John, MD" <a@x.test>', b"To: =?utf-8?Q?Shop,Team,Tokyo?= <b@y.test>,\n \"a,b,c\"@y.test",
             b"Cc: z@y.test (Sales, Support, Team)", b'Sender: "unclosed, root, x <a@x.test>', b"Date:", b"Message-ID: "]
    head = b"\n".join(lines) + w.header().replace(b"\r\n", b"\n").replace(b"From: a@x.test", b"").replace(b"\nTo: b@y.test", b"")
    for number, arguments in enumerate((["-t", "-fa@x.test"], ["-fa@x.test", '"a b"@y.test', '"c d"@y.test,root e@y.test', "Taro <f@y.test>, g@y.test"])):
        body = b"the names of call %d" % number
        sendmail(w, arguments, head + body + b"\n", 0)
        raw = w.sink.wait(body)
        with w.sink.changed:
            recipients = next(m[1] for m in w.sink.messages if body in m[2])
        for line in lines[:4]:
            assert b"\r\n" + line.replace(b"\n", b"\r\n") + b"\r\n" in raw, (line, raw)
        assert len(re.findall(rb"(?m)^Date:", raw)) == 1 and len(re.findall(rb"(?m)^Message-ID:", raw)) == 1, raw
        got = sorted(re.sub(rb"root@[^>]*", b"root@", r) for r in recipients)
        wanted = [b'"a,b,c"@y.test', b"b@y.test", b"z@y.test"] if number == 0 else \
            [b'"a b"@y.test', b'"c d"@y.test', b"e@y.test", b"f@y.test", b"g@y.test", b"root@"]
        assert got == [b"RCPT TO:<%s>\r\n" % a for a in wanted], got
    head = w.header().replace(b"\r\n", b"\n").replace(b"From: a@x.test", b"From: ")
    sendmail(w, ["-fa@x.test", "b@y.test"], head + b"an empty From\n", 0)
    raw = w.sink.wait(b"an empty From")
    assert re.findall(rb"(?m)^From:.*", raw) == [b"From: <a@x.test>\r"], raw


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


@case("L57")
def sendmail_servers_and_sizes(w):
    """Where the engine is, said in each way, and wrongly; a message that is too big is not the sender's fault."""
    program, good = w.engine.program, f"127.0.0.1:{w.engine.plain}"

    def call(*arguments, text=b"To: b@y.test\r\n\r\nx\r\n", env=None):
        p = subprocess.run([program, "send", *arguments], input=text, capture_output=True, timeout=30, env={**os.environ, **(env or {})})
        return p.returncode, (p.stdout + p.stderr).decode(errors="replace")

    for arguments, code, words in ((["-t", "--server", good], 0, ""), (["-t", f"--server={good}"], 0, ""), (["--server", good, "b@y.test"], 0, "queued as"),
                                   (["-t", "--server", "127.0.0.1:99999"], 64, "a port from 1 to 65535"), (["-t", "--server", "::1"], 64, "a port from 1 to 65535"),
                                   (["--server", "127.0.0.1:99999", "b@y.test"], 2, "a port from 1 to 65535"), (["--server", "127.0.0.1:0", "b@y.test"], 2, "a port from"),
                                   (["-t", "--serve", good], 64, "no option --serve here")):
        got, said = call(*arguments)
        assert got == code and words in said, f"{arguments}: {got} {said}"
    got, said = call("-t", env={"HIKYAKU_SERVER": "127.0.0.1:x"})
    assert got == 64 and "127.0.0.1:x" in said, said
    big = b"To: b@y.test\r\n\r\n" + (b"x" * 70 + b"\r\n") * 520000
    for arguments, code in ((["-t", "--server", good], 65), (["--server", good, "b@y.test"], 1)):
        got, said = call(*arguments, text=big)
        assert got == code and "refused the message: 552" in said and "sender" not in said, f"{got} {said}"
