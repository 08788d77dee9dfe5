"""Recipients that are accepted undecided: the condition mx waits for names, functions take their time."""
import socket
import struct
import threading

from common import case, end, event, holds, restart, rewrite, same, send, shown
from harness import wait_for

A, MX = 1, 15


class Names:
    """A name server on UDP: MX and A records by name; silent or failing for as long as a test wants."""

    def __init__(self, records):
        self.records, self.is_silent, self.failing = records, False, set()
        self.questions = {}
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            data, peer = self.socket.recvfrom(2048)
            name, end = self.name_of(data)
            kind = struct.unpack(">H", data[end:end + 2])[0]
            self.questions[name, kind] = self.questions.get((name, kind), 0) + 1
            if not self.is_silent:
                self.socket.sendto(self.answer(data, name, kind, data[12:end + 4]), peer)

    @staticmethod
    def name_of(data):
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1:at + 1 + data[at]].decode())
            at += 1 + data[at]
        return ".".join(labels).lower(), at + 1

    def answer(self, data, name, kind, question):
        if name in self.failing:
            return data[:2] + struct.pack(">HHHHH", 0x8182, 1, 0, 0, 0) + question
        if name not in self.records:
            return data[:2] + struct.pack(">HHHHH", 0x8183, 1, 0, 0, 0) + question
        found = [rdata for rtype, rdata in self.records[name] if rtype == kind]
        body = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(d)) + d for d in found)
        return data[:2] + struct.pack(">HHHHH", 0x8180, 1, len(found), 0, 0) + question + body


def mx(preference, host):
    return MX, struct.pack(">H", preference) + b"".join(bytes([len(p)]) + p.encode() for p in host.split(".")) + b"\0"


def address():
    return A, socket.inet_aton("127.0.0.1")


def names():
    return Names({
        "hosted.test": [mx(10, "hosted-test.mail.cloud.test"), mx(20, "other.test")],
        "moved.test": [mx(10, "gone.cloud.test"), mx(20, "mx.moved.test")],
        "plain.test": [address()],
        "null.test": [(MX, b"\0\0\0")],
        "hosted-test.mail.cloud.test": [address()], "other.test": [address()], "mx.moved.test": [address()],
    })


def policy(world, resolver, **more):
    """By the cloud's relay only where the domain is hosted there."""
    for name in ("cloud", "rest"):
        if not any(p.name == name for p in world.processes):
            world.sink(name)
    ports = {p.name: p.ports[0] for p in world.processes if p.name in ("cloud", "rest")}
    condition = more.get("condition", 'mx = ".cloud.test", ')
    return f"""
        engine {{ hostname = "mail.shop.example", listen = "127.0.0.1:{{port}}", workers = 2, resolver = "127.0.0.1:{resolver.port}",
                  bounds = {{ lookup = "{more.get('deadline', '60s')}" }} }}
        relay "cloud" {{ host = "127.0.0.1", port = {ports["cloud"]}, tls = "none" }}
        relay "rest" {{ host = "127.0.0.1", port = {ports["rest"]}, tls = "none" }}
        route "hosted" {{ to = "*", {condition}via = "cloud" }}
        route "rest" {{ priority = 900, to = "*", via = "rest" }}
    """


def went(world):
    return {a: name for name in ("cloud", "rest") for row in world.received(name) for a in row["to"]}


@case("undecided", "mx: the hosts of the best preference that answers; explain shows them; many ask once")
def mx_decides(world):
    resolver = names()
    engine = world.engine(policy(world, resolver))
    expected = {"u@hosted.test": "cloud", "u@moved.test": "rest", "u@plain.test": "rest", "u@null.test": "rest", "u@nobody.test": "rest"}
    for to in expected:
        send(engine, to)
    expected.update({f"n{i}@hosted.test": "cloud" for i in range(200)})
    send(engine, [a for a in expected if a.startswith("n")][:200])
    wait_for(lambda: went(world) == expected, 30, why=f"every mail at its sink; there is {len(went(world))}")
    holds(resolver.questions["hosted.test", MX] <= 2, f"questions for one domain, of two workers: {resolver.questions}")
    decided = event(engine, "decided", rcpt="u@hosted.test")
    same(decided["plan"], ["cloud"], "the plan of the event")
    x = shown(world, "explain", engine.policy, "--to", "a@hosted.test")
    same((x["route"], x["mail_hosts"]), ("hosted", "hosted-test.mail.cloud.test"), "explain")
    x = shown(world, "explain", engine.policy, "--to", "a@plain.test")
    same(x["route"], "rest", "explain of a domain without MX")
    holds(any("mx does not name plain.test" in c["why"] for c in x["considered"]), x["considered"])
    x = shown(world, "explain", engine.policy, "--to", "a@null.test")
    same((x["route"], x["considered"][0]["why"], x["mail_hosts"]),
         ("rest", "mx: the domain has no mail hosts", "null.test has no mail hosts: it takes no mail (null MX)"), "explain of a domain that takes no mail")
    engine.wait_empty()
    end(engine)


@case("undecided", "a route's expire holds for mail that it takes only after a look-up")
def expires_as_the_route_says(world):
    engine = world.engine(policy(world, names(), condition='mx = ".cloud.test", expire = "10m", '))
    world.run("relay", "pause", "--spool", engine.spool, "cloud")
    send(engine, "u@hosted.test")
    wait_for(lambda: [r["route"] for r in engine.queue("--to", "u@hosted.test")["rows"]] == ["hosted"], 20, why="decided")
    for _ in range(2):
        row = shown(world, "queue", "show", "--spool", engine.spool, "--to", "u@hosted.test")["rows"][0]
        same(row["expire_at"] - row["accepted_at"], 600, "time to live")
        engine.kill()
        restart(engine)
    end(engine)


@case("undecided", "names do not answer: 250 all the same; seen, held, released; killed, decided afresh after the restart", 120)
def killed_before_it_is_decided(world):
    resolver = names()
    resolver.is_silent = True
    engine = world.engine(policy(world, resolver))
    send(engine, ["u@hosted.test", "u@plain.test"])
    wait_for(lambda: engine.status()["queue"]["undecided"] == 2, 20, why="two undecided")
    rows = engine.queue("--state", "undecided")["rows"]
    same({r["state"] for r in rows}, {"undecided"}, "states")
    holds("mail hosts of" in rows[0]["reason"], rows[0])
    text = world.run("queue", "show", "--spool", engine.spool, "--to", "u@hosted.test")[1]
    holds("as the route says that will be chosen" in text, text)
    world.run("queue", "hold", "--spool", engine.spool, "--to", "u@plain.test")
    wait_for(lambda: engine.status()["queue"]["held"] == 1, 20, why="held")
    world.run("queue", "release", "--spool", engine.spool, "--to", "u@plain.test")
    wait_for(lambda: engine.status()["queue"]["undecided"] == 2, 20, why="undecided again")
    engine.kill()
    same(went(world), {}, "nobody was sent by a route that nobody chose")
    resolver.is_silent = False
    restart(engine)
    wait_for(lambda: went(world) == {"u@hosted.test": "cloud", "u@plain.test": "rest"}, 30, why="decided after the restart")
    engine.wait_empty()
    end(engine)


@case("undecided", "a reload asks them anew, a cancel and a stop end them in the middle", 120)
def reload_and_stop(world):
    resolver = names()
    resolver.is_silent = True
    engine = world.engine(policy(world, resolver))
    for n in range(20):
        send(engine, [f"a{n}@hosted.test", f"b{n}@plain.test"])
    wait_for(lambda: engine.status()["queue"]["undecided"] == 40, 20, why="all undecided")
    world.run("queue", "cancel", "--spool", engine.spool, "--to", "hosted.test")
    wait_for(lambda: engine.status()["queue"]["undecided"] == 20, 20, why="half of them cancelled")
    rewrite(engine, policy(world, resolver, condition='to = "plain.test", ').replace('to = "*", to =', 'to ='))
    world.run("reload", "--spool", engine.spool)
    wait_for(lambda: set(went(world)) == {f"b{n}@plain.test" for n in range(20)}, 30, why="the new policy decides at once")
    rewrite(engine, policy(world, resolver))
    world.run("reload", "--spool", engine.spool)
    send(engine, "c@hosted.test")
    wait_for(lambda: engine.status()["queue"]["undecided"] == 1, 20, why="undecided at the stop")
    end(engine)
    resolver.is_silent = False
    restart(engine)
    wait_for(lambda: went(world).get("c@hosted.test") == "cloud", 30, why="decided after the stop")
    end(engine)


@case("undecided", "a failing look-up takes no other route: it waits and says why; explain says it, too", 120)
def failure_waits(world):
    resolver = names()
    resolver.failing.add("hosted.test")
    engine = world.engine(policy(world, resolver))
    send(engine, "u@hosted.test")
    told = event(engine, "undecided", rcpt="u@hosted.test")
    holds("the mail hosts of hosted.test could not be looked up" in told["text"], told)
    rows = engine.queue()["rows"]
    same([r["state"] for r in rows], ["undecided"], "state")
    holds("hosted.test could not be looked up" in rows[0]["reason"], rows[0])
    code, out, _ = world.run("explain", engine.policy, "--to", "u@hosted.test", check=False)
    reason = "the mail hosts of hosted.test could not be looked up"
    holds(code == 1 and "undecided" in out and " ".join(out.split()).count(reason) == 1, f"the reason, once: {out}")
    send(engine, "u@plain.test")
    wait_for(lambda: went(world) == {"u@plain.test": "rest"}, 30, why="other mail goes")
    resolver.failing.clear()
    end(engine)
    restart(engine)
    wait_for(lambda: went(world).get("u@hosted.test") == "cloud", 30, why="decided afresh")
    engine.wait_empty()
    end(engine)


@case("undecided", "a function that takes long for each of 400 does not hold up another mail", 120)
def slow_function(world):
    sink = world.sink("sink")
    engine = world.engine(f"""
        engine {{ hostname = "mail.shop.example", listen = "127.0.0.1:{{port}}", workers = 1, bounds = {{ lua_ms = 100, lua_instructions = 10000000 }} }}
        relay "all" {{ host = "127.0.0.1", port = {sink.ports[0]}, tls = "none" }}
        route "slow" {{ to = "many.test", via = function(r) local x = 0 for i = 1, 100000 do x = x + i % 7 end return "all" end }}
        route "rest" {{ to = "*", via = "all" }}
    """)
    send(engine, [f"u{n}@many.test" for n in range(400)])
    send(engine, "one@other.test")

    def at_sink():
        return [a for row in world.received() for a in row["to"]]
    wait_for(lambda: "one@other.test" in at_sink(), 60, why="the other mail")
    same(len([a for a in at_sink()[:at_sink().index("one@other.test")]]) < 400, True, "the other mail did not wait for the many")
    wait_for(lambda: len(at_sink()) == 401, 60, why=f"all; there are {len(at_sink())}")
    engine.wait_empty()
    end(engine)
