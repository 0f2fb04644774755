"""Causes of a difference in gradients alone: what one port holds fixed (`stop_gradient`) and the other does not.

A gradient's program does not show it any more: it is tried on the loss, which is differentiated again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from equiv.comparison.explain.alignment import Alignment, SideRuns, align_runs, join_runs
from equiv.comparison.explain.changed_loss import HOLD, HeldTrial, differentiate_loss, trace_loss
from equiv.comparison.explain.judge import ProgramRuns
from equiv.comparison.explain.recording import Changes, Operation, record_program
from equiv.comparison.explain.search import is_within_after
from equiv.comparison.explain.trying import Search
from equiv.core.output_name import ProgramName
from equiv.programs.program import Program
from equiv.programs.traced_port import TracedPort

MOST = 12
"""Most changes that are tried."""


@dataclass(frozen=True, eq=False)
class HeldCause:
    """A change that makes the gradients the same.

    Attributes:
        trial: the change.
        alignment: of both losses.
    """

    trial: HeldTrial
    alignment: Alignment


def find_held(
    search: Search,
    name: ProgramName,
    ports: tuple[TracedPort, TracedPort],
    changes: Changes | None = None,
    losses: Sequence[Program] = (),
) -> HeldCause | None:
    """Find what one port holds fixed, and the other does not, that explains a difference in gradients.

    Call it inside `jax.enable_x64(True)`.

    Args:
        search: in the gradients' programs.
        name: of these.
        ports: the reference and the candidate.
        changes: of the candidate's loss, that have been made already.
        losses: those of both ports, where they are traced already.
    """
    losses = losses or [trace_loss(port, name) for port in ports]
    if not any(HOLD in str(loss.jaxpr) for loss in losses):
        return None
    alignment = _align_losses(search.runs, losses, changes or Changes())
    for trial in _list_trials(alignment, search.runs.names):
        changed = differentiate_loss(ports[1], name, losses[1], trial, changes)
        if changed is not None and is_within_after(search, changed):
            return HeldCause(trial, alignment)
    return None


def _align_losses(runs: ProgramRuns, losses: Sequence[Program], changes: Changes) -> Alignment:
    sides: list[SideRuns] = []
    for number, loss in enumerate(losses):
        made = changes if number else Changes()
        ran, moved = (
            [record_program(loss, pair[number], made) for pair in some[:1]] for some in (runs.inputs, runs.nudged)
        )
        sides.append(join_runs(ran, moved))
    return align_runs(sides[0], sides[1], ())


def _list_trials(alignment: Alignment, names: tuple[str, str]) -> Iterator[HeldTrial]:
    """Yield each holding that one side alone has, left out of the candidate or added to it; then all of them."""
    ours, theirs = (_holdings(side) for side in (alignment.reference, alignment.candidate))
    held_there = {value for operation in ours for value in alignment.reference.matches[operation.ins[0]]}
    extra = [operation for operation in theirs if operation.ins[0] not in held_there]
    for operation in extra[:MOST]:
        twin = _counterpart(alignment, operation)
        yield HeldTrial(f"no `{HOLD}`", twin, operation, frozenset([id(operation.eqn)]))
    if len(extra) > 1:
        everywhere = frozenset(id(operation.eqn) for operation in extra)
        text = f"no `{HOLD}` at {len(everywhere)} places"
        yield HeldTrial(text, _counterpart(alignment, extra[0]), extra[0], everywhere)
    held_here = {value for operation in theirs for value in alignment.candidate.matches[operation.ins[0]]}
    for operation in [one for one in ours if one.ins[0] not in held_here][:MOST]:
        for reader in alignment.reference.readers.get(operation.outs[0], ()):
            index = reader.ins.index(operation.outs[0])
            for value in alignment.reference.matches[reader.outs[0]] if reader.outs else ():
                twin = alignment.candidate.recording.maker_of(value)
                if twin is not None and twin.primitive == reader.primitive and len(twin.ins) == len(reader.ins):
                    text = f"the `{HOLD}` that {names[1]} leaves out"
                    yield HeldTrial(text, operation, twin, held={id(twin.eqn): index})


def _holdings(side: Any) -> list[Operation]:
    """The operations that hold a value fixed which depends on an input; of a loop one each."""
    found: dict[tuple[Any, ...], Operation] = {}
    for operation in side.recording.operations:
        if operation.primitive == HOLD and side.recording.moving[operation.ins[0]]:
            found.setdefault(operation.key, operation)
    return list(found.values())


def _counterpart(alignment: Alignment, held: Operation) -> Operation | None:
    """The reference's operation with the result of the one that reads what the candidate holds fixed."""
    for reader in alignment.candidate.readers.get(held.outs[0], ()):
        for out in reader.outs:
            for value in alignment.candidate.matches[out]:
                if (maker := alignment.reference.recording.maker_of(value)) is not None:
                    return maker
    return next(
        filter(None, map(alignment.reference.recording.maker_of, alignment.candidate.matches[held.ins[0]])), None
    )
