"""Own delivery: a real name server (knotd) says where the sinks on 127.0.0.x are."""
import socket

from common import Skip, case, end, event, holds, need, same, send, sink_at
from harness import free_ports, wait_for

ZONES = {
    # several MX: the first is dead, the two of equal preference behind it take turns
    "dead-first.test": "@ MX 10 m1\n@ MX 20 m2\nm1 A 127.0.0.99\nm2 A 127.0.0.2\n",
    "null-mx.test": "@ MX 0 .\n",
    "no-mx.test": "@ A 127.0.0.3\n",
    "empty.test": "@ TXT nothing\n",
    "one.test": "@ MX 10 mx.hosts.test.\n",
    "two.test": "@ MX 10 mx.hosts.test.\n",
    "alias.test": "@ MX 10 chain\nchain CNAME next\nnext CNAME last\nlast A 127.0.0.2\n",
    "six.test": "@ MX 10 m\nm AAAA ::1\nm A 127.0.0.4\n",
    "only-six.test": "@ MX 10 m\nm AAAA ::1\n",
    "broken-mx.test": "@ MX 10 nowhere.hosts.test.\n@ MX 20 mx.hosts.test.\n",
    "all-gone.test": "@ MX 10 nowhere.hosts.test.\n",
    "refusing.test": "@ MX 10 a\n@ MX 20 b\na A 127.0.0.5\nb A 127.0.0.2\n",
    "hosts.test": "mx A 127.0.0.2\n",
}


def name_server(world):
    program = need("knotd")
    port = free_ports(1)[0]
    entries = ""
    for zone, records in ZONES.items():
        world.write(f"zones/{zone}.zone", f"$ORIGIN {zone}.\n$TTL 60\n@ SOA ns.{zone}. hostmaster.{zone}. 1 60 60 60 5\n@ NS ns.hosts.test.\n"
                    + records + ("ns A 127.0.0.1\n" if zone == "hosts.test" else ""))
        entries += f"  - domain: {zone}\n"
    config = world.write("knot.conf", f"""
server:
    rundir: "{world.path()}"
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: info
database:
    storage: "{world.path('knotdb')}"
template:
  - id: default
    storage: "{world.path('zones')}"
    file: "%s.zone"
    zonefile-sync: -1
    journal-content: none
zone:
{entries}""")
    server = world.start("knotd", [program, "-c", config])
    wait_for(lambda: server.is_alive() and resolves(port), 20, why="knotd answers")
    return port


def resolves(port):
    """Does the name server answer for hosts.test?"""
    question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02mx\x05hosts\x04test\x00\x00\x01\x00\x01"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        s.sendto(question, ("127.0.0.1", port))
        try:
            answer = s.recv(512)
        except OSError:
            return False
        return answer[3] & 15 == 0 and answer[7] > 0


def own_engine(world, resolver, port):
    """Delivers everything itself, to this port of the hosts that the name server names."""
    return world.engine(f"""
        engine {{ hostname = "mail.shop.example", listen = "127.0.0.1:{{port}}", resolver = "127.0.0.1:{resolver}", retry = {{ "1s" }}, dsn = "none" }}
        relay "own" {{ mx = true, port = {port} }}
        route "all" {{ to = "*", via = "own" }}
    """)


@case("own", "MX by preference, dead hosts passed over, null MX, no MX but an address, no such name, CNAMEs, IPv6", 90)
def own_delivery(world):
    resolver = name_server(world)
    port = free_ports(1)[0]
    sink_at(world, port, "two", ["127.0.0.2"])
    sink_at(world, port, "three", ["127.0.0.3"])
    sink_at(world, port, "four", ["127.0.0.4"])
    sink_at(world, port, "five", ["127.0.0.5"], ["* connect 554 5.7.1 go away"])
    engine = own_engine(world, resolver, port)
    good = {"dead-first.test": "two", "no-mx.test": "three", "one.test": "two", "two.test": "two", "alias.test": "two", "six.test": "four",
            "broken-mx.test": "two"}
    bad = ["null-mx.test", "empty.test", "all-gone.test", "nobody.hosts.test"]
    for domain in list(good) + bad:
        send(engine, f"u@{domain}")

    def arrived():
        return {a.split("@")[1]: name for name in ("two", "three", "four") for row in world.received(name) for a in row["to"]}
    wait_for(lambda: arrived() == good, 30, why=f"mail at the sinks; there is {arrived()}")
    for domain in bad:
        failed = event(engine, "failed", rcpt=f"u@{domain}")
        same(failed["class"], "bad_domain", f"class of {domain}")
    same(event(engine, "failed", rcpt="u@null-mx.test")["enhanced"], "5.1.10", "null MX")
    delivered = event(engine, "delivered", rcpt="u@dead-first.test")
    holds(delivered["mx"].startswith("m2.dead-first.test"), f"mx: {delivered['mx']}")
    engine.wait_empty()
    end(engine)


@case("own", "an MX that says 421 in its greeting is passed over for the next")
def refusing_mx(world):
    resolver = name_server(world)
    port = free_ports(1)[0]
    sink_at(world, port, "two", ["127.0.0.2"])
    sink_at(world, port, "five", ["127.0.0.5"], ["* connect 421 4.3.2 shutting down"])
    engine = own_engine(world, resolver, port)
    send(engine, "u@refusing.test")
    wait_for(lambda: world.received("two"), 30, why="a 421 in the greeting sends us to the next MX")
    engine.wait_empty()
    end(engine)


@case("own", "an MX that has an IPv6 address only gets its mail there")
def ipv6_only(world):
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            raise Skip("no IPv6 on the loopback") from None
    resolver = name_server(world)
    port = free_ports(1)[0]
    sink_at(world, port, "six", ["[::1]"])
    engine = own_engine(world, resolver, port)
    send(engine, "u@only-six.test")
    wait_for(lambda: world.received("six"), 30, why="mail over IPv6")
    same(event(engine, "delivered", rcpt="u@only-six.test")["mx"], "m.only-six.test", "mx")
    engine.wait_empty()
    end(engine)


@case("own", "a name server that does not answer is a reason to wait, not to fail")
def silent_resolver(world):
    dead, port = free_ports(2)
    engine = world.engine(f"""
        engine {{ hostname = "mail.shop.example", listen = "127.0.0.1:{{port}}", resolver = "127.0.0.1:{dead}", retry = {{ "1s" }} }}
        relay "own" {{ mx = true, port = {port} }}
        route "all" {{ to = "*", via = "own" }}
    """)
    send(engine, "u@one.test")
    row = event(engine, "deferred", 40, rcpt="u@one.test")
    same(row["class"], "network", "class")
    same(engine.queue()["n"], 1, "still queued")
    end(engine)
