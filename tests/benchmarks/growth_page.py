"""How the stages of a comparison grow with depth, as a page with a plot and a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from markupsafe import Markup

from equiv.report.html import page
from equiv.report.html.compressed import Packer
from equiv.report.html.plots.charts import Plot, colour_encoding, draw_plot, log_axis, shape_encoding

SHOWN = 0.1
"""Seconds below which a stage is left out of exponents and plot: the clock says nothing of it."""

TEMPLATE = """{% import "macros.html.j2" as parts with context %}
<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ plot.question }}</title><style>{{ style }}</style>
<body><main><h1>{{ plot.question }}</h1><p>{{ about }}</p>
<figure><figcaption>{{ plot.answer }}</figcaption><div class="scroll plot">{{ plot.svg }}</div></figure>
{{ parts.numbers(plot, "growth") }}</main></body></html>
"""


@dataclass(frozen=True)
class Depth:
    """What was measured of one depth.

    Attributes:
        layers: number of layers.
        equations: of both ports.
        memory: the largest so far, in GiB.
        seconds: stage to its seconds of processor time.
    """

    layers: int
    equations: int
    memory: float
    seconds: Mapping[str, float]


def fit_exponents(depths: Sequence[Depth]) -> dict[str, float]:
    """The exponent of every stage: the slope of log seconds over log layers, by least squares."""
    stages = [name for name in depths[0].seconds if all(one.seconds[name] > SHOWN for one in depths)]
    layers = np.log([one.layers for one in depths])
    return {name: float(np.polyfit(layers, np.log([one.seconds[name] for one in depths]), 1)[0]) for name in stages}


def growth_plot(depths: Sequence[Depth]) -> Plot:
    """Plot the seconds of every stage over the layers."""
    exponents = fit_exponents(depths)
    values = [
        {"layers": one.layers, "seconds": one.seconds[name], "stage": name} for one in depths for name in exponents
    ]
    times = [value["seconds"] for value in values]
    x = {"field": "layers", "type": "quantitative", "title": "layers", "scale": {"type": "log", "base": 2}}
    spec = {
        "data": {"values": values},
        "mark": {"type": "line", "point": True},
        "encoding": {
            "x": {**x, "axis": {"values": [one.layers for one in depths], "format": "d"}},
            "y": {"field": "seconds", **log_axis("seconds", min(times), max(times), "~g")},
            "color": colour_encoding("stage", list(exponents)),
            "strokeDash": shape_encoding("stage", list(exponents)),
        },
    }
    rows = [
        (str(one.layers), str(one.equations), f"{one.memory:.2f}", *(f"{one.seconds[name]:.1f}" for name in exponents))
        for one in depths
    ]
    slopes = ("exponent", "", "", *(f"{value:.2f}" for value in exponents.values()))
    return draw_plot(
        "How does each stage grow with depth?",
        "As layers to the power of " + ", ".join(f"{value:.2f} ({name})" for name, value in exponents.items()) + ".",
        spec,
        ("layers", "equations", "GiB", *(f"{name}, s" for name in exponents)),
        [*rows, slopes],
    )


def render_growth(depths: Sequence[Depth]) -> str:
    """The page."""
    style = (Path(page.__file__).parent / "page.css").read_text(encoding="utf-8")
    about = (
        "A GPT decoder with its train step in Linen and NNX, layers unrolled; seconds of processor time, one process "
        f"for all depths, jax {jax.__version__}. Written by tests/benchmarks/bench_growth.py."
    )
    template = page.template_environment(Packer()).from_string(TEMPLATE)
    return template.render(plot=growth_plot(depths), style=Markup(style), about=about)
