"""What the commands say when something is wrong, and to whom the exit code is an answer."""
import json
import os
import re
import signal
import smtplib
import socket
import subprocess
import threading
import time

from common import case, holds, message, same, send
from harness import answers, free_ports, wait_for

POLICY = """
engine { hostname = "mail.shop.example", listen = "127.0.0.1:{port}", dsn = "none" }
relay "r" { host = "127.0.0.1", port = 1, tls = "none", paused = true }
route "spring" { to = "*", scenario = "spring", when = function(r) return r.vars.plan == "gold" end, via = "r" }
route "all" { to = "*", via = "r" }
"""


@case("commands", "wrong usage is 2 with the nearest word, no engine is 3, a policy with mistakes or a busy port is 1")
def exit_codes(world):
    nowhere = f"127.0.0.1:{free_ports(1)[0]}"
    listener = socket.create_server(("127.0.0.1", 0))
    busy = f"127.0.0.1:{listener.getsockname()[1]}"
    world.write("bad.lua", 'relay "own" { mx = true }\nroute "all" { to = "*", via = "owm" }\n')
    world.write("spring.lua", 'relay "own" { mx = true }\nroute "s" { to = "*", scenario = "spring", via = "own" }\nroute "all" { to = "*", via = "own" }\n')
    world.write("good.lua", 'relay "own" { mx = true }\nroute "all" { to = "*", via = "own" }\n')
    for args, code, words in (
            (["probe", "good.lua", "rental"], 2, "; there are own\n"),
            (["probe", "good.lua", "onw"], 2, 'did you mean "own"?'),
            (["chek"], 2, "did you mean check?"),
            (["--spool", "x", "status"], 2, "an option is written behind its command: hikyaku COMMAND --spool"),
            (["check", "--jsn", "bad.lua"], 2, "did you mean --json?"),
            (["check"], 2, "usage: hikyaku check POLICY"),
            (["status", "word"], 2, "usage: hikyaku status  "),
            (["queue", "lits"], 2, "list, show, retry, hold, release, cancel"),
            (["queue", "list", "--state", "stuck"], 2, "queued, sending, deferred, parked, held"),
            (["queue", "list", "--class", "full_mailbox"], 2, "mailbox_full"),
            (["queue", "list", "--limit", "many"], 2, "--limit takes a number"),
            (["queue", "cancel"], 2, "which?"),
            (["relay", "pasue", "r"], 2, "list, pause, resume, drain"),
            (["relay", "pause", "r", "--to", "o"], 2, "--to belongs to drain"),
            (["load", "-n", "none"], 2, "for -n"),
            (["load", "-n", "0"], 2, "takes a number from 1"),
            (["load", "-c", "abc"], 2, "for -c"),
            (["load", "--size", "9G"], 2, "for --size"),
            (["load", "--wait", "soon"], 2, "for --wait"),
            (["load", "--server", "127.0.0.1:99999"], 2, "a port from 1 to 65535"),
            (["load", "--scenario", ""], 2, "--scenario is empty"),
            (["send", "--server", "127.0.0.1:99999", "a@x.example"], 2, "a port from 1 to 65535"),
            (["send", "--server", "127.0.0.1", "a@x.example"], 2, "ADDR:PORT"),
            (["send", "--scenario=", "a@x.example"], 2, "--scenario is empty"),
            (["send", "a@x.example,b@x.example"], 2, 'the recipient "a@x.example,b@x.example" is no address: write one address in a word'),
            (["send", "a@x.example", "b@x@y.example"], 2, 'the recipient "b@x@y.example" is no address'),
            (["send", "Taro <a@x.example>"], 2, 'the recipient "Taro <a@x.example>" is no address'),
            (["send", "--from", "a b@x.example", "a@x.example"], 2, 'the sender "a b@x.example" is no address'),
            (["send", "--from", "a@x.example", "--from", "b@x.example", "c@x.example"], 2, "--from is given twice"),
            (["explain", "good.lua", "--to", "a@x.example", "--to", "b@x.example"], 2, "--to is given twice"),
            (["explain", "good.lua", "--to", ""], 2, "--to is empty"),
            (["explain", "spring.lua", "--to", "a@x.example", "--author", "b@y.example", "--scenario", "sprnig"], 0, 'did you mean "spring"?'),
            (["explain", "good.lua", "--to", "a@x.example", "--scenario", ""], 2, "--scenario is empty"),
            (["probe", "good.lua", "--all", "--to", ""], 2, "--to is empty"),
            (["probe", "good.lua", "--all", "--to", "a b"], 2, "--to a b is no address"),
            (["status", "--spool", ""], 2, "--spool is empty"),
            (["run", "good.lua", "--log", "chatty"], 2, "--log takes error, warn, info or debug"),
            (["run", "good.lua", "--json"], 2, "no option --json"),
            (["help", "queu"], 2, "did you mean queue?"),
            (["queue", "show", "123"], 2, '"123" is not a message id'),
            (["status", "--spool", "nowhere"], 3, "no engine runs on the spool \"nowhere\""),
            (["send", "--server", nowhere, "a@x.example"], 3, "no engine answers"),
            (["load", "-n", "3", "--server", nowhere], 3, "no engine answers"),
            (["sink", "--listen", busy], 1, "; name another with --listen"),
            (["sink", "--listen", "here"], 2, "takes ADDR:PORT"),
            (["sink", "--store", "bad.lua"], 1, "cannot write bad.lua/index.jsonl"),
            (["probe", "bad.lua", "own"], 1, "bad.lua:2: error:"),
            (["explain", "bad.lua", "--to", "a@x.example"], 1, "bad.lua:2: error:")):
        got, out, err = world.run(*args, check=False, timeout=20)
        holds(got == code and words in err, f"{args}: exit {got} instead of {code}\n{out}{err}")


@case("commands", "queue --where that fails for a recipient changes nothing, is told, and is answered with 1")
def where_that_fails(world):
    engine = world.engine(POLICY)
    for name in "abc":
        send(engine, f"{name}@x.example", message(extra="X-Hikyaku-Tag: red\r\n" if name == "a" else ""))
    wait_for(lambda: engine.queue()["n"] == 3, why="three queued")
    same(engine.queue("--where", "r.localpart == 'a'")["n"], 1, "an expression before")
    for words in ("r.nosuch", "r.vars.x.y"):
        code, out, err = world.run("queue", "cancel", "--where", words, "--spool", engine.spool, check=False)
        holds(code == 1 and out == "" and "where failed for 3 of 3 recipients" in err and "nothing was changed" in err, f"{words}: {code} {out}{err}")
    same(engine.queue()["n"], 3, "still there")
    rows = [line.split()[1] for line in world.run("queue", "list", "--spool", engine.spool)[1].splitlines()[1:-1]]
    same(rows, ["a@x.example", "b@x.example", "c@x.example"], "order of acceptance")


@case("commands", "what is one is told as one: status and the sink's report")
def one_is_one(world):
    sink = world.sink()
    engine = world.engine(POLICY.replace("port = 1,", f"port = {sink.ports[0]},").replace(", paused = true", ""))
    send(engine, "u@x.example")
    engine.wait_empty()
    text = world.run("status", "--spool", engine.spool)[1]
    holds("1 message in, 1 recipient, 1 delivered, 0 failed, 0 cancelled, 1 attempt\n" in text, text)
    same(engine.stop(), 0, "exit code")
    sink.stop(signal.SIGINT)
    holds("1 message, 1 recipient, 0 faults by rule, " in sink.text(), sink.text())


@case("commands", "explain --user: what the login may use, as at the door")
def explain_a_login(world):
    world.write("policy.lua", """
        engine { listen = { addr = "127.0.0.1:2525", users = { one = { password = secret "p", scenario = "spring" },
          mail = { password = secret "p", sender = "shop.example" }, two = { password = secret "p", scenario = { "spring", "autumn" } } } } }
        relay "r" { host = "127.0.0.1", port = 1, tls = "none" }
        route "spring" { to = "*", scenario = "spring", via = "r" }
        route "all" { to = "*", via = "r" }
    """)
    for args, route in ((["one"], "spring"), (["two"], "all"), (["two", "--scenario", "autumn"], "all"), (["one", "--scenario", "spring"], "spring")):
        answer = json.loads(world.run("explain", "policy.lua", "--to", "a@x.example", "--author", "b@y.example", "--json",
                                      "--user", *args)[1])
        same(answer["route"], route, f"--user {args}")
    for args, code, words in ((["one", "--scenario", "autumn"], 1, "The engine refuses this mail: 550 5.7.1 login one may not use the scenario autumn"),
                              (["mail"], 1, "The engine refuses this mail: 553 5.7.1 login mail may not send as this address"),
                              (["mail", "--sender", "b@shop.example"], 1, "login mail may not send with this From"),
                              (["mail", "--sender", "b@y.example"], 1, "553 5.7.1 login mail may not send as this address"),
                              (["nobody"], 2, "--user nobody: no listener has this login"), (["on"], 2, "there are: ")):
        got, out, err = world.run("explain", "policy.lua", "--to", "a@x.example", "--author", "b@y.example", "--user", *args, check=False)
        holds(got == code and words in out + err, f"--user {args}: exit {got} instead of {code}\n{out}{err}")
    got, out, err = world.run("explain", "policy.lua", "--to", "a@x.example", "--author", "b@y.example", "--json", "--user", "one",
                              "--scenario", "autumn", check=False)
    holds(got == 1 and json.loads(out)["refused"].startswith("550 5.7.1 "), out)


@case("commands", "explain names what is missing or misspelt: the author, a relay of --after, one word too many")
def explain_what_is_wrong(world):
    world.write("policy.lua", """
        relay "gmail" { host = "a.example", tls = "none", sends_as = "a@gmail.com" }
        relay "gmail two" { host = "b.example", tls = "none" }
        route "fails" { to = "f.example", via = function(r) return plan end }
        route "all" { to = "*", via = { "gmail", "gmail two" } }
    """)
    for args, code, words in (
            (["--to", "a@x.example"], 0, "skipped: cannot send for a message that names no author; say --author"),
            (["--to", "a@x.example", "--author", "b@y.example"], 0, "skipped: cannot send as this author"),
            (["--to", "a@f.example"], 1, "\n  policy.lua:4: plan is not defined"),
            (["--to", "a@x.example", "--author", "a@gmail.com", "--after", "gmial 550 no"], 2, "the name of no relay; now"),
            (["--to", "a@x.example", "--author", "a@gmail.com", "--after", "gmail two 550 no"], 2,
             "that relay is not tried now; now it is the turn of gmail: write 'gmail [STAGE] REPLY'"),
            (["--to", "a@x.example", "--at", "2026-02-30 10:00"], 2, "--at 2026-02-30 10:00 is no time"),
            (["--to", "a@x.example", "--at", "2026-13-01"], 2, "is no time"),
            (["--to", "a@x.example", "--message", "."], 2, ".: cannot read it: Is a directory"),
            (["--to", "a@x.example", "a@y.example"], 2, "unexpected argument \"a@y.example\"")):
        got, out, err = world.run("explain", "policy.lua", *args, check=False, timeout=20)
        holds(got == code and words in out + err, f"{args}: exit {got} instead of {code}\n{out}{err}")
    world.write("rows.lua", """
        rows { { name = "a", host = "a.example", tls = "none", to = "*" }, { name = "again", relay = "a", to = "*" },
          { name = "b", host = "b.example", tls = "none", to = "*", stop = true }, { name = "c", host = "c.example", tls = "none", to = "*" } }
    """)
    said = json.loads(world.run("explain", "rows.lua", "--to", "u@x.example", "--author", "a@y.example", "--json")[1])["considered"]
    same([row["why"] for row in said], ["decides", "its account is in the plan already", "is the fallback of the rows before",
                                        "comes after \"a\", which decides"], "rows")


@case("commands", "explain of a message believes its X-Hikyaku fields, as the engine does from loopback")
def explain_a_message(world):
    world.write("policy.lua", POLICY.replace("{port}", "2525"))
    path = os.path.join(world.dir, "mail.eml")
    with open(path, "wb") as f:
        f.write(message(subject="=?ISO-2022-JP?B?GyRCPVUbKEI=?= =?utf-8?Q?=1b[31mred?=", extra="X-Hikyaku-Scenario: spring\r\nX-Hikyaku-Var: plan=gold\r\n"))
    answer = json.loads(world.run("explain", "policy.lua", "--to", "a@x.example", "--message", path, "--json")[1])
    same(answer["route"], "spring", "route")
    text = world.run("explain", "policy.lua", "--to", "a@x.example", "--message", path)[1]
    holds("春" in text and "plan=gold" in text and "\x1b" not in text, text)
    holds(not any(line.endswith(" ") or len(line) > 100 for line in text.splitlines()), text)
    with open(path, "wb") as f:
        f.write(message(extra="X-Hikyaku-Scenaro: spring\r\n"))
    code, _, error = world.run("explain", "policy.lua", "--to", "a@x.example", "--message", path)[:3]
    holds(code == 0 and "X-Hikyaku-Scenaro (did you mean X-Hikyaku-Scenario?)" in error, error)


@case("commands", "explain --after says who hears of a failure, when, and which way the notice goes")
def explain_notices(world):
    policy = """
        engine { hostname = "mail.shop.example", owner = "ops@shop.example", dsn = DSN }
        relay "own" { mx = true }
        relay "rental" { host = "rental.example" }
        route "notices" { priority = 10, to = "shop.example", via = "rental" }
        route "rest" { priority = 900, to = "u.example", via = "own" }
    """
    for dsn, sender, to, after in (('"each"', "b@shop.example", "b@shop.example", 0), ('"digest"', "b@shop.example", "b@shop.example", 60),
                                   ('"none"', "b@shop.example", None, 0), ('"none"', "<>", "ops@shop.example", 0), ('"each"', "b@other.example", "b@other.example", 0)):
        world.write("policy.lua", policy.replace("DSN", dsn))
        args = ["explain", "policy.lua", "--to", "a@u.example", "--author", "a@shop.example", "--sender", sender, "--at", "1796000400",
                "--after", "own rcpt 550 5.1.1 no such user"]
        said, text = json.loads(world.run(*args, "--json")[1])["notice"], " ".join(world.run(*args)[1].split())
        if to is None:
            same(said, None, "no notice")
            holds("nobody gets a failure notice" in text, text)
            continue
        is_routed = to.endswith("@shop.example")
        same(said, {"to": to, "at": 1796000400 + after, "route": "notices" if is_routed else None, "relay": "rental" if is_routed else None}, f"{dsn} {sender}")
        holds((f"a failure notice goes to {to} at" if is_routed else f"the failure notice to {to} is parked: no_route") in text, text)
        args[-1] = "own 250 ok"
        holds("notice" not in json.loads(world.run(*args, "--json")[1]), "a notice of success that nobody asked for")


@case("commands", "explain --after: a date in a reply means that moment, counted from each attempt")
def explain_dates(world):
    world.write("policy.lua", """
        engine { hostname = "mail.shop.example" }
        relay "own" { mx = true }
        route "rest" { to = "*", via = "own" }
    """)
    said = ["--after", "own rcpt 451 4.7.1 greylisted, try again after Mon, 30 Nov 2026 03:00:00 +0000",
            "--after", "own rcpt 451 4.7.1 greylisted, try again after Mon, 30 Nov 2026 06:00:00 +0000"]  # from 03:00, not 01:00
    code, out, err = world.run("explain", "policy.lua", "--to", "a@u.example", "--author", "a@shop.example", "--at", "1796000400", *said, "--json")
    same(code, 0, err)
    same([a["in"] for a in json.loads(out)["after"]], [2 * 3600, 3 * 3600], out)


@case("commands", "explain breaks a long relay, From and Reply-To at 80 columns")
def explain_fits(world):
    world.write("policy.lua", """
        relay "own" { mx = true }
        relay "a-relay-with-a-long-name" { host = "smtp.rental.example", from = "a-rather-long-sender-name@a-long-domain-name.shop.example" }
        route "all" { to = "*", via = { "a-relay-with-a-long-name", "own" } }
    """)
    text = world.run("explain", "policy.lua", "--to", "a@x.example", "--author", "author-with-long-name@another-long-domain.example")[1]
    holds("Reply-To author-with-long-name" in text, text)
    holds(not any(line.endswith(" ") or len(line) > 80 for line in text.splitlines()), text)


@case("commands", "long names in Japanese are whole in explain; an answer that cannot be written is no success")
def whole_answers(world):
    names = ["送信用のとても長い名前のアカウント、その一番目のものです" + end for end in ("壱", "弐")]
    route = "春のとても長い名前のキャンペーンのためのルートです、本当に"
    world.write("policy.lua", "".join(f'relay "{name}" {{ host = "{i}.example", user = "u", password = secret "p" }}\n' for i, name in enumerate(names))
                + f'route "{route}" {{ to = "*", via = {{ "{names[0]}", "{names[1]}" }} }}\n')
    for columns in ("80", "40"):
        text = subprocess.run([world.binary, "explain", "policy.lua", "--to", "a@x.example", "--author", "b@y.example"], capture_output=True,
                              text=True, cwd=world.dir, timeout=30, env={**os.environ, "COLUMNS": columns}).stdout
        lines = [line.strip() for line in text.splitlines()]
        holds(f"1  {names[0]}" in text and f"2  {names[1]}" in text and any(line.startswith(route) for line in lines), text)
    for args in (["presets", "--json"], ["help"], ["explain", "policy.lua", "--to", "a@x.example"], ["--version"]):
        with open("/dev/full", "w") as full:
            p = subprocess.run([world.binary, *args], stdout=full, stderr=subprocess.PIPE, text=True, cwd=world.dir, timeout=30)
        holds(p.returncode == 3 and "the answer could not be written" in p.stderr, f"{args}: {p.returncode} {p.stderr}")
        reader, writer = os.pipe()
        os.close(reader)
        p = subprocess.run([world.binary, *args], stdout=writer, stderr=subprocess.PIPE, text=True, cwd=world.dir, timeout=30)
        os.close(writer)
        holds(p.returncode == 0 and "could not be written" not in p.stderr, f"{args} | head: {p.returncode} {p.stderr}")


@case("commands", "check names a secret that is missing, without which run refuses; it runs no command of one")
def check_looks_for_secrets(world):
    made = world.path("made")
    world.write("policy.lua", f"""
        engine {{ hostname = "mail.shop.example", owner = "o@shop.example" }}
        relay "far" {{ host = "smtp.far.example", user = "u", password = secret "far" }}
        relay "asks" {{ host = "smtp.far.example", user = "u", password = secret("asks", {{ command = {{ "/usr/bin/touch", "{made}" }} }}) }}
        route "all" {{ to = "*", via = {{ "far", "asks" }} }}
    """)
    code, out, err = world.run("check", "policy.lua", check=False)
    holds(code == 0 and out.startswith('policy.lua: good, 2 relays\npolicy.lua:3: missing: secret "far" of relay "far"\n'), f"{code}\n{out}{err}")
    holds(all(len(line) <= 80 for line in out.splitlines()), out)
    answer = json.loads(world.run("check", "--json", "policy.lua")[1])
    same(answer["missing_secrets"], ["far"], "as JSON")
    same(answer["missing"], [{"file": "policy.lua", "line": 3, "of": 'relay "far"', "secret": "far"}], "with its place")
    code, out, err = world.run("run", "policy.lua", check=False)
    holds(code == 1 and 'policy.lua:3: relay "far": secret "far" is missing' in err, f"{code}\n{out}{err}")
    os.makedirs(world.path("secrets"))
    world.write("secrets/far", "word\n")
    os.chmod(world.path("secrets/far"), 0o644)
    code, out, err = world.run("check", "policy.lua", check=False)
    holds(code == 1 and 'policy.lua:3: error: relay "far": ' in out and "would not run" in out and "missing" not in out, f"{code}\n{out}{err}")
    os.chmod(world.path("secrets/far"), 0o600)
    for text, level, code_wanted in (("\n", "error", 1), ("wo\u200brd\n", "warning", 0), (" word\n", "warning", 0), ("one\ntwo\n", "warning", 0)):
        world.write("secrets/far", text)
        os.chmod(world.path("secrets/far"), 0o600)
        code, out, err = world.run("check", "policy.lua", check=False)
        holds(code == code_wanted and f'policy.lua:3: {level}: relay "far": secret "far"' in out, f"{text!r}: {code}\n{out}{err}")
        holds("word" not in out.replace("password", "") and "two" not in out, out)
        holds(text != "\n" or "empty" in out, out)
        ran = world.run("run", "policy.lua", check=False)[0] if code_wanted else 1
        same(ran, 1, "run agrees")
    world.write("secrets/far", "word\n")
    os.chmod(world.path("secrets/far"), 0o600)
    same(world.run("check", "policy.lua")[1], "policy.lua: good, 2 relays\n", "with its secret")
    holds(not os.path.exists(made), "the command was run")


@case("commands", "probe where engine.redirect is set says whom it asks instead")
def probe_redirected(world):
    sink = world.sink()
    world.write("policy.lua", f"""
        engine {{ hostname = "mail.shop.example", owner = "o@shop.example", redirect = "127.0.0.1:{sink.ports[0]}" }}
        relay "far" {{ host = "smtp.far.example", user = "u", password = secret "far" }}
        route "all" {{ to = "*", via = "far" }}
    """)
    code, out, err = world.run("probe", "policy.lua", "far", check=False)
    holds(code == 0 and f"smtp.far.example:587 at 127.0.0.1:{sink.ports[0]} (engine.redirect)" in out.splitlines()[0], f"{code}\n{out}{err}")
    holds("It works" not in out and "Not tried: the connection to its own server, TLS and login." in " ".join(out.split()), out)
    row = json.loads(world.run("probe", "policy.lua", "far", "--json")[1])[0]
    holds(row["good"] is True and "TLS and login" in row["not_tried"], row)
    out = world.run("probe", "policy.lua", "far", "--lang", "ja")[1]
    holds("試していません" in "".join(out.split()) and "正常です" not in out and "Not tried" not in out and " at " not in out.splitlines()[0], out)


@case("commands", "probe shows no secret that a server repeats, and says what a refusal after the login means")
def probe_masks(world):
    world.write("secrets/far", "Hush-hush9\n", 0o600)
    told = "Hush-hush9 SHVzaC1odXNoOQ== AHUASHVzaC1odXNoOQ=="
    for name, rule, cause in (("a", f"* auth 535 5.7.8 bad {told}", "password is wrong"), ("b", f"* auth 454 4.7.0 later {told}", "at the moment"),
                              ("c", f"* mail 550 5.7.1 Sender not allowed {told}", "sender address")):
        sink = world.sink(name, rules=[rule], extra=["--auth"])
        world.write("policy.lua", f"""
            engine {{ hostname = "mail.shop.example", owner = "o@shop.example" }}
            relay "far" {{ host = "127.0.0.1", port = {sink.ports[0]}, user = "u", password = secret "far", auth = "plain", tls = "none" }}
            route "all" {{ to = "*", via = "far" }}
        """)
        for options in ([], ["--json"], ["--lang", "ja"]):
            code, out, err = world.run("probe", "policy.lua", "far", *options, check=False)
            holds(code == 1 and "***" in out and not any(word in out + err for word in told.split()), f"{rule} {options}: {code}\n{out}{err}")
            holds(options[:1] == ["--lang"] or cause in " ".join(out.split()), f"{rule}: {out}")


@case("commands", "probe says its own causes in the language that is asked for, within 80 columns")
def probe_language(world):
    port = free_ports(1)[0]
    world.write("policy.lua", f"""
        engine {{ hostname = "mail.shop.example", owner = "o@shop.example" }}
        relay "far" {{ host = "127.0.0.1", port = {port}, tls = "none" }}
        relay "dns" {{ host = "nohost.invalid", port = 25, tls = "none" }}
        route "all" {{ to = "*", via = {{ "far", "dns" }} }}
    """)
    out = world.run("probe", "policy.lua", "far", "dns", "--lang", "ja", check=False)[1]
    holds("接続が拒否されました" in out and "ドメインが存在しません" in "".join(out.split()) and "refused" not in out, out)
    wide = max(sum(2 if ord(c) > 0x2e80 else 1 for c in line) for line in out.splitlines())
    holds(wide <= 80, f"{wide} columns:\n{out}")
    out = world.run("probe", "policy.lua", "far", "dns", "--lang", "en", check=False)[1]
    holds("Connection refused" in out and max(len(line) for line in out.splitlines()) <= 80, out)


@case("commands", "sink --max: the last message has its answer before the end, late as it may be")
def sink_ends_politely(world):
    for options in ([], ["--latency", "300"]):
        port = free_ports(1)[0]
        sink = subprocess.Popen([world.binary, "sink", "--quiet", "--json", "--max", "2", "--listen", f"127.0.0.1:{port}", *options],
                                stdout=subprocess.PIPE, text=True)
        try:
            wait_for(lambda: answers(port), why="the sink listens")
            for _ in range(2):
                with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=10) as s:
                    s.sendmail("a@x.example", ["b@y.example"], "Subject: x\r\n\r\nx\r\n")
            same(sink.wait(10), 0, "exit code")
        finally:
            sink.kill()


@case("commands", "help, presets, explain, status and lists fit 80 columns, are broken between words, and follow the width")
def eighty_columns(world):
    names = [line.split()[0] for line in world.run("help")[1].splitlines() if line.startswith("  ") and line[2] != " "]
    holds(len(names) >= 12, names)
    routes = "\n".join(f'route "r{i}" {{ to = "nobody-{i}.example", via = "own" }}' for i in range(500))
    text = f"""
        engine {{ listen = "127.0.0.1:%d", spool = "spool", timezone = "Asia/Tokyo" }}
        relay "own" {{ host = "127.0.0.1", port = 1, tls = "none", cap = {{ "10/min", "500/day" }} }}
        relay "a relay with quite a long name" {{ host = "127.0.0.1", port = 1, tls = "none" }}
        {routes}
        route "the rest of the world" {{ to = "*", via = {{ step "own" {{ tries = 2, within = "2h", wait = "30m" }},
          "a relay with quite a long name" }} }}
    """ % free_ports(1)[0]
    world.write("policy.lua", text)
    engine = world.engine(POLICY.replace('"r"', '"a relay with quite a long name"').replace('dsn =', 'timezone = "Asia/Tokyo", dsn ='))
    for i in range(3):
        send(engine, f"a-rather-long-local-part-{i}@mail.of-a-long-domain.example")
    wait_for(lambda: engine.queue()["n"] == 3, why="three queued")
    engine.world.run("queue", "hold", "--all", "--spool", engine.spool)
    at = ["--spool", engine.spool]
    commands = [["help"], ["presets"], ["presets", "gmail"], ["presets", "m365"], ["status", *at], ["queue", "list", *at], ["relay", "list", *at],
                ["explain", "policy.lua", "--to", "a@x.example", "--author", "b@y.example", "--after", "own rcpt 450 4.2.1 try again later"],
                *(["help", name] for name in names)]
    for args in commands:
        narrow, wide = (subprocess.run([world.binary, *args], capture_output=True, text=True, cwd=world.dir, timeout=30,
                                       env={**os.environ, "COLUMNS": columns}).stdout for columns in ("", "200"))
        holds(wide and max(map(len, narrow.splitlines())) <= 80, f"{args}:\n{narrow}")
        words = [sorted(w for w in text.split() if not any(c.isdigit() for c in w)) for text in (narrow, wide)]
        same(words[0], words[1], f"the words of {args}")  # but for numbers, which go on between the two
        if args[0] == "help" and len(args) == 2:
            same(narrow, world.run(args[1], "--help")[1], args)
    explained = world.run(*commands[7])[1]
    holds("Asia/Tokyo" in explained and "460 more that do not match" in explained and len(explained.splitlines()) < 150, explained)
    id_ = engine.queue()["rows"][0]["id"]
    accepted = []
    for option, zone in (([], "Asia/Tokyo"), (["--utc"], "UTC")):
        text = world.run("queue", "show", id_, *option, "--spool", engine.spool)[1]
        holds(re.search(f"times in +{zone}\n", text), text)
        accepted.append(time.mktime(time.strptime(re.search(r"accepted +(\S+ \S+) ", text).group(1), "%Y-%m-%d %H:%M:%S")))
    same(accepted[0] - accepted[1], 9 * 3600, "Tokyo is nine hours ahead")
    explained = [world.run(*commands[7], "--at", "1796083200", *option)[1] for option in ([], ["--utc"])]
    holds("2026-12-01 09:00:00 Asia/Tokyo" in explained[0] and "2026-12-01 00:00:00 UTC" in explained[1], explained)


@case("commands", "what peers and policies say reaches the terminal as text: no control characters, no broken UTF-8")
def inert_words(world):
    hostile = b"550 5.7.1 no\x1b]0;title\x07\x1b[2J \xff\xe2\x80\xae\r\n"
    listener = socket.create_server(("127.0.0.1", 0))
    where = f"127.0.0.1:{listener.getsockname()[1]}"

    def talk(peer):
        with peer:
            peer.sendall(b"220 peer ESMTP\r\n")
            for line in peer.makefile("rb"):
                verb = line[:4].upper()
                peer.sendall(b"250 peer\r\n" if verb in (b"EHLO", b"HELO", b"RSET") else b"221 bye\r\n" if verb == b"QUIT" else hostile)
                if verb == b"QUIT":
                    return

    def serve():
        while True:
            try:
                threading.Thread(target=talk, args=listener.accept()[:1], daemon=True).start()
            except OSError:
                return
    threading.Thread(target=serve, daemon=True).start()
    world.write("policy.lua", f'''
        relay "r" {{ host = "127.0.0.1", port = {listener.getsockname()[1]}, tls = "none" }}
        route "all" {{ to = "*", when = function(r) error("bad\\27[2J" .. r.address) end, via = "r" }}''')
    for args in (["send", "--server", where, "a@x.example"], ["load", "-n", "1", "--server", where], ["probe", "policy.lua", "r", "--to", "a@x.example"],
                 ["explain", "policy.lua", "--to", "a@x.example", "--author", "b@y.example"]):
        p = subprocess.run([world.binary, *args], input=b"Subject: x\n\nhi\n", capture_output=True, cwd=world.dir, timeout=60)
        said = p.stdout + p.stderr
        holds(p.returncode == 1 and (b"5.7.1 no" in said or b"bad" in said), f"{args}: {p.returncode} {said}")
        holds(not any(c < 0x20 and c not in b"\r\n" for c in said) and "\u202e" not in said.decode(), f"{args}: {said}")
    listener.close()
    # what was typed, and names of files
    odd = "q\x1b[31m\u202eq.lua"
    world.write(odd, 'relay "r" { host = "h.example", tls = "none" }\nroute "all" { to = "*", via = "r" }')
    for args in (["check", odd], ["check", odd + "?"], ["explain", odd, "--to", "a@x.example"], ["run", odd + "?"], [odd], ["help", odd],
                 ["queue", odd], ["queue", "list", odd], ["queue", "--" + odd], ["relay", "resume", odd], ["presets", odd], ["probe", "policy.lua", odd],
                 ["send", "--server", odd, "a@x.example"], ["send", odd], ["explain", "policy.lua", "--to", odd], ["load", "-n", odd],
                 ["explain", "policy.lua", "--to", "a@x.example", "--after", odd], ["sink", "--listen", odd], ["sink", "--rule", odd],
                 ["status", "--spool", odd]):
        p = subprocess.run([world.binary, *args], stdin=subprocess.DEVNULL, capture_output=True, cwd=world.dir, timeout=60)
        said = p.stdout + p.stderr
        holds(said and not any(c < 0x20 and c not in b"\r\n" for c in said) and "\u202e" not in said.decode(), f"{args}: {said}")
