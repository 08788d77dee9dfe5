"""What a policy says, end to end: fallback, rewriting, masks, notices, parked recipients."""
import email
import email.policy

from common import Wire, case, end, event, events, field, fields, holds, mail, message, rewrite, same, send
from harness import wait_for

ENGINE = 'engine { hostname = "mail.shop.example", listen = "127.0.0.1:{port}", owner = "owner@shop.example", retry = { "1s" } }\n'
TWO = ENGINE + """
relay "first"  { host = "127.0.0.1", port = PORT0, tls = "none" }
relay "second" { host = "127.0.0.1", port = PORT1, tls = "none", from = "shop@docomo.ne.jp" }
relay "third"  { host = "127.0.0.1", port = PORT2, tls = "none" }
"""
BLOCKED = "rcpt 554 5.7.1 blocked by DNSBL"
SIGNED = (b"DKIM-Signature: v=1; a=rsa-sha256; d=gmail.com; s=x; h=from:to;\r\n\tbh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;\r\n b=abcd\r\n")


def ports_in(policy, ports):
    for i, port in enumerate(ports):
        policy = policy.replace(f"PORT{i}", str(port))
    return policy


def start(world, policy, rules=(), n_ports=3, **options):
    """An engine whose relays are the ports of one sink."""
    sink = world.sink(ports=n_ports, rules=rules)
    engine = world.engine(ports_in(policy, sink.ports), **options)
    engine.sink = sink
    return engine


def by_port(world, engine, n, seconds=30):
    """Which relay got which recipient: [(index of the port, recipient)]."""
    return sorted((engine.sink.ports.index(row["port"]), row["to"][0]) for row, _ in mail(world, n, seconds=seconds))


@case("policy", "blocked at the first relay: by the second as its own From, all else octet for octet")
def fallback_by_class(world):
    engine = start(world, TWO + 'route "all" { to = "*", via = { "first", step "second" { on = classes.ours } } }', [f":{{0}} {BLOCKED}"])
    head = [b"X-First:  two  blanks \t", b"From: =?ISO-2022-JP?B?GyRCM3Q8MDJxPFIbKEI=?= <member@gmail.com>",
            b"To: =?UTF-8?Q?=E5=B1=B1?= <someone@a.example>,\r\n\tother@b.example", b"Subject: =?ISO-2022-JP?B?GyRCJDMkcyRLJEEkTxsoQg==?=",
            b"MIME-Version: 1.0", b"Content-Type: text/plain; charset=Shift_JIS", b"Content-Transfer-Encoding: 8bit",
            b"Date: Tue, 01 Dec 2026 10:00:00 +0900", b"Message-ID: <one@shop.example>", b"x-last:\r\n folded"]
    body = b"\x82\xb1\x82\xf1\x82\xc9\x82\xbf\x82\xcd\r\n.\r\n..two\r\n" + b"x" * 990 + b"\r\n\r\n tail \r\n"
    original = SIGNED + b"\r\n".join(head) + b"\r\n\r\n" + body
    id_ = send(engine, "someone@a.example", original, sender="member@gmail.com")
    (row, content), = mail(world, 1)
    same(engine.sink.ports.index(row["port"]), 1, "relay")
    same(row["sender"], "shop@docomo.ne.jp", "envelope sender")
    got, got_body = fields(content)
    same(got_body, body, "body")
    holds(got[0].startswith(b"Received: "), f"no Received first: {got[0]!r}")
    same(field(content, "From"), b"From: =?ISO-2022-JP?B?GyRCM3Q8MDJxPFIbKEI=?= <shop@docomo.ne.jp>", "From")
    holds(b"member@gmail.com" in field(content, "Reply-To"), "the old author is not in Reply-To")
    same(field(content, "DKIM-Signature"), None, "DKIM-Signature")
    ours = (b"received:", b"from:", b"reply-to:")
    same([f for f in got if not f.lower().startswith(ours)], [f for f in head if not f.startswith(b"From:")], "the other fields")
    done = event(engine, "delivered", id=id_)
    same((done["relay"], done["from"], done["envelope"]), ("second", "shop@docomo.ne.jp", "shop@docomo.ne.jp"), "event")
    same(event(engine, "routed", id=id_)["class"], "blocked_ip", "class")
    end(engine)


@case("policy", "a From that a route or a relay fixes names one author, also where the first of several was that one")
def one_author(world):
    engine = start(world, TWO + """
        relay "limited" { host = "127.0.0.1", port = PORT1, tls = "none", sends_as = "shop.example" }
        route "stated"  { to = "stated.example", via = "first", from = "a@shop.example" }
        route "limited" { to = "limited.example", via = "limited" }
        route "all"     { to = "*", via = "first" }""")
    authors = b"From: A <a@shop.example>,\r\n B <evil@other.example>\r\n"
    for n, (domain, kept) in enumerate((("stated.example", False), ("limited.example", False), ("any.example", True)), 1):
        send(engine, f"x@{domain}", SIGNED + authors + b"Subject: two\r\n\r\nhello\r\n")
        content = next(c for row, c in mail(world, n) if row["to"] == [f"x@{domain}"])
        same(field(content, "From"), authors[:-2] if kept else b"From: A <a@shop.example>", domain)
        same(field(content, "DKIM-Signature") is not None, kept, "the signature")
        replies = field(content, "Reply-To") or b""
        same((b"a@shop.example" in replies, b"evil@other.example" in replies), (not kept, not kept), "an answer reaches all authors")
    end(engine)


@case("policy", "untouched when From is not rewritten, signature and all")
def unchanged_by_default(world):
    engine = start(world, TWO + 'route "all" { to = "*", via = "first" }')
    original = SIGNED + message(extra="Sender: x@y.example\r\nReply-To: a@b.example\r\n", body=".\r\n..\r\n\r\nend\r\n")
    send(engine, "someone@a.example", original)
    _, content = mail(world, 1)[0]
    trace, rest = content[:-len(original)], content[-len(original):]
    same(rest, original, "the message")
    holds(trace.startswith(b"Received: ") and trace.endswith(b"\r\n") and trace.lower().count(b"\nreceived:") == 0, f"trace {trace!r}")
    end(engine)


@case("policy", "`on` says for what a step is entered; who does not exist is tried nowhere else")
def on_masks(world):
    policy = TWO + 'route "all" { to = "*", via = { "first", step "second" { on = { "blocked_ip" } }, "third" }, dsn = "none" }'
    engine = start(world, policy, [f"a.example:{{0}} {BLOCKED}", "b.example:{0} rcpt 552 5.3.4 Message size exceeds fixed limit",
                                   "c.example:{0} rcpt 550 5.1.1 User unknown"])
    for domain in "abcd":
        send(engine, f"u@{domain}.example")
    same(by_port(world, engine, 3), [(0, "u@d.example"), (1, "u@a.example"), (2, "u@b.example")], "relays")
    failed = event(engine, "failed", rcpt="u@c.example")
    same((failed["class"], failed["code"], failed["attempts"]), ("bad_mailbox", 550, 1), "the one who does not exist")
    engine.wait_empty()
    end(engine)


@case("policy", "`tries` and `within` end a step whose relay only says later")
def tries_and_within(world):
    engine = start(world, TWO + """
        route "tries"  { to = "a.example", via = { step "first" { tries = 2 }, "third" } }
        route "within" { to = "b.example", via = { step "first" { tries = 50, within = "3s" }, "third" } }
    """, [":{0} rcpt 451 4.3.0 busy"])
    for domain in "ab":
        send(engine, f"u@{domain}.example")
    same(by_port(world, engine, 2), [(2, "u@a.example"), (2, "u@b.example")], "relays")
    same(event(engine, "delivered", rcpt="u@a.example")["attempts"], 3, "attempts with tries = 2")
    took = event(engine, "delivered", rcpt="u@b.example")
    holds(3 <= took["attempts"] <= 5 and took["delay_ms"] < 6000, f"within: {took}")
    end(engine)


@case("policy", "no transaction has more recipients than the relay takes, and everyone gets it")
def recipients_per_message(world):
    engine = start(world, ENGINE + """
        relay "r" { host = "127.0.0.1", port = PORT0, tls = "none", recipients_per_message = 2 }
        route "all" { to = "*", via = "r" }
    """, n_ports=1)
    people = [f"u{i}@a.example" for i in range(5)]
    send(engine, people)
    engine.wait_empty()
    rows = [row for row, _ in mail(world, 3)]
    holds(all(len(row["to"]) <= 2 for row in rows), f"too many at once: {rows}")
    same(sorted(a for row in rows for a in row["to"]), people, "recipients")
    end(engine)


def report_of(content):
    """A delivery status notification's parts: (text, per message, per recipient, original)."""
    m = email.message_from_bytes(content, policy=email.policy.default)
    same(m.get_content_type(), "multipart/report", "type")
    same(m.get_param("report-type"), "delivery-status", "report-type")
    text, status, original = m.get_payload()
    same(status.get_content_type(), "message/delivery-status", "second part")
    blocks = status.get_payload()
    return m, text.get_content(), blocks[0], blocks[1:], original


@case("policy", "the sender gets a failure notice: RFC 3464, with the reply and the original")
def failure_notice(world):
    engine = start(world, TWO + 'route "all" { to = "*", via = "first" }', ["b.example rcpt 550 5.1.1 No such user here"])
    original = message("nobody@b.example", subject="the original")
    raw_options = {"mail_options": " RET=HDRS ENVID=order+2B42", "rcpt_options": " NOTIFY=FAILURE ORCPT=rfc822;nobody@b.example"}
    send(engine, "nobody@b.example", original, sender="maker@shop.example", **raw_options)
    (row, content), = mail(world, 1)
    same((row["sender"], row["to"]), ("", ["maker@shop.example"]), "envelope of the notice")
    m, text, about, people, attached = report_of(content)
    holds("nobody@b.example" in text and "No such user here" in text, f"text: {text}")
    holds("There is no such address. / 宛先のアドレスが存在しません。" in text, f"text: {text}")
    same(about["Original-Envelope-Id"], "order+42", "envelope id")
    holds(about["Reporting-MTA"].replace(" ", "").startswith("dns;"), about["Reporting-MTA"])
    same(len(people), 1, "recipients")
    same((people[0]["Action"], people[0]["Status"]), ("failed", "5.1.1"), "action and status")
    holds("nobody@b.example" in people[0]["Final-Recipient"] and "nobody@b.example" in people[0]["Original-Recipient"], str(people[0]))
    holds("550" in people[0]["Diagnostic-Code"] and "No such user here" in people[0]["Diagnostic-Code"], str(people[0]))
    same(attached.get_content_type(), "text/rfc822-headers", "RET=HDRS")
    holds("the original" in attached.as_string(), "the original's header is not there")
    holds(m["Auto-Submitted"] == "auto-replied" or "auto" in m["Auto-Submitted"], "Auto-Submitted")
    engine.wait_empty()
    end(engine)


@case("policy", "NOTIFY=NEVER: no notice; NOTIFY=SUCCESS: a notice of success; a notice's own failure: the owner is told")
def notify(world):
    engine = start(world, TWO + 'route "all" { to = "*", via = "first" }', ["b.example rcpt 550 5.1.1 No such user"])
    send(engine, "never@b.example", rcpt_options=" NOTIFY=NEVER", sender="never@shop.example")
    send(engine, "yes@a.example", rcpt_options=" NOTIFY=SUCCESS,FAILURE", sender="yes@shop.example")
    send(engine, "loop@b.example", sender="loop@b.example")
    send(engine, "null@b.example", sender="")
    for address in ("never@b.example", "loop@b.example", "null@b.example"):
        event(engine, "failed", rcpt=address)
    engine.wait_empty()
    rows = mail(world, 4)
    came = {row["to"][0]: content for row, content in rows}
    same(sorted(row["to"][0] for row, _ in rows), ["owner@shop.example", "owner@shop.example", "yes@a.example", "yes@shop.example"],
         "who got mail; the owner that of the lost notice and of the mail without a sender")
    people = report_of(came["yes@shop.example"])[3]
    holds(people[0]["Action"] in ("relayed", "delivered") and people[0]["Status"].startswith("2."), str(people[0]))
    end(engine)


@case("policy", "a notice that is refused for its null sender: the owner and the log know; notices have steps and a route of their own")
def notice_refused(world):
    rules = [":{0} mail 501 5.1.7 the null sender is not allowed", "b.example rcpt 550 5.1.1 No such user"]
    engine = start(world, TWO + 'route "all" { to = "b.example", via = "second" }\nroute "notices" { to = "maker.example", sender = "<>", via = "first" }\n'
                   'route "rest" { to = "*", via = "second" }', rules)
    send(engine, "u@b.example", sender="a@maker.example")
    (row, content), = mail(world, 1)
    same((row["sender"], row["to"]), ("", ["owner@shop.example"]), "the owner is told, by another route")
    people = report_of(content)[3]
    holds("a@maker.example" in people[0]["Final-Recipient"] and "501" in people[0]["Diagnostic-Code"], str(people[0]))
    line = [x for x in engine.text().splitlines() if "ev=notice_failed" in x]
    holds(len(line) == 1 and "rcpt=a@maker.example" in line[0] and "owner=owner@shop.example" in line[0], str(line))
    rewrite(engine, ports_in(TWO + 'route "notices" { to = "*", sender = "<>", via = { "first", "second" } }\n'
                             'route "all" { to = "*", via = "second" }', engine.sink.ports))
    world.run("reload", "--spool", engine.spool)
    send(engine, "u@b.example", sender="c@maker.example")
    rows = [row["to"] for row, _ in mail(world, 2)]
    same(rows[1], ["c@maker.example"], "the notice went its next step")
    engine.wait_empty()
    end(engine)


@case("policy", "a policy that fails parks its recipient with file:line; mended and loaded again it goes out")
def parked(world):
    broken = ENGINE + """
        relay "r" { host = "127.0.0.1", port = PORT0, tls = "none" }
        route "broken" { to = "a.example", via = function(r) return r.nothing.there end }
        route "good"   { to = "b.example", via = "r" }
    """
    engine = start(world, broken, n_ports=1)
    ids = {domain: send(engine, f"u@{domain}.example") for domain in "abc"}
    same(mail(world, 1)[0][0]["to"], ["u@b.example"], "the others go out")
    holds(f"ev=parked msg={ids['a']} rcpt=u@a.example why=" in engine.text(), "the log line has no id")
    why = event(engine, "parked", rcpt="u@a.example")["text"]
    holds("engine.lua:4" in why, f"no file:line in {why!r}")
    holds("no_route" in event(engine, "parked", rcpt="u@c.example")["text"] or "route" in event(engine, "parked", rcpt="u@c.example")["text"],
          "no reason for no_route")
    same(sorted(r["recipient"] for r in engine.queue("--state", "parked")["rows"]), ["u@a.example", "u@c.example"], "parked")
    mended = broken.replace('function(r) return r.nothing.there end', '"r"').replace('"b.example"', '"*"')
    rewrite(engine, ports_in(mended, engine.sink.ports))
    world.run("reload", "--spool", engine.spool)
    engine.wait_empty(20)
    same(sorted(row["to"][0] for row, _ in mail(world, 3)), ["u@a.example", "u@b.example", "u@c.example"], "delivered")
    same(len(events(engine, "unparked", 2)), 2, "unparked")
    end(engine)


@case("policy", "names in ISO-2022-JP and Shift_JIS, raw and encoded, keep their octets when From is rewritten")
def japanese_names(world):
    engine = start(world, TWO + 'route "all" { to = "*", via = "second" }')
    names = [b'\x1b$B3t<02q<R\x1b(B', b'"\x8a\x94\x8e\xae\x89\xef\x8e\xd0 \x83\x5c"', "株式会社".encode(), b"=?Shift_JIS?B?ipSOronvjtA=?=",
             b"=?ISO-2022-JP?B?GyRCM3Q8MDJxPFIbKEI=?=\r\n =?ISO-2022-JP?B?GyRCM3Q8MDJxPFIbKEI=?=", b'"quoted \\" name, with comma"']
    for i, name in enumerate(names):
        original = message(subject=f"n{i}").replace(b"Shop <shop@shop.example>", name + b" <member@gmail.com>")
        send(engine, "u@a.example", original, sender="member@gmail.com")
    came = {field(content, "Subject"): content for _, content in mail(world, len(names))}
    for i, name in enumerate(names):
        same(field(came[f"Subject: n{i}".encode()], "From"), b"From: " + name + b" <shop@docomo.ne.jp>", f"From {i}")
    end(engine)


@case("policy", "a..b@docomo.ne.jp goes out quoted, and raw where the relay says raw")
def odd_localparts(world):
    wire = Wire()
    engine = world.engine(ENGINE + f"""
        relay "quoted" {{ host = "127.0.0.1", port = {wire.port}, tls = "none" }}
        relay "raw"    {{ host = "127.0.0.1", port = {wire.port}, tls = "none", user = "x", auth = "none", localpart = "raw" }}
        route "raw"    {{ to = "a.@ezweb.ne.jp", via = "raw" }}
        route "one"    {{ to = "c..d@docomo.ne.jp", via = "raw" }}
        route "rest"   {{ to = "*", via = "quoted" }}
    """)
    for address in ("a..b@docomo.ne.jp", "a.@ezweb.ne.jp", '"c..d"@docomo.ne.jp', "plain@docomo.ne.jp"):
        send(engine, address)
    engine.wait_empty()
    got = sorted(line.split(b">")[0] + b">" for line in wire.lines if line.startswith(b"RCPT"))
    same(got, sorted([b'RCPT TO:<"a..b"@docomo.ne.jp>', b"RCPT TO:<a.@ezweb.ne.jp>", b"RCPT TO:<c..d@docomo.ne.jp>", b"RCPT TO:<plain@docomo.ne.jp>"]),
         "on the wire")
    end(engine)
    wire.close()


@case("policy", "engine.redirect: all connections go to one place, without AUTH and without secrets")
def redirect(world):
    sink = world.sink()
    engine = world.engine(ENGINE.replace("retry", f'redirect = "127.0.0.1:{sink.ports[0]}", retry') + """
        relay "own"    { mx = true }
        relay "rental" { host = "smtp.rental.invalid", port = 465, user = "shop", password = secret "nowhere" }
        route "own"    { to = "a.example", via = "own" }
        route "rest"   { to = "*", via = "rental" }
    """)
    send(engine, ["u@a.example", "u@b.example"])
    same(sorted(row["to"][0] for row, _ in mail(world, 2)), ["u@a.example", "u@b.example"], "redirected")
    same([row["user"] for row in world.received()], ["", ""], "logins")
    end(engine)


@case("policy", "engine.only_to: others are held, not sent")
def only_to(world):
    policy = ENGINE.replace("retry", 'only_to = { "staff@b.example", "ok.example" }, retry') + """
        relay "r" { host = "127.0.0.1", port = PORT0, tls = "none" }
        route "all" { to = "*", via = "r" }
    """
    engine = start(world, policy, n_ports=1)
    send(engine, ["u@ok.example", "customer@b.example", "staff@b.example"])
    wait_for(lambda: sum(len(row["to"]) for row in world.received()) >= 2, why="two recipients")
    same(sorted(a for row in world.received() for a in row["to"]), ["staff@b.example", "u@ok.example"], "sent")
    event(engine, "held", rcpt="customer@b.example")
    same([r["recipient"] for r in engine.queue("--state", "held")["rows"]], ["customer@b.example"], "held")
    said = world.run("queue", "release", "--state", "held", "--spool", engine.spool, check=False)[1]
    shown = " ".join(world.run("queue", "show", "--state", "held", "--spool", engine.spool)[1].split())
    holds("to do add the recipient to engine.only_to, type hikyaku reload, then hikyaku queue release" in shown, shown)
    holds("0 recipients released" in said and "1 stays held: engine.only_to does not name it" in said, said)
    end(engine)


@case("policy", "headers of the application choose scenario and tags, and do not go out")
def application_headers(world):
    engine = start(world, TWO + """
        route "spring" { to = "*", scenario = "spring", via = "second" }
        route "urgent" { to = "*", tag = "urgent", via = "third" }
        route "rest"   { to = "*", via = "first" }
    """)
    send(engine, "spring@a.example", message(extra="X-Hikyaku-Scenario: spring\r\n"))
    send(engine, "urgent@a.example", message(extra="X-Hikyaku-Tag: urgent\r\n"))
    send(engine, "plain@a.example")
    engine.wait_empty()
    same(by_port(world, engine, 3), [(0, "plain@a.example"), (1, "spring@a.example"), (2, "urgent@a.example")], "relays")
    for _, content in mail(world, 3):
        same(b"x-hikyaku" in content.lower(), False, "headers of ours went out")
    end(engine)
