#!/usr/bin/env python3
"""No two files of a stage call each other, directly or around a circle: whoever reads one can stop at those below it.

Reads the sources, builds nothing. A file calls another when it names a function or object that the other one defines for
others.
"""
import collections
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent / "engine"
NO_CODE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
FUNCTION = re.compile(r"^(?!static\b|typedef\b|return\b|else\b)[A-Za-z_][\w \t\*]*?\b(\w+)\([^;{}]*\)\s*\n\{", re.M)
OBJECT = re.compile(r"^(?!static\b|extern\b|typedef\b|return\b)(?:const |struct |_Thread_local )*\w[\w \*]*?\b(\w+)(?:\[[^\]]*\])*(?:,| =|;)", re.M)


def read(stage):
    """{file: (names it defines, names it uses)}"""
    files = {}
    for path in sorted(stage.rglob("*.c")):
        text = NO_CODE.sub(" ", path.read_text(errors="replace"))
        defined = set(FUNCTION.findall(text)) | set(OBJECT.findall(text))
        files[path.stem] = (defined, set(re.findall(r"\b[A-Za-z_]\w*\b", text)))
    return files


def circles(edges):
    """Strongly connected parts of more than one file (Tarjan, without recursion)."""
    index, low, stack, on, found, count = {}, {}, [], set(), [], 0
    for root in list(edges):
        if root in index:
            continue
        work = [(root, iter(edges[root]))]
        index[root] = low[root] = count
        count += 1
        stack.append(root)
        on.add(root)
        while work:
            at, targets = work[-1]
            for to in targets:
                if to not in index:
                    index[to] = low[to] = count
                    count += 1
                    stack.append(to)
                    on.add(to)
                    work.append((to, iter(edges[to])))
                    break
                if to in on:
                    low[at] = min(low[at], index[to])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[at])
                if low[at] == index[at]:
                    part = set()
                    while at not in part:
                        part.add(stack.pop())
                    on -= part
                    if len(part) > 1:
                        found.append(part)
    return found


def main():
    bad = 0
    for stage in sorted(p for p in ROOT.iterdir() if p.is_dir()):
        files = read(stage)
        owner = {name: file for file, (defined, _) in files.items() for name in defined}
        edges = collections.defaultdict(set)
        for file, (_, used) in files.items():
            edges[file] |= {owner[name] for name in used if name in owner and owner[name] != file}
        for part in circles({file: edges[file] for file in files}):
            bad = 1
            print(f"engine/{stage.name}: files call each other in a circle: {', '.join(sorted(part))}", file=sys.stderr)
            for file in sorted(part):
                for to in sorted(edges[file] & part):
                    names = sorted(n for n in files[file][1] if owner.get(n) == to)
                    print(f"  {file} calls {to}: {', '.join(names)}", file=sys.stderr)
    return bad


sys.exit(main())
