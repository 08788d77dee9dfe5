#!/usr/bin/env python3
"""Hostile and awkward SMTP clients against the real engine.

usage: run.py ENGINE [CASE...]       (ENGINE: path of the hikyaku binary; CASE: L01, L22, ... default all)

Starts ENGINE with a policy that sends everything to a small receiving server in this program, which keeps every octet
it is given. After each case an ordinary message must still go through. Exit 0: all good.
"""
import sys
import time

import cases_addresses  # noqa: F401
import cases_content  # noqa: F401
import cases_limits  # noqa: F401
import cases_login  # noqa: F401
import cases_sendmail  # noqa: F401
from peers import CASES, Engine, World


def main():
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    wanted = set(sys.argv[2:])
    engine = Engine(sys.argv[1])
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
