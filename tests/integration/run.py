#!/usr/bin/python3
"""The program against real programs: clients that hand mail in, servers that take it, operators, crashes.

  tests/integration/run.py BINARY [--only NAME,...] [--list] [--keep] [--jobs N] [--messages N]

A NAME is a group (policy) or a case (fallback_by_class). Each case runs in a process and a folder of its own, is bounded
in time and prints one line; a peer that is not installed gives SKIP with the reason. Exit code 1: a case failed.
"""
import argparse
import concurrent.futures
import glob
import os
import subprocess
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "support")]
import common  # noqa: E402
from harness import World, only_known  # noqa: E402

# What mostly waits comes first, so that the others run beside it.
for path in sorted(glob.glob(os.path.join(HERE, "cases_*.py")), key=lambda p: ("cases_long" not in p and "cases_threads" not in p, p)):
    __import__(os.path.basename(path)[:-3])

SKIPPED = 77


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("binary", nargs="?", default="build/asan/hikyaku")
    p.add_argument("--only", default="", help="groups or cases, separated by commas")
    p.add_argument("--list", action="store_true", help="print the cases")
    p.add_argument("--keep", action="store_true", help="keep the folders of the cases")
    p.add_argument("--jobs", type=int, default=3, help="cases at the same time")
    p.add_argument("--messages", type=int, help="of the bulk case (20000; 3000 when the program has sanitizers)")
    p.add_argument("--here", help=argparse.SUPPRESS)
    return p.parse_args()


def chosen(only):
    names = [n for n in only.split(",") if n]
    known = {c.name for c in common.CASES} | {c.group for c in common.CASES}
    only_known(names, known, "case or group")
    return [c for c in common.CASES if not names or c.name in names or c.group in names]


def run_here(case, options):
    """In this process; its exit code."""
    try:
        with World(options.binary, keep=options.keep) as world:
            os.chmod(world.dir, 0o755)  # peers drop their privileges
            world.messages = options.messages
            if options.keep:
                print(f"kept: {world.dir}")
            case.run(world)
    except common.Skip as why:
        print(f"SKIP {case.name}: {why}")
        return SKIPPED
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        return 1
    return 0


def run_apart(case, options):
    """In a process of its own, killed with all that it started when its time is over."""
    argv = [sys.executable, os.path.abspath(__file__), options.binary, "--here", case.name]
    if options.keep:
        argv.append("--keep")
    if options.messages:
        argv += ["--messages", str(options.messages)]
    started = time.monotonic()
    p = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        out, _ = p.communicate(timeout=case.seconds)
        code = p.returncode
    except subprocess.TimeoutExpired:
        p.terminate()  # the case raises, shows the logs and ends what it started
        try:
            out, _ = p.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, 9)
            out, _ = p.communicate()
        out += f"not done within {case.seconds} s\n".encode()
        code = 1
    return code, out.decode(errors="replace"), time.monotonic() - started


def main():
    options = arguments()
    if options.here:
        common.raise_on_terminate()
        sys.exit(run_here(next(c for c in common.CASES if c.name == options.here), options))
    cases = chosen(options.only)
    if options.list:
        for c in cases:
            print(f"{c.group:<10} {c.name:<32} {c.words}")
        return 0
    if not os.access(options.binary, os.X_OK):
        sys.exit(f"no program {options.binary}; build it first")
    failed = []
    n_passed = 0
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, options.jobs)) as pool:
        running = {pool.submit(run_apart, c, options): c for c in cases}
        for done in concurrent.futures.as_completed(running):
            case = running[done]
            code, out, seconds = done.result()
            word = {0: "ok", SKIPPED: "skip"}.get(code, "FAIL")
            print(f"{word:<5} {seconds:6.1f} s  {case.group}/{case.name}: {case.words}", flush=True)
            if code != 0 or options.keep or "NOTE" in out:
                print(out, flush=True)
            n_passed += word == "ok"
            if word == "FAIL":
                failed.append(case.name)
    if failed:
        print(f"failed: {', '.join(failed)}")
    print(f"{n_passed} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
