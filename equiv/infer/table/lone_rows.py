"""Rows of leaves that one port has and the other lacks: they are covered, and a run tries values of them."""

from collections.abc import Sequence

from equiv.backends.registry import load_library
from equiv.core.case import Layer
from equiv.core.layer_kinds import ONLY
from equiv.core.leaves import NativeKey
from equiv.infer.matching.proposal import Proposal, UnpairedLeaf
from equiv.infer.table.rows import InferredRow, leaf_scope, row_path


def lone_rows(
    proposal: Proposal, rows: Sequence[InferredRow], outside: Sequence[UnpairedLeaf], problems: Sequence[str]
) -> tuple[InferredRow, ...]:
    """The rows of unpaired leaves, where no leaf of the other port can be their counterpart; else none.

    Args:
        proposal: pairs of leaves.
        rows: the layer table without them.
        outside: the leaves that no row holds.
        problems: pairs that no row can express.
    """
    # Unpaired leaves on both sides may be each other's, and so may those of a pair that no row expresses. A leaf that
    # one port does not use, as of a layer that it forgets to call, is no counterpart: no value of it does what one does
    # on which outputs depend.
    used = {one.side for one in proposal.unpaired if not one.dead}
    if len(used or {one.side for one in outside}) != 1 or problems or proposal.notes:
        return ()
    taken = {row.layer.path for row in rows}
    found: list[InferredRow] = []
    for one in outside:
        port = proposal.ports[one.side]
        kind = "parameter" if port.collections[one.key] == "params" else "state"
        scope = leaf_scope(one.key, load_library(port.library), kind)
        path, number = row_path(scope, scope), 2
        while path in taken:
            path, number = f"{row_path(scope, scope)}_{number}", number + 1
        taken.add(path)
        keys = frozenset[NativeKey](), frozenset[NativeKey]()
        held = (frozenset([one.key]), keys[1]) if one.side == 0 else (keys[0], frozenset([one.key]))
        found.append(InferredRow(Layer(path, kind, {port.name: scope}), kind, keys=held))
        found.append(InferredRow(Layer(path, ONLY, {port.name: ""}), ONLY))
    return tuple(found)
