"""The cost tables of a case: time per phase, and XLA's cost analysis of each program."""

from dataclasses import dataclass

from equiv.core.timings import FASTER, NO_DIFFERENCE, PHASES, SLOWER, TOO_FEW, CaseCosts, ProgramCost, Timing
from equiv.report.html.plots.timing_plots import seconds_text

CLAIM_WORDS = {
    SLOWER: "\N{BLACK UP-POINTING TRIANGLE} slower",
    FASTER: "\N{BLACK DOWN-POINTING TRIANGLE} faster",
    NO_DIFFERENCE: "= no difference",
    TOO_FEW: "\N{MIDDLE DOT} too few rounds",
}
"""The claim about a ratio, with a sign."""


@dataclass(frozen=True)
class CostCell:
    """One phase: its median, the ratio to the reference with its interval, and the claim."""

    median: str
    ratio: str
    claim: str


@dataclass(frozen=True)
class CostRow:
    """One program of one port: one cell per phase, None where it was not measured."""

    program: str
    port: str
    cells: tuple[CostCell | None, ...]


def cost_rows(costs: CaseCosts) -> tuple[CostRow, ...]:
    """Return one row per program and port, with one cell per phase."""
    found: dict[tuple[str, str, str], dict[str, Timing]] = {}
    for timing in costs.timings:
        found.setdefault((timing.program, timing.backend, timing.runner), {})[timing.phase] = timing
    return tuple(
        CostRow(program, f"{backend}, {runner}", tuple(_cost_cell(by.get(phase)) for phase in PHASES))
        for (program, backend, runner), by in found.items()
    )


def _cost_cell(timing: Timing | None) -> CostCell | None:
    if timing is None:
        return None
    ratio = timing.ratio
    words = f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]" if ratio else ""
    return CostCell(seconds_text(timing.p50), words, CLAIM_WORDS.get(timing.claim, ""))


@dataclass(frozen=True)
class ProgramRow:
    """XLA's cost analysis of one compiled program, formatted."""

    program: str
    port: str
    figures: tuple[str, ...]


def program_rows(costs: CaseCosts, reference: str) -> tuple[ProgramRow, ...]:
    """Return equations, instructions, FLOPs, bytes, peak memory, retraces, and how each differs from the reference."""
    return tuple(
        ProgramRow(one.program, f"{one.backend}, {one.runner}", _program_figures(one, reference))
        for one in costs.programs
    )


PROGRAM_FIGURES = ("equations", "instructions", "FLOPs", "bytes", "peak bytes", "retraces", "vs. reference program")
"""Headings of a program's figures."""


def _program_figures(one: ProgramCost, reference: str) -> tuple[str, ...]:
    counted = (one.equations, one.instructions, one.flops, one.bytes, one.peak_bytes, one.retraces)
    shown = ("" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value) for value in counted)
    same = "is the reference" if one.backend == reference else "identical: any time difference is on the host"
    return (*shown, same if one.identical or one.backend == reference else one.differs)


@dataclass(frozen=True)
class PartRow:
    """How a step's host time is spent, for a runner that does more than call into JAX."""

    program: str
    port: str
    parts: str


def part_rows(costs: CaseCosts) -> tuple[PartRow, ...]:
    """Return each program with the parts of its step, in order."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in costs.parts:
        found.setdefault((one.program, f"{one.backend}, {one.runner}"), []).append(
            f"{one.part} {seconds_text(one.seconds)}"
        )
    return tuple(PartRow(program, port, ", ".join(parts)) for (program, port), parts in found.items())
