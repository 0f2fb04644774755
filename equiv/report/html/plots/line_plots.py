"""Line plots: error / budget over the intermediate values of a program, and over train steps."""

import math
from collections.abc import Mapping
from typing import Any

from equiv.core.budget import rounding_growth
from equiv.core.headline import severity
from equiv.core.results import CaseResult, Finding, Intermediate
from equiv.report.cells import format_ratio
from equiv.report.html.plots.charts import Plot, budget_line, colour_encoding, draw_plot, log_axis, shape_encoding


def network_plot(case: CaseResult) -> Plot | None:
    """Plot error / budget of the intermediate values in the simplest refuted program of each candidate."""
    walks: dict[str, tuple[Intermediate, ...]] = {}
    for check in case.checks:
        if check.intermediates:
            walks.setdefault(check.candidate, check.intermediates)
    numbered = [(who, index, point) for who, points in walks.items() for index, point in enumerate(points, 1)]
    lowest = min((point.floor for *_, point in numbered if point.floor), default=1.0) / 3
    # A bitwise equal value has no position on a logarithmic axis: it is drawn at the bottom.
    values = [
        {
            "index": index,
            "ratio": max(point.ratio, lowest),
            "who": who,
            "kind": VALUE_KINDS[point.lost, point.ratio > 1],
        }
        for who, index, point in numbered
        if point.ratio is not None
    ]
    if not values:
        return None
    floors = [{"index": index, "floor": point.floor, "who": who} for who, index, point in numbered if point.floor]
    y = log_axis("error / budget", lowest, max(1.0, *(value["ratio"] for value in values)) * 1.01)
    x: dict[str, Any] = {"field": "index", "type": "quantitative", "title": "values of the reference, in order"}
    x["axis"] = {"tickMinStep": 1, "format": "d"}
    looks = {
        "color": colour_encoding("who", list(walks)),
        "shape": shape_encoding("kind", list(dict.fromkeys(VALUE_KINDS.values()))),
    }
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
    return draw_plot(
        "Where in the network does the error exceed its budget?",
        " ".join(_describe_lost_value(who, points) for who, points in walks.items()) + LINE_LEGEND,
        {"layer": [*([floor] if floors else []), points, *budget_line()]},
        ("candidate", "#", "value", "line", "error / budget", "kind", "effect of one ulp"),
        [
            (who, str(index), point.name, _line_text(point), *_value_cells(point), format_ratio(point.floor))
            for who, index, point in numbered
        ],
    )


LINE_LEGEND = " Grey: the effect of one ulp in the inputs. Dashed: the budget."

VALUE_KINDS = {
    (False, False): "in both",
    (False, True): "differs here, equal again later",
    (True, True): "differs from here on",
    (True, False): "differs from here on",
}
"""Label of a value by `(lost, over budget)`; lost: not equal again later."""


def _value_cells(point: Intermediate) -> tuple[str, str]:
    if point.ratio is None:
        return "no counterpart", "differs from here on" if point.lost else VALUE_KINDS[False, True]
    return format_ratio(point.ratio), VALUE_KINDS[point.lost, point.ratio > 1]


def _line_text(point: Intermediate) -> str:
    return point.location.short if point.location else ""


def _describe_lost_value(who: str, points: tuple[Intermediate, ...]) -> str:
    """Describe the first value from which on the candidate differs."""
    at = next((index for index, point in enumerate(points) if point.lost), None)
    if at is None:
        return f"{who}: nowhere in {len(points)} values."
    point = points[at]
    over = "no counterpart" if point.ratio is None else f"{format_ratio(point.ratio)} x budget"
    line = f" at {_line_text(point)}" if point.location else ""
    return f"{who}: at value {at + 1} of {len(points)}, {point.name}{line} ({over}); earlier values are equal."


StepLines = Mapping[str, tuple[Finding, tuple[float, ...]]]

MAX_STEP_TICKS = 10
"""Most tick labels on the axis of train steps."""


def step_plot(case: CaseResult) -> Plot | None:
    """Plot error / budget after each train step, for each candidate's worst two leaves that are not proved."""
    lines = {
        f"{candidate}: {finding.output.text if finding.output else finding.place}": (finding, finding.spread.ratios)
        for candidate in case.candidates
        for finding in _worst_trained(case, candidate)
        if finding.spread
    }
    if not lines:
        return None
    floors = [1 / rounding_growth(finding.depth, finding.factor) for finding, _ in lines.values() if finding.depth]
    values = [
        {"step": step, "ratio": ratio, "line": name}
        for name, (_, ratios) in lines.items()
        for step, ratio in enumerate(ratios, 1)
        if ratio > 0
    ]
    heights = [value["ratio"] for value in values]
    y = log_axis("error / budget", min(*heights, *floors, 1.0), max(*heights, 1.0) * 1.01)
    last = max(len(ratios) for _, ratios in lines.values())
    x = {"field": "step", "type": "quantitative", "title": "train step", **_step_axis(last)}
    mark = {"type": "line", "point": {"filled": True, "size": 30}}
    looks = {"color": colour_encoding("line", list(lines)), "strokeDash": shape_encoding("line", list(lines))}
    layers: list[dict[str, Any]] = [
        {"mark": mark, "encoding": {"x": x, "y": {"field": "ratio", **y}, **looks}},
        *budget_line(),
    ]
    if floors:
        layers.append({"mark": {"type": "rule", "stroke": "var(--muted)"}, "encoding": {"y": {"datum": min(floors)}}})
    return draw_plot(
        "Does the difference grow during training?",
        " ".join(_describe_steps(name, ratios) for name, (_, ratios) in lines.items()) + LINE_LEGEND,
        {"data": {"values": values}, "layer": layers},
        ("leaf", *(f"step {step}" for step in range(1, last + 1))),
        [(name, *(format_ratio(max(ratio, 0)) for ratio in ratios)) for name, (_, ratios) in lines.items()],
    )


def _step_axis(last: int) -> dict[str, Any]:
    """Return an axis of whole steps from 1 on."""
    ticks = list(range(1, last + 1, math.ceil(last / MAX_STEP_TICKS)))
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


def _describe_steps(name: str, ratios: tuple[float, ...]) -> str:
    first = next((step for step, ratio in enumerate(ratios, 1) if ratio > 1), None)
    if first is None:
        return f"{name} stays within its budget, {format_ratio(max(ratios))} at most."
    grown = ratios[-1] / ratios[first - 1]
    how = "about as much at the last" if 0.5 < grown < 2 else f"{format_ratio(grown)} times that at the last"
    return f"{name} is over budget from step {first} on ({format_ratio(ratios[first - 1])} x), {how}."
