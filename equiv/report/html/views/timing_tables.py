"""The tables of what the ports of a case cost: phases side by side, and what XLA says of each program."""

from dataclasses import dataclass

from equiv.core.timings import FASTER, NO_DIFFERENCE, PHASES, SLOWER, TOO_FEW, CaseCosts, ProgramCost, Timing
from equiv.report.html.plots.timing_plots import seconds

SIGNS = {
    SLOWER: "\N{BLACK UP-POINTING TRIANGLE} slower",
    FASTER: "\N{BLACK DOWN-POINTING TRIANGLE} faster",
    NO_DIFFERENCE: "= no difference",
    TOO_FEW: "\N{MIDDLE DOT} too few rounds",
}
"""What may be claimed, with a sign."""


@dataclass(frozen=True)
class CostCell:
    """One phase: its median, the ratio to the reference with its interval, and what may be claimed."""

    median: str
    ratio: str
    claim: str


@dataclass(frozen=True)
class CostRow:
    """One program of one port: every phase, None where it was not measured."""

    program: str
    port: str
    cells: tuple[CostCell | None, ...]


def cost_rows(costs: CaseCosts) -> tuple[CostRow, ...]:
    """Programs of ports as rows, phases as columns."""
    found: dict[tuple[str, str, str], dict[str, Timing]] = {}
    for timing in costs.timings:
        found.setdefault((timing.program, timing.backend, timing.runner), {})[timing.phase] = timing
    return tuple(
        CostRow(program, f"{backend}, {runner}", tuple(_cell(by.get(phase)) for phase in PHASES))
        for (program, backend, runner), by in found.items()
    )


def _cell(timing: Timing | None) -> CostCell | None:
    if timing is None:
        return None
    ratio = timing.ratio
    words = f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]" if ratio else ""
    return CostCell(seconds(timing.p50), words, SIGNS.get(timing.claim, ""))


@dataclass(frozen=True)
class ProgramRow:
    """What XLA says of one compiled program, as it is printed."""

    program: str
    port: str
    figures: tuple[str, ...]


def program_rows(costs: CaseCosts, reference: str) -> tuple[ProgramRow, ...]:
    """Equations, instructions, operations, bytes, peak memory, retraces, and whether it is the reference's program."""
    return tuple(
        ProgramRow(one.program, f"{one.backend}, {one.runner}", _figures(one, reference)) for one in costs.programs
    )


FIGURES = ("equations", "instructions", "FLOPs", "bytes", "peak bytes", "retraces", "the reference's program")
"""Headings of a program's figures."""


def _figures(one: ProgramCost, reference: str) -> tuple[str, ...]:
    counted = (one.equations, one.instructions, one.flops, one.bytes, one.peak_bytes, one.retraces)
    shown = ("" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value) for value in counted)
    same = "it is" if one.backend == reference else "the same: any gap is on the host"
    return (*shown, same if one.identical or one.backend == reference else one.differs)


@dataclass(frozen=True)
class PartRow:
    """Where a step of a runner that does more than call into JAX goes, as it is printed."""

    program: str
    port: str
    parts: str


def part_rows(costs: CaseCosts) -> tuple[PartRow, ...]:
    """Programs with the parts of their steps, in order."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in costs.parts:
        found.setdefault((one.program, f"{one.backend}, {one.runner}"), []).append(f"{one.part} {seconds(one.seconds)}")
    return tuple(PartRow(program, port, ", ".join(parts)) for (program, port), parts in found.items())
