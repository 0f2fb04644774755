"""Rules for contractions (`dot_general`, convolution) and lookups, which contract with one-hot rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from equiv.infer.dataflow.blocks import (
    NOWHERE,
    BlockedValue,
    Cuts,
    WalkState,
    align_cuts,
    coarsen_cuts,
    make_cells,
    merge_cuts,
    part_spans,
    port_independent_order,
    refine_cuts,
    value_parts,
)
from equiv.infer.dataflow.leaf_uses import ValuePart, combine_contraction, combine_unknown, merge_parts
from equiv.infer.dataflow.strided_views import Shape


def dot_general_rule(state: WalkState, eqn: Any, ins: list[BlockedValue], shapes: list[Shape]) -> list[BlockedValue]:
    """`dot_general`: where one operand is cut along a contracted axis, so is the other."""
    (one_sum, two_sum), (one_batch, two_batch) = eqn.params["dimension_numbers"]
    sums, batch = list(zip(one_sum, two_sum, strict=True)), list(zip(one_batch, two_batch, strict=True))
    # Only along free axes parts of each head stay parts.
    ins = [
        merge_cuts(state, value, {*value.recurring_axes} & {*used})
        for value, used in zip(ins, ((*one_sum, *one_batch), (*two_sum, *two_batch)), strict=True)
    ]
    # `concatenate([x, h]) @ kernel`: only the activation shows which rows of the kernel are for x and which for h.
    _request_cuts_along(state, ins, sums)
    _note_copies(state, ins, batch)
    one, two = align_cuts(_merge_unmatched_cuts(state, ins, sums), [*sums, *batch])
    # A leaf's axes follow the order of the activation's, whichever operand the leaf is.
    ranks = [port_independent_order(value.origins) for value in ins]
    firsts = (
        [a for a, _ in batch] + [a for a, _ in sorted(sums, key=lambda pair: ranks[1].index(pair[1]))],
        [b for _, b in batch] + [b for _, b in sorted(sums, key=lambda pair: ranks[0].index(pair[0]))],
    )
    free = [
        [axis for axis in range(len(value.shape)) if axis not in (*summed, *together)]
        for value, summed, together in ((one, one_sum, one_batch), (two, two_sum, two_batch))
    ]
    cuts = (
        *(one.cuts[axis] for axis in (*one_batch, *free[0])),
        *(two.cuts[axis] for axis in free[1]),
    )
    origins = (
        *(one.origins[a] | two.origins[b] for a, b in batch),
        *(one.origins[axis] for axis in free[0]),
        *(two.origins[axis] for axis in free[1]),
    )
    # Both grids get their axes in the order batch, free, contracted, as the
    # result has them, so that one index finds the parts of both operands.
    left = one.cells.transpose([*one_batch, *free[0], *one_sum])
    right = two.cells.transpose([*two_batch, *free[1], *two_sum])
    counts, split = [len(one.cuts[axis]) + 1 for axis in one_sum], len(one_batch)

    def make(index: tuple[int, ...]) -> ValuePart:
        at, ours, theirs = index[:split], index[split : split + len(free[0])], index[split + len(free[0]) :]
        terms = [
            combine_contraction(state.uses, left[*at, *ours, *k], right[*at, *theirs, *k], firsts, (*index, *k))
            for k in np.ndindex(*counts)
        ]
        return merge_parts(state.uses, terms, total=True)

    periods = (
        *(one.period(axis) for axis in (*one_batch, *free[0])),
        *(two.period(axis) for axis in free[1]),
    )
    return [BlockedValue(shapes[0], make_cells(shapes[0], cuts, make), cuts, origins, periods)]


def _request_cuts_along(state: WalkState, ins: Sequence[BlockedValue], sums: Sequence[tuple[int, int]]) -> None:
    """Where one operand is cut along a contracted axis, request the same cuts of the leaves along the other's axis."""
    for pair in sums:
        for side in (0, 1):
            state.request_cuts(ins[1 - side].origins[pair[1 - side]], ins[side].cuts[pair[side]])


def _note_copies(state: WalkState, ins: Sequence[BlockedValue], batch: Sequence[tuple[int, int]]) -> None:
    """A leaf whose first axis is a batch axis is a stack, as under `vmap`: the other port may unroll it."""
    for pair in batch:
        for value, axis in zip(ins, pair, strict=True):
            for leaf, at, unit, start, period in value.origins[axis]:
                if leaf >= 0 and (at, unit, start, period) == (0, 1, 0, 0):
                    state.loop_lengths.setdefault(leaf, value.shape[axis])


def _merge_unmatched_cuts(
    state: WalkState, ins: Sequence[BlockedValue], sums: Sequence[tuple[int, int]]
) -> list[BlockedValue]:
    """Activations, cut along a contracted axis only where the leaves of the other operand are."""
    found = list(ins)
    for side in (0, 1):
        # A leaf that is whole here is one node and is used once. With
        # the activation in parts it would be used once for each.
        if not any(part.is_activation for part in value_parts(ins[side])):
            for pair in sums:
                kept = ins[side].cuts[pair[side]]
                found[1 - side] = coarsen_cuts(state, found[1 - side], pair[1 - side], kept)
    return found


def convolution_rule(state: WalkState, eqn: Any, ins: list[BlockedValue], shapes: list[Shape]) -> list[BlockedValue]:
    """A convolution, as a contraction over the window and the input features."""
    numbers = eqn.params["dimension_numbers"]
    (_, one_in, *places), (two_out, two_in, *window), out = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
    groups = eqn.params["feature_group_count"]
    grouped = groups > 1 or eqn.params["batch_group_count"] > 1
    kept = set[int]() if grouped else {two_out}
    ins = [
        merge_cuts(state, ins[0], ins[0].recurring_axes),
        merge_cuts(state, ins[1], {*ins[1].recurring_axes} - kept),
    ]
    if groups > 1:
        # The other port may have a kernel for each group, which this one has side by side.
        between = group_bounds(groups, ins[1].shape[two_out])
        state.request_group_cuts(ins[1].origins[two_out], between)
        if set(between) <= set(ins[1].cuts[two_out]):
            return [_convolve_by_group(state, eqn, ins, shapes[0])]
    # With groups the kernel's input axis counts within one group only,
    # so that a cut of it says nothing of the activation's axis.
    one = merge_cuts(state, ins[0], [axis for axis in range(len(ins[0].shape)) if grouped or axis != one_in])
    two = merge_cuts(state, ins[1], [axis for axis in range(len(ins[1].shape)) if grouped or axis in window])
    if not grouped:
        _request_cuts_along(state, [one, two], [(one_in, two_in)])
        one, two = align_cuts(_merge_unmatched_cuts(state, [one, two], [(one_in, two_in)]), [(one_in, two_in)])
    # By role and not by position: a kernel stored (out, in, *window)
    # is accessed in the same order as (*window, in, out).
    firsts = ([*places, one_in], [*window, two_in])
    cuts = tuple(two.cuts[two_out] if axis == out[1] else () for axis in range(len(shapes[0])))
    origins = tuple(two.origins[two_out] if axis == out[1] else NOWHERE for axis in range(len(shapes[0])))
    left, right = np.moveaxis(one.cells, one_in, 0), np.moveaxis(two.cells, (two_in, two_out), (0, 1))

    def make(index: tuple[int, ...]) -> ValuePart:
        parts = [
            combine_contraction(state.uses, left[k].flat[0], right[k, index[out[1]]].flat[0], firsts, (*index, k))
            for k in range(len(left))
        ]
        return merge_parts(state.uses, parts, total=True)

    periods = tuple(two.period(two_out) if axis == out[1] else 0 for axis in range(len(shapes[0])))
    return [BlockedValue(shapes[0], make_cells(shapes[0], cuts, make), cuts, origins, periods)]


def group_bounds(groups: int, size: int) -> Cuts:
    """The indices of an axis at which a group of a grouped convolution begins, but for the first."""
    return tuple(range(size // groups, size, size // groups))


def _convolve_by_group(state: WalkState, eqn: Any, ins: list[BlockedValue], shape: Shape) -> BlockedValue:
    """A grouped convolution whose kernel is cut at its groups: each part meets the features of its group."""
    numbers, groups = eqn.params["dimension_numbers"], eqn.params["feature_group_count"]
    (_, one_in, *places), (two_out, two_in, *window), out = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
    one = merge_cuts(state, ins[0], [axis for axis in range(len(ins[0].shape)) if axis != one_in])
    between = group_bounds(groups, one.shape[one_in])
    one = refine_cuts(one, one_in, tuple(sorted({*one.cuts[one_in], *between})))
    two = merge_cuts(state, ins[1], [axis for axis in range(len(ins[1].shape)) if axis != two_out])
    features, kernels = value_parts(one), value_parts(two)
    # Of each part, the group: that of the index with which it begins.
    of_features, of_kernels = (
        [start * groups // value.shape[axis] for start, _ in part_spans(value.cuts[axis], value.shape[axis])]
        for value, axis in ((one, one_in), (two, two_out))
    )
    taken = [
        merge_parts(
            state.uses, [part for part, own in zip(features, of_features, strict=True) if own == group], total=False
        )
        for group in range(groups)
    ]
    firsts = ([*places, one_in], [*window, two_in])

    def make(index: tuple[int, ...]) -> ValuePart:
        at = index[out[1]]
        return combine_contraction(state.uses, taken[of_kernels[at]], kernels[at], firsts, index)

    cuts = tuple(two.cuts[two_out] if axis == out[1] else () for axis in range(len(shape)))
    origins = tuple(two.origins[two_out] if axis == out[1] else NOWHERE for axis in range(len(shape)))
    return BlockedValue(shape, make_cells(shape, cuts, make), cuts, origins)


def gather_rule(state: WalkState, eqn: Any, ins: list[BlockedValue], shapes: list[Shape]) -> list[BlockedValue]:
    """A lookup by an activation is a contraction; by constant indices it keeps the operand's position."""
    places = [merge_cuts(state, value, range(len(value.shape))) for value in ins[1:]]
    index = merge_parts(state.uses, [part for value in places for part in value_parts(value)], total=False)
    # `packed[senders]` has the columns of `packed`: what is split after the lookup is split before it.
    whole = _whole_axes(eqn, ins[0].shape, shapes[0])
    looked_up = [axis for axis in range(len(ins[0].shape)) if axis not in whole]
    table = merge_cuts(state, ins[0], [*looked_up, *ins[0].recurring_axes])
    into = {result: axis for axis, result in whole.items()}
    cuts = tuple(table.cuts[into[axis]] if axis in into else () for axis in range(len(shapes[0])))
    origins = tuple(table.origins[into[axis]] if axis in into else NOWHERE for axis in range(len(shapes[0])))

    def make(at: tuple[int, ...]) -> ValuePart:
        row = table.cells[tuple(at[whole[axis]] if axis in whole else 0 for axis in range(len(table.shape)))]
        return _look_up(state, eqn, row, index, at)

    return [BlockedValue(shapes[0], make_cells(shapes[0], cuts, make), cuts, origins)]


def _whole_axes(eqn: Any, table: Shape, result: Shape) -> dict[int, int]:
    """Axes of a looked up table of which every lookup takes all elements, and where they are in the result."""
    if eqn.primitive.name == "dynamic_slice":
        return {axis: axis for axis, size in enumerate(table) if size == result[axis]}
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    dropped = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = [axis for axis in range(len(table)) if axis not in dropped]
    pairs = zip(kept, numbers.offset_dims, strict=True)
    return {axis: place for axis, place in pairs if sizes[axis] == table[axis]}


def _look_up(state: WalkState, eqn: Any, row: ValuePart, index: ValuePart, cell: tuple[int, ...]) -> ValuePart:
    """A part of what is looked up in a table: in one part of its rows."""
    # `one_hot(i) @ table` is the same function, and ports write
    # either. So the indexed axis counts as the contracted one.
    if eqn.primitive.name == "gather" and index.is_activation and row.leaves and not row.is_activation:
        collapsed_axes = eqn.params["dimension_numbers"].collapsed_slice_dims
        return combine_contraction(state.uses, index, row, ((), collapsed_axes), cell)
    constant = not index.is_activation and not index.leaves
    if constant and row.is_activation:
        return row
    if constant and row.leaves:
        # `table[arange(8)]` has the elements of `table[:8]`; only their order is not known.
        return ValuePart(leaves=tuple(held._replace(view=None) for held in row.leaves), shift=row.shift)
    return combine_unknown(state.uses, [row, index], cell)
