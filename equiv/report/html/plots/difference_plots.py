"""Plots of one array's differences: in units in the last place (ulp), and as a map."""

from collections.abc import Iterator

from equiv.core.headline import severity
from equiv.core.results import SHADES, ULP_BINS, CaseResult, Finding, Spread
from equiv.report.html.plots.charts import PLOT_HEIGHT, Plot, colour_encoding, draw_plot

KIBI, MEBI = 2**10, 2**20


def _short_count(number: int) -> str:
    return f"{number // MEBI}M" if number >= MEBI else f"{number // KIBI}k" if number >= KIBI else str(number)


BIN_LABELS = (
    str(ULP_BINS[0]),
    *(f"\N{LESS-THAN OR EQUAL TO}{_short_count(edge)}" for edge in ULP_BINS[1:]),
    f">{_short_count(ULP_BINS[-1])}",
)

BINS_WITHIN_4_ULP = sum(edge <= 4 for edge in ULP_BINS)
"""Number of bins with at most 4 ulp."""


def _measured_spreads(case: CaseResult, candidate: str) -> Iterator[tuple[Finding, Spread]]:
    """Yield the findings of a candidate that are not proved and have a spread."""
    for check in case.checks:
        for finding in check.findings:
            if check.candidate == candidate and finding.spread and not finding.grade.startswith("proved"):
                yield finding, finding.spread


def ulp_plot(case: CaseResult) -> Plot | None:
    """Plot how many elements of each candidate's worst array differ by how many ulp."""
    worst: dict[str, tuple[Finding, Spread]] = {}
    for candidate in case.candidates:
        found = [pair for pair in _measured_spreads(case, candidate) if sum(pair[1].ulps[1:])]
        if found:
            worst[candidate] = max(found, key=lambda pair: severity(pair[0]))
    if not worst:
        return None
    values = [
        {"bin": name, "share": count / sum(spread.ulps), "who": candidate}
        for candidate, (_, spread) in worst.items()
        for name, count in zip(BIN_LABELS, spread.ulps, strict=True)
        if count
    ]
    x = {"field": "bin", "type": "ordinal", "scale": {"domain": BIN_LABELS}, "title": "units in the last place"}
    y = {"field": "share", "type": "quantitative", "title": "elements", "axis": {"format": "%", "tickCount": 4}}
    encoding = {
        "x": {**x, "axis": {"labelAngle": 0}},
        "xOffset": {"field": "who", "sort": None},
        "y": y,
        "color": colour_encoding("who", case.candidates),
    }
    return draw_plot(
        "Is this rounding, or a different formula?",
        " ".join(_describe_ulps(candidate, *pair) for candidate, pair in worst.items()),
        {"data": {"values": values}, "mark": "bar", "encoding": encoding, "height": PLOT_HEIGHT - 40},
        ("array", *BIN_LABELS),
        [(f"{candidate}: {finding.place}", *map(str, spread.ulps)) for candidate, (finding, spread) in worst.items()],
    )


def _describe_ulps(candidate: str, finding: Finding, spread: Spread) -> str:
    total, near = sum(spread.ulps), sum(spread.ulps[:BINS_WITHIN_4_ULP])
    said = f"{candidate}, {finding.place}: {near / total:.0%} of {total} elements within 4 ulp"
    if finding.grade != "refuted":
        return f"{said}; rounding explains it."
    if finding.precision == "float64":
        return f"{said}; rounding does not explain it."
    return f"{said}; the rounding differs."


def map_plots(case: CaseResult) -> Iterator[Plot]:
    """Plot each candidate's worst refuted array as a map of its differences; a matrix is preferred."""
    for candidate in case.candidates:
        found = [pair for pair in _measured_spreads(case, candidate) if pair[0].grade == "refuted" and pair[1].shades]
        if found:
            finding, spread = max(found, key=lambda pair: (len(pair[1].shades) > 1, severity(pair[0])))
            yield _map_plot(candidate, finding, spread)


def _map_plot(candidate: str, finding: Finding, spread: Spread) -> Plot:
    height, width = spread.shape
    opacity = {
        "field": "level",
        "type": "quantitative",
        "scale": {"domain": [0, 9], "range": [0.04, 1]},
        "legend": None,
    }
    encoding = {
        "x": _map_axis("x", "last axis", width),
        "x2": {"field": "x2"},
        "y": _map_axis("y", "other axes", height, reverse=True),
        "y2": {"field": "y2"},
        "opacity": opacity,
    }
    down = height / len(spread.shades)
    return draw_plot(
        f"Which elements of {finding.place} differ in {candidate}?",
        f"{_describe_pattern(spread.shades)} Darker is larger, each shade by a third of a decade; each block shows its "
        "largest difference.",
        {
            "height": min(PLOT_HEIGHT, max(24, 14 * len(spread.shades))),
            "data": {
                "values": sorted(_shaded_blocks(spread), key=lambda value: value["level"])
            },  # svg.py joins neighbours of the same shade
            "mark": {"type": "rect", "fill": "var(--bad)"},
            "encoding": encoding,
        },
        ("row", "shade of each block: 0 none, 9 the largest"),
        [(f"{round(row * down)}", text) for row, text in enumerate(spread.shades)],
    )


def _map_axis(name: str, title: str, size: int, **more: object) -> dict[str, object]:
    scale = {"domain": [0, size], "nice": False, **more}
    return {"field": name, "type": "quantitative", "title": title, "scale": scale, "axis": {"grid": False}}


def _shaded_blocks(spread: Spread) -> Iterator[dict[str, int]]:
    """Yield shaded blocks with their edges in elements; neighbours of the same shade are merged."""
    height, width = spread.shape
    down, across = height / len(spread.shades), width / len(spread.shades[0])
    for row, text in enumerate(spread.shades):
        for start, end, shade in _runs_of_shade(text):
            if shade != SHADES[0]:
                edges = {"x": round(start * across), "x2": round(end * across), "y": round(row * down)}
                yield {**edges, "y2": round((row + 1) * down), "level": SHADES.index(shade)}


def _runs_of_shade(text: str) -> Iterator[tuple[int, int, str]]:
    start = 0
    for index in range(1, len(text) + 1):
        if index == len(text) or text[index] != text[start]:
            yield start, index, text[start]
            start = index


def _describe_pattern(shades: tuple[str, ...]) -> str:
    blocks = [shade != SHADES[0] for text in shades for shade in text]
    if all(blocks):
        return "All elements."
    rows = sum(set(text) != {SHADES[0]} for text in shades)
    columns = sum(set(column) != {SHADES[0]} for column in zip(*shades, strict=True))
    of = f"{rows} of {len(shades)} rows and {columns} of {len(shades[0])} columns of blocks"
    return f"{sum(blocks)} of {len(blocks)} blocks, in {of}."
