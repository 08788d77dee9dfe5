"""The table: rounds of direct, the others, direct; medians over the rounds."""
import sys

from measure import Calls, median
from peers import Hikyaku, Shape, Sink, Wrong, direct, timed


class Group:
    """Rows that share a shape and so, within a round, one direct."""

    def __init__(self, name, shape, variants=("plain",), in_quick=False):
        self.name, self.shape, self.variants, self.in_quick = name, shape, variants, in_quick


def groups():
    small, big = 4096, 100 * 1024
    return [
        Group("4 KB, 1 connection", Shape(4000, small, 1), in_quick=True),
        Group("4 KB, 10 connections", Shape(20000, small, 10)),
        Group("4 KB, 50 connections", Shape(20000, small, 50), ("plain", "TLS", "2 workers"), in_quick=True),
        Group("4 KB, 200 connections", Shape(20000, small, 200)),
        Group("4 KB, 50 connections, 10 recipients", Shape(5000, small, 50, 10), in_quick=True),
        Group("100 KB, 1 connection", Shape(1000, big, 1)),
        Group("100 KB, 10 connections", Shape(4000, big, 10)),
        Group("100 KB, 50 connections", Shape(4000, big, 50), ("plain", "TLS"), in_quick=True),
        Group("100 KB, 200 connections", Shape(4000, big, 200)),
    ]


HEAD = (f"{'':<46} {'direct/s':>8} {'through/s':>9} {'ratio (min-max)':>17} {'CPU us':>7} {'user':>5} {'system':>6} {'calls':>6} {'syncs':>6} "
        f"{'switch':>6} {'forced':>6} {'conn':>4}")


def cell(value, width, digits=0):
    return f"{value:>{width}.{digits}f}" if value is not None else f"{'-':>{width}}"


def line(name, row):
    ratio = f"{row['ratio']:.3f} ({row['ratio_min']:.2f}-{row['ratio_max']:.2f})" if row.get("ratio") is not None else "-"
    return (f"{name:<46} {cell(row['direct'], 8)} {cell(row.get('rate'), 9)} {ratio:>17} {cell(row.get('cpu_us'), 7, 1)} {cell(row.get('user_us'), 5)} "
            f"{cell(row.get('system_us'), 6)} {cell(row.get('calls'), 6, 1)} {cell(row.get('syncs'), 6, 3)} {cell(row.get('voluntary'), 6, 2)} "
            f"{cell(row.get('involuntary'), 6, 2)} {cell(row.get('relay_connections'), 4)}")


BEFORE = "before, "  # what names the rows of another program


def engine_of(world, variant, tls, binary=None):
    return Hikyaku(world, tls=tls if variant == "TLS" else None, workers=2 if variant == "2 workers" else 0, binary=binary)


def count_calls(engine, shape, out):
    """System calls a message, by call: a pass of its own, since counting slows."""
    sink = Sink(engine.world, shape.n, engine.tls)
    running = engine.start(sink.port)
    try:
        calls = Calls(running.p.pid, out)
        if calls.why_not:
            return None, calls.why_not
        timed(running.port, sink, shape, is_alive=running.is_alive)
        counts = calls.stop()
    finally:
        sink.end()
        engine.finish(running)
    return ({k: v / shape.n for k, v in counts.items() if v}, None) if counts else (None, calls.why_not)


def summary(rounds):
    row = {key: median([r.get(key) for r in rounds]) for key in {k for r in rounds for k in r}}
    if rounds:
        row["ratio_min"], row["ratio_max"] = min(r["ratio"] for r in rounds), max(r["ratio"] for r in rounds)
    row["rounds"] = rounds
    return row


def measure_group(world, group, args, tls, others):
    """{variant or peer: row}; prints a line for each."""
    shape = group.shape.of(group.shape.n // args.scale)
    players = [(v, engine_of(world, v, tls)) for v in group.variants]
    if args.against:
        players += [(BEFORE + v, engine_of(world, v, tls, args.against)) for v in group.variants]
    players += [(p.name, p) for p in others if p.why_not is None]
    rounds = {name: [] for name, _ in players}
    directs = []
    for _ in range(args.rounds):
        before = direct(world, shape)
        results = {}
        for name, player in players:
            try:
                results[name] = player.measure(shape)
            except (Wrong, AssertionError) as e:
                print(f"WRONG {group.name}, {name}: {e}", file=sys.stderr, flush=True)
                args.n_wrong += 1
        base = (before + direct(world, shape)) / 2
        directs.append(base)
        for name, result in results.items():
            rounds[name].append({**result, "direct": base, "ratio": result["rate"] / base})
    rows = {}
    for name, player in players:
        row = summary(rounds[name])
        row.setdefault("direct", median(directs))
        if isinstance(player, Hikyaku) and rounds[name]:
            by_call, why_not = count_calls(player, shape.of(shape.n // 4), world.path("calls"))
            if by_call is None:
                args.skipped.add(f"system calls: {why_not}")
            else:
                row["calls"], row["by_call"] = by_call["all"], by_call
        rows[name] = row
        label = group.name if name == "plain" else f"{group.name}, {name}"
        print(line(label, row), flush=True)
    return rows
