#!/usr/bin/env python3
"""Hostile and awkward SMTP clients against the real engine.

  tests/protocol/run.py BINARY [CASE...]       (CASE: L01, L22, ... default all)

Starts the program with a policy that sends everything to a small receiving server in this program, which keeps every octet
it is given. After each case an ordinary message must still go through. Exit 0: all good.
"""
import argparse
import os
import sys
import time

import cases_addresses  # noqa: F401
import cases_content  # noqa: F401
import cases_limits  # noqa: F401
import cases_login  # noqa: F401
import cases_sendmail  # noqa: F401
from peers import CASES, Engine, World

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from harness import only_known  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("cases", nargs="*")
    args = parser.parse_args()
    wanted = set(args.cases)
    only_known(wanted, {name for name, _ in CASES})
    if not os.access(args.binary, os.X_OK):
        sys.exit(f"there is no program {args.binary}; build it first")
    engine = Engine(args.binary)
    world = World(engine)
    n_good = n_bad = 0
    for name, function in sorted(CASES, key=lambda c: c[0]):
        if wanted and name not in wanted:
            continue
        start = time.monotonic()
        try:
            function(world)
            assert engine.process.poll() is None, "the engine died"
            world.alive()
            verdict = "ok"
            n_good += 1
        except (AssertionError, OSError, ValueError) as e:
            n_bad += 1
            verdict = f"FAILED: {type(e).__name__}: {e}"
        print(f"{name} {function.__name__:40} {time.monotonic() - start:6.2f} s  {verdict}", flush=True)
        if engine.process.poll() is not None:
            print(engine.read_log()[-6000:])
            break
    try:
        engine.stop()
    except AssertionError as e:
        n_bad += 1
        print(f"stop FAILED: {e}")
    print(f"{n_good} passed, {n_bad} failed")
    return 1 if n_bad else 0


if __name__ == "__main__":
    sys.exit(main())
