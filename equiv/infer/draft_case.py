"""What becomes of an inferred layer table: a case, or a verdict where it lacks leaves."""

from dataclasses import replace

from equiv import case as public
from equiv.core.case import Case
from equiv.core.grades import Verdict
from equiv.core.leaves import NativeKey
from equiv.infer.matching.proposal import Proposal
from equiv.infer.session import InferredLayers
from equiv.infer.table.case_writer import CaseDraft


def draft_case(draft: CaseDraft, given: Case) -> Case:
    """The case that `equiv.infer.table.case_writer.case_text` writes, in memory.

    Args:
        draft: its models, layer table and known differences.
        given: everything else.
    """
    known = [one for name, path, decay in draft.known_differences for one in getattr(public, name)(path, decay=decay)]
    return replace(
        given,
        guide="my own port",
        models={name: located.builder for name, located in zip(draft.names, draft.builders, strict=True)},
        layers=tuple(row.layer for row in draft.rows),
        known_differences=(*given.known_differences, *known),
    )


def verdict_without_run(inferred: InferredLayers) -> tuple[Verdict, str]:
    """The verdict where no case can be run because the layer table lacks leaves.

    An unpaired leaf makes the ports different only if the other port has no unpaired leaf that it could correspond to.
    """
    names = tuple(port.name for port in inferred.proposal.ports)
    live = [one for one in inferred.unpaired if not one.dead]
    sides = {one.side for one in live}
    # Unpaired leaves on both sides may be each other's, and a pair
    # that no row expresses may be equal. Then it is not known.
    if len(sides) == 1 and not inferred.problems and not inferred.proposal.notes:
        side = sides.pop()
        first, more = live[0], f" ({len(live)} such leaves)" if len(live) > 1 else ""
        return "different", (
            f"Not the same: {names[side]} has {_describe_native_leaf(inferred.proposal, first.side, first.key)}, "
            f"{names[1 - side]} has no corresponding leaf{more}."
        )
    missing = [*inferred.problems, *(f"{names[one.side]} {one.key}: {one.reason}" for one in inferred.unpaired)]
    return "inconclusive", f"Inconclusive: {len(missing)} leaves are missing from the layer table. First: {missing[0]}."


def _describe_native_leaf(proposal: Proposal, side: int, key: NativeKey) -> str:
    struct = proposal.ports[side].leaves[key]
    return f"{key} {struct.dtype}{list(struct.shape)}"
