"""What all plots share: a question with its answer, axes, colours."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any

from markupsafe import Markup

from equiv.report.html.plots.svg import draw

WIDTH, HEIGHT = 520, 170


COLOURS = ["var(--one)", "var(--two)", "var(--three)", "var(--four)"]
"""By candidate; shapes and dashes tell them apart too."""


@dataclass(frozen=True)
class Plot:
    """A plot: a question, its answer in words, the picture, and the same in numbers."""

    question: str
    answer: str
    svg: Markup
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def line_of_limit() -> list[dict[str, Any]]:
    """The budget itself."""
    mark = {"type": "rule", "strokeDash": [5, 4], "stroke": "var(--bad)"}
    return [{"data": {"values": [{}]}, "mark": mark, "encoding": {"y": {"datum": 1}}}]


def coloured(field: str, names: Sequence[str]) -> dict[str, Any]:
    """A colour for each of these names, in their order."""
    scale = {"domain": list(names), "range": [COLOURS[index % len(COLOURS)] for index in range(len(names))]}
    return {"field": field, "type": "nominal", "title": None, "scale": scale}


def shaped(field: str, names: Sequence[str]) -> dict[str, Any]:
    """A shape or dash for each of these names, beside the colour: told apart without it."""
    return {"field": field, "type": "nominal", "title": None, "scale": {"domain": list(names)}}


def logarithmic(title: str, lowest: float, highest: float, form: str = ".0e") -> dict[str, Any]:
    """A logarithmic axis over whole decades, at most nine of them marked."""
    first, last = floor(log10(lowest)), ceil(log10(highest))
    last = max(last, first + 1)
    every = max(1, -(-(last - first) // 8))
    return {
        "type": "quantitative",
        "title": title,
        "scale": {"type": "log", "domain": [10.0**first, 10.0**last]},
        "axis": {"values": [10.0**power for power in range(first, last + 1, every)], "format": form},
    }


def plot(
    question: str, answer: str, spec: dict[str, Any], headings: Sequence[str], rows: Sequence[Sequence[str]]
) -> Plot:
    """A plot with its picture drawn."""
    size = {"width": WIDTH, "height": HEIGHT}
    return Plot(question, answer, draw({**size, **spec}, question), tuple(headings), tuple(map(tuple, rows)))
