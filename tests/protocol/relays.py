#!/usr/bin/env python3
"""Misbehaving relays against the real engine: what became of each recipient, read from the event log.

  tests/protocol/relays.py BINARY [CASE...] [--keep]      (CASE: R01, R04, ... default all)

Every line below is one relay of one policy: a server here that follows a small script, on a port of its own. One message
goes to each, all at the same time, while a healthy relay takes a message every 100 ms. Asserted: the event, class and
stage of every recipient; what the relay saw (no credential or envelope in the clear, no content for nobody); the healthy
mail's times; memory; no sanitizer's report; the seeded password in no log, raw or encoded. Exit code 1: something failed.
"""
import argparse
import base64
import concurrent.futures
import hashlib
import json
import multiprocessing
import os
import re
import signal
import smtplib
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import World, free_ports, let_pass, n_connections, only_known, wait_for  # noqa: E402

PASSWORD = "canary-Xq81+/"
USER = "alice"


class Gone(Exception):
    """The engine closed the connection."""


# --- a relay that follows a script ---

class Conn:
    """One connection as the script sees it."""

    def __init__(self, relay, sock, number):
        self.relay, self.sock, self.number = relay, sock, number
        self.buffer = b""
        self.seen = []  # lines of the engine
        self.is_secure = False
        self.uses = {}
        sock.settimeout(30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def say(self, data):
        try:
            self.sock.sendall(data)
        except (OSError, ssl.SSLError) as e:
            raise Gone() from e

    def forever(self, data):
        while True:
            self.say(data)

    def drip(self, data, seconds):
        for octet in data:
            self.say(bytes([octet]))
            let_pass(seconds, "the relay answers octet by octet")

    def fill(self):
        try:
            part = self.sock.recv(65536)
        except (OSError, ssl.SSLError) as e:
            raise Gone() from e
        if not part:
            raise Gone()
        self.buffer += part

    def line(self):
        while b"\n" not in self.buffer:
            self.fill()
        line, self.buffer = self.buffer.split(b"\n", 1)
        self.seen.append((self.is_secure, line.rstrip(b"\r")))
        return line.rstrip(b"\r")

    def content(self):
        data = b"\r\n"  # the end may be the first line
        while True:
            end = data.find(b"\r\n.\r\n")
            if end >= 0:
                self.buffer = data[end + 5:]
                return data[2:end + 2]
            data += self.buffer
            self.buffer = b""
            if data.find(b"\r\n.\r\n") < 0:
                self.fill()

    def start_tls(self):
        self.buffer = b""
        try:
            self.sock = self.relay.context.wrap_socket(self.sock, server_side=True)
        except (OSError, ssl.SSLError) as e:
            raise Gone() from e
        self.is_secure = True

    def hang_up(self):
        """Called by another thread: the connection ends, whatever its script waits for."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def stall(self):
        """Neither reads nor answers until the other side gives up."""
        let_pass(20, "the relay neither reads nor answers")
        raise Gone()

    def answer(self, stage, default):
        """What the script says at this stage: octets, a function, or a list of these for the first, second, ... time."""
        what = self.relay.on.get(stage, default)
        n = self.uses[stage] = self.uses.get(stage, 0) + 1
        if isinstance(what, list):
            what = what[min(n, len(what)) - 1]
        if callable(what):
            what = what(self)
        if what is None:
            what = default
        if what:
            self.say(what)
        return what

    def serve(self):
        self.answer("greeting", b"220 relay.test\r\n")
        recipients, sender = [], None
        while True:
            line = self.line()
            verb = line[:4].upper()
            if verb in (b"EHLO", b"HELO"):
                self.answer(verb.decode(), b"250-relay.test\r\n" + b"".join(b"250-" + k + b"\r\n" for k in self.relay.extensions) + b"250 HELP\r\n"
                            if verb == b"EHLO" else b"250 relay.test\r\n")
            elif verb == b"STAR":
                if self.answer("STARTTLS", b"220 go\r\n")[:3] == b"220":
                    self.start_tls()
            elif verb == b"AUTH":
                self.answer("AUTH", b"235 2.7.0 in\r\n")
            elif verb == b"MAIL":
                sender, recipients = line, []
                self.answer("MAIL", b"250 ok\r\n")
            elif verb == b"RCPT":
                recipients.append(line)
                self.answer("RCPT", b"250 ok\r\n")
            elif verb == b"DATA":
                if (self.answer("DATA", b"354 go\r\n") or b"")[:3] == b"354":
                    text = self.content()
                    with self.relay.lock:
                        self.relay.messages.append((self.number, sender, list(recipients), text))
                    self.answer("dot", b"250 2.0.0 taken\r\n")
            elif verb == b"QUIT":
                self.answer("QUIT", b"221 bye\r\n")
                raise Gone()
            else:
                self.answer(verb.decode(errors="replace"), self.relay.on.get("", b"250 ok\r\n"))


class Relay:
    def __init__(self, on=None, extensions=(b"8BITMIME",), receive_buffer=None, context=None):
        self.on, self.extensions, self.context = on or {}, list(extensions), context
        self.lock = threading.Lock()
        self.messages, self.conns = [], []
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(64)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            sock, _ = self.socket.accept()
            conn = Conn(self, sock, len(self.conns) + 1)
            self.conns.append(conn)
            threading.Thread(target=self.run, args=(conn,), daemon=True).start()

    @staticmethod
    def run(conn):
        try:
            conn.serve()
        except (Gone, OSError):
            pass
        finally:
            try:
                conn.sock.close()
            except OSError:
                pass

    def lines(self):
        return [line for conn in self.conns for line in conn.seen]

    def verbs(self, number=None):
        return [line[:4].upper().decode(errors="replace") for conn in self.conns if number in (None, conn.number) for _, line in conn.seen]


# --- the table ---

class Variant:
    """One relay and what must become of the recipients of one message to it.

    want: (event, class or classes, stage or stages) for all, or a list of them for recipient 0, 1, ...
    keys: of the relay in Lua; see: further checks, called with the relay and the events of every recipient."""

    def __init__(self, case, name, want, on=None, extensions=(b"8BITMIME",), keys="", n=1, size=0, see=None, receive_buffer=None, seconds=20):
        self.case, self.want, self.keys, self.n, self.size, self.see, self.seconds = case, want, keys, n, size, see, seconds
        self.name = f"{case.lower()}-{name}"
        self.make = lambda context: Relay(on, extensions, receive_buffer, context)
        self.relay = None

    def wants(self, i):
        return self.want[i] if isinstance(self.want, list) else self.want


VARIANTS = []
PIPELINING = (b"8BITMIME", b"PIPELINING")
BAD = ("deferred", ("system_temp", "network"), None)  # no SMTP: the connection is worth nothing, the mail is
LOST = ("deferred", "ambiguous", "dot")
OK = ("delivered", "ok", None)
STARTTLS = 'tls = "starttls", pin = "@PIN@"'
LOGIN = f'user = "{USER}", password = secret "relay"'


def v(*args, **kw):
    VARIANTS.append(Variant(*args, **kw))


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def forever(data):
    return lambda c: c.forever(data)


# R01, R02: replies without an end
for where, want in (("greeting", BAD), ("EHLO", BAD), ("MAIL", BAD), ("RCPT", BAD), ("DATA", BAD), ("dot", LOST)):
    code = {"greeting": b"220", "DATA": b"354"}.get(where, b"250")
    v("R01", f"lines-{where}".lower(), want, on={where: forever(code + b"-x\r\n" * 1)})
    v("R02", f"line-{where}".lower(), want, on={where: forever(code + b" " + b"A" * 65536)})

# R04: what is no reply, where it would otherwise count as one
NO_REPLY = {"word": b"hello\r\n", "999": b"999 x\r\n", "000": b"000 x\r\n", "150": b"150 x\r\n", "letters": b"2x0 y\r\n", "empty": b"\r\n",
            "nul": b"250\0ok\r\n", "nul-inside": b"250 o\0k\r\n", "octets": b"\xff\xfe\r\n", "mixed": b"250-a\r\n550 b\r\n", "glued": b"250ok\r\n"}
for name, octets in NO_REPLY.items():
    v("R04", f"mail-{name}", BAD, on={"MAIL": octets})
    v("R04", f"dot-{name}", LOST, on={"dot": octets})
v("R04", "enhanced-of-another-class", OK, on={"dot": b"250 5.7.2\r\n", "RCPT": b"250 5.1.1 no such user\r\n"})
v("R04", "enhanced-cut", OK, on={"dot": b"250 2.0\r\n", "MAIL": b"250 2.\r\n", "RCPT": b"250\r\n"})
v("R04", "only-enhanced", ("failed", "auth_policy", "dot"), on={"dot": b"550 5.7.2\r\n"})
v("R04", "enhanced-of-success-in-a-refusal", ("deferred", "unknown", "dot"), on={"dot": b"550 2.0.0 ok\r\n"})
v("R04", "354-to-the-dot", LOST, on={"dot": b"354 go on\r\n"})
v("R04", "250-to-data", BAD, on={"DATA": b"250 ok\r\n"})

# R05: byte by byte
v("R05", "slow-but-in-time", OK, on={"dot": lambda c: c.drip(b"250 2.0.0 taken\r\n", 0.05)}, keys='timeout = { dot = "10s", command = "2s" }')
v("R05", "never-in-time", ("deferred", "network", "mail"), on={"MAIL": lambda c: c.drip(b"250-ok\r\n" * 20, 0.3)}, keys='timeout = { command = "2s" }')
v("R05", "never-in-time-after-the-dot", LOST, on={"dot": lambda c: c.drip(b"250 taken taken taken\r\n", 0.5)}, keys='timeout = { dot = "2s" }')


# R07, R08: TLS
def nothing_in_clear(relay, events):
    bad = [line for is_secure, line in relay.lines() if not is_secure and line[:4].upper() in (b"MAIL", b"RCPT", b"AUTH", b"DATA")]
    check(not bad, f"in the clear: {bad}")


TLS = (b"8BITMIME", b"STARTTLS")
NO_TLS = (("deferred", "failed"), "tls", "tls")
v("R07", "replies-ahead", NO_TLS, on={"STARTTLS": b"220 go\r\n250-AUTH PLAIN\r\n250 SIZE 1\r\n"}, extensions=TLS, keys=f"{STARTTLS}, {LOGIN}", see=nothing_in_clear)
v("R07", "part-of-a-reply-ahead", NO_TLS, on={"STARTTLS": b"220 go\r\n250-SMTPUTF8 "}, extensions=TLS, keys=STARTTLS, see=nothing_in_clear)


def second_hello(relay, events):
    nothing_in_clear(relay, events)
    check(relay.verbs().count("EHLO") == 2, relay.verbs())


v("R07", "sound", OK, extensions=TLS, keys=STARTTLS, see=second_hello)
v("R07", "size-only-before-tls", OK, on={"EHLO": [b"250-x\r\n250-SIZE 10\r\n250 STARTTLS\r\n", b"250 x\r\n"]}, extensions=TLS, keys=STARTTLS, see=second_hello)
v("R08", "not-offered", NO_TLS, keys=f"{STARTTLS}, {LOGIN}", see=nothing_in_clear)
v("R08", "454", ("deferred", "system_temp", "tls"), on={"STARTTLS": b"454 4.7.0 no\r\n"}, extensions=TLS, keys=f"{STARTTLS}, {LOGIN}", see=nothing_in_clear)
v("R08", "502", NO_TLS, on={"STARTTLS": b"502 no\r\n"}, extensions=TLS, keys=STARTTLS, see=nothing_in_clear)


def plain_after_220(c):
    c.say(b"220 go\r\n")
    let_pass(0.2, "the relay's answer comes as a packet of its own")
    c.say(b"250-relay.test\r\n250 AUTH PLAIN\r\n")
    c.stall()


def alert_after_220(c):
    c.say(b"220 go\r\n")
    c.sock.recv(4096)  # the ClientHello: before it the alert would be octets in clear
    c.say(b"\x15\x03\x03\x00\x02\x02\x28")  # handshake_failure
    raise Gone()


v("R08", "plain-after-220", NO_TLS, on={"STARTTLS": plain_after_220}, extensions=TLS, keys=f"{STARTTLS}, {LOGIN}", see=nothing_in_clear)
v("R08", "alert", NO_TLS, on={"STARTTLS": alert_after_220}, extensions=TLS, keys=STARTTLS, see=nothing_in_clear)
v("R08", "close", ("deferred", "network", "tls"), on={"STARTTLS": lambda c: (_ for _ in ()).throw(Gone())}, extensions=TLS, keys=STARTTLS,
  see=nothing_in_clear)
v("R08", "wrong-pin", NO_TLS, extensions=TLS, keys=f'tls = "starttls", pin = "{"ab" * 32}", {LOGIN}', see=nothing_in_clear)
v("R08", "wrong-pin-opportunistic", NO_TLS, extensions=TLS, keys=f'tls = "opportunistic", pin = "{"ab" * 32}"', see=nothing_in_clear)
v("R08", "pin-opportunistic-not-offered", NO_TLS, keys=f'tls = "opportunistic", pin = "{"ab" * 32}"', see=nothing_in_clear)
v("R08", "right-pin-opportunistic", OK, extensions=TLS, keys='tls = "opportunistic", pin = "@PIN@"', see=nothing_in_clear)
v("R08", "unknown-authority", NO_TLS, extensions=TLS, keys=f'tls = "starttls", {LOGIN}', see=nothing_in_clear)
for name, options in (("not-offered", {}), ("refused", {"on": {"STARTTLS": b"454 no\r\n"}, "extensions": TLS}),
                      ("alert", {"on": {"STARTTLS": [alert_after_220]}, "extensions": TLS})):
    v("R08", f"opportunistic-{name}", OK, keys='tls = "opportunistic"', **options)


# R11: 421 wherever it may come: nobody is refused for good
def says_421(c):
    c.say(b"421 4.3.2 closing\r\n")
    raise Gone()


TEMPORARY = ("system_temp", "network", "rate_limited")
v("R11", "greeting", ("deferred", TEMPORARY, "greeting"), on={"greeting": says_421})
v("R11", "ehlo", ("deferred", TEMPORARY, "hello"), on={"EHLO": says_421})
v("R11", "starttls", ("deferred", TEMPORARY, "tls"), on={"STARTTLS": says_421}, extensions=TLS, keys=STARTTLS)
v("R11", "auth", ("deferred", TEMPORARY, "auth"), on={"AUTH": says_421}, extensions=(b"AUTH PLAIN",), keys=f'auth = "plain", {LOGIN}')
v("R11", "mail", ("deferred", TEMPORARY, "mail"), on={"MAIL": says_421}, n=2)
v("R11", "rcpt", ("deferred", TEMPORARY, "rcpt"), on={"RCPT": [b"250 ok\r\n", says_421]}, n=3)
v("R11", "rcpt-pipelined", ("deferred", TEMPORARY, "rcpt"), on={"RCPT": [b"250 ok\r\n", says_421]}, n=3, extensions=PIPELINING)
v("R11", "data", ("deferred", TEMPORARY, "data"), on={"DATA": says_421}, n=2)
v("R11", "dot", ("deferred", TEMPORARY, "dot"), on={"dot": says_421}, n=2, extensions=PIPELINING)
v("R11", "rset", ("failed", "bad_mailbox", "rcpt"), on={"RCPT": b"550 5.1.1 no\r\n", "RSET": says_421}, n=2)


# R12: every way to go, together with the reply of every stage: the connection ends at once, not with its time-out, and
# what was said counts. (Where the reply asks for more, the next command finds nobody.) The engine is stopped meanwhile,
# so that it always sees the two as one.
PAUSING = threading.Lock()
ENGINE = []


def paused_engine():
    os.kill(ENGINE[0], signal.SIGSTOP)
    wait_for(lambda: open(f"/proc/{ENGINE[0]}/stat").read().rsplit(")", 1)[1].split()[0] == "T", 10, 0.001, "the engine stops")


def goes(how, reply=b""):
    def run(c):
        with PAUSING:
            paused_engine()
            try:
                leave(c)
            finally:
                os.kill(ENGINE[0], signal.SIGCONT)
        if how == "half":
            let_pass(20, "the relay keeps its half of the connection")
        raise Gone()

    def leave(c):
        if reply:
            c.say(reply)
        if how == "reset":
            c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            c.sock.close()
        elif how == "half":
            c.sock.shutdown(socket.SHUT_WR)  # in TLS without close_notify
        else:
            c.sock.close()
    return run


GONE = ("deferred", TEMPORARY, None)
PATIENT = 'timeout = { greeting = "60s", command = "60s", data = "60s", dot = "60s" }'
for how in ("close", "half", "reset"):
    for secure in (False, True):
        keys, name = (f"connections = 1, {PATIENT}, " + (STARTTLS if secure else ""), f"{how}{'-tls' if secure else ''}")
        for stage, reply, want in (("greeting", b"220 x\r\n", GONE), ("EHLO", b"250-x\r\n250-STARTTLS\r\n250 HELP\r\n", GONE), ("MAIL", b"250 ok\r\n", GONE),
                                   ("RCPT", b"250 ok\r\n", GONE), ("DATA", b"354 go\r\n", (("deferred",), TEMPORARY + ("ambiguous",), None)),
                                   ("dot", b"250 2.0.0 taken\r\n", OK), ("dot", b"", LOST), ("dot", b"25", LOST), ("QUIT", b"221", OK)):
            if secure and stage == "greeting":
                continue
            for pipelining in (False, True):
                v("R12", f"{name}-{stage.lower()}{len(reply)}{'-p' if pipelining else ''}", want, on={stage: goes(how, reply)}, keys=keys, seconds=15,
                  extensions=(PIPELINING if pipelining else (b"8BITMIME",)) + ((b"STARTTLS",) if secure else ()))


# R13: nobody accepted, and yet 354
def nothing_sent(relay, events):
    check(all(text == b"" for _, _, _, text in relay.messages), f"content for nobody: {relay.messages}")


NOBODY = ("failed", "bad_mailbox", "rcpt")
v("R13", "354-for-nobody", NOBODY, on={"RCPT": b"550 5.1.1 no\r\n", "dot": b"554 nobody\r\n"}, n=2, extensions=PIPELINING, see=nothing_sent)
v("R13", "354-for-nobody-taken", NOBODY, on={"RCPT": b"550 5.1.1 no\r\n"}, n=2, extensions=PIPELINING, see=nothing_sent)
v("R13", "one-by-one", NOBODY, on={"RCPT": b"550 5.1.1 no\r\n"}, n=2,
  see=lambda relay, events: check("DATA" not in relay.verbs(), relay.verbs()))
v("R13", "some", [OK, NOBODY, OK], on={"RCPT": [b"250 ok\r\n", b"550 5.1.1 no\r\n", b"250 ok\r\n"]}, n=3, extensions=PIPELINING)
v("R13", "mail-refused-and-354", (("deferred", "failed"), None, "mail"), on={"MAIL": b"550 5.7.1 sender\r\n"}, n=2, extensions=PIPELINING, see=nothing_sent)

# R14: pipelining that goes wrong
SHORT = 'timeout = { command = "4s", data = "2s", dot = "2s" }'  # a busy machine may hold a relay up for a second or two
v("R14", "only-the-first", ("deferred", "network", None), on={"RCPT": b"", "DATA": b""}, extensions=PIPELINING, keys=SHORT)
v("R14", "merged", OK, on={"MAIL": b"250 m\r\n250 r\r\n", "RCPT": b"", "DATA": b"354 go\r\n"}, extensions=PIPELINING)
v("R14", "swapped", ("deferred", ("system_temp", "network"), "rcpt"), on={"MAIL": b"250 m\r\n354 go\r\n250 r\r\n", "RCPT": b"", "DATA": b""}, extensions=PIPELINING, keys=SHORT)
v("R14", "one-too-many", BAD, on={"RCPT": b"250 r\r\n250 again\r\n", "DATA": b"354 go\r\n"}, extensions=PIPELINING, keys=SHORT)
v("R14", "250-in-the-body", ("deferred", ("system_temp", "network"), "data"), on={"DATA": b"354 go\r\n250 taken\r\n"}, extensions=PIPELINING, keys=SHORT)
v("R14", "250-before-the-dot", ("deferred", ("system_temp", "network", "ambiguous"), ("data", "dot")), on={"DATA": lambda c: (c.say(b"354 go\r\n"), let_pass(0.3, "the relay answers in the middle of the body"), c.say(b"250 taken\r\n"),
                                                                                                   c.stall())}, size=30_000_000, receive_buffer=4096, keys=SHORT)


# R16: who does not read
def stops_reading(code):
    def run(c):
        c.say(b"354 go\r\n")
        got = len(c.buffer)
        while got < 20000:
            got += len(c.sock.recv(4096))
        c.say(code)
        c.stall()
    return run


v("R16", "552-and-stops", (("failed", "deferred"), "size_format", "dot"), on={"DATA": stops_reading(b"552 5.3.4 too big\r\n")}, size=20_000_000)
v("R16", "452-and-stops", ("deferred", TEMPORARY, "dot"), on={"DATA": stops_reading(b"452 4.3.1 full\r\n")}, size=20_000_000)
v("R16", "never-reads", ("deferred", "network", "data"), on={"DATA": lambda c: (c.say(b"354 go\r\n"), c.stall())}, size=20_000_000, receive_buffer=4096, keys='timeout = { data = "1s", dot = "2s" }')
v("R16", "reads-nothing-at-all", ("deferred", "network", None), on={"greeting": lambda c: (c.say(b"220 x\r\n"), c.stall())}, keys=SHORT)
v("R16", "says-nothing", ("deferred", "network", "greeting"), on={"greeting": lambda c: c.stall()}, keys='timeout = { greeting = "1s" }')

# R17: odd capabilities
v("R17", "lines", BAD, on={"EHLO": b"250-X\r\n" * 100000 + b"250 x\r\n"})
v("R17", "size-abc", OK, extensions=(b"SIZE abc",))
v("R17", "size-0", OK, extensions=(b"SIZE 0",))
v("R17", "size-huge", OK, extensions=(b"SIZE 99999999999999999999999999",))
v("R17", "size-10", ("failed", "size_format", None), extensions=(b"SIZE 10",), see=lambda relay, events: check("MAIL" not in relay.verbs(), relay.verbs()))
v("R17", "auth-twice", OK, extensions=(b"AUTH PLAIN", b"AUTH LOGIN", b"AUTH=PLAIN"), keys=f'auth = "plain", {LOGIN}')
v("R17", "auth-64k", BAD, extensions=(b"AUTH=" + b"A" * 65536,), keys=f'auth = "plain", {LOGIN}')
v("R17", "helo", OK, on={"EHLO": b"502 what\r\n"}, see=lambda relay, events: check("HELO" in relay.verbs(), relay.verbs()))
v("R17", "no-helo-with-a-password", (("deferred", "failed"), None, "hello"), on={"EHLO": b"502 what\r\n"}, keys=f'auth = "plain", {LOGIN}',
  see=lambda relay, events: check("HELO" not in relay.verbs(), relay.verbs()))
v("R17", "auth-250", ("deferred", "system_temp", "auth"), on={"AUTH": b"250 ok\r\n"}, extensions=(b"AUTH PLAIN",), keys=f'auth = "plain", {LOGIN}')
v("R17", "auth-354", ("deferred", "system_temp", "auth"), on={"AUTH": b"354 go on\r\n"}, extensions=(b"AUTH PLAIN",), keys=f'auth = "plain", {LOGIN}')
v("R17", "auth-235-early", ("deferred", "system_temp", "auth"), on={"AUTH": b"235 in\r\n"}, extensions=(b"AUTH LOGIN",), keys=f'auth = "login", {LOGIN}')
v("R17", "auth-535-connections", ("deferred", "rate_limited", "auth"), on={"AUTH": b"535 5.7.8 too many connections\r\n"}, extensions=(b"AUTH PLAIN",), keys=f'auth = "plain", {LOGIN}')
v("R17", "auth-550-sessions", ("deferred", "rate_limited", "auth"), on={"AUTH": b"550 Maximum number of sessions exceeded\r\n"}, extensions=(b"AUTH PLAIN",), keys=f'auth = "plain", {LOGIN}')
v("R17", "endless-334", ("deferred", "system_temp", "auth"), on={"AUTH": b"334 \r\n", "": b"334 \r\n"}, extensions=(b"AUTH LOGIN",), keys=f'auth = "login", {LOGIN}')

# R19: CHUNKING is offered; the engine does not use it
v("R19", "bdat-refused", OK, on={"BDAT": b"500 what\r\n"}, extensions=PIPELINING + (b"CHUNKING", b"BINARYMIME"),
  see=lambda relay, events: check("BDAT" not in relay.verbs(), relay.verbs()))


# R20: text that wants to be more than text
def clean_text(relay, events):
    for e in events:
        text = e.get("reply", "")
        check(len(text.encode()) <= 1024, f"{len(text)} octets of reply text")
        check(not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text), repr(text))


v("R20", "markup", ("failed", "bad_mailbox", "rcpt"), on={"RCPT": b"550 5.1.1 <script>alert(1)</script>\x1b[2J\xe2\x80\xae\xc2\x9b31m x\r\n"}, see=clean_text)
v("R20", "long", (("failed", "deferred"), None, "rcpt"), on={"RCPT": b"550-5.1.1 " + b"x" * 1900 + b"\r\n" + (b"550-" + b"y" * 1900 + b"\r\n") * 25 + b"550 end\r\n"}, see=clean_text)
v("R20", "64k", BAD, on={"RCPT": (b"550-" + b"y" * 1990 + b"\r\n") * 40 + b"550 end\r\n"}, see=clean_text)
v("R20", "cells", ("failed", "bad_mailbox", "rcpt"), on={"RCPT": b"550 5.1.1\t=cmd|calc\r\n"}, see=clean_text)
v("R20", "newlines", (("failed", "deferred"), None, "rcpt"), on={"RCPT": b"550-5.1.1 a\r\n550 b\",\"ev\":\"delivered\r\n"}, see=clean_text)
v("R20", "utf8", ("failed", "bad_mailbox", "rcpt"), on={"RCPT": "550 5.1.1 宛先不明 ".encode() + b"\xed\xa0\x80\xff\xc0\xae\r\n"}, see=clean_text)


# --- names: a small DNS server ---

def dns_name(data, at):
    labels = []
    while data[at]:
        labels.append(data[at + 1:at + 1 + data[at]])
        at += 1 + data[at]
    return b".".join(labels).decode(errors="replace").lower(), at + 1


def encode_name(name):
    return b"".join(bytes([len(p)]) + p.encode() for p in name.split(".") if p) + b"\0"


class Dns:
    """Answers by the first label of the domain; counts questions."""

    def __init__(self, address="127.0.0.1"):
        self.address = address
        self.questions = {}
        self.port = free_ports(1)[0]
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", self.port))
        self.tcp = socket.socket()
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.tcp.bind(("127.0.0.1", self.port))
        self.tcp.listen(8)
        threading.Thread(target=self.run, daemon=True).start()
        threading.Thread(target=self.run_tcp, daemon=True).start()

    def run(self):
        while True:
            data, peer = self.socket.recvfrom(2048)
            answer = self.answer(data)
            if answer is not None:
                if len(answer) > 1232:
                    answer = answer[:2] + bytes([answer[2] | 2]) + answer[3:6] + b"\0\0\0\0\0\0" + data[12:self.end]
                self.socket.sendto(answer, peer)

    def run_tcp(self):
        while True:
            s, _ = self.tcp.accept()
            try:
                head = s.recv(2)
                data = s.recv(struct.unpack(">H", head)[0])
                answer = self.answer(data)
                s.sendall(struct.pack(">H", len(answer)) + answer)
            except (OSError, struct.error):
                pass
            s.close()

    def answer(self, data):
        name, at = dns_name(data, 12)
        kind = struct.unpack(">H", data[at:at + 2])[0]
        self.end = at + 4
        self.questions[name] = self.questions.get(name, 0) + 1
        rcode, records = self.records(name, kind)
        body = b"".join(encode_name(owner) + struct.pack(">HHIH", t, 1, ttl, len(d)) + d for owner, t, ttl, d in records)
        return data[:2] + struct.pack(">HHHHH", 0x8180 | rcode, 1, len(records), 0, 0) + data[12:self.end] + body

    def records(self, name, kind):
        a, mx, cname, aaaa = 1, 15, 5, 28
        first = name.split(".")[0]
        here = socket.inet_aton(self.address)
        if first == "nxdomain":
            return 3, []
        if first == "servfail":
            return 2, []
        if first == "nullmx" and kind == mx:
            return 0, [(name, mx, 60, struct.pack(">H", 0) + b"\0")]
        if first == "ourname" and kind == mx:
            return 0, [(name, mx, 60, struct.pack(">H", 10) + encode_name("mx.test"))]
        if first in ("cloop", "cloop2"):
            return 0, [(name, cname, 60, encode_name(("cloop2" if first == "cloop" else "cloop") + ".dns.test"))]
        if first == "many" and kind == mx:
            return 0, [(name, mx, 60, struct.pack(">H", i) + encode_name(f"dead{i}.dns.test")) for i in range(500)]
        if first == "hundred" and kind == a:
            return 0, [(name, a, 60, bytes([127, 0, 0, 1])) for i in range(500)]
        if first in ("ttl0", "self", "hundred", "zero", "six", "good"):
            if kind == mx:
                return 0, [(name, mx, 0, struct.pack(">H", 5) + encode_name(name))]
            if kind == a and first != "six":
                return 0, [(name, a, 0, b"\0\0\0\0" if first == "zero" else here)]
            if kind == aaaa and first == "six":
                return 0, [(name, aaaa, 0, b"\0" * 15 + b"\1")]
            return 0, []
        if first == "garbage":
            return 0, [(name, mx, 60, b"\xff\xff\xff")]
        return 3, []


# --- running it ---

def hand_in(port, sender, recipients, size=0, text="hello"):
    """One message to all of these; its id."""
    with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=60) as s:
        s.ehlo("t")
        s.mail(sender)
        for r in recipients:
            code, reply = s.rcpt(r)
            check(code == 250, (code, reply))
        body = b"x" * 76 + b"\r\n"
        content = f"From: {sender}\r\nTo: {recipients[0]}\r\nSubject: t\r\n\r\n{text}\r\n".encode() + body * (size // len(body))
        code, reply = s.data(content)
        check(code == 250, (code, reply))
        return reply.decode().split()[-1]


class Healthy:
    """A message every 100 ms by a sound relay; how long each took. In a process of its own: the misbehaving relays' threads take turns with one another."""

    def __init__(self):
        fork = multiprocessing.get_context("fork")
        self.end, other = fork.Pipe()
        self.process = fork.Process(target=self.run, args=(other,), daemon=True)
        self.process.start()
        other.close()
        self.port = self.end.recv()

    def start(self, engine_port):
        self.end.send(engine_port)

    def stop(self):
        """Seconds each message took, sorted, 99 for one that did not come; and how late, sorted, the machine woke this process for each."""
        self.end.send("stop")
        took, late = self.end.recv() if self.end.poll(20) else ([99.0], [0.0])
        self.process.join(20)
        return sorted(took), sorted(late)

    def run(self, end):
        self.end.close()
        relay = Relay(extensions=PIPELINING)
        end.send(relay.port)
        port, n, took, late = end.recv(), 0, [], []
        asked = time.monotonic()
        while not end.poll(0.1):
            n += 1
            at = time.monotonic()
            late.append(at - asked - 0.1)
            try:
                hand_in(port, "a@x.test", [f"h{n}@healthy.test"], text=f"number {n} end")
                wait_for(lambda: any(f"number {n} end".encode() in m[3] for m in relay.messages[-8:]), 15, 0.005, f"healthy mail {n}")
                took.append(time.monotonic() - at)
            except (AssertionError, OSError, smtplib.SMTPException) as e:
                took.append(99.0)
                print(f"healthy mail {n}: {e}", flush=True)
                break
            asked = time.monotonic()
        end.send((took or [99.0], late or [0.0]))


def fits(want, event):
    def one(expected, got):
        return expected is None or got == expected or (isinstance(expected, tuple) and got in expected)
    return one(want[0], event["ev"]) and one(want[1], event.get("class")) and one(want[2], event.get("stage"))


ENDS = ("delivered", "deferred", "failed", "held", "expired", "parked")


def ends_of(engine, address):
    return [e for e in engine.events() if e.get("rcpt") == address and e["ev"] in ENDS]


def canaries():
    forms = [PASSWORD.encode(), base64.b64encode(PASSWORD.encode()), base64.b64encode(b"\0" + USER.encode() + b"\0" + PASSWORD.encode()),
             urllib.parse.quote(PASSWORD).encode(), PASSWORD.encode().hex().encode()]
    for shift in range(3):  # inside a longer base64 text
        whole = base64.b64encode(b"?" * shift + PASSWORD.encode())
        forms.append(whole[4 if shift else 0:-4])
    return forms


def certificate(world):
    cert, key = world.path("cert.pem"), world.path("key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj", "/CN=relay.test",
                    "-keyout", key, "-out", cert], check=True, capture_output=True)
    public = subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-outform", "der"], check=True, capture_output=True).stdout
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, hashlib.sha256(public).hexdigest()


def policy(variants, pin, dns, extra):
    text = ['engine { hostname = "mx.test", listen = "127.0.0.1:{port}", http = false, owner = "o@x.test", retry = { "1h" }, dsn = "none",',
            f'  workers = 2, resolver = "127.0.0.1:{dns.port}" }}']
    for x in variants:
        keys = x.keys.replace("@PIN@", pin)
        tls = "" if "tls =" in keys else 'tls = "none", '
        timeout = "" if "timeout =" in keys else 'timeout = { command = "8s", data = "8s", dot = "8s" }, '
        text.append(f'relay "{x.name}" {{ host = "127.0.0.1", port = {x.relay.port}, {tls}{timeout}sends_as = "*", {keys} }}')
        text.append(f'route "{x.name}" {{ to = "{x.name}.test", via = "{x.name}" }}')
    return "\n".join(text) + extra


def run_variants(world, engine, variants):
    errors = []

    def send(x):
        try:
            hand_in(engine.port, "a@x.test", [f"u{i}@{x.name}.test" for i in range(x.n)], x.size)
        except (OSError, smtplib.SMTPException, AssertionError) as e:
            errors.append(f"{x.name}: not taken: {e}")

    with concurrent.futures.ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(send, variants))
    bad = list(errors)
    by_rcpt = {}

    def read():
        by_rcpt.clear()
        for e in engine.events():
            if e["ev"] in ENDS:
                by_rcpt.setdefault(e["rcpt"], []).append(e)
        return all(f"u{i}@{x.name}.test" in by_rcpt for x in variants for i in range(x.n))

    try:
        wait_for(lambda: engine.is_alive() and read(), 40, 0.2, "every recipient has an outcome")
    except AssertionError as e:
        bad.append(str(e))
    for x in variants:
        problem = verdict(x, by_rcpt)
        print(f"{x.case} {x.name[4:]:44} {problem or 'ok'}", flush=True)
        if problem:
            bad.append(f"{x.name}: {problem}")
    return bad


def verdict(x, by_rcpt):
    events = []
    for i in range(x.n):
        got = by_rcpt.get(f"u{i}@{x.name}.test", [])
        if not got:
            return f"FAILED: recipient {i} has no outcome; the relay saw {x.relay.verbs()}"
        events += got
        if len(got) > 1:
            return f"FAILED: recipient {i} has {len(got)} outcomes: {got}"
        if not fits(x.wants(i), got[0]):
            return f"FAILED: recipient {i}: expected {x.wants(i)}, got {json.dumps(got[0])}"
        if got[0]["ev"] == "delivered" and not x.relay.messages:
            return "FAILED: told as delivered, but no content arrived"
    if x.see is not None:
        try:
            x.see(x.relay, events)
        except AssertionError as e:
            return f"FAILED: {e}"
    return None


# --- cases with a course of their own ---

def case_r10(world, engine, pairs):
    """One host and port, three settings: a connection of one is never used by another."""
    relay = pairs["r10"]
    for name in ("r10-plain", "r10-tls", "r10-other-user", "r10-plain"):
        rcpt = f"u@{name}.test"
        before = len(ends_of(engine, rcpt))
        hand_in(engine.port, "a@x.test", [rcpt])
        got = wait_for(lambda: ends_of(engine, rcpt)[before:], 20, 0.1, f"outcome of {rcpt}")
        check(got[0]["ev"] == "delivered", got)
    by_number = {}
    for number, _, recipients, _ in relay.messages:
        by_number.setdefault(number, set()).update(re.search(rb"@([^.]+)", r).group(1) for r in recipients)
    check(all(len(names) == 1 for names in by_number.values()), f"connections shared: {by_number}")
    for conn in relay.conns:
        names = by_number.get(conn.number, set())
        if b"r10-tls" in names:
            check(conn.is_secure, "TLS was asked for")
        users = {base64.b64decode(line.split()[2]).split(b"\0")[1] for _, line in conn.seen if line[:10] == b"AUTH PLAIN"}
        check(users == {b"r10-other-user": {b"bob"}}.get(next(iter(names), b""), {USER.encode()}) or not names, (names, users))


def case_r11_idle(world, engine, pairs):
    """421 on an idle connection and one that has gone stale: the next message goes out at once by a fresh one."""
    for name in ("r11-idle", "r11-stale"):
        for i in range(2):
            rcpt = f"i{i}@{name}.test"
            hand_in(engine.port, "a@x.test", [rcpt])
            got = wait_for(lambda: ends_of(engine, rcpt), 20, 0.1, f"outcome of {rcpt}")
            check(got[0]["ev"] == "delivered", got)
            if i == 0:
                wait_for(lambda: n_connections(pairs[name].port) == 0, 20, 0.02, f"the engine lets the connection to {name} go")
        check(len(pairs[name].messages) == 2 and len(pairs[name].conns) == 2, f"{name}: {len(pairs[name].messages)} messages, {len(pairs[name].conns)} connections")


def case_r22(world, engine, pairs):
    """Names that lead nowhere, round in circles, or to ourselves."""
    wants = {"nxdomain": ("failed", "bad_domain"), "servfail": ("deferred", "network"), "nullmx": ("failed", "bad_domain"), "cloop": ("deferred", "network"),
             "garbage": (("deferred", "failed"), None), "many": (("deferred", "failed"), None), "hundred": ("delivered", "ok"), "ttl0": ("delivered", "ok")}
    ours = {"self": ("failed", "bad_domain"), "zero": ("failed", "bad_domain"), "six": ("failed", "bad_domain")}  # by port 25: this machine is no mail host
    wants = {f"{name}.dns.test": want for name, want in wants.items()} | {f"{name}.dns25.test": want for name, want in ours.items()}
    wants["ourname.dns2.test"] = ("deferred", "unknown")  # its MX is our hostname: refused for good, unless DNS says otherwise 15 minutes later
    for name in wants:
        hand_in(engine.port, "a@x.test", [f"u@{name}"])
    for name, (event, klass) in wants.items():
        rcpt = f"u@{name}"
        got = wait_for(lambda: ends_of(engine, rcpt), 60, 0.1, f"outcome of {rcpt}")
        check(fits((event, klass, None), got[0]), f"{name}: {json.dumps(got[0])}")
        print(f"    {name}: {got[0]['ev']} {got[0].get('class')}: {got[0].get('reply', '')[:90]}")
    questions = sum(n for name, n in pairs["dns"].questions.items())
    check(questions < 150, f"{questions} questions: {pairs['dns'].questions}")


def case_r22_self(world, engine, pairs):
    """Our own listener as a relay: the mail goes round a bounded number of times at most and ends as a failure."""
    for name in ("self-relay.test", "self.dns2.test"):
        rcpt = f"u@{name}"
        hand_in(engine.port, "a@x.test", [rcpt])
        try:
            wait_for(lambda: any(e["ev"] in ("failed", "deferred") for e in ends_of(engine, rcpt)), 40, 0.2, f"the loop of {rcpt} ends")
        finally:
            rounds = sum(1 for e in engine.events("accepted") if e.get("rcpt") == rcpt)
            print(f"    {name}: {rounds} rounds; {json.dumps(ends_of(engine, rcpt)[-1:])[:300]}")
        check(rounds <= 60, f"{rounds} rounds")


def case_r23(world, engine, pairs):
    """A bound on logins: 421 at AUTH to all but three connections of an account; the rest of the mail goes by those."""
    n = 40
    for i in range(n):
        hand_in(engine.port, "a@x.test", [f"u{i}@r23.test"])
    wait_for(lambda: len(pairs["r23"].messages) >= n, 30, 0.1, "all mail by the connections that are open")
    ends = wait_for(lambda: (lambda got: len(got) >= n and got)([e for e in engine.events() if e["ev"] in ENDS and e.get("rcpt", "").endswith("@r23.test")]),
                    20, 0.1, "every recipient has an outcome")
    check(all(e["ev"] == "delivered" and e["attempts"] == 1 for e in ends), [e for e in ends if e["ev"] != "delivered"][:2])
    check(pairs["r23"].n_refused > 0, "no login was refused: the case tries nothing")
    check(not [e for e in engine.events("relay_paused") if "r23" in json.dumps(e)], "the account was paused")


def case_r24(world, engine, pairs):
    """A bound on recipients: 452 to all but five of a message; the rest goes at once, and the number is known from then on."""
    relay = pairs["r24"]
    for k in range(2):
        rcpts = [f"u{k}.{i}@r24.test" for i in range(23)]
        hand_in(engine.port, "a@x.test", rcpts)
        wait_for(lambda: all(ends_of(engine, r) for r in rcpts), 20, 0.1, "every recipient has an outcome")
        ends = [ends_of(engine, r)[0] for r in rcpts]
        check(all(e["ev"] == "delivered" and e["attempts"] == 1 for e in ends), [e for e in ends if e["ev"] != "delivered"][:2])
    check(relay.n_refused == 18, f"{relay.n_refused} recipients refused: the second message should have come in fives")
    row = [r for r in json.loads(world.run("relay", "list", "--json", "--spool", engine.spool)[1])["relays"] if r["relay"] == "r24"][0]
    check(row["learned"]["recipients"] == 5 and row["state"] == "ok", row)


def case_r25(world, engine, pairs):
    """A password that is corrected in its file: it counts from a reload, or a resume, on."""
    relay = pairs["r25"]
    for n, act in enumerate((("reload",), ("relay", "resume", "r25"))):
        relay.good = f"good-{n}".encode()
        with relay.lock:
            conns = list(relay.conns)
        for conn in conns:
            conn.hang_up()
        wait_for(lambda: n_connections(relay.port) == 0, 20, 0.02, "the engine lets its connections go")
        hand_in(engine.port, "a@x.test", [f"u{n}@r25.test"])
        wait_for(lambda: len(engine.events("relay_paused")) and relay.n_refused > n, 20, 0.1, "the wrong password is refused")
        wait_for(lambda: ends_of(engine, f"u{n}@r25.test"), 20, 0.1, "the mail waits")
        world.write("secrets/r25", relay.good.decode() + "\n", mode=0o600)
        world.run(*act, "--spool", engine.spool)
        wait_for(lambda: any(e["ev"] == "delivered" for e in ends_of(engine, f"u{n}@r25.test")), 20, 0.1, f"delivered after {act}")
        check(relay.n_refused == n + 1, f"{relay.n_refused} logins were refused: the old password was used again")


CASES = [("R25", case_r25), ("R24", case_r24), ("R23", case_r23), ("R10", case_r10), ("R11", case_r11_idle), ("R22", case_r22), ("R22", case_r22_self)]


def special_relays(world, context, dns):
    def later_421(c):
        def run():
            let_pass(0.3, "the connection is idle")
            try:
                c.say(b"421 4.4.2 idle too long\r\n")
                c.sock.shutdown(socket.SHUT_RDWR)
            except (Gone, OSError):
                pass
        threading.Thread(target=run, daemon=True).start()
        return b"250 taken\r\n"

    def goes_stale(c):
        c.say(b"250 taken\r\n")
        if c.number == 1:
            raise Gone()
        return b""

    def bounded_login(c):
        with c.relay.lock:
            if c.relay.n_in >= 3:
                c.relay.n_refused += 1
                refused = True
            else:
                c.relay.n_in += 1
                refused = False
        if refused:
            c.say(b"421 4.7.0 Maximum number of connections from user+IP exceeded\r\n")
            raise Gone()
        let_pass(0.02, "the relay takes its time, and other connections come")
        return b"235 2.7.0 in\r\n"

    bounded = Relay(on={"AUTH": bounded_login, "dot": lambda c: let_pass(0.02, "the relay takes its time")}, extensions=PIPELINING + (b"AUTH PLAIN",))
    bounded.n_in = bounded.n_refused = 0
    def bounded_recipient(c):
        c.n_rcpt += 1
        c.relay.n_refused += c.n_rcpt > 5
        return b"452 4.5.3 Too many recipients\r\n" if c.n_rcpt > 5 else b"250 ok\r\n"

    def login_by_password(c):
        is_good = base64.b64decode(c.seen[-1][1].split()[2]).split(b"\0")[2] == c.relay.good
        c.relay.n_refused += not is_good
        return b"235 2.7.0 in\r\n" if is_good else b"535 5.7.8 wrong\r\n"

    corrected = Relay(on={"AUTH": login_by_password}, extensions=(b"AUTH PLAIN",))
    corrected.n_refused, corrected.good = 0, b""
    five = Relay(on={"MAIL": lambda c: setattr(c, "n_rcpt", 0), "RCPT": bounded_recipient}, extensions=PIPELINING)
    five.n_refused = 0
    own = Relay()
    pairs = {"r23": bounded, "r24": five, "r25": corrected, "r10": Relay(extensions=(b"STARTTLS", b"AUTH PLAIN"), context=context), "r11-idle": Relay(on={"dot": [later_421]}), "r11-stale": Relay(on={"dot": goes_stale}),
             "own": own, "dns": dns}
    return pairs


def special_policy(pairs, pin, healthy):
    r10 = pairs["r10"].port
    return f"""
relay "r10-plain" {{ host = "127.0.0.1", port = {r10}, tls = "none", auth = "plain", user = "{USER}", password = secret "relay" }}
relay "r10-tls" {{ host = "127.0.0.1", port = {r10}, tls = "starttls", pin = "{pin}", user = "{USER}", password = secret "relay" }}
relay "r10-other-user" {{ host = "127.0.0.1", port = {r10}, tls = "none", auth = "plain", user = "bob", password = secret "relay" }}
route "r10-plain" {{ to = "r10-plain.test", via = "r10-plain" }}
route "r10-tls" {{ to = "r10-tls.test", via = "r10-tls" }}
route "r10-other-user" {{ to = "r10-other-user.test", via = "r10-other-user" }}
relay "r11-idle" {{ host = "127.0.0.1", port = {pairs['r11-idle'].port}, tls = "none" }}
relay "r11-stale" {{ host = "127.0.0.1", port = {pairs['r11-stale'].port}, tls = "none" }}
route "r11-idle" {{ to = "r11-idle.test", via = "r11-idle" }}
route "r11-stale" {{ to = "r11-stale.test", via = "r11-stale" }}
relay "own" {{ mx = true, port = {pairs['own'].port}, tls = "none", timeout = {{ connect = "2s" }} }}
relay "own25" {{ mx = true, tls = "none", timeout = {{ connect = "2s" }} }}
route "dns25" {{ to = ".dns25.test", via = "own25" }}
relay "own-self" {{ mx = true, port = {{port}}, tls = "none" }}
relay "self" {{ host = "127.0.0.1", port = {{port}}, tls = "none" }}
route "dns" {{ to = ".dns.test", via = "own" }}
route "dns2" {{ to = ".dns2.test", via = "own-self" }}
route "self" {{ to = "self-relay.test", via = "self" }}
relay "r23" {{ host = "127.0.0.1", port = {pairs['r23'].port}, tls = "none", auth = "plain", user = "r23", password = secret "relay", connections = 10 }}
route "r23" {{ to = "r23.test", via = "r23" }}
relay "r24" {{ host = "127.0.0.1", port = {pairs['r24'].port}, tls = "none" }}
route "r24" {{ to = "r24.test", via = "r24" }}
relay "r25" {{ host = "127.0.0.1", port = {pairs['r25'].port}, tls = "none", auth = "plain", user = "r25", password = secret "r25" }}
route "r25" {{ to = "r25.test", via = "r25" }}
relay "healthy" {{ host = "127.0.0.1", port = {healthy}, tls = "none" }}
route "healthy" {{ to = "healthy.test", via = "healthy" }}
"""


def rss_mib(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    only_known(args.cases, {x.case for x in VARIANTS} | {name for name, _ in CASES})
    variants = [x for x in VARIANTS if not args.cases or x.case in args.cases]
    bad = []
    with World(args.binary, keep=args.keep) as world:
        context, pin = certificate(world)
        healthy = Healthy()
        dns = Dns()
        for x in variants:
            x.relay = x.make(context)
        pairs = special_relays(world, context, dns)
        os.makedirs(world.path("secrets"), mode=0o700)
        world.write("secrets/relay", PASSWORD + "\n", mode=0o600)
        world.write("secrets/r25", "wrong\n", mode=0o600)
        engine = world.engine(policy(variants, pin, dns, special_policy(pairs, pin, healthy.port)), log="debug")
        ENGINE.append(engine.p.pid)
        healthy.start(engine.port)
        before = rss_mib(engine.p.pid)
        at = time.monotonic()
        bad += run_variants(world, engine, variants)
        for name, run in CASES:
            if args.cases and name not in args.cases:
                continue
            try:
                run(world, engine, pairs)
                print(f"{name} {run.__doc__.split(':')[0].strip():44} ok", flush=True)
            except (AssertionError, OSError, smtplib.SMTPException) as e:
                bad.append(f"{name}: {e}")
                print(f"{name} {run.__doc__.split(':')[0].strip():44} FAILED: {e}", flush=True)
        took, late = healthy.stop()
        p99, late_p99 = (values[int(len(values) * 0.99)] for values in (took, late))
        most = 2 + 20 * late_p99  # a message needs some twenty turns of programs, each of which a busy machine gives late
        grown = rss_mib(engine.p.pid) - before
        print(f"NOTE {len(variants)} relays in {time.monotonic() - at:.1f} s; healthy mail meanwhile: {len(took)} messages, p50 {took[len(took) // 2] * 1000:.0f} ms, "
              f"p99 {p99 * 1000:.0f} ms; memory grew by {grown:.0f} MiB")
        if p99 > most:
            bad.append(f"healthy mail took {p99:.1f} s; at most {most:.1f} s, as the machine was up to {late_p99:.2f} s late")
        if grown > 500:
            bad.append(f"memory grew by {grown:.0f} MiB")
        if engine.stop() != 0:
            bad.append("the engine did not stop cleanly")
        with open(engine.log, "rb") as f:
            logs = f.read()
        with open(os.path.join(engine.spool, "events.jsonl"), "rb") as f:
            logs += f.read()
        for form in canaries():
            if form in logs:
                bad.append(f"the password is in a log, as {form}")
    for line in bad:
        print("FAILED", line)
    n = len(variants) + sum(1 for name, _ in CASES if not args.cases or name in args.cases)
    print(f"{max(n - len(bad), 0)} passed, {len(bad)} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
