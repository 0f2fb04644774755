"""Plots of one array's differences: in units in the last place, and as a map."""

from collections.abc import Iterator

from equiv.core.headline import severity
from equiv.core.results import SHADES, ULPS, CaseResult, Finding, Spread
from equiv.report.html.plots.charts import HEIGHT, Plot, coloured, plot

KIBI, MEBI = 2**10, 2**20


def _short(number: int) -> str:
    return f"{number // MEBI}M" if number >= MEBI else f"{number // KIBI}k" if number >= KIBI else str(number)


BINS = (str(ULPS[0]), *(f"\N{LESS-THAN OR EQUAL TO}{_short(edge)}" for edge in ULPS[1:]), f">{_short(ULPS[-1])}")


NEAR = sum(edge <= 4 for edge in ULPS)
"""Bins of at most four ulps."""


def _spread(case: CaseResult, candidate: str) -> Iterator[tuple[Finding, Spread]]:
    """Findings of a candidate with their spread, of what is not proved."""
    for check in case.checks:
        for finding in check.findings:
            if check.candidate == candidate and finding.spread and not finding.grade.startswith("proved"):
                yield finding, finding.spread


def ulps(case: CaseResult) -> Plot | None:
    """How many elements of the worst array of each candidate differ by how many ulps."""
    worst: dict[str, tuple[Finding, Spread]] = {}
    for candidate in case.candidates:
        found = [pair for pair in _spread(case, candidate) if sum(pair[1].ulps[1:])]
        if found:
            worst[candidate] = max(found, key=lambda pair: severity(pair[0]))
    if not worst:
        return None
    values = [
        {"bin": name, "share": count / sum(spread.ulps), "who": candidate}
        for candidate, (_, spread) in worst.items()
        for name, count in zip(BINS, spread.ulps, strict=True)
        if count
    ]
    x = {"field": "bin", "type": "ordinal", "scale": {"domain": BINS}, "title": "units in the last place"}
    y = {"field": "share", "type": "quantitative", "title": "elements", "axis": {"format": "%", "tickCount": 4}}
    encoding = {
        "x": {**x, "axis": {"labelAngle": 0}},
        "xOffset": {"field": "who", "sort": None},
        "y": y,
        "color": coloured("who", case.candidates),
    }
    return plot(
        "Is this rounding, or another formula?",
        " ".join(_in_ulps(candidate, *pair) for candidate, pair in worst.items()),
        {"data": {"values": values}, "mark": "bar", "encoding": encoding, "height": HEIGHT - 40},
        ("array", *BINS),
        [(f"{candidate}: {finding.place}", *map(str, spread.ulps)) for candidate, (finding, spread) in worst.items()],
    )


def _in_ulps(candidate: str, finding: Finding, spread: Spread) -> str:
    total, near = sum(spread.ulps), sum(spread.ulps[:NEAR])
    said = f"{candidate}, {finding.place}: {near / total:.0%} of {total} elements within 4 ulp"
    if finding.grade != "refuted":
        return f"{said}; rounding explains it."
    return f"{said}; no rounding explains it." if finding.precision == "float64" else f"{said}; rounded otherwise."


def maps(case: CaseResult) -> Iterator[Plot]:
    """The worst refuted array of each candidate as a map of its differences; a matrix says more than a row."""
    for candidate in case.candidates:
        found = [pair for pair in _spread(case, candidate) if pair[0].grade == "refuted" and pair[1].shades]
        if found:
            finding, spread = max(found, key=lambda pair: (len(pair[1].shades) > 1, severity(pair[0])))
            yield _map(candidate, finding, spread)


def _map(candidate: str, finding: Finding, spread: Spread) -> Plot:
    height, width = spread.shape
    opacity = {
        "field": "level",
        "type": "quantitative",
        "scale": {"domain": [0, 9], "range": [0.04, 1]},
        "legend": None,
    }
    encoding = {
        "x": _axis("x", "last axis", width),
        "x2": {"field": "x2"},
        "y": _axis("y", "other axes", height, reverse=True),
        "y2": {"field": "y2"},
        "opacity": opacity,
    }
    down = height / len(spread.shades)
    return plot(
        f"Which elements of {finding.place} differ in {candidate}?",
        f"{_pattern(spread.shades)} The darker the larger, a third of a decade a shade; each block shows its largest.",
        {
            "height": min(HEIGHT, max(24, 14 * len(spread.shades))),
            "data": {"values": sorted(_blocks(spread), key=lambda value: value["level"])},  # alike shapes become one
            "mark": {"type": "rect", "fill": "var(--bad)"},
            "encoding": encoding,
        },
        ("row", "shade of each block: 0 none, 9 the largest"),
        [(f"{round(row * down)}", text) for row, text in enumerate(spread.shades)],
    )


def _axis(name: str, title: str, size: int, **more: object) -> dict[str, object]:
    scale = {"domain": [0, size], "nice": False, **more}
    return {"field": name, "type": "quantitative", "title": title, "scale": scale, "axis": {"grid": False}}


def _blocks(spread: Spread) -> Iterator[dict[str, int]]:
    """Shaded blocks from edge to edge in elements; neighbours of one shade are one."""
    height, width = spread.shape
    down, across = height / len(spread.shades), width / len(spread.shades[0])
    for row, text in enumerate(spread.shades):
        for start, end, shade in _runs(text):
            if shade != SHADES[0]:
                edges = {"x": round(start * across), "x2": round(end * across), "y": round(row * down)}
                yield {**edges, "y2": round((row + 1) * down), "level": SHADES.index(shade)}


def _runs(text: str) -> Iterator[tuple[int, int, str]]:
    start = 0
    for index in range(1, len(text) + 1):
        if index == len(text) or text[index] != text[start]:
            yield start, index, text[start]
            start = index


def _pattern(shades: tuple[str, ...]) -> str:
    blocks = [shade != SHADES[0] for text in shades for shade in text]
    if all(blocks):
        return "All of them."
    rows = sum(set(text) != {SHADES[0]} for text in shades)
    columns = sum(set(column) != {SHADES[0]} for column in zip(*shades, strict=True))
    of = f"{rows} of {len(shades)} rows and {columns} of {len(shades[0])} columns of blocks"
    return f"{sum(blocks)} of {len(blocks)} blocks, in {of}."
