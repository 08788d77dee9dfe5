"""What an operator does to a running engine."""
import contextlib
import json
import os
import re
import signal
import smtplib
import socket
import sqlite3
import time

from common import case, end, event, holds, mail, message, restart, rewrite, same, send, shown, sink_at
from harness import free_ports, wait_for

HEAD = 'engine { hostname = "mail.shop.example", listen = "127.0.0.1:{port}", retry = { "1h" }, dsn = "none" }\n'


def relay_state(world, engine, name):
    for relay in shown(world, "relay", "list", "--spool", engine.spool)["relays"]:
        if relay["relay"] == name:
            return relay
    raise AssertionError(f"no relay {name}")


@case("operator", "queue release of mail past its deadline: it is not sent, and the answer says so", 60)
def release_past_the_deadline(world):
    port = free_ports(1)[0]
    engine = world.engine(HEAD + f"""
        relay "r" {{ host = "127.0.0.1", port = {port}, tls = "none" }}
        route "all" {{ to = "*", via = "r" }}
    """)

    def queue(*args):
        return world.run("queue", *args, "--spool", engine.spool)[1]
    send(engine, "u@a.example", message(extra="X-Hikyaku-Deadline: 10s\r\n"))
    send(engine, "u@b.example", message(extra="X-Hikyaku-Deadline: 2h\r\n"))
    wait_for(lambda: len(engine.queue("--state", "deferred")["rows"]) == 2, why="two deferred")
    queue("hold", "--all")
    deadline = shown(world, "queue", "show", "--to", "a.example", "--spool", engine.spool)["rows"][0]["deadline_at"]
    holds("\ndeadline     " in queue("show", "--to", "a.example"), "shown for people")
    wait_for(lambda: time.time() > deadline + 1, 30, why="its deadline is over")
    sink_at(world, port)
    late = "2 recipients {}released{}\n1 of them is not sent but expires: it is past its deadline\n"
    text = queue("release", "--all", "--dry-run")
    holds(text.endswith(late.format("would be ", "; nothing was changed")), text)
    same(queue("release", "--all"), late.format("", ""), "the answer")
    same(mail(world, 1)[0][0]["to"], ["u@b.example"], "sent")
    event(engine, "expired", rcpt="u@a.example")
    engine.wait_empty()
    end(engine)


@case("operator", "queue list, show, hold, release, cancel, retry; by domain, class, id and Lua; --dry-run changes nothing", 90)
def queue_commands(world):
    port = free_ports(1)[0]
    engine = world.engine(HEAD + f"""
        relay "r" {{ host = "127.0.0.1", port = {port}, tls = "none" }}
        route "all" {{ to = "*", via = "r" }}
    """)
    ids = {d: send(engine, f"u@{d}.example", message(extra="X-Hikyaku-Tag: red\r\n" if d == "a" else "")) for d in "abcd"}

    def queue(*args, check=True):
        return world.run("queue", *args, "--spool", engine.spool, check=check)

    def rows(*select):
        return {r["recipient"]: r for r in engine.queue(*select)["rows"]}
    wait_for(lambda: len(rows("--state", "deferred")) == 4, why="four deferred")
    same(rows()["u@a.example"]["class"], "network", "class")
    same(set(rows("--tag", "red")), {"u@a.example"}, "by tag")
    same(set(rows("--where", "r.domain == 'b.example' or r.tags.red")), {"u@a.example", "u@b.example"}, "by expression")
    same(queue("list", "--where", "r.domain ==", check=False)[0], 2, "a broken expression")
    text = queue("list")[1]
    holds("u@a.example" in text and "deferred" in text and "4 recipients" in text, text)
    line = next(x for x in text.splitlines() if "u@a.example" in x)
    holds("59m" in line or "60m" in line or "1h" in line, f"the next try is not shown: {line}")
    holds("u@c.example" in queue("show", ids["c"])[1], "show")

    code, text, _ = queue("hold", "--to", "a.example", "--dry-run")
    holds("1 recipient" in text and "nothing was changed" in text, text)
    same(len(rows("--state", "held")), 0, "after the dry run")
    queue("hold", "--to", "a.example")
    same(set(rows("--state", "held")), {"u@a.example"}, "held")
    queue("cancel", "--where", "r.domain == 'b.example'")
    same(set(rows()), {"u@a.example", "u@c.example", "u@d.example"}, "after cancel")
    event(engine, "cancelled", rcpt="u@b.example")
    since = engine.status()["since_start"]
    same((since["failed"], since.get("cancelled")), (0, 1), "failed, cancelled")
    holds("0 delivered, 0 failed, 1 cancelled" in world.run("status", "--spool", engine.spool)[1], "status for people")
    same(queue("cancel", "--to", "nobody.example", check=False)[0], 1, "nothing matched")
    same(queue("cancel", check=False)[0], 2, "cancel without a selection")

    sink_at(world, port)
    queue("retry", ids["c"])
    same(mail(world, 1)[0][0]["to"], ["u@c.example"], "retried by id")
    queue("retry", "--class", "network", "--to", "d.example")
    same({row["to"][0] for row, _ in mail(world, 2)}, {"u@c.example", "u@d.example"}, "retried by class")
    queue("release", "--to", "a.example")
    same({row["to"][0] for row, _ in mail(world, 3)}, {"u@a.example", "u@c.example", "u@d.example"}, "released")
    engine.wait_empty()
    end(engine)


@case("operator", "a selection that cannot be meant so is an error and changes nothing: odd addresses, everybody, a where that fails", 90)
def queue_selections(world):
    engine = world.engine(HEAD + f"""
        relay "r" {{ host = "127.0.0.1", port = {free_ports(1)[0]}, tls = "none" }}
        route "all" {{ to = "*", via = "r" }}
    """)
    for d in "abc":
        send(engine, f"u@{d}.example", message(extra="X-Hikyaku-Tag: red\r\n" if d == "a" else ""))
    wait_for(lambda: len(engine.queue("--state", "deferred")["rows"]) == 3, why="three deferred")

    def queue(*args):
        code, out, err = world.run("queue", *args, "--spool", engine.spool, check=False)
        return code, out + err

    def socket_says(**request):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(30)
            s.connect(os.path.join(engine.spool, "control.sock"))
            s.sendall(json.dumps(request).encode() + b"\n")
            return json.loads(s.makefile("rb").readline())

    for args, code, words in (
            (["cancel"], 2, "which? Write ID, or a selection such as --relay NAME or --to ADDRESS; --all selects every recipient"),
            (["cancel", "--to", "*"], 2, "--to leaves nobody out: if everybody is meant, write --all"),
            (["cancel", "--older", "0"], 2, "--older leaves nobody out"),
            (["cancel", "--where", "1 == 1"], 2, "--where leaves nobody out"),
            (["cancel", "--all", "--to", "a.example"], 2, "--all means everybody and --to does not"),
            (["list", "--to", "a.example."], 2, "leave out the dot at its end"),
            (["list", "--to", "@"], 2, "write an address"),
            (["list", "--author", " "], 2, "write an address"),
            (["list", "--from", "a\x01@b.example"], 2, "control character"),
            (["cancel", "--where", "r.tags.red or r.tags.x.y"], 1, "where failed for 2 of 3 recipients, the first time with: where:1: "),
            (["cancel", "--dry-run", "--where", "r.tags.red or r.tags.x.y"], 1, "nothing was changed"),
            (["list", "--where", "r.tags.x.y"], 1, "where failed for 3 of 3 recipients"),
            (["list", "--where", "r.tags.red or r.tags.x.y"], 1, "where failed for 2 recipients, which were left out, the first time with: where:1: ")):
        got = queue(*args)
        same(got[0], code, f"{args}: {got[1]}")
        holds(words in got[1], f"{args}: {got[1]}")
    answer = socket_says(cmd="queue cancel", where="r.tags.red or r.tags.x.y")
    same((answer["ok"], answer["error"]["code"]), (False, "where_failed"), answer)
    answer = socket_says(cmd="queue list", where="r.tags.red or r.tags.x.y")
    same((answer["n"], answer["where_failed"]), (1, 2), answer)
    for select in ({"to": "*"}, {"older": 0}, {"older": "0s", "from": "*"}, {"where": "true"}):
        same(socket_says(cmd="queue", action="cancel", select=select)["error"]["code"], "bad_request", select)
    same(engine.queue()["n"], 3, "nothing of that cancelled anything")

    same(queue("hold", "--to", "a.example")[0], 0, "hold")
    got = queue("retry", "--to", "a.example")
    same(got[0], 1, got[1])
    holds("1 more is held; release it with:\n  hikyaku queue release --to a.example\n" in got[1], got[1])
    got = queue("retry", "--where", 'r.domain ~= "b.example"')
    holds("1 recipient made due now" in got[1] and "hikyaku queue release --where 'r.domain ~= \"b.example\"'\n" in got[1], got[1])
    same(socket_says(cmd="queue retry", all=True)["held"], 1, "held, told to programs")
    same(len(engine.queue("--state", "held")["rows"]), 1, "a retry released it")
    world.run("relay", "pause", "r", "--spool", engine.spool)
    wait_for(lambda: queue("retry", "--all") and "2 more are due already and wait for their relay" in queue("retry", "--all")[1], why="due")
    same(socket_says(cmd="queue retry", all=True)["due"], 2, "due, told to programs")
    same(queue("cancel", "--where", "r.domain == 'b.example' and r.tags")[0], 0, "a where that holds")
    same(queue("cancel", "--all")[0], 0, "everybody")
    same(engine.queue()["n"], 0, "all cancelled")
    end(engine)


@case("operator", "queue show tells the whole story: every attempt with its reply, the plan, the message")
def queue_show(world):
    sink = world.sink(rules=["* rcpt 451 4.3.0 busy"])
    engine = world.engine(HEAD.replace('retry = { "1h" }', 'retry = { "1s", "1h" }') + f"""
        relay "a" {{ host = "127.0.0.1", port = {sink.ports[0]}, tls = "none" }}
        relay "b" {{ host = "127.0.0.1", port = {free_ports(1)[0]}, tls = "none" }}
        route "ab" {{ to = "*", via = {{ step "a" {{ tries = 2 }}, step "b" {{ on = {{ "system_temp" }} }} }} }}
    """)
    id_ = send(engine, "u@a.example", message(
        subject="spring", extra="X-Hikyaku-Tag: red, vip\r\nX-Hikyaku-Scenario: sale\r\n"), sender="bounce@shop.example")

    def story():
        return shown(world, "queue", "show", id_, "--spool", engine.spool)["rows"][0]
    row = wait_for(lambda: (r := story())["attempts"] == 4 and r, why="four attempts")
    same([(a["step"], a["relay"], a["stage"], a["class"], a["code"], a["enhanced"]) for a in row["past"]],
         [(1, "a", "rcpt", "system_temp", 451, "4.3.0")] * 2 + [(2, "b", "connect", "network", 0, "")] * 2, "attempts")
    holds("busy" in row["past"][0]["reply"] and row["past"][2]["reply"], row["past"])
    same([(s["relay"], s["current"], s["on"]) for s in row["plan"]],
         [("a", False, []), ("b", True, ["system_temp"])], "plan")
    same((row["author"], row["sender"], row["subject"], row["tags"], row["scenario"], row["arms"]),
         ("shop@shop.example", "bounce@shop.example", "spring", ["red", "vip"], "sale", {}), "message")
    holds(row["size"] > 100 and row["expire_at"] > row["next_at"] > row["accepted_at"] > 0, row)
    holds("past" not in engine.queue()["rows"][0], "a list stays short")
    text = world.run("queue", "show", id_, "--spool", engine.spool)[1]
    for words in ("from         Shop <shop@shop.example>", "sender       bounce@shop.example", "tags         red, vip",
                  "scenario     sale", "subject      spring", "expires      ", "plan           1 a: tries 2",
                  "> 2 b: on system_temp", "attempts     4", "451 4.3.0 busy"):
        holds(words in text, f"no {words!r} in\n{text}")
    table = text[text.index("TIME"):].splitlines()
    same(len({line.index(word) for line, word in zip(table, ("REPLY", "451", "451"))}), 1, f"not aligned:\n{text}")
    world.run("queue", "hold", id_, "--spool", engine.spool)
    text = world.run("queue", "show", id_, "--spool", engine.spool)[1]
    holds("state        held" in text and "reason       by an operator" in text, text)
    end(engine)


@case("operator", "held, parked and drained mail says what happens next and what to type, in 80 columns", 90)
def what_to_do(world):
    policy = HEAD + f"""
        relay "away" {{ host = "127.0.0.1", port = {free_ports(1)[0]}, tls = "none" }}
        relay "moved" {{ host = "127.0.0.1", port = 1, tls = "none", instead = "away" }}
        relay "off" {{ host = "127.0.0.1", port = 1, tls = "none" }}
        route "parked" {{ to = "parked.example", via = function(r)
            error("nothing can be decided for this recipient, and the message that says so is longer than a line of a terminal is") end }}
        route "moved" {{ to = "moved.example", via = "moved" }}
        route "all" {{ to = "*", via = "away" }}
    """
    engine = world.engine(policy)
    for d in ("held", "parked", "moved", "drained"):
        send(engine, f"u@{d}.example")

    def run(*args):
        out = world.run(*args, "--spool", engine.spool)[1]
        same([line for line in out.splitlines() if len(line) > 80], [], f"{args}: lines above 80 columns")
        return out
    wait_for(lambda: len(engine.queue("--state", "deferred")["rows"]) == 3 and
             len(engine.queue("--state", "parked")["rows"]) == 1, why="three deferred, one parked")
    run("queue", "hold", "--to", "held.example")
    text = run("queue", "show", "--to", "held.example")
    id_ = text.split()[1]
    holds(f"to do        hikyaku queue release {id_} lets it continue" in text and "expires      not while it is held" in text, text)
    text = run("queue", "show", "--to", "parked.example")
    holds("to do        correct the policy and type hikyaku reload" in text and "longer than a line" in text.replace("\n             ", " "), text)
    text = run("queue", "show", "--to", "moved.example")
    holds('sent by      relay "away" instead of "moved": the policy says so' in text, text)
    holds("sent by" not in run("queue", "show", "--to", "drained.example"), "drained before it is")
    run("relay", "pause", "off")
    text = run("relay", "drain", "away", "--to", "off")
    holds('away: drained, its mail is sent through "off", which is paused (hikyaku relay resume off)' in " ".join(text.split()), text)
    same(relay_state(world, engine, "away")["to_state"], "paused", "for programs")
    text = " ".join(run("queue", "show", "--to", "drained.example").split())
    holds('sent by relay "off" instead of "away", which is drained (hikyaku relay resume away ends that)' in text, text)
    same([(r["goes_by"], r["by_policy"]) for r in engine.queue("--to", "drained.example")["rows"]], [("off", False)], "for programs")
    for args in (["relay", "list"], ["status"], ["queue", "list"]):
        text = run(*args)
        holds(not [line for line in text.splitlines() if line != line.rstrip()], f"{args}: blanks at the end of a line\n{text}")
    holds("1 segment in use" in run("status"), "one segment")
    run("relay", "resume", "off")
    holds("which is" not in run("relay", "drain", "away", "--to", "off"), "a warning without a reason")
    end(engine)


@case("operator", "what waits behind a full cap, a pause or a breaker says so, and until when")
def what_lanes_wait_for(world):
    sink = world.sink(ports=3)
    engine = world.engine(HEAD + f"""
        relay "capped" {{ host = "127.0.0.1", port = {sink.ports[0]}, tls = "none", cap = "2/2h" }}
        relay "even"   {{ host = "127.0.0.1", port = {sink.ports[1]}, tls = "none", cap = "2/80s" }}
        relay "paused" {{ host = "127.0.0.1", port = {sink.ports[2]}, tls = "none" }}
        relay "broken" {{ host = "127.0.0.1", port = {free_ports(1)[0]}, tls = "none" }}
        relay "shut"   {{ host = "127.0.0.1", port = 1, tls = "none", paused = true }}
        relay "moved"  {{ host = "127.0.0.1", port = 1, tls = "none" }}
        route "shut"  {{ to = "shut.example", via = "shut" }}
        route "moved" {{ to = "moved.example", via = "moved" }}
        route "cap"   {{ to = "cap.example", via = "capped" }}
        route "even"  {{ to = "even.example", via = "even" }}
        route "pause" {{ to = "pause.example", via = "paused" }}
        route "break" {{ to = "break.example", via = "broken" }}
    """)

    def waiting(domain, waits, seconds):
        """The row of one that waits so; it may go within these seconds (0: nobody knows)."""
        row = wait_for(lambda: next((r for r in engine.queue("--to", domain, "--state", "queued")["rows"]
                                     if r.get("waits") == waits), None), 20, why=f"one at {domain} waits for {waits}")
        left = row["next_at"] - time.time()
        holds(row["next_at"] == 0 if seconds == 0 else 0 < left <= seconds + 2, f"{waits}: {left} s left, {row}")
        holds(row["state"] == "queued" and "deferred" not in row, row)
        line = next(x for x in world.run("queue", "list", "--spool", engine.spool)[1].splitlines() if row["id"] in x)
        holds(re.search(rf"\d[smh]  +(\d+[smh] ){{{int(seconds > 0)}}}{waits}  ", line), line)
        return row
    for i in range(4):
        send(engine, f"u{i}@cap.example")
    waiting("cap.example", "cap", 7200)
    mail(world, 2)
    caps = wait_for(lambda: (c := relay_state(world, engine, "capped")["caps"][0])["used"] == 2 and c, why="a full cap")
    holds(7000 < caps["next_at"] - time.time() <= 7202, caps)
    listed = world.run("relay", "list", "--spool", engine.spool)[1]
    holds("2 of 2/2h, next in 119m" in listed or "2 of 2/2h, next in 2h" in listed, listed)
    for i in range(2):
        send(engine, f"u{i}@even.example")
    waiting("even.example", "cap", 40)  # spread: the next slot is half a window after the first
    world.run("relay", "pause", "paused", "--for", "10m", "--spool", engine.spool)
    send(engine, "u@pause.example")
    row = waiting("pause.example", "paused", 600)
    holds(f"relay \"{row['relay']}\" is paused" in world.run("queue", "show", row["id"], "--spool", engine.spool)[1], "show")
    world.run("relay", "pause", "paused", "--spool", engine.spool)
    waiting("pause.example", "paused", 0)
    # what the policy pauses no operator resumes
    note = world.run("relay", "drain", "moved", "--to", "shut", "--spool", engine.spool)[1]
    holds("which the policy pauses" in " ".join(note.split()) and "resume" not in note, note)
    for domain, words in (("shut.example", "waits relay \"shut\" is paused by the policy"),
                          ("moved.example", "sent by relay \"shut\" instead of \"moved\"")):
        send(engine, f"u@{domain}")
        row = waiting(domain, "paused", 0)
        holds(row["paused_by_policy"], row)
        text = " ".join(world.run("queue", "show", row["id"], "--spool", engine.spool)[1].split())
        holds(words in text and "is paused by the policy" in text and "relay resume shut" not in text, text)
    for i in range(7):
        send(engine, f"u{i}@break.example")
    waiting("break.example", "breaker", 30)
    holds("next_at" not in str(relay_state(world, engine, "broken")["caps"]), "a relay without caps")
    end(engine)


@case("operator", "what is held stays held over a restart and a kill -9")
def held_over_restart(world):
    sink = world.sink()
    engine = world.engine(HEAD.replace("retry", 'only_to = "b.example", retry') + f"""
        relay "r" {{ host = "127.0.0.1", port = {sink.ports[0]}, tls = "none" }}
        route "all" {{ to = "*", except = "b.example", via = "r" }}
    """)
    send(engine, "u@a.example")
    event(engine, "held", rcpt="u@a.example")
    end(engine)
    restart(engine)
    same([r["state"] for r in engine.queue()["rows"]], ["held"], "after a restart")
    engine.kill()
    restart(engine)
    same([r["state"] for r in engine.queue()["rows"]], ["held"], "after kill -9")
    world.run("queue", "cancel", "--state", "held", "--spool", engine.spool)
    engine.kill()
    restart(engine)
    same(engine.queue()["n"], 0, "cancelled, then kill -9")
    send(engine, "u@b.example")
    event(engine, "parked", rcpt="u@b.example")
    world.run("queue", "hold", "--state", "parked", "--spool", engine.spool)
    end(engine)
    restart(engine)
    same([r["state"] for r in engine.queue()["rows"]], ["held"], "one that no route decided, after a restart")
    world.run("queue", "release", "--state", "held", "--spool", engine.spool)
    wait_for(lambda: engine.queue()["rows"][0]["state"] == "parked", why="asked again when released")
    world.run("queue", "cancel", "--state", "parked", "--spool", engine.spool)
    same(len(world.received()), 0, "messages at the sink")
    end(engine)


@case("operator", "relay pause, resume, drain --to: kept over restarts; the other relay's From rule holds", 90)
def relay_commands(world):
    sink = world.sink(ports=3)
    engine = world.engine(HEAD + f"""
        relay "a" {{ host = "127.0.0.1", port = {sink.ports[0]}, tls = "none" }}
        relay "b" {{ host = "127.0.0.1", port = {sink.ports[1]}, tls = "none", from = "shop@docomo.ne.jp" }}
        relay "c" {{ host = "127.0.0.1", port = {sink.ports[2]}, tls = "none" }}
        route "wait" {{ to = "wait.example", via = "a" }}
        route "next" {{ to = "next.example", via = {{ "a", "c" }} }}
    """)

    def relay(*args, check=True):
        return world.run("relay", *args, "--spool", engine.spool, check=check)

    def arrived():
        return {row["to"][0]: sink.ports.index(row["port"]) for row in world.received()}
    relay("pause", "a")
    same(relay_state(world, engine, "a")["state"], "paused", "state")
    holds("paused" in relay("list")[1], "the table does not show it")
    send(engine, "one@wait.example")
    send(engine, "one@next.example")
    wait_for(lambda: arrived() == {"one@next.example": 2}, why="the next step when paused")
    same(engine.queue()["n"], 1, "waiting")
    end(engine)
    restart(engine)
    same(relay_state(world, engine, "a")["state"], "paused", "after a restart")
    same(engine.queue()["n"], 1, "still waiting")
    relay("resume", "a")
    wait_for(lambda: arrived().get("one@wait.example") == 0, why="resumed")

    relay("drain", "a", "--to", "b")
    drained = event(engine, "relay_drained", relay="a")
    same((drained.get("to"), drained["text"], "until" in drained), ("b", "by an operator", False), "event")
    same(relay_state(world, engine, "a")["state"], "drained", "state")
    send(engine, "two@wait.example")
    wait_for(lambda: arrived().get("two@wait.example") == 1, why="drained to b")
    row = next(r for r in world.received() if r["to"] == ["two@wait.example"])
    holds("shop@docomo.ne.jp" in row["from"], f"From by b's rule: {row['from']}")
    engine.kill()
    restart(engine)
    same(relay_state(world, engine, "a")["state"], "drained", "after kill -9")
    send(engine, "three@wait.example")
    wait_for(lambda: arrived().get("three@wait.example") == 1, why="still drained to b")
    relay("resume", "a")
    send(engine, "four@wait.example")
    wait_for(lambda: arrived().get("four@wait.example") == 0, why="resumed again")
    code, _, err = relay("pause", "nobody", check=False)
    holds(code == 1 and "nobody" in err, f"an unknown relay: {code} {err}")
    end(engine)


@case("operator", "relay pause --for and drain --for last no longer than that over a restart, whatever the clock says then")
def relay_for_over_restart(world):
    engine = world.engine(HEAD + """
        relay "a" { host = "127.0.0.1", port = 9, tls = "none" }
        relay "b c" { host = "127.0.0.1", port = 9, tls = "none" }
        route "all" { to = "*", via = { "a", "b c" } }
    """)

    def left(name):
        row = relay_state(world, engine, name)
        return row["state"], 15 * round((row["until"] - time.time()) / 900)

    def stored():
        with contextlib.closing(sqlite3.connect(os.path.join(engine.spool, "state.db"))) as db:
            return dict(db.execute("SELECT key, value FROM state WHERE kind IN ('paused', 'drained')"))

    def start_with(change):
        """As if the clock had been set while the engine did not run: the times of state.db are moved against it."""
        end(engine)
        with contextlib.closing(sqlite3.connect(os.path.join(engine.spool, "state.db"))) as db, db:
            for key, value in stored().items():
                db.execute("UPDATE state SET value = ? WHERE key = ?", (change(value), key))
        restart(engine)

    def later(minutes):
        return lambda value: re.sub(r"^\d+", lambda m: str(int(m[0]) + minutes * 60000), value)
    world.run("relay", "pause", "--for", "1h", "a", "--spool", engine.spool)
    world.run("relay", "drain", "--for", "2h", "b c", "--to", "a", "--spool", engine.spool)
    start_with(later(0))
    same((left("a"), left("b c")), (("paused", 60), ("drained", 120)), "the clock goes right")
    start_with(later(-30))
    same((left("a"), left("b c")), (("paused", 30), ("drained", 90)), "half an hour later")
    start_with(later(365 * 1440))
    same((left("a"), left("b c")), (("paused", 60), ("drained", 120)), "the clock is a year behind: what was set")
    start_with(later(-45))
    same((left("a"), left("b c")), (("paused", 15), ("drained", 75)), "and it ends, although the engine is started again")
    start_with(lambda value: re.sub(r"/\d+", "", value))
    same((left("a"), left("b c")), (("paused", 15), ("drained", 75)), "as an earlier version kept it")
    start_with(later(-60))
    same(relay_state(world, engine, "a")["state"], "ok", "it is over")
    wait_for(lambda: sorted(stored()) == ["b c"], why="and forgotten")
    end(engine)


@case("operator", "what was answered is kept, however soon a kill -9 follows")
def answered_is_kept(world):
    engine = world.engine(HEAD + """
        relay "a" { host = "127.0.0.1", port = 9, tls = "none", paused = false }
        route "all" { to = "*", via = "a" }
    """)
    id_ = send(engine, "u@a.example")
    for command, state in (("pause", "paused"), ("resume", "ok"), ("pause", "paused")):
        world.run("relay", command, "a", "--spool", engine.spool)
        engine.kill()
        restart(engine)
        same(relay_state(world, engine, "a")["state"], state, f"relay {command}")
    for command, state in (("hold", "held"), ("release", "queued"), ("hold", "held")):
        world.run("queue", command, id_, "--spool", engine.spool)
        engine.kill()
        restart(engine)
        same([r["state"] for r in engine.queue()["rows"]], [state], f"queue {command}")
    end(engine)


@case("operator", "a broken file on reload: refused with file:line, the old policy stays in force and says so")
def broken_reload(world):
    sink = world.sink()
    policy = HEAD + f"""
        relay "r" {{ host = "127.0.0.1", port = {sink.ports[0]}, tls = "none" }}
        route "all" {{ to = "*", via = "r" }}
    """
    engine = world.engine(policy)
    for broken, words in ((policy + "route {", "engine.lua:"), (policy.replace('via = "r"', 'via = "q"'), "engine.lua:4"),
                          (policy.replace("route", "rout"), "rout"), (policy + "while true do end", "engine.lua:")):
        rewrite(engine, broken)
        code, out, err = world.run("reload", "--spool", engine.spool, check=False)
        holds(code == 1 and words in out + err, f"reload: {code} {out} {err}")
        holds(words in engine.status()["reload_error"], "status does not say so")
        send(engine, "u@a.example")
    holds("refused" in world.run("status", "--spool", engine.spool)[1], "status for people")
    mail(world, 4)
    rewrite(engine, policy)
    engine.p.send_signal(1)
    wait_for(lambda: "reload_error" not in engine.status(), why="SIGHUP with the good file")
    event(engine, "reloaded")
    end(engine)


@case("operator", "commands say what to do when no engine runs there, and the files are the owner's alone")
def no_engine(world):
    code, _, err = world.run("status", "--spool", world.path("nowhere"), check=False)
    holds(code == 3 and "nowhere" in err and len(err.strip().splitlines()) <= 2, f"{code} {err}")
    engine = world.engine(HEAD + 'relay "r" { host = "127.0.0.1", port = 9, tls = "none" }\nroute "all" { to = "*", via = "r" }')
    same(os.stat(engine.spool).st_mode & 0o077, 0, "mode of the spool")
    for table in ("status", "relay"):
        args = [table] + (["list"] if table == "relay" else [])
        text = world.run(*args, "--spool", engine.spool)[1]
        holds("127.0.0.1:9" in text or " r " in f" {text} ".replace("\n", " "), text)
    end(engine)


def answer(port, path):
    """The status and the body of GET; the end of the connection is the end of the answer."""
    with socket.create_connection(("127.0.0.1", port), 5) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: s.recv(65536), b"")).decode().partition("\r\n\r\n")
    return int(head.split()[1]), body


@case("operator", "a full spool takes no mail: status, /healthz and /metrics say so, and that it takes mail again", 120)
def full_spool(world):
    sink = world.sink()
    http = free_ports(1)[0]
    engine = world.engine(f"""
        engine {{ hostname = "mail.shop.example", listen = "127.0.0.1:{{port}}", http = "127.0.0.1:{http}", dsn = "none", workers = 1,
                  bounds = {{ segment = "1M", spool_max = "8M", cold_after = "1s", min_free = 0 }} }}
        relay "r" {{ host = "127.0.0.1", port = {sink.ports[0]}, tls = "none" }}
        route "all" {{ to = "*", via = "r" }}
    """)
    holds(f"port={http} http=" in next(x for x in engine.text().splitlines() if "http=" in x), engine.text())

    def said():
        gauge = next(x for x in answer(http, "/metrics")[1].splitlines() if x.startswith("hikyaku_spool_full "))
        text = world.run("status", "--spool", engine.spool)[1]
        return (engine.status()["journal"]["health"], answer(http, "/healthz"), gauge,
                next(x for x in text.splitlines() if x.startswith("journal")).split(",")[0].split()[1])
    same(said(), ("good", (200, "ok\n"), "hikyaku_spool_full 0", "good"), "with room")
    world.run("relay", "pause", "r", "--spool", engine.spool)
    big = message(body=("x" * 70 + "\r\n") * 1400)
    with smtplib.SMTP("127.0.0.1", engine.port, "client.example", timeout=60) as s:
        s.ehlo()
        for n in range(200):
            try:
                s.sendmail("shop@shop.example", ["u@a.example"], big)
            except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as e:
                same(e.smtp_code, 452, "a full spool")
                break
    holds(20 < n < 120, f"{n} messages of 100 kB in 8 MB")
    same(said(), ("full", (503, "full\n"), "hikyaku_spool_full 1", "full:"), "full")
    row = event(engine, "refused")
    same((row["text"].split(" ", 2)[:2], row["sender"], row["client"]), (["452", "4.3.1"], "shop@shop.example", "127.0.0.1"), "the event of a refusal")
    same(next(x for x in answer(http, "/metrics")[1].splitlines() if x.startswith("hikyaku_refused_total ")), f"hikyaku_refused_total {len(engine.events('refused'))}", "metric")
    holds("new mail is refused" in world.run("status", "--spool", engine.spool)[1], "what it means")
    world.run("relay", "resume", "r", "--spool", engine.spool)
    wait_for(lambda: engine.status()["journal"]["health"] == "good", 60, 0.2, "room again")
    same(said(), ("good", (200, "ok\n"), "hikyaku_spool_full 0", "good"), "with room again")
    send(engine, "u@a.example")
    end(engine)


@case("operator", "an engine that stops: /healthz answers 503 stopping, a reload is refused, the second signal ends it")
def stopping(world):
    sink = world.sink(rules=("* dot stall",))
    http = free_ports(1)[0]
    engine = world.engine(f"""
        engine {{ hostname = "mail.shop.example", listen = "127.0.0.1:{{port}}", http = "127.0.0.1:{http}", dsn = "none" }}
        relay "r" {{ host = "127.0.0.1", port = {sink.ports[0]}, tls = "none" }}
        route "all" {{ to = "*", via = "r" }}
    """)
    send(engine, "u@a.example")
    wait_for(lambda: engine.status()["queue"]["sending"] == 1, 10, why="the message is being sent")
    same(answer(http, "/healthz"), (200, "ok\n"), "before")
    engine.p.send_signal(signal.SIGTERM)
    wait_for(lambda: answer(http, "/healthz") == (503, "stopping\n"), 10, 0.05, "/healthz says that the engine stops")
    holds(world.run("status", "--spool", engine.spool)[1].startswith("stopping"), "status says so, too")
    code, out, err = world.run("reload", "--spool", engine.spool, check=False)
    holds(code != 0 and "stopping" in out + err, f"a reload: {code} {out}{err}")
    holds(engine.is_alive(), "it waits for the delivery under way")
    end(engine)


@case("operator", "a recipient with blanks is shown as it is typed, and cannot look like columns of its own")
def odd_recipients(world):
    engine = world.engine("""
        engine { hostname = "mail.shop.example", listen = "127.0.0.1:{port}" }
        relay "r" { host = "127.0.0.1", port = 9, tls = "none", paused = true }
        route "all" { to = "*", via = "r" }
    """)
    forged = '"v@ok.example  delivered  3s"@p.example'
    for to in (forged, '"c\\"d"@p.example', "a..b@docomo.ne.jp"):
        send(engine, [to], sender='"sh op"@shop.example')
    listed = world.run("queue", "list", "--spool", engine.spool)[1]
    for to in (forged, '"c\\"d"@p.example', "a..b@docomo.ne.jp"):
        holds(f"  {to}  " in listed, listed)
        shown_ = world.run("queue", "show", "--to", to, "--spool", engine.spool)[1]
        holds(f"recipient    {to}\n" in shown_ and 'sender       "sh op"@shop.example\n' in shown_, shown_)
    explained = world.run("explain", engine.policy, "--to", forged, "--sender", '"sh op"@shop.example')[1]
    holds(f"to       {forged}\n" in explained and 'sender   "sh op"@shop.example\n' in explained, explained)
    end(engine)


@case("operator", "a selection means what it says: id 0, empty and unknown names select nobody")
def selections(world):
    engine = world.engine(HEAD + """
        relay "rental" { host = "127.0.0.1", port = 1, tls = "none", paused = true }
        relay "spare"  { host = "127.0.0.1", port = 1, tls = "none", paused = true }
        route "spring" { to = "*", scenario = "spring", via = "rental" }
        route "all" { to = "*", via = "rental" }
    """)
    for name, scenario in (("a", "spring"), ("b", "sale"), ("c", "")):
        extra = f"X-Hikyaku-Scenario: {scenario}\r\nX-Hikyaku-Tag: vip\r\n" if scenario else ""
        send(engine, f"{name}@x.example", message(extra=extra), sender="bounce@list.example")

    def said(code, words, *args):
        got, out, err = world.run(*args, "--spool", engine.spool, check=False)
        holds(got == code and words in out + err, f"{args}: exit {got} instead of {code}, no {words!r} in\n{out}{err}")
    for verb in ("cancel", "hold", "release", "retry"):
        for args, code, words in (
                (["0000000000000"], 1, "0 recipients"), (["0"], 2, "is not a message id"), ([""], 2, "is not a message id"),
                (["--scenario", ""], 2, "--scenario"), (["--to", ""], 2, "--to"), (["--tag="], 2, "--tag"),
                (["--relay", ""], 2, "--relay"), (["--where", ""], 2, "--where"), (["--older", ""], 2, "--older"),
                (["--relay", "rentel"], 1, 'did you mean "rental"?'), (["--scenario", "sprnig"], 1, 'did you mean "spring"?'),
                (["--scenario", "sael"], 1, 'did you mean "sale"?'), (["--tag", "vpi"], 1, 'did you mean "vip"?'),
                (["--tag", "nosuch"], 1, 'no tag "nosuch" in the queue'), (["--relay", "spare"], 1, "0 recipients"),
                (["--to", "x.example", "--scenario", "nosuch"], 1, 'no scenario "nosuch" in the policy or the queue'),
                (["--from", "shop.example"], 1, "0 recipients"), ([], 2, "which?")):
            said(code, words, "queue", verb, *args)
    same(engine.queue()["n"], 3, "still there")
    same(engine.queue("--state", "held")["n"], 0, "held")
    said(0, "0 recipients", "queue", "list", "0000000000000")
    said(1, "is not in the queue", "queue", "show", "0000000000000")
    listed = engine.queue()["rows"][0]["id"]
    said(1, "No recipient in the queue matches", "queue", "show", listed, "--to", "nobody@y.example")
    said(1, 'no relay "nosuch"', "queue", "list", "--relay", "nosuch")
    said(0, "0 recipients", "queue", "list", "--limit", "0", "--relay", "spare")
    for args, n in ((["--from", "list.example"], 3), (["--author", "shop.example"], 3), (["--from", "shop.example"], 0),
                    (["--older", "0"], 3), (["--scenario", "spring"], 1), (["--limit", "0"], 3)):
        same(engine.queue(*args)["n"], n, f"queue list {args}")
    said(0, "3 recipients would be held", "queue", "hold", "--all", "--dry-run")
    for args, code, words in (
            (["pause", ""], 2, "name is empty"), (["pause", "rentel"], 1, 'did you mean "rental"?'), (["pause", "spare", "--for", "0"], 2, "--for"),
            (["drain", "spare", "--to", ""], 2, "--to"), (["drain", "spare", "--to", "retnal"], 1, 'did you mean "rental"?'),
            (["pause"], 2, "which?"), (["list", "x"], 2, "unexpected argument"), (["list", "--for", "2h"], 2, "belongs to pause, drain")):
        said(code, words, "relay", *args)
    same(engine.stop(), 0, "stop")


@case("operator", "what relay pause, resume and drain print is what relay list says, also where the policy decides")
def relay_says_what_is(world):
    engine = world.engine(HEAD + """
        relay "off"  { host = "127.0.0.1", port = 1, tls = "none", paused = true, cap = "10/min" }
        relay "away" { host = "127.0.0.1", port = 1, tls = "none", instead = "on" }
        relay "on"   { host = "127.0.0.1", port = 1, tls = "none" }
        relay "more" { host = "127.0.0.1", port = 1, tls = "none" }
        route "all" { to = "*", via = "on" }
    """)

    def relay(*args, code=0):
        got, out, err = world.run("relay", *args, "--spool", engine.spool, check=False)
        same(got, code, f"{args}: {out}{err}")
        return out + err

    def state(name):
        row = relay_state(world, engine, name)
        return row["state"], row["to"]
    holds("paused by the policy" in relay("resume", "off", code=1), "resume under paused = true")
    same(state("off"), ("paused", ""), "off")
    holds("drained by the policy" in relay("resume", "away", code=1) and "drained by the policy" in relay("pause", "away", code=1), "instead")
    same(state("away"), ("drained", "on"), "away")
    holds("on: paused" in relay("drain", "on"), "a drain without --to is a pause")
    same(state("on"), ("paused", ""), "on")
    holds("cannot be drained to itself" in relay("drain", "on", "--to", "on", code=1), "a drain to itself")
    holds('on: drained, its mail is sent through "more" for 60m' in relay("drain", "on", "--to", "more", "--for", "60m"), "drain")
    holds('resume "on" first' in relay("drain", "more", "--to", "on", code=1), "a drain in a circle")
    same(state("on"), ("drained", "more"), "on")
    holds("on: paused" in relay("pause", "on", "--for", "2h"), "a pause after a drain")
    same(state("on"), ("paused", ""), "what was said last counts")
    same(engine.stop(), 0, "exit code")
    restart(engine)
    same(state("on"), ("paused", ""), "after a restart")
    row = shown(world, "relay", "resume", "on", "--spool", engine.spool)
    same((row["relay"], row["state"]), ("on", "ok"), "--json says what became of it")
    same(engine.stop(), 0, "exit code")
    restart(engine)
    same(state("on"), ("ok", ""), "after a restart")
    caps = relay_state(world, engine, "off")["caps"]
    same([(c["cap"], c["used"], c["n"]) for c in caps], [("10/min", 0, 10)], "caps before the first use")


@case("operator", "a spool whose path is longer than a socket's: the engine runs there and the commands find it")
def long_spool(world):
    port = free_ports(1)[0]
    spool = world.path("/".join(["a-folder-with-quite-a-long-name"] * 6))
    os.makedirs(spool)
    world.write("policy.lua", f'engine {{ listen = "127.0.0.1:{port}" }}\nrelay "own" {{ mx = true }}\nroute "all" {{ to = "*", via = "own" }}\n')
    engine = world.start("engine", [world.binary, "run", "policy.lua", "--spool", spool])

    def status():
        engine.is_alive()
        return world.run("status", "--spool", spool, "--json", check=False)
    wait_for(lambda: status()[0] == 0, why="status")
    same(world.run("queue", "list", "--spool", spool)[0], 0, "queue list")
    same(engine.stop(), 0, "exit code")
    holds("control.sock" not in os.listdir(spool), os.listdir(spool))
    code, _, err = world.run("status", "--spool", spool, check=False)
    holds(code == 3 and "no engine runs on the spool" in err, err)


@case("operator", "status counts what was handed in; failure notices are counted by themselves")
def notices_by_themselves(world):
    sink = world.sink(rules=["nobody@x.example rcpt 550 5.1.1 no such user"])
    engine = world.engine(HEAD.replace(', dsn = "none"', "") + f"""
        relay "r" {{ host = "127.0.0.1", port = {sink.ports[0]}, tls = "none" }}
        route "all" {{ to = "*", via = "r" }}
    """)
    for name in ("a", "b", "nobody"):
        send(engine, f"{name}@x.example", sender="shop@shop.example")
    wait_for(lambda: engine.status()["since_start"]["notices"] == 1, why="the notice is delivered")
    engine.wait_empty()
    since = engine.status()["since_start"]
    same((since["recipients"], since["delivered"], since["failed"]), (3, 2, 1), "recipients, delivered, failed")
    text = " ".join(world.run("status", "--spool", engine.spool)[1].split())
    holds("3 recipients, 2 delivered, 1 failed" in text and "1 failure notice" in text, text)
    same(engine.stop(), 0, "exit code")
