"""Timings as they are printed: with intervals, in signs and words, in the unit that fits."""

import io
from dataclasses import replace
from functools import cache

import msgspec
import pytest
from rich.console import Console

from equiv.core.results import CaseResult, RunResult
from equiv.core.timings import (
    FASTER,
    NO_DIFFERENCE,
    PHASES,
    SLOWER,
    TOO_FEW,
    CaseCosts,
    Growth,
    HostPart,
    ProgramCost,
    Ratio,
    Timing,
)
from equiv.report.cells import NOT_APPLICABLE
from equiv.report.terminal.timings import format_duration, print_bench

R = Ratio(1.5, 1.25, 1.75)


def timing(backend: str, claim: str = "", ratio: Ratio | None = None, **changes: object) -> Timing:
    """A step of ten blocks."""
    base = Timing(backend, "forward", "jax.jit", "step", 10, 2e-3, 3e-3, 4e-3, ratio, Ratio(1.0, 0.99, 1.01), R, claim)
    return replace(base, **changes)


def cost(backend: str, **changes: object) -> ProgramCost:
    """A program of some size."""
    return replace(ProgramCost(backend, "forward", "jax.jit", 12, 34, 5.6e6, 7.8e3, 900), **changes)


SHOWN = CaseCosts(
    timings=(
        timing("haiku"),
        timing("linen", SLOWER, R),
        timing("nnx", NO_DIFFERENCE, R, runner="nnx.jit"),
        timing("nnx", TOO_FEW, R, runner="split + jax.jit", rounds=1),
        timing("haiku", phase="dispatch", p50=5e-6),
        timing("linen", FASTER, Ratio(0.5, 0.25, 0.75), phase="dispatch"),
        timing("nnx", "", None, phase="dispatch", runner="nnx.jit"),
    ),
    programs=(
        cost("haiku"),
        cost("linen", identical=True),
        cost("nnx", runner="nnx.jit", differs="copy +4", retraces=2),
    ),
    growth=tuple(
        Growth("linen", form, depth, phase, seconds * depth, 10)
        for form, seconds in (("unrolled", 3e-3), ("scanned", 1e-3))
        for depth in (1, 8)
        for phase in PHASES
    ),
    withheld={"torch": "different: [because]"},
    seconds=12.3,
    parts=(
        HostPart("nnx", "forward", "nnx.jit", "modules to arrays", 3e-4),
        HostPart("nnx", "forward", "nnx.jit", "compiled program", 1e-4),
    ),
    load=(0.5, 1.25),
)


@cache
def shown(width: int = 200, **console: object) -> str:
    """A bench run of one case as it is printed."""
    case = CaseResult("a", "", "", "haiku", ("linen", "nnx"), {"linen": "same", "nnx": "inconclusive"}, (), costs=SHOWN)
    result = RunResult("same", "Same: all.", {"jax": "1.2.3"}, (case,), "", 1.0, problems=("b is not timed: [why]",))
    out = io.StringIO()
    print_bench(result, Console(file=out, width=width, highlight=False, **console))
    return out.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "✓ Same: all.\n",
        "! b is not timed: [why]",
        "a: ✓ linen same, ? nnx inconclusive (12 s, load 0.5 to 1.2)",
        "withheld torch: different: [because]",
        "1.50 (1.25 to 1.75) ▲",
        "0.50 (0.25 to 0.75) ▼",
        "1.50 (1.25 to 1.75) =",
        "1.50 ·",
        "1.00 (0.99 to 1.01)",
        "2 ms",
        "5.6 M",
        "7.8 kB",
        "900 B",
        "2 !",
        "linen (jax.jit) forward: = same optimised program as haiku: any time difference is on the host",
        "nnx (nnx.jit) forward: different optimised program: copy +4",
        "nnx nnx.jit, forward, 400 µs: modules to arrays 300 µs (75%), compiled program 100 µs (25%)",
        "if timed one port after the other, forward: control 1.50 (1.25 to 1.75), linen jax.jit 1.50",
        "8 layers, unrolled / scanned: linen jax.jit trace 3.00, linen jax.jit compile 3.00, ",
    ],
)
def test_measurements_are_shown_with_intervals_in_signs_and_words(text: str) -> None:
    """Colour never speaks alone."""
    assert text in shown()


def test_a_table_that_does_not_fit_becomes_a_list() -> None:
    """With the same numbers: a log of eighty columns loses nothing."""
    assert "forward step: haiku jax.jit 2 ms; linen jax.jit / haiku 1.50 (1.25 to 1.75) ▲; " in shown(80)


def test_no_escape_codes_without_colour() -> None:
    """NO_COLOR, and a file."""
    assert "\x1b" not in shown()
    assert "\x1b[" in shown(force_terminal=True, color_system="standard")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2.0, "2 s"),
        (0.0364, "36.4 ms"),
        (9.93e-4, "993 µs"),
        (4e-9, "4 ns"),
        (-2e-6, NOT_APPLICABLE),
        (0.0, NOT_APPLICABLE),
    ],
)
def test_a_duration_is_given_in_the_unit_that_fits(seconds: float, text: str) -> None:
    """Three digits are what it is known to."""
    assert format_duration(seconds) == text


def test_costs_come_back_from_json_as_they_went_in() -> None:
    """With everything in them."""
    assert msgspec.json.decode(msgspec.json.encode(SHOWN), type=CaseCosts) == SHOWN
