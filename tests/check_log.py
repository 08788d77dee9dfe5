#!/usr/bin/python3
"""THE LOG in hikyaku-operate(7) names every event of the log, and no other. Prints what differs; exit code 1: something does."""
import glob
import os
import re
import sys

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
CALLS = (re.compile(r'HKY_LOG_(?:ERROR|WARN|INFO|DEBUG)[^;"]{0,80}?"([a-z_]+)"\s*[,)]'),
         re.compile(r'\bops->warn\([^,;]+,\s*"([a-z_]+)"'), re.compile(r'->warning = "([a-z_]+)"'))


def in_code():
    found = {}
    for path in sorted(glob.glob("engine/**/*.c", recursive=True)):
        with open(path) as f:
            text = f.read()
        for call in CALLS:
            for m in call.finditer(text):
                found.setdefault(m.group(1), path)
    return found


def in_manual():
    with open("engine/man/hikyaku-operate.7") as f:
        section = re.search(r"^\.SH THE LOG\n(.*?)^\.SH ", f.read(), re.M | re.S).group(1)
    return {word.strip() for names in re.findall(r"^\.TP.*\n\.B (.+)$", section, re.M) for word in names.split(",")}


code, manual = in_code(), in_manual()
for name in sorted(set(code) - manual):
    print(f"{code[name]}: event {name} of the log is not in THE LOG of hikyaku-operate(7)")
for name in sorted(manual - set(code)):
    print(f"engine/man/hikyaku-operate.7: nothing logs the event {name}")
sys.exit(set(code) != manual or len(code) < 30)
