#!/usr/bin/env python3
"""Nothing lost: the engine is killed, its disk fails, fills, rots and loses power; nothing acknowledged may be gone.

  tests/crash/run.py BINARY [--only NAME,...] [--long] [--list] [--seed N] [--keep] [--jobs N]

Every part runs in a process and a folder of its own, prints NOTE lines with its figures, and one line at its end; a part
this machine cannot run says SKIP with the reason. Exit code 1: a part failed. A seed repeats the choices (not the timing).
"""
import argparse
import concurrent.futures
import os
import random
import signal
import subprocess
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "support")]
import common  # noqa: E402
from harness import World, only_known  # noqa: E402

for name in ("kills", "powercut", "failing", "hanging", "journals", "fulldisk", "caps", "upkeep"):  # the longest first
    __import__(name)

SKIPPED = 77


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("binary", nargs="?", default="build/asan/hikyaku")
    p.add_argument("--only", default="", help="parts, separated by commas")
    p.add_argument("--long", action="store_true", help="everything larger: 500 kills, 10,000 power cuts, every failing call")
    p.add_argument("--list", action="store_true", help="print the parts")
    p.add_argument("--seed", type=int, default=None)
    p.add_argument("--keep", action="store_true", help="keep the folders")
    p.add_argument("--jobs", type=int, default=3, help="parts at the same time")
    p.add_argument("--kills", type=int, default=0, help="of the part kills (50)")
    p.add_argument("--states", type=int, default=0, help="of the part powercut (240)")
    p.add_argument("--here", help=argparse.SUPPRESS)
    return p.parse_args()


def run_here(part, options):
    """In this process; its exit code."""
    def stop(signo, frame):
        raise AssertionError("the part's time is over")
    signal.signal(signal.SIGTERM, stop)
    try:
        with World(options.binary, keep=options.keep) as world:
            if options.keep:
                print(f"kept: {world.dir}")
            part.run(world, options, random.Random(f"{part.name} {options.seed}"))
    except common.Skip as why:
        print(f"SKIP {part.name}: {why}")
        return SKIPPED
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        return 1
    return 0


def run_apart(part, options):
    """In a process group of its own, ended with all that it started when its time is over."""
    argv = [sys.executable, os.path.abspath(__file__), options.binary, "--here", part.name, "--seed", str(options.seed), "--kills",
            str(options.kills), "--states", str(options.states), "--jobs", str(options.jobs)]
    argv += [f"--{name}" for name in ("long", "keep") if getattr(options, name)]
    at = time.monotonic()
    p = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        out, _ = p.communicate(timeout=part.seconds * (40 if options.long else 1))
        code = p.returncode
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, 15)
        out, _ = p.communicate()
        out, code = out + f"\nnot done after {part.seconds} s", 1
    return part, code, out, time.monotonic() - at


def main():
    options = arguments()
    options.seed = options.seed if options.seed is not None else random.randrange(1 << 30)
    names = [n for n in options.only.split(",") if n]
    by_name = {p.name: p for p in common.PARTS}
    only_known(names, by_name, "part")
    if options.list:
        for p in common.PARTS:
            print(f"{p.name:12} {p.words}")
        return
    if options.here:
        sys.exit(run_here(by_name[options.here], options))
    print(f"seed {options.seed}", flush=True)
    n_passed = n_failed = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        jobs = [pool.submit(run_apart, p, options) for p in common.PARTS if not names or p.name in names]
        for job in concurrent.futures.as_completed(jobs):
            part, code, out, took = job.result()
            n_passed += code == 0
            n_failed += code not in (0, SKIPPED)
            print("".join(line + "\n" for line in out.splitlines() if code not in (0, SKIPPED) or line.startswith(("NOTE", "SKIP", "kept"))), end="")
            print(f"{'ok' if code == 0 else 'SKIP' if code == SKIPPED else 'FAIL':4} {part.name:12} {took:4.0f} s  {part.words}", flush=True)
    print(f"{n_passed} passed, {n_failed} failed")
    sys.exit(1 if n_failed else 0)


if __name__ == "__main__":
    main()
