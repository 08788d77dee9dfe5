"""Every key of the policy language, by the program's own tables: a good value loads, and a bad one is a clear error.

A bad value is one of another type, beyond the bounds, nearly right, empty, or with a NUL or a line end in it; the key itself
may be misspelt. Each gives one line, `policy.lua:LINE: error:`, with the key's line and name. Many keys are tried in one
policy, each on its own line. A new key needs its line in VALUES.
"""
import os
import re
import shutil
import subprocess
import tempfile

SECRET = 'secret "s"'
TEXT = ("5", "{ {} }", "function() end")
NUMBER = ('"many"', "true", "{}")
SPAN = ("true", "{}", "function() end")
TABLE = ('"x"', "5", "true")
NAMES = ("5", "{ 5 }", "function() end")
FLAG = ('"yes"', "5", "{}")
BIG = ("-1", "1e15")
LONG = ('"-1s"', '"99999d"', "-5")
HUGE = ('"-1"', '"99999999T"', "-5")

# What loads, what is of another type, what is out of bounds or nearly right. NUL, line end and the empty string are made
# from the first one where it is text.
VALUES = {
    "engine": {
        "hostname": (['"mail.shop.example"'], TEXT, ['"mail shop"', '"-"']),
        "spool": (['"queue"'], TEXT, []),
        "listen": (['"127.0.0.1:2525"'], ("5", "true", "{ 5 }"), ['"127.0.0.1:99999"', '"nowhere"']),
        "http": (['"127.0.0.1:8025"', "false"], TEXT, ['"127.0.0.1:99999"', '"0.0.0.0:8025"']),
        "owner": (['"owner@shop.example"', "false"], TEXT, ['"owner"', '"a@b@c"']),
        "timezone": (['"Asia/Tokyo"', "false"], TEXT, ['"Asia/Tokio"']),
        "workers": (["2"], NUMBER, BIG),
        "resolver": (['"127.0.0.1:53"', "false"], TEXT, ['"127.0.0.1:99999"', '"dns.example"']),
        "retry": (['{ "5m", "1h" }'], ("true", "{ true }", "function() end"), ['{ "-1s" }', '{ "5x" }', "{}"]),
        "expire": (['"2d"'], SPAN, LONG),
        "parked": (['"7d"'], SPAN, LONG),
        "max_message": (['"35M"'], SPAN, HUGE),
        "dsn": (['"each"'], TEXT, ['"eech"']),
        "bounds": (["{ hosts = 3 }"], TABLE, []),
        "log": (['"info"'], TEXT, ['"inof"']),
        "redirect": (['"127.0.0.1:2500"', "false"], TEXT, ['"127.0.0.1:99999"', '"127.0.0.1:x"']),
        "only_to": (['"shop.example"', "false"], ("5", "true", "function() end"), ['"shop..example"', '"a b.example"']),
    },
    "bounds": {name: ([value], NUMBER, BIG) for name, value in {
        "line_octets": "2048", "recipients": "100", "header_lines": "500", "received": "50", "connections": "100",
        "connections_per_client": "20", "errors": "20", "auth_tries": "3", "hosts": "5", "lua_instructions": "100000",
        "lua_ms": "5", "mail_hosts": "1000"}.items()} | {name: ([value], SPAN, HUGE) for name, value in {
        "header_octets": '"256K"', "body_memory": '"256M"', "spool_max": '"10G"', "min_free": '"256M"', "segment": '"64M"',
        "lua_memory": '"64M"'}.items()} | {name: ([value], SPAN, LONG) for name, value in {
        "cold_after": '"60s"', "lookup": '"10s"', "command": '"5m"', "data": '"5m"'}.items()},
    "listen": {
        "addr": (['"127.0.0.1:0"'], TEXT, ['"127.0.0.1:99999"', '"127.0.0.1"']),
        "tls": ([], TEXT, ['"startls"']),
        "cert": (["false"], TEXT, []),
        "key": (["false"], TEXT, []),
        "users": (["{ bob = { password = %s } }" % SECRET, "false"], TABLE, []),
        "allow": (['"127.0.0.0/8"', "false"], NAMES, ['"10.0.0.0/99"', '"localhots"']),
    },
    "user": {
        "password": ([SECRET], ("5", "{}", "true"), []),
        "scenario": (['"spring"'], NAMES, []),
        "sender": (['"shop.example"'], NAMES, ['"shop..example"']),
    },
    "relay": {
        "preset": (['"gmail"'], TEXT, ['"gmial"']),
        "host": (['"h.example"'], TEXT, ['"h.example:25"', '"h example"']),
        "port": (["2525"], NUMBER, ("0", "65536", "-1", "2.5")),
        "tls": (['"none"'], TEXT, ['"startls"']),
        "ca": (["false"], TEXT, ['"no.pem"']),
        "pin": (['"%s"' % ("ab" * 32), "false"], TEXT, ['"abc"', '"%s"' % ("xy" * 32)]),
        "user": (['"u"'], TEXT, []),
        "password": ([SECRET], ("5", "{}", "true"), []),
        "auth": (['"plain"'], TEXT, ['"pliain"']),
        "oauth": (["false"], TABLE, []),
        "from": (['"me@h.example"', "false"], TEXT, ['"me"', '"me@"']),
        "sends_as": (['"shop.example"'], NAMES, ['"shop..example"']),
        "envelope": (['"b@bounce.example"', "false"], TEXT, ['"nobody"']),
        "cap": (['"10/min"', "false"], ("true", "5", "{ 5 }"), ['"10/mni"', '"0/min"', '"-1/min"']),
        "connections": (["10"], NUMBER, BIG),
        "messages_per_connection": (["10"], NUMBER, BIG),
        "recipients_per_message": (["10"], NUMBER, BIG),
        "hello": (['"me.shop.example"', "false"], TEXT, ['"me shop"']),
        "source": (['"127.0.0.1"', "false"], TEXT, ['"localhots"', '"127.0.0.999"']),
        "mx": (["false"], FLAG, []),
        "overlap": (["true"], FLAG, []),
        "timeout": (["{ connect = 5 }"], TABLE, []),
        "localpart": (['"raw"'], TEXT, ['"rwa"']),
        "paused": (["true"], FLAG, []),
        "instead": (['"own"', "false"], ("5", "true", "{}"), ['"owm"']),
    },
    "oauth": {
        "client": (['"c"'], TEXT, []),
        "client_secret": ([SECRET], ("5", "{}", "true"), []),
        "refresh": ([SECRET], ("5", "{}", "true"), []),
        "token_command": (['{ "prog", "arg" }'], ("5", "{ 5 }"), []),
        "token_url": (['"https://h.example/token"'], TEXT, ['"ftp://h.example/"', '"http://h.example/"']),
        "scope": (['"mail"'], TEXT, []),
    },
    "timeout": {name: (['"30s"'], SPAN, LONG) for name in ("connect", "greeting", "command", "data", "dot")},
    "condition": {
        "to": (['"x.example"'], ("5", "true", "function() end"), ['"x..example"', '"a b.example"']),
        "except": (['"x.example"', "false"], ("5", "true", "function() end"), ['"x..example"']),
        "sender": (['"x.example"'], ("5", "true", "function() end"), ['"x..example"']),
        "mx": (['".outlook.com"'], ("5", "{ 5 }", "function() end"), ['"*.outlook.com"']),
        "author": (['"x.example"'], ("5", "true", "function() end"), ['"x..example"']),
        "scenario": (['"spring"'], NAMES, []),
        "tag": (['"urgent"'], NAMES, []),
        "header": (['{ ["X-Foo"] = "glob*" }'], TABLE, ['{ ["X-Foo:"] = "a" }', '{ ["X-Foo"] = 5 }', '{ ["X-Foo"] = "a\\0b" }',
                                                         '{ ["X-Foo"] = "a\\nb" }']),
        "when": (["function(r) return true end"], ("5", "true", "{}"), ['"nomatcher"']),
        "override": (["true"], FLAG, []),
        "priority": (["5"], NUMBER, ("1e15", "-1e15")),
    },
    "route": {
        "via": (['"own"', "function(r) return nil end"], ("5", "true", "{ 5 }"), ['"owm"', "{}"]),
        "rank": (['"bulk"'], TEXT, ['"blk"']),
        "from": (['"me@h.example"', "false"], TEXT, ['"me"']),
        "envelope": (['"b@bounce.example"', "false"], TEXT, ['"nobody"']),
        "reply_to": (['"me@h.example"', "false"], TEXT, ['"me"']),
        "expire": (['"2d"'], SPAN, LONG),
        "retry": (['{ "5m", "1h" }'], ("true", "{ true }", "function() end"), ['{ "-1s" }', "{}"]),
        "dsn": (['"each"'], TEXT, ['"eech"']),
        "react": (['{ network = "retry 30m" }'], TABLE, ['{ netwrok = "retry" }', '{ network = "rerty" }', '{ network = "retry -1s" }']),
    },
    "row": {
        "name": (['"n"'], TEXT, []),
        "enabled": (["false"], FLAG, []),
        "note": (['"for people"', "false"], TEXT, []),
        "relay": (['"own"'], ("5", "true", "{}"), ['"owm"']),
        "stop": (["true"], FLAG, []),
    },
    "step": {
        "on": (['"network"', '{ "network", "full" }'], ("5", "true", "{ 5 }"), ['"netwrok"']),
        "tries": (["3"], NUMBER, BIG),
        "within": (['"1h"'], SPAN, LONG),
        "wait": (['"1h"'], SPAN, LONG),
        "from": (['"me@h.example"', "false"], TEXT, ['"me"']),
        "envelope": (['"b@bounce.example"', "false"], TEXT, ['"nobody"']),
        "reply_to": (['"me@h.example"', "false"], TEXT, ['"me"']),
        "retry": (['{ "5m", "1h" }'], ("true", "{ true }", "function() end"), ['{ "-1s" }', "{}"]),
    },
    "arm": {
        "arm": (['"a"'], TEXT, []),
        "share": (["50"], ('"half"', "true", "{}"), ("-1", "150")),
        "via": (['"own"'], ("5", "true", "{ 5 }"), ['"owm"', "{}"]),
    },
    "split": {"by": (['"recipient"'], TEXT, ['"recipent"'])},
}
# Any text is good here, also with a line end or empty: it is for people.
FREE = {("row", "note")}

OWN = 'relay "own" { mx = true }\nroute "rest" { priority = 900, to = "*", via = "own" }\n'
LOGIN = {"preset": f'user = "u@gmail.com", password = {SECRET}', "user": f"password = {SECRET}", "password": 'user = "u"',
         "auth": f'user = "u", password = {SECRET}'}
PROBLEMS_MOST = 200  # check shows so many


def one_line(obj, n, key, pair):
    """What is in the policy for one pair, on one line; of keys of one table only what is in the table."""
    login = LOGIN[key] + ", " if key in LOGIN else ""
    host = f'host = "r{n}.example"'
    route = f'route "r{n}" {{ to = "x{n}.example", '
    arms = '{ arm = "b", share = "rest", via = "own" } } }'
    return {
        "engine": pair + ",", "bounds": pair + ",",
        "listen": f'{{ addr = "127.0.0.1:{3000 + n}", {pair} }},',
        "user": f'{{ addr = "127.0.0.1:{3000 + n}", users = {{ bob = {{ password = {SECRET}, {pair} }} }} }},',
        "relay": f'relay "r{n}" {{ {host}, {login}{pair} }}',
        "oauth": f'relay "r{n}" {{ {host}, user = "u", auth = "xoauth2", oauth = {{ client = "c", refresh = {SECRET}, '
                 f'token_url = "https://h.example/", {pair} }} }}',
        "timeout": f'relay "r{n}" {{ {host}, timeout = {{ {pair} }} }}',
        "condition": route + f'via = "own", {pair} }}',
        "route": route + f'via = "own", {pair} }}',
        "row": f'rows {{ {{ name = "r{n}", {"" if key == "relay" else host + ", "}to = "x{n}.example", {pair} }} }}',
        "step": route + f'via = {{ step "own" {{ {pair} }} }} }}',
        "arm": route + f'via = split "s{n}" {{ {{ arm = "a", share = 50, via = "own", {pair} }}, {arms}',
        "split": route + f'via = split "s{n}" {{ {pair}, {{ arm = "a", share = 50, via = "own" }}, {arms}',
    }[obj]


AROUND = {"engine": ("engine {\n", "}\n"), "bounds": ("engine { bounds = {\n", "} }\n"), "listen": ("engine { listen = {\n", "} }\n"),
          "user": ("engine { listen = {\n", "} }\n")}


def misspelt(key):
    """Two letters in the wrong order, else one too many."""
    return key[:-2] + key[-1] + key[-2] if len(key) > 3 and key[-1] != key[-2] else key + "x"


def bad_values(obj, key):
    good, wrong_type, out_of_bounds = VALUES[obj][key]
    yield from ((key, v) for v in (*wrong_type, *out_of_bounds))
    if (obj, key) not in FREE:
        text = next((v[1:-1] for v in good if v.startswith('"')), None)
        if text is not None:
            yield from ((key, v) for v in ('""', f'"{text[:1]}\\x00{text[1:]}"', f'"{text[:1]}\\n{text[1:]}"'))
    yield misspelt(key), good[0] if good else '"x"'


def rounds(obj, pairs_of):
    """Lists of (key, name, value) that fit into one policy: of one table, each key once."""
    todo = [(key, name, value) for key in VALUES[obj] for name, value in pairs_of(key)]
    while todo:
        now, later, seen = [], [], set()
        for one in todo:
            # Of listeners, one without a usable address comes first in the list: its address does not tell its line.
            is_once = obj in ("engine", "bounds") or (obj, one[0]) == ("listen", "addr")
            is_full = len(now) >= (30 if obj in ("listen", "user") else PROBLEMS_MOST // 2) or (is_once and one[0] in seen)
            (later if is_full else now).append(one)
            seen.add(one[0])
        yield now
        todo = later


def check(binary, obj, pairs):
    """The lines of pairs in a policy, and what check says of it."""
    before, after = AROUND.get(obj, ("", ""))
    lines = [one_line(obj, n, key, f"{name} = {value}") for n, (key, name, value) in enumerate(pairs)]
    folder = tempfile.mkdtemp(prefix="hikyaku-keys-")
    try:
        with open(os.path.join(folder, "policy.lua"), "w") as f:
            f.write(OWN + before + "\n".join(lines) + "\n" + after)
        p = subprocess.run([binary, "check", "policy.lua"], cwd=folder, capture_output=True, text=True, timeout=120)
    finally:
        shutil.rmtree(folder)
    first = OWN.count("\n") + before.count("\n") + 1
    return p.returncode, p.stdout + p.stderr, {first + n: (one, line) for n, (one, line) in enumerate(zip(pairs, lines))}


def all_keys_are_here(binary):
    for obj, keys in VALUES.items():
        p = subprocess.run([binary, "--manual", f"annotations:{obj}"], capture_output=True, text=True, check=True)
        names = set(re.findall(r"^---@field (\w+)", p.stdout, re.M))
        yield from (f"{obj}.{name} has no values to try in tests/policy/keys.py" for name in names - set(keys))
        yield from (f"there is no key {obj}.{name}" for name in set(keys) - names)


def good_values_load(binary, obj):
    for pairs in rounds(obj, lambda key: [(key, v) for v in VALUES[obj][key][0]]):
        code, out, _ = check(binary, obj, pairs)
        if code != 0:
            yield f"good values of {obj}: {out}"


def bad_values_are_named(binary, obj):
    for pairs in rounds(obj, lambda key: bad_values(obj, key)):
        code, out, lines = check(binary, obj, pairs)
        said = {}
        for line in out.splitlines():
            m = re.match(r"policy\.lua:([0-9]+): error: (.*)", line)
            if m:
                said.setdefault(int(m[1]), []).append(m[2])
            elif ": error: " in line:
                yield f"no place: {line}"
        if code != 1:
            yield f"{obj}: exit {code}"
        for number, ((key, name, value), line) in lines.items():
            errors = said.pop(number, [])
            wanted = rf"\b{name}\b" if name == key else f'unknown key "{name}"'
            is_reference = len(errors) == 1 and re.match(r'no (relay|matcher) "', errors[0]) and value.strip('"') in errors[0]
            if len(errors) != 1 or not (re.search(wanted, errors[0]) or is_reference):
                yield f"{obj}: {name} = {value}: one error with its key is expected of\n        {line}\n        got {errors}"
        yield from (f"{obj}: line {number}, which is right: {errors}" for number, errors in said.items())
