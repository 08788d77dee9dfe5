#!/usr/bin/python3
"""Policies as users have them, through the program: check, explain and run.

  tests/policy/run.py BINARY [--only WORD]

The policies beside this file: `check` is clean, and `explain --json` says route, relays in order and From as expected
after what --after tells. The folders of examples/: `check`, and every command of their README. The manual pages: examples fit 80 columns, macros are those of man(7). The likely mistakes:
file:line, what, the nearest right thing, exit code 1 of `check` and of `run`. Every key with good and bad values (keys.py). Python's standard library only.
"""
import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

import keys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
NEWS = "news@shop.example"
TIMEOUT = 60

# Policy, words, the message, what happened (--after), and what must come of it: `story` is each attempt with its class,
# then the relay whose turn it is.
CASES = [
    ("01_myasp_table", "docomo by the docomo account, then sendgrid", {"to": "taro@docomo.ne.jp"}, ["docomo 550 5.7.1 blocked"],
     {"story": ["docomo blocked_ip", "sendgrid"], "plan": ["docomo", "sendgrid", "rental"], "from": NEWS}),
    ("01_myasp_table", "dead address: no fallback", {"to": "taro@docomo.ne.jp"}, ["docomo rcpt 550 Unknown user: User unknown"],
     {"story": ["docomo bad_mailbox"]}),
    ("01_myasp_table", "everyone else", {"to": "a@example.com"}, [], {"route": "sendgrid", "story": ["sendgrid"], "from": NEWS}),
    ("01_myasp_table", "spring goes by gmail, and falls over to the rows for all", {"to": "a@example.com", "scenario": "spring"},
     ["gmail auth 535 5.7.8"], {"story": ["gmail relay_auth", "sendgrid"], "plan": ["gmail", "sendgrid", "rental"]}),
    ("01_myasp_table", "spring softbank", {"to": "a@i.softbank.jp", "scenario": "spring"}, [], {"route": "spring softbank"}),
    ("01_myasp_table", "written as the Gmail account: by Gmail, even to docomo", {"to": "a@docomo.ne.jp", "author": "shop@gmail.com"}, [],
     {"route": "as gmail", "from": "shop@gmail.com"}),
    ("03_ab_two_relays", "an arm is a plan", {"to": "u1@example.com"}, [], {"route": "ab"}),
    ("05_own_then_relay", "blocked: gmail, with gmail's From", {"to": "a@example.com"}, ["own connect 554 5.7.1 blocked by DNSBL"],
     {"story": ["own blocked_ip", "gmail"], "from": "shop@gmail.com"}),
    ("05_own_then_relay", "not blocked: own, with ours", {"to": "a@example.com"}, [], {"story": ["own"], "from": NEWS}),
    ("05_own_then_relay", "network trouble stays with own: gmail is only for these four", {"to": "a@example.com"},
     ["own connect timeout"] * 4, {"story": ["own network"] * 4 + ["own"]}),
    ("06_rental_spill", "free: rental", {"to": "a@example.com"}, [], {"story": ["rental"]}),
    ("06_rental_spill", "full: ses", {"to": "a@example.com"}, ["rental full"], {"story": ["rental full", "ses"]}),
    ("06_rental_spill", "broken: ses", {"to": "a@example.com"}, ["rental paused"], {"story": ["rental paused", "ses"]}),
    ("07_from_rewrite", "gmail author", {"to": "a@example.com", "author": "taro@gmail.com"}, [], {"route": "freemail", "from": "members@shop.example"}),
    ("07_from_rewrite", "own author", {"to": "a@example.com"}, [], {"route": "rest", "from": NEWS}),
    ("08_account_per_scenario", "spring", {"to": "a@x.example", "scenario": "spring"}, [], {"route": "spring", "from": "a@gmail.com"}),
    ("08_account_per_scenario", "summer", {"to": "a@x.example", "scenario": "summer"}, [], {"route": "autumn", "from": "b@gmail.com"}),
    ("08_account_per_scenario", "urgent beats scenarios: override", {"to": "a@x.example", "scenario": "spring", "tag": "urgent"}, [], {"route": "urgent"}),
    ("08_account_per_scenario", "none", {"to": "a@x.example"}, [], {"route": "rest", "from": NEWS}),
    ("10_warmup", "the day before: all by the old address", {"to": "u1@example.com", "at": "2026-11-30 12:00"}, [],
     {"story": ["old"], "arms": {"warm-2026": "old"}}),
    ("10_warmup", "after the last day: all by the new one", {"to": "u1@example.com", "at": "2027-03-01 12:00"}, [],
     {"plan": ["new", "old"], "arms": {"warm-2026": "new"}}),
    ("11_drain", "gmail is drained", {"to": "a@example.com"}, [], {"story": ["ses"], "from": NEWS}),
]

# What check has to say about a policy that is right.
WARNINGS = {"08_account_per_scenario": 'route "spring" of scenario "spring" hides "rest"',
            "01_myasp_table": 'smtp.gmail.com is a server of preset "gmail"'}
# Policies of the second issue: refused for the word that is not there yet, and for nothing else.
LATER = {"02_carrier_fallback": "limit", "04_resend_not_opened": "resend", "09_night": "limit"}

RELAY = 'relay "docomo" { preset = "docomo", user = "u", password = secret "docomo", from = "s@docomo.ne.jp" }\n'
REST = 'route "rest" { to = "*", via = "docomo" }\n'
OWN = 'relay "own" { mx = true }\nroute "rest" { to = "*", via = "own" }\n'
# Words, files, and a pattern for a line of the output.
MISTAKES = [
    ("an unknown key", {"policy.lua": RELAY.replace("user =", "usr =") + REST}, r'policy\.lua:1: error: relay "docomo": unknown key "usr", did you mean "user"\?'),
    ("a relay that is not declared", {"policy.lua": RELAY + REST.replace('"docomo"', '"docmo"')}, r'policy\.lua:2: error: no relay "docmo", did you mean "docomo"\?'),
    ("a split named as if it were a relay", {"policy.lua": RELAY + 'split "half" { { arm = "a", share = 100, via = "docomo" } }\n' + REST.replace('"docomo"', '"half"')},
     r'policy\.lua:3: error: no relay "half": it is a split, .* write local x = split "half" \{ \.\.\. \} before the route'),
    ("a cap that cannot be read", {"policy.lua": RELAY.replace("from =", 'cap = "10 per min", from =') + REST},
     r'policy\.lua:1: error: .*cap "10 per min": write "N/WINDOW" or "N recipients/WINDOW"'),
    ("a name twice", {"policy.lua": RELAY + REST + REST}, r'policy\.lua:3: error: route "rest" is declared twice, first at policy\.lua:2'),
    ("a set that is not there", {"policy.lua": RELAY + 'route "d" {\n  to = carriers.docmo,\n  via = "docomo",\n}\n' + REST},
     r"policy\.lua:3: error: carriers\.docmo is not defined, did you mean carriers\.docomo\?"),
    ("a comma is missing", {"policy.lua": RELAY + 'route "rest" {\n  to = "*"\n  via = "docomo",\n}\n'}, r"policy\.lua:4: error: .*'}' expected \(to close '{' at line 2\) near 'via'"),
    ("an endless loop", {"policy.lua": RELAY + REST + "local n = 0\nwhile true do\n  n = n + 1\nend\n"}, r"policy\.lua:[456]: error: .*used up its instructions"),
    ("a row that is wrong", {"policy.lua": 'rows "rows.json"\n',
                             "rows.json": '[\n  { "name": "a", "host": "h.example", "to": "*" },\n  { "name": "b", "hots": "h.example", "to": "*" }\n]\n'},
     r'rows\.json:3: error: row "b": unknown key "hots", did you mean "host"\?'),
    ("an included file that is not there", {"policy.lua": RELAY + REST + 'include "rotes.lua"\n', "routes.lua": "return 1\n"},
     r'policy\.lua:3: error: include "rotes\.lua".*did you mean "routes\.lua"\?'),
    ("a listener that is an open relay", {"policy.lua": OWN + 'engine { listen = { addr = "0.0.0.0:2525", allow = { "0.0.0.0/0" } } }\n'},
     r"policy\.lua:3: .*open relay"),
    ("a listener that lets nobody send", {"policy.lua": OWN + 'engine { listen = { addr = "0.0.0.0:2525", allow = {} } }\n'},
     r"policy\.lua:3: .*0\.0\.0\.0"),
    ("a listener whose certificate is not there", {"policy.lua": OWN
                                                   + 'engine { listen = { addr = "127.0.0.1:2525", tls = "starttls", cert = "c.pem", key = "k.pem" } }\n'},
     r"policy\.lua:3: .*c\.pem"),
    ("a listener whose certificate is no file", {"policy.lua": OWN + 'engine { listen = { addr = "127.0.0.1:2525", tls = "starttls", cert = "d/c.pem/..", key = "k.pem" } }\n',
                                                 "d/c.pem/x": ""}, r"policy\.lua:3: .*not a regular file"),
    ("http for others", {"policy.lua": RELAY + REST + 'engine { http = "0.0.0.0:8025" }\n'}, r'policy\.lua:3: error: engine: http .*"127\.0\.0\.1:8025"'),
    ("no route at all", {"policy.lua": RELAY}, r"policy\.lua:1: error: the policy has no route"),
    ("an empty policy", {"policy.lua": ""}, r"policy\.lua:1: error: the policy has no route"),
    ("a secret as a list", {"policy.lua": OWN + 'rows "rows.json"\n', "secrets/docomo": "top-secret line\n",
                            "rows.json": '[ { "name": "a", "host": "h.example", "to": "@list/secrets/docomo" } ]\n'},
     r'rows\.json:1: error: (?!.*top-secret).*by secret "name" only'),
    ("a comma behind the last row", {"policy.lua": 'rows "rows.json"\n', "rows.json": '[\n  { "name": "a", "host": "h.example", "to": "*" },\n]\n'},
     r"rows\.json:3: error: .*near '\]'; the comma before it is one too many"),
    ("full-width digits in rows", {"policy.lua": 'rows "rows.json"\n', "rows.json": '[\n  { "name": "a", "port": ５８７ }\n]\n'},
     r"rows\.json:2: error: .*; ５ is a full-width or curly character: write 5"),
    ("null among rows", {"policy.lua": OWN + 'rows "rows.json"\n',
                         "rows.json": '[ { "name": "a", "relay": "own", "to": "a.example" }, null, { "name": "b", "relay": "own", "to": "b.example" } ]\n'},
     r'rows\.json:1: error: rows "rows\.json": there is null in a list'),
    ("rows that are no list", {"policy.lua": OWN + 'rows "rows.json"\n', "rows.json": '{ "name": "a", "relay": "own", "to": "*" }\n'},
     r'rows\.json:1: error: rows "rows\.json": write a list of rows: \['),
    ("a row's secret with a key too many", {"policy.lua": OWN + 'rows "rows.json"\n',
                                            "rows.json": '[ { "name": "a", "host": "h.example", "user": "u", "to": "*",'
                                                         ' "password": { "secret": "row-a", "command": "x" } } ]\n'},
     r'(?s)^(?!.*write secret).*rows\.json:1: error: row "a": password is \{ "secret": "row-NAME" \} and nothing else'),
    ("curly quotes", {"policy.lua": "relay “docomo” { mx = true }\n"}, r'policy\.lua:1: error: “ is a full-width or curly character: write "'),
    ("a secret's name that cannot be one", {"policy.lua": RELAY.replace('secret "docomo"', 'secret "do como"') + REST},
     r"policy\.lua:1: error: secret needs a name"),
]

# A line of an example's README with these words has these in its answer too.
PROMISES = [
    ("docomo greeting 554", "rental"), ("own greeting 554 5.7.1 blocked' #", "on to 2 rental"), ("Unknown user", "fails"),
    ("own connection reset", "slower from now on"), ("Taro <taro@gmail.com>", "members@shop.example"), ("--author shop@gmail.com", "From shop@gmail.com"),
    ("docomo auth 535", "the account pauses"), ("ours dot 550", "docomo"),
]


# What the manual pages are written with, see CONTRIBUTING.md.
MACROS = set("TH SH SS PP TP IP B I BR RB BI IB IR RI br nf fi nh ad".split())


class Failed(Exception):
    pass


def holds(condition, what):
    if not condition:
        raise Failed(what)


def run(binary, *args, cwd=HERE):
    p = subprocess.run([binary, *args], capture_output=True, text=True, errors="replace", timeout=TIMEOUT, cwd=cwd, stdin=subprocess.DEVNULL,
                       env={k: v for k, v in os.environ.items() if not k.startswith("HIKYAKU_")})
    holds("Sanitizer" not in p.stderr and "runtime error" not in p.stderr, p.stderr)
    return p.returncode, p.stdout, p.stderr


def explain(binary, policy, mail, after=()):
    args = ["explain", f"{policy}.lua", "--json", "--author", mail.get("author", NEWS)]
    for key, value in mail.items():
        if key != "author":
            args += [f"--{key}", value]
    for one in after:
        args += ["--after", one]
    code, out, err = run(binary, *args)
    holds(code == 0, f"exit {code}: {err}")
    return json.loads(out)


def check_policy(binary, name):
    code, out, err = run(binary, "check", f"{name}.lua")
    if name in LATER:
        errors = [line for line in (out + err).splitlines() if " error: " in line]
        holds(code == 1 and len(errors) == 1 and f"{LATER[name]} is not available in this version" in errors[0], out + err)
    else:
        warnings = [line for line in (out + err).splitlines() if " warning: " in line]
        holds(code == 0 and " error: " not in out + err and len(warnings) == (name in WARNINGS), out + err)
        holds(not warnings or WARNINGS[name] in warnings[0], out + err)


def explain_case(binary, policy, mail, after, expected):
    got = explain(binary, policy, mail, after)
    relays = [s["relay"] for s in got["plan"]]
    story, step = [], 1
    for a in got.get("after", []):
        story.append(f"{a['relay']} {a['class']}")
        step = {"next": a["step"], "retry": step}.get(a["action"])
    if step is not None:
        story.append(relays[step - 1])
    for key, value in expected.items():
        mine = {"story": story, "plan": relays, "from": got["plan"][(step or 1) - 1]["from"]}.get(key, got.get(key))
        holds(mine == value, f"{key} is {mine!r}, expected {value!r}")


def same_half(binary):
    for i in range(8):
        one = explain(binary, "03_ab_two_relays", {"to": f"u{i}@example.com"})
        other = explain(binary, "03_ab_two_relays", {"to": f"U{i}@Example.com"})
        arm = one["arms"]["own-or-gmail"]
        holds(arm == other["arms"]["own-or-gmail"], f"u{i} has two arms")
        holds([s["relay"] for s in one["plan"]] == (["own", "gmail"] if arm == "own" else ["gmail", "own"]), f"plan of arm {arm}")


def who_was_in_stays_in(binary):
    for i in range(8):
        arms = [explain(binary, "10_warmup", {"to": f"u{i}@example.com", "at": f"2026-12-0{day} 12:00"})["arms"]["warm-2026"] for day in (2, 4, 6)]
        holds("old" not in arms[arms.index("new"):] and arms[-1] == "new", f"u{i}: {arms}")


def commands_of(path):
    """The commands in code blocks of a README; a backslash continues a line, # begins a comment."""
    with open(path) as f:
        text = f.read()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.S | re.M) + ["\n".join(re.findall(r"^    (.*)$", text, re.M))]
    lines = re.sub(r"\\\n\s*", "", "\n".join(blocks)).splitlines()
    return [line for line in lines if line.startswith("hikyaku ")]


def example(binary, folder):
    path = os.path.join(ROOT, "examples", folder)
    code, out, err = run(binary, "check", "policy.lua", cwd=path)
    holds(code == 0 and "warning" not in out + err, f"check: {out}{err}")
    commands = commands_of(os.path.join(path, "README.md"))
    holds(len(commands) > 0, "its README has no command")
    for line in commands:
        args = shlex.split(line, comments=True)[1:]
        holds(args[0] in ("check", "explain"), f"README runs {args[0]}: say here what it should do")
        from_root = any(a.startswith("examples/") for a in args)
        code, out, err = run(binary, *args, cwd=ROOT if from_root else path)
        holds(code == 0, f"{line}\nexit {code}: {out}{err}")
        for words, answer in PROMISES:
            if words in line:
                holds(answer in out, f"{line}\nsays nothing of {answer!r}:\n{out}")


def manual_fits(page):
    """Text that is not filled is not broken either: at 80 columns a long line of an example leaves the terminal."""
    indent = 7
    literal = False
    with open(os.path.join(ROOT, "engine", "man", page)) as f:
        for n, line in enumerate(f, 1):
            if re.match(r"\.(nf|EX)", line):
                literal = True
            elif re.match(r"\.(fi|EE)", line):
                literal = False
            elif literal and not line.startswith("."):
                shown = re.sub(r"\\f.|\\&", "", line.rstrip()).replace("\\(dq", '"')
                shown = re.sub(r"\\(.)", r"\1", shown)
                holds(len(shown) + indent <= 80, f"{page}:{n}: {len(shown) + indent} columns: {shown}")


def manual_has_macros_of_man(binary, page):
    """All pages are written in one way, also the parts that the program prints for them (@PART@)."""
    lines = []
    with open(os.path.join(ROOT, "engine", "man", page)) as f:
        for n, line in enumerate(f, 1):
            part = re.fullmatch(r"@([a-z:]+)@\n", line)
            if part:
                code, out, err = run(binary, "--manual", part[1])
                holds(code == 0 and out, f"{page}:{n}: --manual {part[1]}: exit {code}: {err}")
                lines += [(f"{page}:{n}: --manual {part[1]}", printed) for printed in out.splitlines()]
            else:
                lines.append((f"{page}:{n}", line.rstrip("\n")))
    holds(lines[0][1].startswith(".TH "), f"{page} begins with {lines[0][1]!r}; a page begins with .TH, as man(7) says")
    for place, line in lines:
        macro = re.match(r"[.'][ \t]*([^ \t]*)", line)
        holds(not macro or macro[1] in MACROS, f"{place}: {line!r}: pages are written with these macros of man(7): {' '.join(sorted(MACROS))}")
    sections = [line[4:] for _, line in lines if line.startswith(".SH ")]
    holds(sections[0] == "NAME" and sections[-1] == "SEE ALSO", f"{page}: the first section is {sections[0]}, the last one {sections[-1]}")


def mistake(binary, files, pattern):
    folder = tempfile.mkdtemp(prefix="hikyaku-policy-")
    try:
        for name, text in files.items():
            os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
            with open(os.path.join(folder, name), "w") as f:
                f.write(text)
        for args in (["check", "policy.lua"], ["run", "policy.lua", "--spool", os.path.join(folder, "spool")]):
            code, out, err = run(binary, *args, cwd=folder)
            holds(code == 1, f"{args[0]}: exit {code}: {out}{err}")
            holds(re.search(pattern, out + err), f"{args[0]} says:\n{out}{err}expected: {pattern}")
            for line in (out + err).splitlines():
                holds(" error: " not in line or re.match(r"[^ :]+:[0-9]+: error: ", line), f"no place: {line}")
        holds(not os.path.exists(os.path.join(folder, "spool")), "something was started")
    finally:
        shutil.rmtree(folder)


def places_can_be_opened(binary):
    """From wherever the policy is named: places are paths from the current folder, of included files, lists and rows, too."""
    folder = os.path.realpath(tempfile.mkdtemp(prefix="hikyaku-policy-"))
    try:
        os.makedirs(os.path.join(folder, "etc", "more"))
        os.mkdir(os.path.join(folder, "linked"))
        for name, text in {"policy.lua": OWN + 'include "more/a.lua"\nrows "rows.json"\nrelay "x" { host = "h.example", user = "u", password = secret "s" }\n'
                                         'route "l" { to = list "l.txt", via = "own" }\n',
                           "more/a.lua": 'relay "y" { hots = "h.example" }\n',
                           "rows.json": '[\n  { "name": "b", "hots": "h.example", "to": "*" }\n]\n', "l.txt": "x.example\nno domain\n"}.items():
            with open(os.path.join(folder, "etc", name), "w") as f:
                f.write(text)
        os.symlink("../etc/policy.lua", os.path.join(folder, "linked", "policy.lua"))
        for cwd, path, shown in ((".", "etc/policy.lua", "etc/"), ("etc", "policy.lua", ""), ("etc", "./policy.lua", "./"), ("etc/more", "../policy.lua", "../"),
                                 (".", "linked/policy.lua", folder + "/etc/"), (".", os.path.join(folder, "etc", "policy.lua"), folder + "/etc/")):
            for args in (["check", path], ["run", path, "--spool", os.path.join(folder, "spool")], ["explain", path, "--to", "a@x.example"], ["probe", path, "own"]):
                code, out, err = run(binary, *args, cwd=os.path.join(folder, cwd))
                places = re.findall(r"^([^:\n]+):[0-9]+: error: ", out + err, re.M)
                holds(code == 1 and sorted(set(places)) == sorted(shown + n for n in ("more/a.lua", "rows.json", "policy.lua")), f"{args} in {cwd}: exit {code}: {out}{err}")
                holds(all(os.path.exists(os.path.join(folder, cwd, p)) for p in places), f"{args} in {cwd}: {places}")
        for cwd, path, shown in ((".", "etc/good.lua", "etc/"), ("etc", "good.lua", "")):
            with open(os.path.join(folder, "etc", "good.lua"), "w") as f:
                f.write(OWN + 'relay "x" { host = "h.example", user = "u", password = secret "s" }\n')
            code, out, err = run(binary, "check", path, cwd=os.path.join(folder, cwd))
            holds(code == 0 and f"\n{shown}good.lua:3: missing: " in out, f"{path} in {cwd}: exit {code}: {out}{err}")
    finally:
        shutil.rmtree(folder)


def missing_secret(binary):
    """`check` reads no secret; `run` names relay, line and the file that was probably meant."""
    folder = tempfile.mkdtemp(prefix="hikyaku-policy-")
    try:
        os.mkdir(os.path.join(folder, "secrets"))
        for name, text, mode in (("policy.lua", RELAY.replace('secret "docomo"', 'secret "docmo"') + REST, 0o644), ("secrets/docomo", "x\n", 0o600)):
            with open(os.path.join(folder, name), "w") as f:
                f.write(text)
            os.chmod(os.path.join(folder, name), mode)
        code, out, err = run(binary, "check", "policy.lua", cwd=folder)
        holds(code == 0, f"check: {out}{err}")
        code, out, err = run(binary, "run", "policy.lua", "--spool", os.path.join(folder, "spool"), cwd=folder)
        holds(code == 1 and re.search(r'policy\.lua:1: relay "docomo": secret "docmo" is missing, did you mean "docomo"\? \(Hikyaku looked for '
                                      r"\$HIKYAKU_SECRET_DOCMO, \$CREDENTIALS_DIRECTORY/docmo and .*secrets/docmo", err), f"run: exit {code}: {err}")
    finally:
        shutil.rmtree(folder)


def what_was_said(binary):
    """--after takes replies, classes and what goes wrong before a reply; a misspelt class is none of these."""
    for words in ("no_such_class", "999 what", "rcpt", "hello world"):
        code, _, err = run(binary, "explain", "05_own_then_relay.lua", "--to", "u@example.com", "--author", NEWS, "--after", f"own {words}")
        holds(code != 0 and "what did own say?" in err, f"{words}: exit {code}: {err}")
    for words, event in (("refused", "network"), ("connect timeout", "network"), ("lost", "network"), ("550 5.1.1 no", "bad_mailbox"), ("mailbox_full", "mailbox_full")):
        got = explain(binary, "05_own_then_relay", {"to": "u@example.com"}, [f"own {words}"])
        holds(got["after"][0]["class"] == event, f"{words}: {got['after']}")


def no_faults(faults):
    found = list(faults)
    holds(not found, "\n      ".join(found))


def all_cases(binary):
    for name in sorted(f[:-4] for f in os.listdir(HERE) if f.endswith(".lua")):
        yield f"check {name}", lambda name=name: check_policy(binary, name)
    for policy, words, mail, after, expected in CASES:
        yield f"{policy}: {words}", lambda p=policy, m=mail, a=after, e=expected: explain_case(binary, p, m, a, e)
    yield "03_ab_two_relays: always the same half", lambda: same_half(binary)
    yield "10_warmup: who was in stays in", lambda: who_was_in_stays_in(binary)
    for folder in sorted(os.listdir(os.path.join(ROOT, "examples"))):
        if os.path.isdir(os.path.join(ROOT, "examples", folder)):
            yield f"example {folder}", lambda f=folder: example(binary, f)
    for page in sorted(os.listdir(os.path.join(ROOT, "engine", "man"))):
        if re.search(r"\.[1-9](\.in)?$", page):
            yield f"manual {page}: its examples fit 80 columns", lambda p=page: manual_fits(p)
            yield f"manual {page}: it has macros of man(7)", lambda p=page: manual_has_macros_of_man(binary, p)
    for words, files, pattern in MISTAKES:
        yield f"mistake: {words}", lambda f=files, p=pattern: mistake(binary, f, p)
    yield "keys: each has values to try", lambda: no_faults(keys.all_keys_are_here(binary))
    for obj in keys.VALUES:
        yield f"keys of {obj}: good values load", lambda o=obj: no_faults(keys.good_values_load(binary, o))
        yield f"keys of {obj}: bad values are named, with their line", lambda o=obj: no_faults(keys.bad_values_are_named(binary, o))
    yield "explain --after: what can be said", lambda: what_was_said(binary)
    yield "places of mistakes can be opened", lambda: places_can_be_opened(binary)
    yield "mistake: a secret that is not there", lambda: missing_secret(binary)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("binary", nargs="?", default="build/asan/hikyaku")
    p.add_argument("--only", default="", help="cases whose name holds this")
    options = p.parse_args()
    binary = os.path.abspath(options.binary)
    n = n_failed = 0
    for name, case in all_cases(binary):
        if options.only not in name:
            continue
        n += 1
        try:
            case()
        except (Failed, subprocess.TimeoutExpired) as why:
            n_failed += 1
            print(f"FAIL  {name}\n      {why}")
    if n == 0:
        names = "\n  ".join(name for name, _ in all_cases(binary))
        print(f"no case has \"{options.only}\" in its name; there are:\n  {names}", file=sys.stderr)
        return 2
    print(f"{n - n_failed} passed, {n_failed} failed")
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
