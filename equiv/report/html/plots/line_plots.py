"""Plots along an order: error over budget from value to value of a program, and from step to step of training."""

import math
from collections.abc import Mapping
from typing import Any

from equiv.core.headline import severity
from equiv.core.results import LEVEL, CaseResult, Finding, Waypoint
from equiv.report.cells import shown
from equiv.report.html.plots.charts import Plot, coloured, line_of_limit, logarithmic, plot, shaped


def walk(case: CaseResult) -> Plot | None:
    """Error over budget from value to value, along the simplest refuted program of each candidate."""
    walks: dict[str, tuple[Waypoint, ...]] = {}
    for check in case.checks:
        if check.walk:
            walks.setdefault(check.candidate, check.walk)
    numbered = [(who, index, point) for who, points in walks.items() for index, point in enumerate(points, 1)]
    lowest = min((point.floor for *_, point in numbered if point.floor), default=1.0) / 3
    # A value that is bit for bit the same has no place on a logarithmic axis: it stands at the foot.
    values = [
        {"index": index, "ratio": max(point.ratio, lowest), "who": who, "kind": KINDS[point.lost, point.ratio > 1]}
        for who, index, point in numbered
        if point.ratio is not None
    ]
    if not values:
        return None
    floors = [{"index": index, "floor": point.floor, "who": who} for who, index, point in numbered if point.floor]
    y = logarithmic("error / budget", lowest, max(1.0, *(value["ratio"] for value in values)) * 1.01)
    x: dict[str, Any] = {"field": "index", "type": "quantitative", "title": "values of the reference, in order"}
    x["axis"] = {"tickMinStep": 1, "format": "d"}
    looks = {"color": coloured("who", list(walks)), "shape": shaped("kind", list(dict.fromkeys(KINDS.values())))}
    floor = {
        "data": {"values": floors},
        "mark": {"type": "line", "stroke": "var(--muted)", "strokeWidth": 1},
        "encoding": {"x": x, "y": {"field": "floor", **y}, "detail": {"field": "who"}},
    }
    points = {
        "data": {"values": values},
        "mark": {"type": "point", "filled": True, "size": 50, "opacity": 1},
        "encoding": {"x": x, "y": {"field": "ratio", **y}, **looks},
    }
    return plot(
        "Where along the network does the error leave its budget?",
        " ".join(_parting(who, points) for who, points in walks.items()) + LEGEND,
        {"layer": [*([floor] if floors else []), points, *line_of_limit()]},
        ("candidate", "#", "value", "line", "error / budget", "kind", "rounding alone"),
        [
            (who, str(index), point.name, point.where, *_judged(point), shown(point.floor))
            for who, index, point in numbered
        ],
    )


LEGEND = " Grey: what moving the inputs by one ulp does. Dashed: the budget."


KINDS = {
    (False, False): "both have it",
    (False, True): "another way, alike again later",
    (True, True): "lost",
    (True, False): "lost",
}
"""By whether a value is lost and over its budget."""


def _judged(point: Waypoint) -> tuple[str, str]:
    if point.ratio is None:
        return "no such value", "lost" if point.lost else KINDS[False, True]
    return shown(point.ratio), KINDS[point.lost, point.ratio > 1]


def _parting(who: str, points: tuple[Waypoint, ...]) -> str:
    """The first value that is lost."""
    at = next((index for index, point in enumerate(points) if point.lost), None)
    if at is None:
        return f"{who}: nowhere, of {len(points)} values none is lost."
    point = points[at]
    over = "none like it" if point.ratio is None else f"{shown(point.ratio)} x budget"
    line = f" at {point.where}" if point.where else ""
    return f"{who}: at value {at + 1} of {len(points)}, {point.name}{line} ({over}); before it both have the same."


Lines = Mapping[str, tuple[Finding, tuple[float, ...]]]


TICKS = 10
"""Most labels on the axis of train steps."""


def steps(case: CaseResult) -> Plot | None:
    """Error over budget after each train step, of the worst two leaves of each candidate that are not proved."""
    lines = {
        f"{candidate}: {finding.place.removeprefix('train: ')}": (finding, finding.spread.ratios)
        for candidate in case.candidates
        for finding in _worst_trained(case, candidate)
        if finding.spread
    }
    if not lines:
        return None
    floors = [1 / (finding.depth**0.5 * LEVEL) for finding, _ in lines.values() if finding.depth]
    values = [
        {"step": step, "ratio": ratio, "line": name}
        for name, (_, ratios) in lines.items()
        for step, ratio in enumerate(ratios, 1)
        if ratio > 0
    ]
    heights = [value["ratio"] for value in values]
    y = logarithmic("error / budget", min(*heights, *floors, 1.0), max(*heights, 1.0) * 1.01)
    last = max(len(ratios) for _, ratios in lines.values())
    x = {"field": "step", "type": "quantitative", "title": "train step", **_whole(last)}
    mark = {"type": "line", "point": {"filled": True, "size": 30}}
    looks = {"color": coloured("line", list(lines)), "strokeDash": shaped("line", list(lines))}
    layers: list[dict[str, Any]] = [
        {"mark": mark, "encoding": {"x": x, "y": {"field": "ratio", **y}, **looks}},
        *line_of_limit(),
    ]
    if floors:
        layers.append({"mark": {"type": "rule", "stroke": "var(--muted)"}, "encoding": {"y": {"datum": min(floors)}}})
    return plot(
        "Does the difference grow as training goes on?",
        " ".join(_over_steps(name, ratios) for name, (_, ratios) in lines.items()) + LEGEND,
        {"data": {"values": values}, "layer": layers},
        ("leaf", *(f"step {step}" for step in range(1, last + 1))),
        [(name, *(shown(max(ratio, 0)) for ratio in ratios)) for name, (_, ratios) in lines.items()],
    )


def _whole(last: int) -> dict[str, Any]:
    """An axis of whole steps from the first on: what does not differ at all has no place on a logarithm."""
    ticks = list(range(1, last + 1, math.ceil(last / TICKS)))
    axis = {"values": ticks, "format": "d", "grid": False}
    return {"axis": axis, "scale": {"domain": [1, max(last, 2)], "nice": False}}


def _worst_trained(case: CaseResult, candidate: str) -> list[Finding]:
    found = [
        finding
        for check in case.checks
        for finding in check.findings
        if check.candidate == candidate
        and not finding.grade.startswith("proved")
        and finding.spread
        and any(ratio > 0 for ratio in finding.spread.ratios)
    ]
    return sorted(found, key=severity, reverse=True)[:2]


def _over_steps(name: str, ratios: tuple[float, ...]) -> str:
    first = next((step for step, ratio in enumerate(ratios, 1) if ratio > 1), None)
    if first is None:
        return f"{name} stays within its budget, {shown(max(ratios))} at most."
    grown = ratios[-1] / ratios[first - 1]
    how = "about as much at the last" if 0.5 < grown < 2 else f"{shown(grown)} times that at the last"
    return f"{name} is over budget from step {first} on ({shown(ratios[first - 1])} x), {how}."
