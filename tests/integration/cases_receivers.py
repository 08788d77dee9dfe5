"""Servers that take the mail: Postfix's smtp-sink, aiosmtpd, and a Postfix of our own with Dovecot's logins."""
import os
import pwd
import ssl
import subprocess

from common import Skip, case, certificate, end, event, events, holds, mail, message, need, restart, same, send
from harness import answers, free_ports, wait_for

HEAD = 'engine { hostname = "mail.shop.example", listen = "127.0.0.1:{port}", retry = { "1s" }, dsn = "none" }\n'


@case("receivers", "smtp-sink, with many messages and several recipients")
def smtp_sink(world):
    program = need("smtp-sink")
    port = free_ports(1)[0]
    as_user = ["-u", "nobody"] if os.getuid() == 0 else []
    world.start("smtp-sink", [program, "-c", *as_user, f"127.0.0.1:{port}", "100"])
    wait_for(lambda: answers(port), why="smtp-sink")
    engine = world.engine(HEAD + f'relay "r" {{ host = "127.0.0.1", port = {port}, tls = "none" }}\nroute "all" {{ to = "*", via = "r" }}')
    for i in range(30):
        send(engine, [f"u{i}{c}@a.example" for c in "abc"])
    engine.wait_empty()
    same(len(events(engine, "delivered", 90)), 90, "delivered")
    same(len(engine.events("deferred")), 0, "deferred")
    end(engine)


class Mailbox:
    """What an aiosmtpd server took."""

    def __init__(self):
        self.messages = []

    async def handle_DATA(self, server, session, envelope):
        login = session.auth_data.login.decode() if session.auth_data else ""
        self.messages.append((login, session.ssl is not None, envelope.rcpt_tos, envelope.original_content))
        return "250 2.0.0 ok"


def aiosmtpd_server(cert, key, **options):
    try:
        from aiosmtpd.controller import Controller
        from aiosmtpd.smtp import AuthResult, LoginPassword
    except ImportError:
        raise Skip("aiosmtpd is not installed (Debian: python3-aiosmtpd)") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    box = Mailbox()

    def check(server, session, envelope, mechanism, data):
        good = isinstance(data, LoginPassword) and data == LoginPassword(b"shop", b"right word")
        return AuthResult(success=good, handled=False, auth_data=data)
    controller = Controller(box, hostname="127.0.0.1", port=free_ports(1)[0], tls_context=context, require_starttls=True, authenticator=check,
                            auth_required=True, **options)
    controller.start()
    return controller, box


@case("receivers", "aiosmtpd with STARTTLS and AUTH: LOGIN, PLAIN; a wrong password pauses the relay and the fallback takes over")
def aiosmtpd(world):
    cert, key = certificate(world)
    controller, box = aiosmtpd_server(cert, key)
    sink = world.sink()
    common = f'host = "localhost", port = {controller.port}, tls = "starttls", ca = "{cert}", '
    engine = world.engine(HEAD + f"""
        relay "plain"    {{ {common} user = "shop", password = secret "right", auth = "plain" }}
        relay "login"    {{ {common} user = "shop", password = secret "right", auth = "login" }}
        relay "wrong"    {{ {common} user = "other", password = secret "wrong" }}
        relay "fallback" {{ host = "127.0.0.1", port = {sink.ports[0]}, tls = "none" }}
        route "plain" {{ to = "plain.example", via = "plain" }}
        route "login" {{ to = "login.example", via = step "login" {{}} }}
        route "wrong" {{ to = "wrong.example", via = {{ "wrong", "fallback" }} }}
    """, env={"HIKYAKU_SECRET_RIGHT": "right word", "HIKYAKU_SECRET_WRONG": "nope"})
    content = message(body="8-bit: \u3042\r\n.\r\n")
    for domain in ("plain", "wrong"):
        send(engine, f"u@{domain}.example", content)
    wait_for(lambda: len(box.messages) >= 1, why="plain at aiosmtpd")
    same(mail(world, 1)[0][0]["to"], ["u@wrong.example"], "by the fallback")
    routed = event(engine, "routed", rcpt="u@wrong.example")
    same((routed["class"], routed["stage"]), ("relay_auth", "auth"), "class")
    paused = event(engine, "relay_paused")
    holds("other" in paused["account"], f"paused: {paused}")
    state = {r["relay"]: r["state"] for r in engine.status()["relays"]}
    same((state["wrong"], state["plain"]), ("paused", "ok"), "states")
    send(engine, "v@wrong.example", content)
    wait_for(lambda: len(world.received()) >= 2, 10, why="the next goes by the fallback at once")
    same(event(engine, "delivered", rcpt="v@wrong.example")["attempts"], 1, "attempts while paused")
    for login, is_secure, recipients, octets in box.messages:
        same((login, is_secure), ("shop", True), "login over TLS")
        holds(octets.endswith(content), "the message is not octet for octet what came in")
    end(engine)
    controller.stop()


@case("receivers", "TLS fails closed: an unknown certificate, another's name, no STARTTLS where it was asked for; a pin holds")
def tls_fails_closed(world):
    cert, key = certificate(world)
    other = certificate(world, "other.example")[0]
    controller, box = aiosmtpd_server(cert, key)
    sink = world.sink()
    pin = subprocess.run(f"openssl x509 -in {cert} -pubkey -noout | openssl pkey -pubin -outform DER | openssl sha256 -r | cut -c1-64", shell=True,
                         check=True, capture_output=True, text=True).stdout.strip()
    where = f'host = "localhost", port = {controller.port}, '
    login = 'password = secret "right", auth = "plain", '
    engine = world.engine(HEAD + f"""
        relay "unknown"  {{ {where} {login} user = "u1", tls = "starttls" }}
        relay "other"    {{ {where} {login} user = "u2", tls = "starttls", ca = "{other}" }}
        relay "plain"    {{ host = "127.0.0.1", port = {sink.ports[0]}, user = "u3", {login} tls = "starttls" }}
        relay "pinned"   {{ {where} {login} user = "shop", tls = "starttls", pin = "{pin}" }}
        relay "fallback" {{ host = "127.0.0.1", port = {sink.ports[0]}, tls = "none" }}
        route "unknown" {{ to = "unknown.example", via = {{ "unknown", "fallback" }} }}
        route "other"   {{ to = "other.example", via = {{ "other", "fallback" }} }}
        route "plain"   {{ to = "plain.example", via = {{ "plain", "fallback" }} }}
        route "pinned"  {{ to = "pinned.example", via = "pinned" }}
    """, env={"HIKYAKU_SECRET_RIGHT": "right word"})
    domains = ("unknown", "other", "plain")
    for domain in domains + ("pinned",):
        send(engine, f"u@{domain}.example")
    same(sorted(row["to"][0] for row, _ in mail(world, 3)), sorted(f"u@{d}.example" for d in domains), "by the fallback")
    for domain in domains:
        same(event(engine, "routed", rcpt=f"u@{domain}.example")["class"], "tls", f"class of {domain}")
    wait_for(lambda: len(box.messages) == 1, why="pinned")
    same((box.messages[0][1], box.messages[0][2]), (True, ["u@pinned.example"]), "what came over TLS")
    end(engine)
    controller.stop()


DOVECOT = """
base_dir = {dir}/run
log_path = {dir}/dovecot.txt
protocols =
ssl = no
default_internal_user = {user}
default_login_user = {user}
auth_mechanisms = plain login cram-md5 scram-sha-256
disable_plaintext_auth = no
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {dir}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home=/nonexistent
}}
service auth {{
  unix_listener {dir}/auth {{
    mode = 0666
  }}
}}
service stats {{
  unix_listener stats-reader {{
    mode = 0
  }}
  unix_listener stats-writer {{
    mode = 0
  }}
}}
"""

AUTHS = ("plain", "login", "cram-md5", "scram-sha-256", "auto")

POSTFIX_MAIN = """
compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {dir}/postfix.txt
maillog_file_prefixes = {dir}
myhostname = relay.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks =
alias_maps =
local_recipient_maps =
default_transport = smtp:[127.0.0.1]:{sink}
relay_transport = smtp:[127.0.0.1]:{sink}
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {dir}/auth
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_tls_cert_file = {cert}
smtpd_tls_key_file = {key}
"""

POSTFIX_MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
127.0.0.1:{smtps} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
smtp unix - - n - - smtp
error unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def start_dovecot(world, directory):
    program = need("dovecot")
    world.write("peer/users", "".join(f"{auth}:right word\n" for auth in AUTHS), 0o644)
    user = next((u for u in ("dovenull", "nobody") if any(p.pw_name == u for p in pwd.getpwall())), "nobody")
    config = world.write("peer/dovecot.conf", DOVECOT.format(dir=directory, user=user))
    world.start("dovecot", [program, "-F", "-c", config])
    wait_for(lambda: os.path.exists(f"{directory}/auth"), 15, why="Dovecot's auth socket")


def start_postfix(world, sink_port):
    """A Postfix of our own that relays to the sink whoever has logged in: (submission port, TLS port)."""
    program = need("postfix")
    if os.getuid() != 0:
        raise Skip("Postfix and Dovecot start as root only")
    cert, key = certificate(world)
    directory = world.path("peer")
    os.makedirs(directory)
    start_dovecot(world, directory)
    port, smtps = free_ports(2)
    for name in ("queue", "data"):
        os.makedirs(f"{directory}/{name}")
    owner = pwd.getpwnam("postfix")
    os.chown(f"{directory}/data", owner.pw_uid, owner.pw_gid)
    world.write("peer/main.cf", POSTFIX_MAIN.format(dir=directory, sink=sink_port, cert=cert, key=key))
    world.write("peer/master.cf", POSTFIX_MASTER.format(port=port, smtps=smtps))
    postfix = world.start("postfix", [program, "-c", directory, "start-fg"])

    def up():
        try:
            return postfix.is_alive() and answers(port)
        except AssertionError:
            log = f"{directory}/postfix.txt"
            if os.path.exists(log):
                print(open(log, errors="replace").read()[-3000:])
            raise
    wait_for(up, 30, why="Postfix")
    return port, smtps, cert, postfix


@case("receivers", "a Postfix with Dovecot's logins: PLAIN, LOGIN, CRAM-MD5, SCRAM-SHA-256, automatic; STARTTLS and TLS; a wrong password", 100)
def postfix(world):
    sink = world.sink()
    fallback = world.sink("fallback")
    port, smtps, cert, server = start_postfix(world, sink.ports[0])
    policy = HEAD
    for auth in AUTHS:
        where = f'host = "ssl://localhost", port = {smtps}' if auth == "login" else f'host = "localhost", port = {port}, tls = "starttls"'
        policy += f'relay "{auth}" {{ {where}, ca = "{cert}", user = "{auth}", password = secret "right", auth = "{auth}" }}\n' \
                  f'route "{auth}" {{ to = "{auth}.example", via = "{auth}" }}\n'
    engine = world.engine(policy + f"""
        relay "wrong"    {{ host = "localhost", port = {port}, tls = "starttls", ca = "{cert}", user = "auto2", password = secret "wrong" }}
        relay "fallback" {{ host = "127.0.0.1", port = {fallback.ports[0]}, tls = "none" }}
        route "wrong" {{ to = "wrong.example", via = {{ "wrong", "fallback" }} }}
    """, env={"HIKYAKU_SECRET_RIGHT": "right word", "HIKYAKU_SECRET_WRONG": "nope"})
    for auth in AUTHS:
        for i in range(3):
            send(engine, f"u{i}@{auth}.example")
    send(engine, "u@wrong.example")
    came = {a for row, _ in mail(world, 15, seconds=60) for a in row["to"]}
    same(sorted(came), sorted(f"u{i}@{auth}.example" for auth in AUTHS for i in range(3)), "through Postfix")
    same([row["to"] for row, _ in mail(world, 1, "fallback")], [["u@wrong.example"]], "by the fallback")
    same(event(engine, "routed", rcpt="u@wrong.example")["class"], "relay_auth", "class")
    holds("auto2" in event(engine, "relay_paused")["account"], "paused")
    log = open(world.path("peer", "postfix.txt"), errors="replace").read()
    for auth in AUTHS[:-1]:
        holds(f"sasl_method={auth.upper()}, sasl_username={auth}" in log, f"Postfix saw no {auth}: {log[-3000:]}")
    end(engine)
    server.stop()


SUBMISSION = """
base_dir = {dir}/run
log_path = {dir}/dovecot.txt
protocols = submission
ssl = yes
ssl_cert = <{cert}
ssl_key = <{key}
default_internal_user = nobody
default_internal_group = nogroup
default_login_user = nobody
mail_location = maildir:{dir}/mail
first_valid_uid = 1
hostname = relay.example
submission_relay_host = 127.0.0.1
submission_relay_port = {sink}
passdb {{
  driver = static
  args = password=right
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={dir}/home
}}
service submission-login {{
  inet_listener submission {{
    address = 127.0.0.1
    port = {port}
  }}
  inet_listener submissions {{
    port = 0
  }}
}}
service stats {{
  unix_listener stats-reader {{
    mode = 0666
  }}
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
"""


@case("receivers", "Dovecot's submission service, which dies of overlapped commands and takes ten logins: one message ambiguous, never another", 120)
def dovecot_submission(world):
    program = need("dovecot")
    if os.getuid() != 0:
        raise Skip("Dovecot starts as root only")
    if not os.path.exists("/usr/lib/dovecot/submission"):
        raise Skip("Dovecot's submission service is not installed (Debian: dovecot-submissiond)")
    cert, key = certificate(world)
    sink = world.sink(rules=["no.example rcpt 550 5.1.1 no such user"])
    directory, port = world.path("peer"), free_ports(1)[0]
    os.makedirs(f"{directory}/home")
    os.chmod(f"{directory}/home", 0o777)
    config = world.write("peer/dovecot.conf", SUBMISSION.format(dir=directory, cert=cert, key=key, sink=sink.ports[0], port=port))
    world.start("dovecot", [program, "-F", "-c", config])
    wait_for(lambda: answers(port), 15, why="Dovecot")
    engine = world.engine(HEAD.replace('"1s"', '"1h"') + f"""
        relay "r" {{ host = "localhost", port = {port}, tls = "starttls", ca = "{cert}", user = "u", password = secret "right", connections = 14 }}
        route "all" {{ to = "*", via = "r" }}
    """, env={"HIKYAKU_SECRET_RIGHT": "right"})

    def round_of(first, n):
        world.run("relay", "pause", "r", "--spool", engine.spool)  # so that all wait, and commands overlap
        for i in range(first, first + n):
            send(engine, f"u{i}@{'no' if i % 50 == 7 else 'a'}.example")
        world.run("relay", "resume", "r", "--spool", engine.spool)
        wait_for(lambda: sum(len(engine.events(k)) for k in ("delivered", "failed", "deferred")) >= first + n, 60, 0.2, "every message has an outcome")

    round_of(0, 200)
    deferred = engine.events("deferred")
    holds(len(deferred) <= 1 and all(e["class"] == "ambiguous" for e in deferred), f"deferred: {deferred[:3]}")
    same(sorted(e["rcpt"] for e in engine.events("failed")), sorted(f"u{i}@no.example" for i in range(200) if i % 50 == 7), "refused recipients")
    same({e["class"] for e in engine.events("failed")}, {"bad_mailbox"}, "class")
    same([e for e in engine.events("relay_paused") if e.get("text") != "by an operator"], [], "pauses")
    end(engine)
    restart(engine)
    round_of(200, 50)
    same(len(engine.events("deferred")), len(deferred), "ambiguous after a restart: what was learned is kept")
    end(engine)
