"""OAuth2: tokens by refresh over HTTP and by a command; XOAUTH2 and OAUTHBEARER; a token that the server refuses."""
import base64
import http.server
import json
import os
import socketserver
import threading
import urllib.parse

from common import case, certificate, end, events, holds, message, same, send
from harness import answers, wait_for

HEAD = 'engine { hostname = "mail.shop.example", listen = "127.0.0.1:{port}", retry = { "1s" }, dsn = "none" }\n'


class TokenServer:
    """Answers refreshes with token-1, token-2, ... and a new refresh token each time."""

    def __init__(self, lifetime=3600, refuse=False, echo_after=None):
        outer = self
        self.requests = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
                outer.requests.append(form)
                n = len(outer.requests)
                good = not refuse and (echo_after is None or n <= echo_after)
                body = json.dumps({"access_token": f"token-{n}", "expires_in": lifetime, "token_type": "Bearer", "refresh_token": f"refresh-{n}"}
                                  if good else {"error": "invalid_grant", "error_description":
                                                f"bad\r\ntoken {form['refresh_token']}" if echo_after is not None else "Token has been revoked."}).encode()
                self.send_response(200 if good else 400)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/token"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class BearerServer:
    """A small SMTP server with STARTTLS that takes XOAUTH2 and OAUTHBEARER with the tokens in `good`."""

    def __init__(self, cert, key, good, mechanisms="XOAUTH2 OAUTHBEARER"):
        import ssl
        outer = self
        self.good, self.logins, self.refused, self.messages = set(good), [], [], []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)

        class Handler(socketserver.StreamRequestHandler):
            def say(self, text):
                self.wfile.write(text.encode() + b"\r\n")
                self.wfile.flush()

            def login(self, line):
                mechanism, blob = line.split()[1:3]
                plain = base64.b64decode(blob).decode()
                token = plain.split("auth=Bearer ")[1].split("\x01")[0]
                if token in outer.good:
                    outer.logins.append((mechanism, token, plain))
                    self.say("235 2.7.0 ok")
                    return
                outer.refused.append((mechanism, token))
                self.say("334 " + base64.b64encode(b'{"status":"401"}').decode())
                self.rfile.readline()
                self.say("535 5.7.8 Username and Password not accepted")

            def handle(self):
                secure = False
                self.say("220 bearer ESMTP")
                while True:
                    line = self.rfile.readline().decode().strip()
                    verb = line[:4].upper()
                    if verb == "EHLO":
                        self.say("250-bearer\r\n250-PIPELINING\r\n250-8BITMIME\r\n" + (f"250 AUTH {mechanisms}" if secure else "250 STARTTLS"))
                    elif verb == "STAR":
                        self.say("220 go")
                        self.connection = context.wrap_socket(self.connection, server_side=True)
                        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb")
                        secure = True
                    elif verb == "AUTH":
                        self.login(line)
                    elif verb == "DATA":
                        self.say("354 go")
                        content = b""
                        while not content.endswith(b"\r\n.\r\n"):
                            more = self.rfile.readline()
                            if not more:
                                return
                            content += more
                        outer.messages.append(content)
                        self.say("250 2.0.0 ok")
                    elif verb == "QUIT" or not line:
                        if line:
                            self.say("221 bye")
                        return
                    else:
                        self.say("250 ok")

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def relay(name, server, cert, auth, oauth):
    return (f'relay "{name}" {{ host = "localhost", port = {server.port}, tls = "starttls", ca = "{cert}", user = "shop@x.example", '
            f'auth = "{auth}", oauth = {{ {oauth} }} }}\n')


@case("oauth", "a token is fetched by refresh, used by XOAUTH2 and OAUTHBEARER, kept, and not fetched again; the new refresh token survives a restart", 90)
def refresh(world):
    cert, key = certificate(world)
    tokens = TokenServer()
    bearer = BearerServer(cert, key, {f"token-{n}" for n in range(1, 20)})
    oauth = f'client = "id", client_secret = secret "client", refresh = secret "refresh", token_url = "{tokens.url}"'
    policy = HEAD + relay("x", bearer, cert, "xoauth2", oauth) + relay("b", bearer, cert, "oauthbearer", oauth) + """
        route "x" { to = "x.example", via = "x" }
        route "b" { to = "b.example", via = "b" }
    """
    secrets = {"HIKYAKU_SECRET_CLIENT": "client-word", "HIKYAKU_SECRET_REFRESH": "refresh-0"}
    engine = world.engine(policy, env=secrets)
    for i in range(5):
        send(engine, [f"u{i}@x.example"])
        send(engine, [f"u{i}@b.example"])
    events(engine, "delivered", 10)
    holds({m for m, _, _ in bearer.logins} == {"XOAUTH2", "OAUTHBEARER"}, f"both mechanisms: {bearer.logins}")
    holds(any(p.startswith("user=shop@x.example\x01auth=Bearer ") and p.endswith("\x01\x01") for _, _, p in bearer.logins), "the form of XOAUTH2")
    holds(any(p.startswith("n,a=shop@x.example,\x01host=localhost\x01") for _, _, p in bearer.logins), "the form of OAUTHBEARER")
    holds(1 <= len(tokens.requests) <= 2, f"fetched once a relay at most: {len(tokens.requests)}")
    first = tokens.requests[0]
    same((first["grant_type"], first["client_id"], first["client_secret"], first["refresh_token"]),
         ("refresh_token", "id", "client-word", "refresh-0"), "the first refresh")
    n = len(tokens.requests)
    end(engine)
    engine.spawn()
    wait_for(lambda: engine.is_alive() and answers(engine.port), 30, why="restarted")
    send(engine, ["again@x.example"])
    events(engine, "delivered", 11)
    holds(all(r["refresh_token"] != "refresh-0" for r in tokens.requests[n:]), f"the newest refresh token is used: {tokens.requests[n:]}")
    everything = engine.text() + "".join(open(os.path.join(engine.spool, "events.jsonl")))
    for word in ("client-word", "refresh-0", "refresh-1", "token-1", base64.b64encode(b"token-1").decode()):
        holds(word not in everything, f"{word} is in a log")
    end(engine)


@case("oauth", "a token the server refuses is refreshed once; then the login counts", 60)
def refused_token(world):
    cert, key = certificate(world)
    tokens = TokenServer()
    bearer = BearerServer(cert, key, {"token-2"})
    engine = world.engine(HEAD + relay("x", bearer, cert, "xoauth2", f'client = "id", refresh = secret "refresh", token_url = "{tokens.url}"') +
                          'route "x" { to = "*", via = "x" }', env={"HIKYAKU_SECRET_REFRESH": "refresh-0"})
    send(engine, ["u@x.example"])
    events(engine, "delivered", 1)
    same([t for _, t in bearer.refused], ["token-1"], "refused")
    same(len(tokens.requests), 2, "refreshes")
    end(engine)


@case("oauth", "a refresh that is refused pauses the account, names why, and the next step takes over", 60)
def refused_refresh(world):
    cert, key = certificate(world)
    tokens = TokenServer(refuse=True)
    bearer = BearerServer(cert, key, {"token-1"})
    sink = world.sink()
    engine = world.engine(HEAD + relay("x", bearer, cert, "xoauth2", f'client = "id", refresh = secret "refresh", token_url = "{tokens.url}"') +
                          f'relay "fallback" {{ host = "127.0.0.1", port = {sink.ports[0]}, tls = "none" }}\n'
                          'route "x" { to = "*", via = { "x", "fallback" } }', env={"HIKYAKU_SECRET_REFRESH": "refresh-0"})
    send(engine, ["u@x.example"])
    same(events(engine, "delivered", 1)[0]["relay"], "fallback", "delivered by")
    routed = engine.events("routed")[0]
    same((routed["class"], routed["stage"]), ("relay_auth", "auth"), "why")
    holds("revoked" in routed["reply"] or "invalid_grant" in routed["reply"], f"the server's words: {routed['reply']}")
    same(len(bearer.logins) + len(bearer.refused), 0, "logins without a token")
    end(engine)


@case("oauth", "an endpoint that repeats the refresh token which it gave before: it is in no log and no event", 60)
def echoed_refresh(world):
    cert, key = certificate(world)
    tokens = TokenServer(echo_after=1)
    bearer = BearerServer(cert, key, {"none"})
    engine = world.engine(HEAD + relay("x", bearer, cert, "xoauth2", f'client = "id", refresh = secret "refresh", token_url = "{tokens.url}"') +
                          'route "x" { to = "*", via = "x" }', env={"HIKYAKU_SECRET_REFRESH": "first-canary"})
    send(engine, ["u@x.example"])
    paused = events(engine, "relay_paused", 1)[0]
    same([r["refresh_token"] for r in tokens.requests], ["first-canary", "refresh-1"], "sent")
    holds("bad" in paused["text"] and "***" in paused["text"], f"the server's words: {paused['text']}")
    end(engine)
    everything = engine.text() + "".join(open(os.path.join(engine.spool, "events.jsonl")))
    holds("refresh-1" not in everything, "the refresh token is in a log")


@case("oauth", "token_command prints the token; it runs without a shell", 60)
def token_command(world):
    cert, key = certificate(world)
    bearer = BearerServer(cert, key, {"from; the $(command)"})
    program = world.write("token", "#!/bin/sh\nprintf '%s' \"$1\"\n", 0o755)
    engine = world.engine(HEAD + relay("x", bearer, cert, "xoauth2", f'token_command = {{ "{program}", "from; the $(command)" }}') +
                          'route "x" { to = "*", via = "x" }')
    send(engine, ["u@x.example"], content=message(body="hello\r\n"))
    events(engine, "delivered", 1)
    same(len(bearer.messages), 1, "messages")
    end(engine)
