"""Cost plots: paired time ratios with intervals, growth with depth, and time per phase."""

from collections.abc import Iterator, Sequence
from math import log10

from equiv.core.timings import FASTER, NO_DIFFERENCE, SLOWER, TOO_FEW, Growth, Phase, Timing
from equiv.report.html.plots.charts import PLOT_COLOURS, Plot, colour_encoding, draw_plot, log_axis, shape_encoding
from equiv.report.runs.merge import MergedCase

STACKED_PHASES: tuple[Phase, ...] = ("trace", "lower", "compile", "first call", "step")
"""Consecutive phases; `dispatch` and `device` are parts of a step."""

MAX_FOREST_ROWS = 24
"""Most rows in a forest plot; its table has all of them."""

RATIO_TICKS = (0.05, 0.1, 0.2, 0.5, 0.8, 1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100)
"""Tick values, where they are within the axis."""


def cost_plots(entries: Sequence[MergedCase]) -> tuple[Plot, ...]:
    """Return the cost plots that have data."""
    made = (forest_plot(entries), *growth_plots(entries), phase_plot(entries))
    return tuple(plot for plot in made if plot is not None)


def iterate_timings(entries: Sequence[MergedCase]) -> Iterator[tuple[MergedCase, Timing]]:
    """Yield every timing with its case."""
    for entry in entries:
        for timing in entry.case.costs.timings if entry.case.costs else ():
            yield entry, timing


def paired_ratio_text(timing: Timing) -> str:
    """Format a paired ratio with its interval, `1.31x [1.24, 1.39]`."""
    if timing.ratio is None:
        return ""
    return f"{timing.ratio.value:.2f}\N{MULTIPLICATION SIGN} [{timing.ratio.low:.2f}, {timing.ratio.high:.2f}]"


def forest_plot(entries: Sequence[MergedCase]) -> Plot | None:
    """Plot paired time ratios of a train step (or the first timed program) to the reference, with intervals."""
    found = [(entry, timing) for entry, timing in iterate_timings(entries) if timing.phase == "step" and timing.ratio]
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
        for entry, timing in found[:MAX_FOREST_ROWS]
        if timing.ratio
    ]  # fmt: skip
    backends = sorted({timing.backend for _, timing in found})
    low, high = min(value["low"] for value in values) * 0.97, max(value["high"] for value in values) * 1.03
    ticks = {"values": [tick for tick in RATIO_TICKS if low <= tick <= high], "format": "~g"}
    scale = {"type": "log", "domain": [min(low, 0.97), max(high, 1.03)], "nice": False}
    x = {"field": "value", "type": "quantitative", "scale": scale, "title": "port / reference", "axis": ticks}
    y = {"field": "row", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 260}}
    looks = {"y": y, "color": colour_encoding("who", backends)}
    layers = [
        {"mark": {"type": "rule", "strokeDash": [5, 4], "stroke": "var(--muted)"}, "encoding": {"x": {"datum": 1}}},
        {"mark": "rule", "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, **looks}},
        {
            "mark": {"type": "point", "filled": True},
            "encoding": {"x": x, "shape": shape_encoding("who", backends), **looks},
        },
    ]
    claims = [timing.claim for _, timing in found]
    return draw_plot(
        f"Does a {wanted} of the port take longer?",
        f"Of {len(found)} timed: {claims.count(SLOWER)} slower, {claims.count(FASTER)} faster, "
        f"{claims.count(NO_DIFFERENCE)} without a difference beyond what the control (the reference against itself) "
        f"allows, {claims.count(TOO_FEW)} with too few rounds for a claim. Dashed: the reference.",
        {"width": 360, "height": {"step": 16}, "data": {"values": values}, "layer": layers},
        ("case", "candidate", "called by", "ratio", "control", "claim"),
        [
            (
                entry.case.name,
                timing.backend,
                timing.runner,
                paired_ratio_text(timing),
                _control_text(timing),
                timing.claim,
            )
            for entry, timing in found
        ],
    )


def _control_text(timing: Timing) -> str:
    return (
        ""
        if timing.control is None
        else f"{timing.control.value:.2f} [{timing.control.low:.2f}, {timing.control.high:.2f}]"
    )


def growth_plots(entries: Sequence[MergedCase]) -> Iterator[Plot]:
    """Plot compile and dispatch time against depth, for each case measured at several depths."""
    for entry in entries:
        rows = entry.case.costs.growth if entry.case.costs else ()
        for program in dict.fromkeys(row.program for row in rows):
            for phase in ("compile", "dispatch"):
                chosen = [row for row in rows if (row.program, row.phase) == (program, phase) and row.seconds > 0]
                if len({row.depth for row in chosen}) > 1:
                    yield _growth_plot(f"{program} of {entry.case.name}", phase, chosen)


def _growth_plot(program: str, phase: Phase, rows: Sequence[Growth]) -> Plot:
    values = [{"depth": row.depth, "ms": row.seconds * 1e3, "who": _port_label(row), "form": row.form} for row in rows]
    depths = sorted({row.depth for row in rows})
    ports = list(dict.fromkeys(map(_port_label, rows)))
    scale = {"type": "log", "base": 2, "domain": [depths[0], depths[-1]], "nice": False}
    x = {"field": "depth", "type": "quantitative", "scale": scale, "title": "layers", "axis": {"values": depths}}
    heights = [value["ms"] for value in values]
    y = {"field": "ms", **log_axis("milliseconds", min(heights), max(heights), "~g")}
    looks = {"color": colour_encoding("who", ports), "strokeDash": shape_encoding("form", ["unrolled", "scanned"])}
    sums_by_row = {
        (port, form): {row.depth: row.seconds for row in rows if (_port_label(row), row.form) == (port, form)}
        for form, port in dict.fromkeys((row.form, _port_label(row)) for row in rows)
    }
    mark = {"type": "line", "point": {"filled": True}}
    return draw_plot(
        f"How does {phase} time grow with depth ({program})?",
        f"From {depths[0]} to {depths[-1]} layers: "
        + ", ".join(f"{port} {form} {_growth_factor(found)}" for (port, form), found in sums_by_row.items())
        + ".",
        {"data": {"values": values}, "mark": mark, "encoding": {"x": x, "y": y, **looks}},
        ("model", *(f"{depth} layers" for depth in depths)),
        [
            (f"{port} {form}", *(seconds_text(found.get(depth)) for depth in depths))
            for (port, form), found in sums_by_row.items()
        ],
    )


def _port_label(row: Growth) -> str:
    return f"{row.backend} ({row.runner})"


def _growth_factor(found: dict[int, float]) -> str:
    """Return how many times longer the deepest takes, and the exponent of growth."""
    first, last = min(found), max(found)
    if first == last:
        return "at one depth only"
    grown = found[last] / found[first]
    return f"{grown:.3g}\N{MULTIPLICATION SIGN} (exponent {log10(grown) / log10(last / first):.2f})"


def phase_plot(entries: Sequence[MergedCase]) -> Plot | None:
    """Plot trace, lower, compile, first call and step stacked, summed over the cases that all rows share."""
    found: dict[str, dict[str, dict[Phase, float]]] = {}
    for entry, timing in iterate_timings(entries):
        if timing.phase in STACKED_PHASES and timing.program == "train step":
            row = found.setdefault(f"{timing.backend} ({timing.runner})", {})
            row.setdefault(f"{entry.label} {entry.case.name}", {})[timing.phase] = timing.p50
    common = set.intersection(*map(set, found.values())) if found else set[str]()
    if not common:
        return None
    sums_by_row: dict[str, dict[Phase, float]] = {
        row: {phase: sum(cases[name].get(phase, 0.0) for name in common) for phase in STACKED_PHASES}
        for row, cases in found.items()
    }
    values = [
        {"row": row, "phase": phase, "s": value, "order": STACKED_PHASES.index(phase)}
        for row, sums in sums_by_row.items()
        for phase, value in sums.items()
    ]
    scale = {"range": [*PLOT_COLOURS, "var(--muted)"]}
    encoding = {
        "y": {"field": "row", "type": "nominal", "title": None, "sort": None, "axis": {"labelLimit": 260}},
        "x": {"field": "s", "type": "quantitative", "title": f"seconds, train steps of {len(common)} cases"},
        "color": {"field": "phase", "type": "nominal", "title": None, "sort": STACKED_PHASES, "scale": scale},
        "order": {"field": "order"},
    }
    mark = {"type": "bar", "stroke": "var(--bg)"}
    return draw_plot(
        "Where does the time go before the first result?",
        " ".join(_describe_largest(row, sums) for row, sums in sums_by_row.items()),
        {"width": 400, "height": {"step": 30}, "data": {"values": values}, "mark": mark, "encoding": encoding},
        ("backend", *STACKED_PHASES, "all"),
        [
            (row, *(seconds_text(sums[phase]) for phase in STACKED_PHASES), seconds_text(sum(sums.values())))
            for row, sums in sums_by_row.items()
        ],
    )


def _describe_largest(row: str, sums: dict[Phase, float]) -> str:
    total, phase = sum(sums.values()), max(STACKED_PHASES, key=sums.__getitem__)
    return f"{row}: {sums[phase] / total:.0%} of {seconds_text(total)} is {phase}." if total else f"{row}: nothing."


def seconds_text(value: float | None) -> str:
    """Format seconds in a fitting unit: `1.2 s`, `34 ms`, `5.6 µs`; empty for None.

    A phase measured as a difference of times may come out negative: that is `lost in noise`.
    """
    if value is None:
        return ""
    if value <= 0:
        return "lost in noise"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("\N{MICRO SIGN}s", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"
