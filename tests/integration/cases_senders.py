"""Programs that hand mail in: each by its own habits, all arrive."""
import base64
import email
import email.message
import email.policy
import os
import smtplib
import ssl
import subprocess

from common import Skip, Wire, case, certificate, end, event, events, field, holds, mail, message, need, same, send
from harness import ROOT, free_ports, wait_for

POLICY = """
engine {
  hostname = "mail.shop.example",
  listen = {
    "127.0.0.1:{port}",
    { addr = "127.0.0.1:PORT1", tls = "starttls", cert = "CERT", key = "KEY", users = { shop = { password = secret "shop" } } },
    { addr = "127.0.0.1:PORT2", tls = "implicit", cert = "CERT", key = "KEY", users = { shop = { password = secret "shop" } } },
  },
}
relay "r" { host = "127.0.0.1", port = SINK, tls = "none" }
route "all" { to = "*", via = "r" }
"""
PASSWORD = "p\u00e4ss word\"\\1"


class Post:
    """An engine with three doors: plain, STARTTLS and TLS from the start; the last two ask for a login."""

    def __init__(self, world):
        self.world = world
        self.cert, key = certificate(world)
        sink = world.sink()
        self.submission, self.smtps = free_ports(2)
        policy = POLICY.replace("PORT1", str(self.submission)).replace("PORT2", str(self.smtps)).replace("SINK", str(sink.ports[0]))
        self.engine = world.engine(policy.replace("CERT", self.cert).replace("KEY", key), env={"HIKYAKU_SECRET_SHOP": PASSWORD})
        self.port = self.engine.port
        self.env = {**os.environ, "HIKYAKU_SERVER": f"127.0.0.1:{self.port}"}

    def run(self, argv, stdin=b"", code=0, **kw):
        p = subprocess.run([str(a) for a in argv], input=stdin, capture_output=True, timeout=60, env=self.env, cwd=self.world.dir, **kw)
        said = (p.stdout + p.stderr).decode(errors="replace")
        if code is not None:
            same(p.returncode, code, f"{argv[0]}: {said[-3000:]}")
        return said

    def arrived(self, *addresses):
        """The messages for these addresses and no others, by address."""
        def look():
            got = {a: row for row in self.world.received() for a in row["to"]}
            return set(addresses) <= set(got) and got
        got = wait_for(look, 30, why=f"mail for {addresses}; there is {[r['to'] for r in self.world.received()]}")
        same(sorted(got), sorted(addresses), "recipients")
        content = {}
        for row, octets in mail(self.world, 1):
            for address in row["to"]:
                content[address] = octets
        return content

    def end(self):
        self.engine.wait_empty()
        end(self.engine)


@case("senders", "swaks: plain, STARTTLS, TLS from the start; AUTH PLAIN and LOGIN; a wrong password and no login are refused", 90)
def swaks(world):
    need("swaks")
    post = Post(world)
    base = ["swaks", "--from", "shop@shop.example", "--server", "127.0.0.1"]
    post.run(base + ["--port", post.port, "--to", "no-login@a.example"])
    wanted = ["no-login@a.example"]
    for auth in ("PLAIN", "LOGIN"):
        door = ["--port", post.smtps, "--tls-on-connect"] if auth == "LOGIN" else ["--port", post.submission, "--tls"]
        login = ["--auth", auth, "--auth-user", "shop", "--auth-password", PASSWORD]
        holds("queued as" in post.run(base + door + login + ["--to", f"{auth.lower()}@a.example"]), auth)
        wanted.append(f"{auth.lower()}@a.example")
    said = post.run(base + ["--port", post.submission, "--tls", "--auth", "PLAIN", "--auth-user", "shop", "--auth-password", "wrong",
                            "--to", "no@a.example"], code=None)
    holds("535 5.7.8" in said, f"a wrong password: {said}")
    said = post.run(base + ["--port", post.submission, "--to", "no@a.example"], code=None)
    holds("530 5.7." in said, f"no login: {said}")
    post.arrived(*wanted)
    post.end()


@case("senders", "what fits no file of the journal gets 552, not 452 for ever; what is smaller or larger is taken")
def no_file_is_large_enough(world):
    sink = world.sink()
    engine = world.engine(f"""
        engine {{ hostname = "mail.shop.example", listen = "127.0.0.1:{{port}}", bounds = {{ segment = "1M" }} }}
        relay "r" {{ host = "127.0.0.1", port = {sink.ports[0]}, tls = "none" }}
        route "all" {{ to = "*", via = "r" }}
    """)
    line = b"x" * 76 + b"\r\n"
    for octets, code in ((500000, 250), ((1 << 20) - 1000, 552), (1500000, 250)):
        with smtplib.SMTP("127.0.0.1", engine.port) as client:
            client.ehlo("client.example")
            client.mail("a@shop.example")
            client.rcpt("b@x.example")
            answer = client.data(b"From: a@shop.example\r\nSubject: s\r\n\r\n" + line * (octets // len(line)))
        same(answer[0], code, f"{octets} octets: {answer}")
        if code == 552:
            holds(b"5.3.4" in answer[1] and b"engine.bounds.segment" in answer[1], answer)
    engine.wait_empty()
    same(len(world.received()), 2, "delivered")
    end(engine)


@case("senders", "send and sendmail -t: quotes in addresses are those that were typed")
def quoted_addresses(world):
    wire = Wire()
    try:
        text = 'From: "sh op"@shop.example\nTo: Two <"c \\\\ d"@b.example>, a..b@docomo.ne.jp\nSubject: quotes\n\nx\n'
        for argv in (["--from", '"sh op"@shop.example', '"c \\\\ d"@b.example', '"plain"@b.example', "a..b@docomo.ne.jp"], ["-t", "-i"]):
            wire.lines.clear()
            p = subprocess.run([world.binary, "send", *argv], input=text.encode(), capture_output=True, timeout=60,
                               env={**os.environ, "HIKYAKU_SERVER": f"127.0.0.1:{wire.port}"})
            same(p.returncode, 0, p.stderr.decode())
            envelope = [line.decode().split(">")[0] + ">" for line in wire.lines if line[:4] in (b"MAIL", b"RCPT")]
            holds('RCPT TO:<"c \\\\ d"@b.example>' in envelope and "RCPT TO:<a..b@docomo.ne.jp>" in envelope, f"{argv}: {envelope}")
            holds(argv == ["-t", "-i"] or envelope[0] == 'MAIL FROM:<"sh op"@shop.example>', f"{argv}: {envelope}")
            holds(argv == ["-t", "-i"] or "RCPT TO:<plain@b.example>" in envelope, f"{argv}: {envelope}")
    finally:
        wire.close()


@case("senders", "msmtp: plain; STARTTLS and a login with the certificate checked")
def msmtp(world):
    need("msmtp")
    post = Post(world)
    text = b"From: shop@shop.example\nTo: x@a.example\nSubject: msmtp\n\n.\nline\n"
    post.run(["msmtp", "--file=/dev/null", "--host=127.0.0.1", f"--port={post.port}", "--from=shop@shop.example", "plain@a.example"], text)
    config = world.write("msmtprc", f"account default\nhost localhost\nport {post.submission}\nfrom shop@shop.example\ntls on\ntls_starttls on\n"
                         f"tls_trust_file {post.cert}\nauth plain\nuser shop\npasswordeval printenv WORD\n", 0o600)
    post.env["WORD"] = PASSWORD
    post.run(["msmtp", f"--file={config}", "--read-recipients"], text.replace(b"x@a.example", b"auth@a.example"))
    content = post.arrived("plain@a.example", "auth@a.example")
    holds(content["plain@a.example"].endswith(b"\r\n\r\n.\r\nline\r\n"), "the dot line")
    post.end()


@case("senders", "Python's smtplib: several recipients, a large message, 8-bit, a login, one session for many")
def python_smtplib(world):
    post = Post(world)
    context = ssl.create_default_context(cafile=post.cert)
    m = email.message.EmailMessage()
    m["From"], m["To"], m["Subject"] = "お店 <shop@shop.example>", "one@a.example, two@b.example", "こんにちは"
    m.set_content("本文\n.\n" + "長い" * 2000)
    m.add_attachment(os.urandom(2_000_000), maintype="application", subtype="octet-stream", filename="x.bin")
    with smtplib.SMTP("localhost", post.submission, "client.example", timeout=60) as s:
        s.starttls(context=context)
        s.ehlo()
        # smtplib's login() takes ASCII only
        same(s.docmd("AUTH PLAIN", base64.b64encode(f"\0shop\0{PASSWORD}".encode()).decode())[0], 235, "AUTH")
        s.send_message(m)
        for i in range(20):
            s.sendmail("shop@shop.example", f"many{i}@a.example", message(subject=str(i)))
    content = post.arrived("one@a.example", "two@b.example", *[f"many{i}@a.example" for i in range(20)])
    got = email.message_from_bytes(content["one@a.example"], policy=email.policy.default)
    same(got["Subject"], "こんにちは", "subject")
    same(got.get_body().get_content(), m.get_body().get_content(), "text")
    same(next(got.iter_attachments()).get_content(), next(m.iter_attachments()).get_content(), "attachment of 2 MB")
    post.end()


@case("senders", "smtp-source: many connections, several recipients a message")
def smtp_source(world):
    program = need("smtp-source")
    post = Post(world)
    post.run([program, "-s", 5, "-m", 40, "-r", 3, "-N", "-l", 4096, "-f", "shop@shop.example", "-t", "u@a.example", f"127.0.0.1:{post.port}"])
    wait_for(lambda: sum(len(r["to"]) for r in world.received()) >= 120, 40, why="120 recipients")
    same(len({a for r in world.received() for a in r["to"]}), 120, "recipients")
    post.end()


@case("senders", "nodemailer: pooled, STARTTLS and a login, attachments, a Japanese subject", 120)
def nodemailer(world):
    need("node")
    home = os.path.join(ROOT, "tests")
    if not os.path.isdir(os.path.join(home, "node_modules", "nodemailer")):
        npm = need("npm")
        p = subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=home, capture_output=True, timeout=80)
        if p.returncode != 0:
            raise Skip(f"npm ci in tests/ failed: {p.stderr.decode(errors='replace').strip()[-200:]}")
    post = Post(world)
    script = world.write("send.js", """
const nodemailer = require(process.env.NODEMAILER);
const fs = require('fs');
(async () => {
  const t = nodemailer.createTransport({ pool: true, host: 'localhost', port: +process.env.PORT, requireTLS: true,
    auth: { user: 'shop', pass: process.env.WORD }, tls: { ca: fs.readFileSync(process.env.CA) } });
  const one = (i) => t.sendMail({ from: '"お店" <shop@shop.example>', to: 'n' + i + '@a.example', bcc: 'b' + i + '@b.example',
    subject: 'ご注文 ' + i, text: 'ありがとう\\n.\\n', attachments: [{ filename: '表.csv', content: 'a,b\\n' }] });
  const all = await Promise.all([0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(one));
  for (const info of all) if (!/queued as/.test(info.response)) throw new Error(info.response);
  t.close();
})().catch((e) => { console.error(e); process.exit(1); });
""")
    post.env.update(NODEMAILER=os.path.join(home, "node_modules", "nodemailer"), PORT=str(post.submission), WORD=PASSWORD, CA=post.cert)
    post.run(["node", script])
    content = post.arrived(*[f"{c}{i}@{d}.example" for i in range(10) for c, d in (("n", "a"), ("b", "b"))])
    same(email.message_from_bytes(content["n3@a.example"], policy=email.policy.default)["Subject"], "ご注文 3", "subject")
    post.end()


@case("senders", "hikyaku send: fills in what is missing, scenario and tag, takes Bcc away; exit codes")
def hikyaku_send(world):
    post = Post(world)
    said = post.run([world.binary, "send", "--from", "shop@shop.example", "--tag", "urgent", "--scenario", "spring", "one@a.example", "two@a.example"],
                    b"Subject: hello\nBcc: secret@a.example\n\nhi\n.\nend\n")
    holds("queued as" in said and "2 recipients" in said, said)
    content = post.arrived("one@a.example", "two@a.example")["one@a.example"]
    same((field(content, "Bcc"), field(content, "X-Hikyaku-Tag")), (None, None), "Bcc and our headers")
    for name in ("Date", "Message-ID", "From"):
        holds(field(content, name) is not None, f"no {name}")
    holds(content.endswith(b"\r\n\r\nhi\r\n.\r\nend\r\n"), "text")
    event(post.engine, "accepted", rcpt="two@a.example", scenario="spring")
    post.run([world.binary, "send", "--server", "127.0.0.1:1", "x@a.example"], b"Subject: x\n\nx\n", code=3)
    said = post.run([world.binary, "send", "--server", f"127.0.0.1:{post.submission}", "x@a.example"], b"Subject: x\n\nx\n", code=1)
    holds("530 5.7.0" in said and "does not log in: name a listener without users" in said, said)
    post.run([world.binary, "send"], b"Subject: x\n\nx\n", code=2)
    post.end()


@case("senders", "called as sendmail: -t -i as PHP's mail() and cron do, recipients as git send-email does, -bs, exit codes", 90)
def sendmail(world):
    post = Post(world)
    program = world.path("sendmail")
    os.symlink(world.binary, program)
    php = b"To: php@a.example\nSubject: =?UTF-8?B?44GT44KT?=\nX-PHP-Originating-Script: 0:x.php\nFrom: shop@shop.example\nBcc: hidden@b.example\n\n" \
          b"line\n.\nafter the dot\n"
    post.run([program, "-t", "-i"], php)
    post.run([program, "-t", "-oi", "-fbounce@shop.example", "-F", "The Shop"], b"To: f@a.example\nSubject: x\n\nx\n")
    post.run([program, "-i", "-FCronDaemon", "-B8BITMIME", "-oem", "cron@a.example"],
             b"From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@host> ls\nContent-Type: text/plain; charset=UTF-8\n\nout\n")
    post.run([program, "-i", "-f", "git@shop.example", "git1@a.example", "git2@a.example"],
             b"From: Git <git@shop.example>\nTo: git1@a.example\nCc: git2@a.example\nSubject: [PATCH] x\nMessage-Id: <1@git>\n\ndiff\n.\n-- \n2.39\n")
    post.run([program, "stops@a.example"], b"Subject: dot\n\nbefore\n.\nafter\n")
    said = post.run([program, "-bs"], b"EHLO x\r\nMAIL FROM:<shop@shop.example>\r\nRCPT TO:<bs@a.example>\r\nDATA\r\nSubject: bs\r\n\r\nx\r\n.\r\nQUIT\r\n")
    holds("queued as" in said and said.startswith("220 "), said)
    content = post.arrived("php@a.example", "hidden@b.example", "f@a.example", "cron@a.example", "git1@a.example", "git2@a.example",
                           "stops@a.example", "bs@a.example")
    holds(content["php@a.example"].endswith(b"\r\n\r\nline\r\n.\r\nafter the dot\r\n"), "-i")
    same(field(content["php@a.example"], "Bcc"), None, "Bcc")
    holds(b"after" not in content["stops@a.example"], "a lone dot ends it without -i")
    holds(b"The Shop" in field(content["f@a.example"], "From"), f"-F: {field(content['f@a.example'], 'From')}")
    senders = {a: row["sender"] for row in world.received() for a in row["to"]}
    same((senders["f@a.example"], senders["git1@a.example"]), ("bounce@shop.example", "git@shop.example"), "-f")
    post.run([program, "-t", "-i"], b"Subject: nobody\n\nx\n", code=65)
    post.env["HIKYAKU_SERVER"] = "127.0.0.1:1"
    post.run([program, "x@a.example"], b"Subject: x\n\nx\n", code=75)
    post.end()


@case("senders", "git send-email with the program as its sendmail")
def git_send_email(world):
    where = subprocess.run([need("git"), "--exec-path"], capture_output=True, text=True).stdout.strip()
    if not os.path.exists(os.path.join(where, "git-send-email")):
        raise Skip("git send-email is not installed (Debian: git-email)")
    post = Post(world)
    program = world.path("sendmail")
    os.symlink(world.binary, program)
    post.env.update(HOME=world.dir, GIT_AUTHOR_NAME="A", GIT_AUTHOR_EMAIL="a@shop.example", GIT_COMMITTER_NAME="A",
                    GIT_COMMITTER_EMAIL="a@shop.example")
    git = ["git", "-C", world.path("repo")]
    post.run(["git", "init", "-q", world.path("repo")])
    world.write("repo/file", "one\n")
    post.run(git + ["add", "file"])
    post.run(git + ["commit", "-qm", "one"])
    post.run(git + ["send-email", "--quiet", "--confirm=never", f"--smtp-server={program}", "--to=list@a.example", "-1", "--root"])
    holds(b"+one" in post.arrived("list@a.example", "a@shop.example")["list@a.example"], "the patch")
    post.end()


@case("senders", "another Hikyaku: by SCRAM-SHA-256, PLAIN, LOGIN and what it finds best, over STARTTLS and TLS")
def engine_to_engine(world):
    post = Post(world)
    auths = {"scram-sha-256": f'"localhost", port = {post.submission}, tls = "starttls"', "plain": f'"ssl://localhost", port = {post.smtps}',
             "login": f'"127.0.0.1", port = {post.submission}, tls = "starttls"', "auto": f'"127.0.0.1", port = {post.smtps}, tls = "implicit"'}
    policy = 'engine { hostname = "first.example", listen = "127.0.0.1:{port}", dsn = "none" }\n'
    for auth, where in auths.items():
        policy += f'relay "{auth}" {{ host = {where}, ca = "{post.cert}", user = "shop", password = secret "shop", auth = "{auth}" }}\n' \
                  f'route "{auth}" {{ to = "{auth}.example", via = "{auth}" }}\n'
    first = world.engine(policy, name="first", spool="first-spool", env={"HIKYAKU_SECRET_SHOP": PASSWORD})
    for auth in auths:
        send(first, f"u@{auth}.example")
    post.arrived(*[f"u@{auth}.example" for auth in auths])
    same({e["user"] for e in events(post.engine, "accepted", len(auths))}, {"shop"}, "logins")
    end(first)
    post.end()
