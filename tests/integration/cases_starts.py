"""Bad starts: one line that says what to do, and exit code 1."""
import os
import resource
import shutil
import signal
import socket
import subprocess

from common import Skip, case, certificate, end, holds, same
from harness import free_ports, wait_for

GOOD = 'engine { hostname = "m.example", listen = "127.0.0.1:{port}" }\nrelay "r" { host = "127.0.0.1", port = 9, tls = "none" }\n' \
       'route "all" { to = "*", via = "r" }\n'


def refused(world, policy, *words, port=None, spool="spool", seconds=20, **kw):
    """The engine does not start, and says these words in at most two lines (the second: that nothing was started)."""
    path = world.write("bad.lua", policy.replace("{port}", str(port or free_ports(1)[0])))
    p = subprocess.run([world.binary, "run", path, "--spool", world.path(spool), "--log", "error"], capture_output=True, timeout=seconds,
                       text=True, cwd=world.dir, **kw)
    same(p.returncode, 1, f"exit code; it said {p.stderr!r}")
    lines = p.stderr.strip().splitlines()
    holds(1 <= len(lines) <= 2, f"not one line: {p.stderr!r}")
    for word in words:
        holds(word in p.stderr, f"{word!r} is not in {p.stderr!r}")
    return p.stderr


@case("starts", "the port is in use")
def port_in_use(world):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        refused(world, GOOD, str(s.getsockname()[1]), "in use", port=s.getsockname()[1])


@case("starts", "the spool cannot be written: a file in its place, or another user's")
def spool_not_writable(world):
    world.write("file", "x")
    refused(world, GOOD, world.path("file"), spool="file")
    refused(world, GOOD, world.path("no"), spool="no/such/folder")
    if os.getuid() == 0:
        os.mkdir(world.path("roots"), 0o700)
        binary = world.path("program")
        shutil.copy(world.binary, binary)
        os.chmod(binary, 0o755)
        if subprocess.run([binary, "--version"], user="nobody", capture_output=True).returncode == 0:
            world.binary = binary
            refused(world, GOOD, "roots", "writable", spool="roots", user="nobody", group="nogroup", extra_groups=[])


@case("starts", "a second engine on one spool, and after it the first still works")
def second_engine(world):
    engine = world.engine(GOOD)
    refused(world, GOOD, "spool")
    same(engine.status()["state"], "running", "the first")
    end(engine)


@case("starts", "a reload asked for before the journal is read comes when it is")
def early_reload(world):
    for i in range(5):
        engine = world.engine(GOOD, name=f"early{i}", wait=False)
        while True:  # the port is open before the journal is read, the greeting comes behind it
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", engine.port)) == 0:
                    engine.p.send_signal(signal.SIGHUP)
                    break
            engine.is_alive()
        wait_for(lambda: engine.is_alive() and engine.events("reloaded"), 20, why="reloaded")
        end(engine)
        os.remove(os.path.join(engine.spool, "events.jsonl"))


@case("starts", "a signal that was sent before there was an engine to take it: an orderly stop, a reload")
def signal_before_the_start(world):
    def begin(name, signo):
        def signal_first():
            signal.pthread_sigmask(signal.SIG_BLOCK, [signo])  # kept over the exec, as is what waits
            os.kill(os.getpid(), signo)
        path = world.write(f"{name}.lua", GOOD.replace("{port}", str(free_ports(1)[0])))
        engine = world.start(name, [world.binary, "run", path, "--spool", world.path(name)], before=signal_first)
        engine.spool = world.path(name)
        return engine
    for signo in (signal.SIGTERM, signal.SIGINT):
        engine = begin(f"stopped{int(signo)}", signo)
        same(engine.p.wait(30), 0, f"exit code; {engine.text()}")
        same([e["ev"] for e in engine.events()], ["started", "stopped"], "events")
    engine = begin("reloaded", signal.SIGHUP)
    wait_for(lambda: engine.is_alive() and engine.events("reloaded"), 20, why="reloaded")
    end(engine)


def threads(pid):
    """The names of an engine's threads and the signals they hold back, by thread."""
    found = {}
    for tid in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{tid}/status") as f:
                rows = dict(line.split(":", 1) for line in f)
            found[int(tid)] = rows["Name"].strip(), int(rows["SigBlk"], 16)
        except OSError:
            pass  # it ended meanwhile
    return found


def n_workers(engine):
    return sum(name.startswith("worker-") for name, _ in threads(engine.p.pid).values())


@case("starts", "SIGTERM while the workers are being started is an orderly stop", 180)
def stopped_while_starting(world):
    n_hit = 0
    for i in range(20):
        engine = world.engine(GOOD.replace("hostname", "workers = 100, hostname"), name=f"starting{i}", wait=False)
        while n_workers(engine) == 0:
            engine.is_alive()
        engine.p.send_signal(signal.SIGSTOP)
        n_hit += n_workers(engine) < 100
        engine.p.send_signal(signal.SIGTERM)
        engine.p.send_signal(signal.SIGCONT)
        end(engine)
        if n_hit == 3:
            return
    if n_hit == 0:
        raise Skip("no start could be stopped half way")


@case("starts", "only the first thread takes SIGHUP, and only the thread for stops takes SIGTERM and SIGINT, from a descriptor")
def who_takes_signals(world):
    reload, stops = (sum(1 << (signo - 1) for signo in signals) for signals in ((signal.SIGHUP,), (signal.SIGINT, signal.SIGTERM)))
    engine = world.engine(GOOD.replace("hostname", "workers = 3, hostname"))
    wait_for(lambda: n_workers(engine) == 3, why="three workers")
    wait_for(lambda: threads(engine.p.pid)[engine.p.pid][1] & (reload | stops) == stops, why="the first thread takes SIGHUP")
    wait_for(lambda: sum(name == "stop" for name, _ in threads(engine.p.pid).values()) == 1, why="one thread for stops")
    others = [row for tid, row in threads(engine.p.pid).items() if tid != engine.p.pid]
    same([name for name, held_back in others if held_back & (reload | stops) != reload | stops], [], "others that take them")
    end(engine)


@case("starts", "a secret is missing, or readable by others")
def secrets(world):
    policy = GOOD.replace('tls = "none"', 'user = "x", password = secret "the-word"')
    refused(world, policy, "bad.lua:2", "the-word")
    login = GOOD.replace('listen = "127.0.0.1:{port}"', 'listen = { addr = "127.0.0.1:{port}", users = { shop = { password = secret "the-login" } } }')
    holds(login != GOOD, "no listener to give a login to")
    refused(world, login, 'login "shop"', "the-login", "secrets/")
    world.write("secrets/the-word", "word\n", 0o644)
    refused(world, policy, "the-word")


@case("starts", "a certificate that is missing, is none, or does not fit its key")
def bad_certificate(world):
    cert, key = certificate(world)
    other_key = certificate(world, "other.example")[1]
    junk = world.write("junk.pem", "junk")

    def listener(c, k):
        return GOOD.replace('"127.0.0.1:{port}"', f'{{ addr = "127.0.0.1:{{port}}", tls = "starttls", cert = "{c}", key = "{k}" }}')
    refused(world, listener(world.path("missing.pem"), key), "missing.pem")
    refused(world, listener(junk, key), "junk.pem")
    refused(world, listener(cert, other_key), "other.example.key")


@case("starts", "a listener for the world without login or allow-list is no relay for everyone")
def open_relay(world):
    refused(world, GOOD.replace("127.0.0.1:{port}", "0.0.0.0:{port}"), "bad.lua:1", "allow")


@case("starts", "errors in the policy: syntax, an unknown key, an unknown relay, a script without end")
def policy_errors(world):
    refused(world, GOOD + 'route "x" { to = }', "bad.lua:4")
    refused(world, GOOD.replace("hostname", "hostnam"), "bad.lua:1", "hostnam", "hostname")
    refused(world, GOOD.replace('via = "r"', 'via = "rr"'), "bad.lua:3", "rr")
    refused(world, GOOD + "while true do end", "bad.lua:4", seconds=15)
    refused(world, GOOD.replace('to = "*", ', ""), "bad.lua:3", "to")
    code, _, err = world.run("run", world.path("nowhere.lua"), check=False)
    holds(code == 1 and "nowhere.lua" in err, f"no such file: {code} {err}")


@case("starts", "a system that allows too few threads: one line, whichever thread it is that cannot be made")
def too_few_threads(world):
    if os.getuid() != 0:
        raise Skip("needs root, to run as a user with a limit of its own")
    binary = world.path("program")
    shutil.copy(world.binary, binary)
    os.chmod(binary, 0o755)
    if subprocess.run([binary, "--version"], user="nobody", capture_output=True).returncode != 0:
        raise Skip("nobody cannot run programs in the folder of this case")
    world.binary = binary
    os.mkdir(world.path("spool"))
    shutil.chown(world.path("spool"), "nobody")
    no_leaks = dict(os.environ, ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0")  # looking for them takes a thread
    for n in range(1, 8):
        refused(world, GOOD, "thread", user="nobody", group="nogroup", extra_groups=[], env=no_leaks,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (n, n)))
