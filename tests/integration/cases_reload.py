"""A new policy for a running engine: all of it or nothing; lists; what needs a restart; notes."""
import json
import os
import signal
import smtplib
import socket

from common import case, certificate, end, event, holds, mail, message, restart, same, send
from harness import answers, free_ports, wait_for

HEAD = 'engine {{ hostname = "mail.shop.example", listen = {{ "127.0.0.1:{{port}}"{more} }}, dsn = "none"{keys} }}\n'


def policy(sink, more="", keys="", route='route "all" { to = "*", via = "r" }'):
    relays = "".join(f'relay "{name}" {{ host = "127.0.0.1", port = {port}, tls = "none" }}\n' for name, port in zip("rq", sink.ports))
    return HEAD.format(more=more and ", " + more, keys=keys and ", " + keys) + relays + route


def rewrite(engine, text):
    with open(engine.policy, "w") as f:
        f.write(text.replace("{port}", str(engine.port)))


def reload(world, engine, code):
    got, out, err = world.run("reload", "--spool", engine.spool, check=False)
    same(got, code, f"exit code of reload: {out}{err}")
    return out + err


@case("reload", "a port in use, a certificate that is not there, an open relay: the old policy stays whole and says so")
def all_or_nothing(world):
    sink = world.sink(ports=2)
    engine = world.engine(policy(sink))
    other = free_ports(1)[0]
    busy = socket.socket()
    busy.bind(("127.0.0.1", 0))
    busy.listen(1)
    new_route = 'route "all" { to = "*", via = "q" }'
    added = f'"127.0.0.1:{other}"'
    for listener, words in ((f'"127.0.0.1:{busy.getsockname()[1]}"', "port in use"),
                            ('{ addr = "127.0.0.1:0", tls = "starttls", cert = "no.pem", key = "no.key" }', "no.pem"),
                            ('{ addr = "0.0.0.0:2526", allow = { "0.0.0.0/0" } }', "open relay")):
        rewrite(engine, policy(sink, f"{added}, {listener}", route=new_route))
        said = reload(world, engine, 1)
        holds(words in said, f"{words!r} is not in {said!r}")
        holds(words in engine.status()["reload_error"], "status does not say so")
        holds(not answers(other), "a listener of the refused policy is open")
        send(engine, "u@a.example")
    wait_for(lambda: len(engine.events("reloaded")) >= 3, why="three refusals in the event log")  # it is written every 100 ms
    refused = [e["text"] for e in engine.events("reloaded")]
    holds(len(refused) == 3 and all("the old policy stays" in t for t in refused) and "port in use" in refused[0], f"event log: {refused}")
    for row, _ in mail(world, 3):
        same(row["port"] if "port" in row else sink.ports[0], sink.ports[0], "the relay of the old policy")
    rewrite(engine, policy(sink, added, route=new_route))
    reload(world, engine, 0)
    wait_for(lambda: answers(other), why="the new listener answers")
    send(engine, "u@a.example")
    wait_for(lambda: engine.events("delivered") and engine.events("delivered")[-1].get("relay") == "q", why="the new route")
    wait_for(lambda: engine.events("reloaded")[-1]["text"] == "a new policy is in force", why="the reload in the event log")
    rewrite(engine, policy(sink, route=new_route))
    reload(world, engine, 0)
    wait_for(lambda: not answers(other), why="the listener is gone")
    busy.close()
    end(engine)


@case("reload", "a listener that gets STARTTLS keeps its socket")
def listener_gets_tls(world):
    sink = world.sink()
    cert, key = certificate(world)
    engine = world.engine(policy(sink))
    text = policy(sink).replace('"127.0.0.1:{port}"', f'{{ addr = "127.0.0.1:{{port}}", tls = "starttls", cert = "{cert}", key = "{key}" }}')
    rewrite(engine, text)
    reload(world, engine, 0)

    def offered():
        with smtplib.SMTP("127.0.0.1", engine.port, "client.example", timeout=10) as s:
            s.ehlo()
            return s.has_extn("starttls") and s.starttls()[0] == 220
    wait_for(offered, why="STARTTLS is offered")
    rewrite(engine, policy(sink))
    reload(world, engine, 0)
    wait_for(lambda: not offered(), why="STARTTLS is gone")
    end(engine)


@case("reload", "keys that need a restart are named; the log level is not one of them")
def restart_keys(world):
    sink = world.sink()
    engine = world.engine(policy(sink))
    rewrite(engine, policy(sink, keys='spool = "elsewhere", workers = 7, bounds = { min_free = "1M" }'))
    said = world.run("reload", "--spool", engine.spool)[1]
    holds("These keys need a restart:" in said and "engine.workers" in said and "bounds.min_free" in said, said)
    same(engine.status()["restart"], ["engine.workers", "bounds.min_free"], "status")
    holds("engine.workers" in world.run("status", "--spool", engine.spool)[1], "status for people")
    wait_for(lambda: "these keys need a restart" in engine.text(), why="a warning in the log")
    said = event(engine, "reloaded")["text"]
    holds("engine.workers" in said and "bounds.min_free" in said, said)
    holds("engine.spool" not in said, "the spool of the command line holds")
    rewrite(engine, policy(sink))
    same(json.loads(world.run("reload", "--json", "--spool", engine.spool)[1])["restart"], [], "nothing differs any more")
    same(engine.status()["restart"], [], "status")
    wait_for(lambda: len(engine.events("reloaded")) == 2, why="the second reload in the event log")
    wait_for(lambda: engine.events("reloaded")[-1]["text"] == "a new policy is in force", why="nothing differs from the start any more")
    end(engine)


@case("reload", "a list that is half written at a reload keeps its entries, says so, and counts when it is complete")
def lists_half_written(world):
    sink = world.sink(ports=2)
    world.write("stop.txt", "stop.example\nother.example\n")
    engine = world.engine(policy(sink, route='''
        route "all" { priority = 10, to = "*", except = list "stop.txt", via = "r" }
        route "stopped" { to = "*", via = "q" }'''))

    def relay_of(rcpt):
        seen = len(engine.events("delivered"))
        send(engine, rcpt)
        wait_for(lambda: len(engine.events("delivered")) > seen, why=f"delivered to {rcpt}")
        return engine.events("delivered")[-1]["relay"]
    same(relay_of("u@stop.example"), "q", "excepted")
    world.write("stop.txt", "")
    same(reload(world, engine, 0).count("stop.txt changed a moment ago"), 1, "the reply names the list")
    same(relay_of("u@stop.example"), "q", "excepted while the list is written")
    same("stop.txt changed a moment ago" in engine.text(), True, "the log names the list")
    world.write("stop.txt", "stop.example\nother.example\nthird.example\n")
    same("stop.txt" in reload(world, engine, 0), False, "nothing is missing, so nothing waits")
    same([relay_of("u@stop.example"), relay_of("u@third.example")], ["q", "q"], "a longer list counts at once")
    world.write("stop.txt", "other.example\nthird.example\n")
    reload(world, engine, 0)
    wait_for(lambda: "stop.txt has 2 entries, 3 before" in engine.text(), 40, why="the shorter list counts")
    same(relay_of("u@stop.example"), "r", "no longer excepted")
    end(engine)


@case("reload", "a list whose file changes routes new mail differently; a bad one stays as it was and is named")
def lists(world):
    sink = world.sink(ports=2)
    world.write("vip.txt", "# who is important\nvip.example\n")
    engine = world.engine(policy(sink, route='''
        route "vip" { priority = 10, to = list "vip.txt", via = "q" }
        route "all" { to = "*", via = "r" }'''))

    def relay_of(rcpt):
        seen = len(engine.events("delivered"))
        send(engine, rcpt)
        wait_for(lambda: len(engine.events("delivered")) > seen, why=f"delivered to {rcpt}")
        return engine.events("delivered")[-1]["relay"]
    same(relay_of("u@vip.example"), "q", "on the list")
    same(relay_of("u@new.example"), "r", "not on the list")
    world.write("vip.txt.new", "vip.example\nnew.example\n")
    os.rename(world.path("vip.txt.new"), world.path("vip.txt"))
    wait_for(lambda: "read_again=1" in engine.text(), 20, why="the list is read again")
    same(relay_of("u@new.example"), "q", "on the list now")
    world.write("vip.txt", "not a domain at all\n")
    wait_for(lambda: "vip.txt:1" in engine.text(), 20, why="the bad line is named")
    same(relay_of("u@new.example"), "q", "the list stays as it was")
    end(engine)


@case("reload", "note goes to the log")
def notes(world):
    sink = world.sink()
    engine = world.engine(policy(sink, route='route "all" { to = "*", via = function(r) note("way of " .. r.domain) return "r" end }'))
    ident = send(engine, "u@a.example")
    wait_for(lambda: f'ev=note msg={ident} rcpt="u@a.example" text="way of a.example"' in engine.text(), why="the note in the log")
    end(engine)


@case("reload", "what the policy notes while it is loaded is in the log once a load, at the start and at every reload")
def notes_of_the_load(world):
    def noted(what):
        return [line for line in engine.text().splitlines() if f"note: loaded {what}" in line]
    sink = world.sink()
    text = policy(sink, keys="workers = 3")
    engine = world.engine(text + '\nnote("loaded " .. "first")')
    same(len(noted("first")), 1, "of the start")
    holds("engine.lua:4: note" in noted("first")[0], noted("first")[0])
    rewrite(engine, text + '\nnote "loaded again"')
    for n in (1, 2):
        reload(world, engine, 0)
        same(len(noted("again")), n, "of reloads")
    holds("ev=policy" in noted("again")[0] and "engine.lua:4: note" in noted("again")[0], noted("again")[0])
    same(len(noted("first")), 1, "of the start, after reloads")
    ident = send(engine, "u@a.example")
    event(engine, "delivered", id=ident)
    same((len(noted("first")), len(noted("again"))), (1, 2), "when mail comes")
    end(engine)


@case("reload", "the event log is opened anew for logrotate, by the command and by SIGHUP, with a mistake in the file too")
def reopens_the_event_log(world):
    sink = world.sink(ports=2)
    engine = world.engine(policy(sink))
    log = os.path.join(engine.spool, "events.jsonl")
    asks = (
        lambda: reload(world, engine, 0),
        lambda: engine.p.send_signal(signal.SIGHUP),
        lambda: (rewrite(engine, "oops"), reload(world, engine, 1)),
    )
    for n, ask in enumerate(asks):
        wait_for(lambda: os.path.exists(log), 10, why="an event log before it is moved")
        os.rename(log, f"{log}.{n}")
        ask()
        wait_for(lambda: os.path.exists(log), 10, why=f"a new event log, {n}")
    send(engine, ["a@a.example"])
    event(engine, "delivered")
    end(engine)


@case("reload", "headers decide the same of what waited through a restart as of new mail, large messages too", 90)
def headers_after_a_restart(world):
    sink = world.sink(ports=2, rules=["* rcpt 451 4.3.0 busy"])
    text = policy(sink, keys='retry = { "1h" }', route='''
        route "gold" { priority = 10, to = "*", header = { ["X-Rank"] = "gold" }, via = "q" }
        route "all" { to = "*", via = "r" }''')
    engine = world.engine(text)
    long = "x" * 70 + "\r\n"
    send(engine, "small@a.example", message(extra="X-Rank: gold\r\n"))
    send(engine, "large@a.example", message(extra="X-Rank: gold\r\n", body=long * 20000))
    wait_for(lambda: len(engine.events("deferred")) == 2, why="both tried")
    end(engine)
    restart(engine)
    found = world.run("queue", "list", "--spool", engine.spool, "--where", 'r.message:header "X-Rank" == "gold"')[1]
    holds("small@a.example" in found and "large@a.example" in found, f"queue list --where: {found}")
    rewrite(engine, text + "\n-- another policy")
    reload(world, engine, 0)
    world.run("queue", "retry", "--spool", engine.spool, "--to", "a.example")
    wait_for(lambda: len(engine.events("deferred")) == 4, why="both tried again")
    same([(e["route"], e["relay"]) for e in engine.events("deferred")], [("gold", "q")] * 4, "route and relay")
    end(engine)


@case("policy", "a script that hoards memory begins anew: it costs nobody else's mail for long", 90)
def hoarding_script(world):
    sink = world.sink()
    engine = world.engine(f"""
        engine {{ listen = "127.0.0.1:{{port}}", workers = 1, bounds = {{ lua_memory = "8M", lua_ms = 300 }} }}
        relay "r" {{ host = "127.0.0.1", port = {sink.ports[0]}, tls = "none" }}
        local kept = {{}}
        route "hoards" {{ priority = 1, to = "h.example", via = function(r)
          for i = 1, 40 do kept[#kept + 1] = ("x"):rep(20000) .. #kept end
          return "r"
        end }}
        route "asks" {{ priority = 2, to = "*", via = function(r) return #("y"):rep(100000) == 100000 and "r" end }}
    """)
    for n in range(14):  # the tenth finds no room
        send(engine, f"{n}@h.example", message())
    wait_for(lambda: "were reset" in engine.text(), why="a new vm")
    send(engine, "other@x.example", message())
    wait_for(lambda: any(e["rcpt"] == "other@x.example" for e in engine.events("delivered")), why="other mail")
    holds(engine.text().count("were reset") == 1, engine.text())
    holds(len(engine.events("delivered")) >= 12, "all but who met the full vm")
    end(engine)


@case("reload", "a relay's ca is read again: another file of the same name is believed from then on, and the old one no longer")
def authority_is_read_again(world):
    cert, key = certificate(world)
    other = certificate(world, "other.example")[0]
    sink = world.sink(extra=("--cert", cert, "--key", key))
    fallback = world.sink("fallback")
    ca = world.write("ca.pem", open(cert).read())
    engine = world.engine(HEAD.format(more="", keys="") + f"""
        relay "r" {{ host = "localhost", port = {sink.ports[0]}, tls = "starttls", ca = "{ca}" }}
        relay "fallback" {{ host = "127.0.0.1", port = {fallback.ports[0]}, tls = "none" }}
        route "all" {{ to = "*", via = {{ "r", "fallback" }} }}
    """)
    for who, file, relay in (("a", cert, "r"), ("b", other, "fallback"), ("c", cert, "r")):
        world.write("ca.pem", open(file).read())
        reload(world, engine, 0)
        send(engine, f"{who}@a.example")
        same(event(engine, "delivered", rcpt=f"{who}@a.example")["relay"], relay, f"relay of {who}")
    same([(e["rcpt"], e["class"]) for e in engine.events("routed")], [("b@a.example", "tls")], "left for the fallback")
    end(engine)
