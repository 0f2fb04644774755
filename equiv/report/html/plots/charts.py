"""Parts that all plots share: a question with its answer, axes, colours."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any

from markupsafe import Markup

from equiv.report.html.plots.svg import render_svg

PLOT_WIDTH, PLOT_HEIGHT = 520, 170

PLOT_COLOURS = ["var(--one)", "var(--two)", "var(--three)", "var(--four)"]
"""One per candidate; shapes and dashes distinguish them as well."""


@dataclass(frozen=True)
class Plot:
    """A plot: a question, its answer in words, the picture, and the numbers as a table."""

    question: str
    answer: str
    svg: Markup
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def budget_line() -> list[dict[str, Any]]:
    """Return the dashed line at error / budget 1."""
    mark = {"type": "rule", "strokeDash": [5, 4], "stroke": "var(--bad)"}
    return [{"data": {"values": [{}]}, "mark": mark, "encoding": {"y": {"datum": 1}}}]


def colour_encoding(field: str, names: Sequence[str]) -> dict[str, Any]:
    """Return a colour encoding for these names, in their order."""
    scale = {"domain": list(names), "range": [PLOT_COLOURS[index % len(PLOT_COLOURS)] for index in range(len(names))]}
    return {"field": field, "type": "nominal", "title": None, "scale": scale}


def shape_encoding(field: str, names: Sequence[str]) -> dict[str, Any]:
    """Return a shape or dash encoding for these names, so that they can be distinguished without colour."""
    return {"field": field, "type": "nominal", "title": None, "scale": {"domain": list(names)}}


def log_axis(title: str, lowest: float, highest: float, form: str = ".0e") -> dict[str, Any]:
    """Return a logarithmic axis over whole decades, with at most nine ticks."""
    first, last = floor(log10(lowest)), ceil(log10(highest))
    last = max(last, first + 1)
    every = max(1, -(-(last - first) // 8))
    return {
        "type": "quantitative",
        "title": title,
        "scale": {"type": "log", "domain": [10.0**first, 10.0**last]},
        "axis": {"values": [10.0**power for power in range(first, last + 1, every)], "format": form},
    }


def draw_plot(
    question: str, answer: str, spec: dict[str, Any], headings: Sequence[str], rows: Sequence[Sequence[str]]
) -> Plot:
    """Draw a plot."""
    size = {"width": PLOT_WIDTH, "height": PLOT_HEIGHT}
    return Plot(question, answer, render_svg({**size, **spec}, question), tuple(headings), tuple(map(tuple, rows)))
