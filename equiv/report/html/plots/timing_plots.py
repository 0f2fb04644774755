"""Plots of what ports cost: paired ratios with their intervals, growth with depth, and where the time goes."""

from collections.abc import Iterator, Sequence
from math import log10

from equiv.core.timings import FASTER, NO_DIFFERENCE, SLOWER, TOO_FEW, Growth, Phase, Timing
from equiv.report.html.plots.charts import COLOURS, Plot, coloured, logarithmic, plot, shaped
from equiv.report.runs.merge import Entry

STACKED: tuple[Phase, ...] = ("trace", "lower", "compile", "first call", "step")
"""What is waited for in turn; `dispatch` and `device` are parts of a step."""


MOST = 24
"""Rows of a forest plot; the table has all of them."""


TICKS = (0.05, 0.1, 0.2, 0.5, 0.8, 1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100)
"""Ratios that are marked where they are in sight."""


def cost_plots(entries: Sequence[Entry]) -> tuple[Plot, ...]:
    """The plots of a run's costs that have something to show."""
    made = (forest(entries), *growth(entries), phases(entries))
    return tuple(plot for plot in made if plot is not None)


def timings(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Timing]]:
    """Every timing with the case it belongs to."""
    for entry in entries:
        for timing in entry.case.costs.timings if entry.case.costs else ():
            yield entry, timing


def ratio_words(timing: Timing) -> str:
    """`1.31x [1.24, 1.39]`."""
    if timing.ratio is None:
        return ""
    return f"{timing.ratio.value:.2f}\N{MULTIPLICATION SIGN} [{timing.ratio.low:.2f}, {timing.ratio.high:.2f}]"


def forest(entries: Sequence[Entry]) -> Plot | None:
    """Paired ratios of a steady train step (or whatever is timed) to the reference's, each with its interval."""
    found = [(entry, timing) for entry, timing in timings(entries) if timing.phase == "step" and timing.ratio]
    if not found:
        return None
    programs = [timing.program for _, timing in found]
    wanted = "train step" if "train step" in programs else programs[0]
    found = [pair for pair in found if pair[1].program == wanted]
    found.sort(key=lambda pair: -(pair[1].ratio.value if pair[1].ratio else 0))
    values = [
        {
            "row": f"{entry.case.name} {timing.backend} ({timing.runner})", "value": timing.ratio.value,
            "low": timing.ratio.low, "high": timing.ratio.high, "who": timing.backend,
        }
        for entry, timing in found[:MOST]
        if timing.ratio
    ]  # fmt: skip
    backends = sorted({timing.backend for _, timing in found})
    low, high = min(value["low"] for value in values) * 0.97, max(value["high"] for value in values) * 1.03
    ticks = {"values": [tick for tick in TICKS if low <= tick <= high], "format": "~g"}
    scale = {"type": "log", "domain": [min(low, 0.97), max(high, 1.03)], "nice": False}
    x = {"field": "value", "type": "quantitative", "scale": scale, "title": "port / reference", "axis": ticks}
    y = {"field": "row", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 260}}
    looks = {"y": y, "color": coloured("who", backends)}
    layers = [
        {"mark": {"type": "rule", "strokeDash": [5, 4], "stroke": "var(--muted)"}, "encoding": {"x": {"datum": 1}}},
        {"mark": "rule", "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, **looks}},
        {"mark": {"type": "point", "filled": True}, "encoding": {"x": x, "shape": shaped("who", backends), **looks}},
    ]
    claims = [timing.claim for _, timing in found]
    return plot(
        f"Does a {wanted} of the port take longer?",
        f"Of {len(found)} timed: {claims.count(SLOWER)} slower, {claims.count(FASTER)} faster, "
        f"{claims.count(NO_DIFFERENCE)} without a difference beyond what the control (the reference against itself) "
        f"allows, {claims.count(TOO_FEW)} too few rounds to say. Dashed: the reference.",
        {"width": 360, "height": {"step": 16}, "data": {"values": values}, "layer": layers},
        ("case", "candidate", "called by", "ratio", "control", "what may be said"),
        [
            (entry.case.name, timing.backend, timing.runner, ratio_words(timing), _control(timing), timing.claim)
            for entry, timing in found
        ],
    )


def _control(timing: Timing) -> str:
    return (
        ""
        if timing.control is None
        else f"{timing.control.value:.2f} [{timing.control.low:.2f}, {timing.control.high:.2f}]"
    )


def growth(entries: Sequence[Entry]) -> Iterator[Plot]:
    """Compile time and dispatch against depth, for each case that is measured so."""
    for entry in entries:
        rows = entry.case.costs.growth if entry.case.costs else ()
        for program in dict.fromkeys(row.program for row in rows):
            for phase in ("compile", "dispatch"):
                chosen = [row for row in rows if (row.program, row.phase) == (program, phase) and row.seconds > 0]
                if len({row.depth for row in chosen}) > 1:
                    yield _growth(f"{program} of {entry.case.name}", phase, chosen)


def _growth(program: str, phase: Phase, rows: Sequence[Growth]) -> Plot:
    values = [{"depth": row.depth, "ms": row.seconds * 1e3, "who": _who(row), "form": row.form} for row in rows]
    depths = sorted({row.depth for row in rows})
    ports = list(dict.fromkeys(map(_who, rows)))
    scale = {"type": "log", "base": 2, "domain": [depths[0], depths[-1]], "nice": False}
    x = {"field": "depth", "type": "quantitative", "scale": scale, "title": "layers", "axis": {"values": depths}}
    heights = [value["ms"] for value in values]
    y = {"field": "ms", **logarithmic("milliseconds", min(heights), max(heights), "~g")}
    looks = {"color": coloured("who", ports), "strokeDash": shaped("form", ["unrolled", "scanned"])}
    told = {
        (port, form): {row.depth: row.seconds for row in rows if (_who(row), row.form) == (port, form)}
        for form, port in dict.fromkeys((row.form, _who(row)) for row in rows)
    }
    mark = {"type": "line", "point": {"filled": True}}
    return plot(
        f"How does {phase} time grow with depth ({program})?",
        f"From {depths[0]} to {depths[-1]} layers: "
        + ", ".join(f"{port} {form} {_grown(found)}" for (port, form), found in told.items())
        + ".",
        {"data": {"values": values}, "mark": mark, "encoding": {"x": x, "y": y, **looks}},
        ("model", *(f"{depth} layers" for depth in depths)),
        [(f"{port} {form}", *(seconds(found.get(depth)) for depth in depths)) for (port, form), found in told.items()],
    )


def _who(row: Growth) -> str:
    return f"{row.backend} ({row.runner})"


def _grown(found: dict[int, float]) -> str:
    """How many times longer the deepest takes, and the exponent that this makes."""
    first, last = min(found), max(found)
    if first == last:
        return "at one depth only"
    grown = found[last] / found[first]
    return f"{grown:.3g}\N{MULTIPLICATION SIGN} (exponent {log10(grown) / log10(last / first):.2f})"


def phases(entries: Sequence[Entry]) -> Plot | None:
    """Trace, lower, compile, first call and step stacked, summed over the cases that every row has."""
    found: dict[str, dict[str, dict[Phase, float]]] = {}
    for entry, timing in timings(entries):
        if timing.phase in STACKED and timing.program == "train step":
            row = found.setdefault(f"{timing.backend} ({timing.runner})", {})
            row.setdefault(f"{entry.label} {entry.case.name}", {})[timing.phase] = timing.p50
    common = set.intersection(*map(set, found.values())) if found else set[str]()
    if not common:
        return None
    told: dict[str, dict[Phase, float]] = {
        row: {phase: sum(cases[name].get(phase, 0.0) for name in common) for phase in STACKED}
        for row, cases in found.items()
    }
    values = [
        {"row": row, "phase": phase, "s": value, "order": STACKED.index(phase)}
        for row, sums in told.items()
        for phase, value in sums.items()
    ]
    scale = {"range": [*COLOURS, "var(--muted)"]}
    encoding = {
        "y": {"field": "row", "type": "nominal", "title": None, "sort": None, "axis": {"labelLimit": 260}},
        "x": {"field": "s", "type": "quantitative", "title": f"seconds, train steps of {len(common)} cases"},
        "color": {"field": "phase", "type": "nominal", "title": None, "sort": STACKED, "scale": scale},
        "order": {"field": "order"},
    }
    mark = {"type": "bar", "stroke": "var(--bg)"}
    return plot(
        "Where does the time go before the first result?",
        " ".join(_largest(row, sums) for row, sums in told.items()),
        {"width": 400, "height": {"step": 30}, "data": {"values": values}, "mark": mark, "encoding": encoding},
        ("backend", *STACKED, "all"),
        [
            (row, *(seconds(sums[phase]) for phase in STACKED), seconds(sum(sums.values())))
            for row, sums in told.items()
        ],
    )


def _largest(row: str, sums: dict[Phase, float]) -> str:
    total, phase = sum(sums.values()), max(STACKED, key=sums.__getitem__)
    return f"{row}: {sums[phase] / total:.0%} of {seconds(total)} is {phase}." if total else f"{row}: nothing."


def seconds(value: float | None) -> str:
    """A time in the unit that fits: `1.2 s`, `34 ms`, `5.6 µs`; empty where there is none.

    What is a difference of times and lost in their noise has no length.
    """
    if value is None:
        return ""
    if value <= 0:
        return "lost in noise"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("\N{MICRO SIGN}s", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"
