"""Where and why one program differs, in the words of both ports: made from what was found."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equiv.comparison.explain.alignment import AlignedSide, Alignment
from equiv.comparison.explain.gradients import HeldCause
from equiv.comparison.explain.inputs import Ports
from equiv.comparison.explain.recording import Operation
from equiv.comparison.explain.search import FoundDivergence, SearchResult, align_candidate
from equiv.comparison.explain.sites import describe_site, describe_sites, worst_values
from equiv.comparison.explain.trying import Search
from equiv.core.budget import rounding_growth
from equiv.core.divergence import Divergence, TriedCause
from equiv.core.first_difference import is_backward, strip_transforms
from equiv.core.leaves import LeafTable
from equiv.core.output_name import STEP, ProgramName
from equiv.core.results import Intermediate
from equiv.programs.jaxpr import locate_equation
from equiv.programs.primitives import EXACT

MAX_VALUES = 400
"""Most values of a program that are listed: those around the divergence."""


@dataclass(frozen=True)
class Explanation:
    """Where and why one program differs.

    Attributes:
        program: which one.
        divergences: the one that accounts for most first.
        values: those that the reference computes, around the first divergence.
        ended: whether there was no time to try every cause.
    """

    program: ProgramName
    divergences: tuple[Divergence, ...]
    values: tuple[Intermediate, ...]
    ended: bool = False


def make_explanation(name: ProgramName, found: SearchResult, tables: tuple[LeafTable, LeafTable]) -> Explanation:
    """Say what was found in a program.

    Args:
        name: of the program.
        found: its divergences; none: nothing of it differs.
        tables: the leaf tables of both ports.
    """
    values = () if found.alignment is None else list_values(found.alignment)
    divergences = _drop_repeated([_make_divergence(name, one, tables) for one in found.divergences])
    return Explanation(name, divergences, values, found.ended)


def explain_held(name: ProgramName, held: HeldCause, search: Search, ports: Ports) -> Explanation:
    """Say that the cause is what one port holds fixed in its loss.

    Args:
        name: of the gradient.
        held: the cause.
        search: in the gradients' programs.
        ports: the reference and the candidate.
    """
    losses = held.alignment.reference, held.alignment.candidate
    operations = held.trial.ours, held.trial.theirs
    sites = tuple(
        describe_site(port.port.name, side, operation, port.table)
        for port, side, operation in zip(ports, losses, operations, strict=True)
        if operation is not None
    )
    equal = _count_equal(losses[0], held.trial.ours)
    one = Divergence(name, sites, (TriedCause(held.trial.text, 0.0, True),), equal)
    alignment = align_candidate(search)
    return Explanation(name, (one,), () if alignment is None else list_values(alignment))


def _drop_repeated(found: Sequence[Divergence]) -> tuple[Divergence, ...]:
    """Leave out divergences without a cause on the lines of one before, as of every leaf in an optimizer."""
    kept: dict[object, Divergence] = {}
    for number, one in enumerate(found):
        lines = tuple((site.primitive, site.layer, str(site.location), str(site.user_line)) for site in one.sites)
        kept.setdefault(lines if not one.causes else number, one)
    return tuple(kept.values())


def _make_divergence(name: ProgramName, found: FoundDivergence, tables: tuple[LeafTable, LeafTable]) -> Divergence:
    scene = found.scene
    shown = found.causes[0].trial.shown if found.causes else None
    values = worst_values(scene) if shown is None else ("", "")
    causes = tuple(TriedCause(one.trial.text, round(one.left, 6), one.within) for one in found.causes)
    return Divergence(
        name,
        describe_sites(scene, tables, name == STEP, shown),
        causes,
        _count_equal(scene.left, scene.pair.reference),
        *values,
        found.left,
    )


def _count_equal(side: AlignedSide, operation: Operation | None) -> int:
    """Number of computed values before an operation that the other program has too."""
    record = side.recording
    last = len(record.operations) if operation is None else record.maker[operation.outs[0]]
    return sum(side.shared[out] for one in record.operations[:last] for out in one.outs if _is_rounded(side, one, out))


def _is_rounded(side: AlignedSide, operation: Operation, out: int) -> bool:
    """Whether a value is computed with rounding: floats of more than one element."""
    shape = side.recording.shapes[out]
    primitive = operation.primitive
    return not operation.kind and primitive not in EXACT and bool(np.prod(shape) > 1)


def list_values(alignment: Alignment) -> tuple[Intermediate, ...]:
    """List the values that the reference computes, in order, around the first that the candidate lacks for good."""
    side = alignment.reference
    rows = [
        (operation, out)
        for operation in side.recording.operations
        for out in operation.outs
        if _is_rounded(side, operation, out)
    ]
    first = next((index for index, (_, out) in enumerate(rows) if out in side.lost), 0)
    start = max(0, min(first - MAX_VALUES // 2, len(rows) - MAX_VALUES))
    return tuple(
        _make_intermediate(side, operation, out, alignment.distance(out))
        for operation, out in rows[start : start + MAX_VALUES]
    )


def _make_intermediate(side: AlignedSide, operation: Operation, out: int, ratio: float | None) -> Intermediate:
    place = operation.place
    _, user_line, stack = locate_equation(place)
    floor = 1 / rounding_growth(out + 1)
    return Intermediate(
        place[-1].primitive.name, ratio, floor, out in side.lost, strip_transforms(stack), is_backward(stack), user_line
    )
