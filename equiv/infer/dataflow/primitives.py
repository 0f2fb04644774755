"""Rules for jax's primitives on blocked values. The result of an unlisted one depends on all its operands."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from equiv.infer.dataflow.blocks import (
    NOWHERE,
    BlockedValue,
    Cuts,
    Origins,
    WalkState,
    concatenate_values,
    make_cells,
    map_part_views,
    map_views,
    merge_cuts,
    part_shape,
    port_independent_order,
    refine_cuts,
    single_part,
    slice_axis,
    value_parts,
)
from equiv.infer.dataflow.contractions import convolution_rule, dot_general_rule, gather_rule
from equiv.infer.dataflow.leaf_uses import CONSTANT_PART, ValuePart, combine_elementwise, combine_unknown
from equiv.infer.dataflow.reshapes import reshape_rule, transpose_value
from equiv.infer.dataflow.strided_views import Shape, broadcast_view, flip_view
from equiv.programs.primitives import ELEMENTWISE, IDENTITIES, REDUCTIONS


def apply_primitive(state: WalkState, eqn: Any, ins: list[BlockedValue]) -> list[BlockedValue]:
    """Apply the rule of an equation that is neither a call nor a loop."""
    name, shapes = eqn.primitive.name, [tuple(var.aval.shape) for var in eqn.outvars]
    state.uses.operation = name
    if name in IDENTITIES:
        return ins[: len(shapes)]
    # A value without elements depends on nothing, and an axis of size 0 has no parts.
    if 0 in (size for value in ins for size in value.shape):
        return [single_part(shape, CONSTANT_PART) for shape in shapes]
    if name not in KEEPS_RECURRING and name not in ELEMENTWISE:
        ins = [merge_cuts(state, value, value.recurring_axes) for value in ins]
    if name in DATAFLOW_RULES:
        return DATAFLOW_RULES[name](state, eqn, ins, shapes)
    if name in ELEMENTWISE:
        return [_elementwise_rule(state, name, ins, shapes[0])]
    return unknown_results(state, ins, shapes)


def unknown_results(state: WalkState, ins: Sequence[BlockedValue], shapes: Sequence[Shape]) -> list[BlockedValue]:
    """Results of an operation without a rule: each depends on all operands."""
    part = combine_unknown(state.uses, [part for value in ins for part in value_parts(value)])
    return [single_part(shape, part) for shape in shapes]


def _elementwise_rule(state: WalkState, name: str, ins: list[BlockedValue], shape: Shape) -> BlockedValue:
    ins = _merge_unlike_periods(state, ins, shape)
    full = [value for value in ins if len(value.shape) == len(shape)]
    periods = tuple(max((value.period(axis) for value in full), default=0) for axis in range(len(shape)))
    cuts: tuple[Cuts, ...] = ()
    origins: tuple[Origins, ...] = ()
    for axis, size in enumerate(shape):
        along = [value for value in full if value.shape[axis] == size]
        places = sorted({cut for value in along for cut in value.cuts[axis]})
        cuts = (*cuts, tuple(places))
        origins = (*origins, NOWHERE.union(*(value.origins[axis] for value in along)))
    for along_axis, size in zip(origins, shape, strict=True):
        if state.group_cuts:
            state.spread_group_cuts(along_axis)
        if state.loop_lengths:
            state.spread_copies(along_axis, size)
    for axis, places in enumerate(cuts):
        full = [
            refine_cuts(value, axis, places, periods[axis]) if value.shape[axis] == shape[axis] else value
            for value in full
        ]
    # The axes of the batch are the only ones that both ports share. A leaf that is added with
    # time first in one port and with time last in the other is therefore listed in one order.
    rest, axes = iter(full), port_independent_order(origins)
    ins = [next(rest) if len(value.shape) == len(shape) else value for value in ins]

    def make(index: tuple[int, ...]) -> ValuePart:
        parts = [_part_at(value, index, part_shape(shape, cuts, periods, index)) for value in ins]
        return combine_elementwise(state.uses, name, parts, index, axes)

    return BlockedValue(shape, make_cells(shape, cuts, make), cuts, origins, periods)


def _merge_unlike_periods(state: WalkState, ins: list[BlockedValue], shape: Shape) -> list[BlockedValue]:
    """The operands, merged along axes whose cuts recur otherwise in another operand, or do not recur there."""
    for axis in range(len(shape)):
        cut = [value for value in ins if len(value.shape) == len(shape) and value.cuts[axis]]
        if len({value.period(axis) for value in cut}) > 1:
            ins = [
                merge_cuts(state, value, [axis]) if len(value.shape) == len(shape) and value.period(axis) else value
                for value in ins
            ]
    return ins


def _part_at(value: BlockedValue, index: tuple[int, ...], shape: Shape) -> ValuePart:
    """The part of an operand at an index of the result's grid; unit axes and scalars are broadcast."""
    if len(value.shape) != len(index):
        return map_part_views(value.cells.flat[0], lambda view: broadcast_view(view, shape, ()))
    part = value.cells[tuple(at if count > 1 else 0 for at, count in zip(index, value.cells.shape, strict=True))]
    if value.shape == shape or not part.leaves:
        return part
    return map_part_views(
        part, lambda view: broadcast_view(view, shape, range(len(shape))) if view.shape != shape else view
    )


def _transpose_rule(state: WalkState, eqn: Any, ins: list[BlockedValue], shapes: list[Shape]) -> list[BlockedValue]:
    return [transpose_value(ins[0], eqn.params["permutation"])]


def _broadcast_rule(state: WalkState, eqn: Any, ins: list[BlockedValue], shapes: list[Shape]) -> list[BlockedValue]:
    return [_broadcast_value(ins[0], shapes[0], tuple(map(int, eqn.params["broadcast_dimensions"])))]


def _broadcast_value(value: BlockedValue, shape: Shape, places: Sequence[int]) -> BlockedValue:
    kept = {place: axis for axis, place in enumerate(places) if value.shape[axis] == shape[place]}
    cuts = tuple(value.cuts[kept[axis]] if axis in kept else () for axis in range(len(shape)))
    origins = tuple(value.origins[kept[axis]] if axis in kept else NOWHERE for axis in range(len(shape)))
    periods = tuple(value.period(kept[axis]) if axis in kept else 0 for axis in range(len(shape)))

    def make(index: tuple[int, ...]) -> ValuePart:
        sizes = part_shape(shape, cuts, periods, index)
        at = tuple(index[place] if place in kept else 0 for place in places)
        return map_part_views(value.cells[at], lambda view: broadcast_view(view, sizes, places))

    return BlockedValue(shape, make_cells(shape, cuts, make), cuts, origins, periods)


def _product_rule(state: WalkState, eqn: Any, ins: list[BlockedValue], shapes: list[Shape]) -> list[BlockedValue]:
    """`dot_general`; without a sum it is a product: `einsum("bld,dn->bldn", x, a)` is `x[..., None] * a`."""
    (summed, _), batch = eqn.params["dimension_numbers"]
    if summed:
        return dot_general_rule(state, eqn, ins, shapes)
    ins = [merge_cuts(state, value, value.recurring_axes) for value in ins]
    first, found = len(batch[0]), list[BlockedValue]()
    for value, together in zip(ins, batch, strict=True):
        free = [axis for axis in range(len(value.shape)) if axis not in together]
        places = [*range(len(together)), *range(first, first + len(free))]
        found.append(_broadcast_value(transpose_value(value, [*together, *free]), shapes[0], places))
        # The result has the axes of both, then the free ones of the first operand, then those of the second.
        first += len(free)
    return [_elementwise_rule(state, "mul", found, shapes[0])]


def _slice_rule(state: WalkState, eqn: Any, ins: list[BlockedValue], shapes: list[Shape]) -> list[BlockedValue]:
    value, params = ins[0], eqn.params
    for axis, (start, stop) in enumerate(zip(params["start_indices"], params["limit_indices"], strict=True)):
        stride = (params["strides"] or (1,) * len(value.shape))[axis]
        if stride == 1:
            value = slice_axis(state, value, axis, int(start), int(stop))
        else:
            # Every second element is no range: it could not be a part of a leaf.
            value = merge_cuts(state, value, [axis])
            cells = map_views(value.cells, lambda view: None)
            shape = (*value.shape[:axis], shapes[0][axis], *value.shape[axis + 1 :])
            origins = (*value.origins[:axis], NOWHERE, *value.origins[axis + 1 :])
            value = BlockedValue(shape, cells, value.cuts, origins, value.periods)
    return [value]


def _split_rule(state: WalkState, eqn: Any, ins: list[BlockedValue], shapes: list[Shape]) -> list[BlockedValue]:
    axis, starts = eqn.params["axis"], np.cumsum([0, *eqn.params["sizes"]])
    return [slice_axis(state, ins[0], axis, int(start), int(stop)) for start, stop in pairwise(starts)]


def _unstack_rule(state: WalkState, eqn: Any, ins: list[BlockedValue], shapes: list[Shape]) -> list[BlockedValue]:
    """`unstack` (jax 0.11): a slice along an axis for each result, without that axis."""
    axis = eqn.params["axis"]
    parts = [slice_axis(state, ins[0], axis, index, index + 1) for index in range(len(shapes))]
    return [reshape_rule(state, eqn, [part], [shape])[0] for part, shape in zip(parts, shapes, strict=True)]


def _stack_rule(state: WalkState, eqn: Any, ins: list[BlockedValue], shapes: list[Shape]) -> list[BlockedValue]:
    axis, shape = eqn.params["axis"], shapes[0]
    one = [(*shape[:axis], 1, *shape[axis + 1 :])]
    return [concatenate_values(state, [reshape_rule(state, eqn, [value], one)[0] for value in ins], axis)]


def _rev_rule(state: WalkState, eqn: Any, ins: list[BlockedValue], shapes: list[Shape]) -> list[BlockedValue]:
    axes = tuple(map(int, eqn.params["dimensions"]))
    value = merge_cuts(state, ins[0], axes)
    origins = tuple(NOWHERE if axis in axes else item for axis, item in enumerate(value.origins))
    return [BlockedValue(value.shape, map_views(value.cells, lambda view: flip_view(view, axes)), value.cuts, origins)]


def _reduce_rule(state: WalkState, eqn: Any, ins: list[BlockedValue], shapes: list[Shape]) -> list[BlockedValue]:
    axes, total = tuple(map(int, eqn.params["axes"])), eqn.primitive.name == "reduce_sum"
    value = merge_cuts(state, ins[0], axes, total)
    kept = [axis for axis in range(len(value.shape)) if axis not in axes]

    def one(part: ValuePart) -> ValuePart:
        # A sum over an axis is a sum: what is added later still joins it. A maximum completes it.
        return map_part_views(part, lambda view: None) if total else combine_unknown(state.uses, [part])

    cuts = tuple(value.cuts[axis] for axis in kept)
    cells = value.cells.reshape([len(places) + 1 for places in cuts])
    found = make_cells(shapes[0], cuts, lambda index: one(cells[index]))
    return [BlockedValue(shapes[0], found, cuts, tuple(value.origins[axis] for axis in kept))]


def _concatenate_rule(state: WalkState, eqn: Any, ins: list[BlockedValue], shapes: list[Shape]) -> list[BlockedValue]:
    return [concatenate_values(state, ins, eqn.params["dimension"])]


KEEPS_RECURRING = frozenset(
    ("reshape", "squeeze", "transpose", "broadcast_in_dim", "slice", "split", "unstack", "dot_general")
) | {"conv_general_dilated"}
"""Operations whose rules know cuts that recur; for all others parts along such an axis are one."""

DATAFLOW_RULES: dict[str, Callable[[WalkState, Any, list[BlockedValue], list[Shape]], list[BlockedValue]]] = {
    "reshape": reshape_rule,
    "squeeze": reshape_rule,
    "transpose": _transpose_rule,
    "broadcast_in_dim": _broadcast_rule,
    "slice": _slice_rule,
    "split": _split_rule,
    "stack": _stack_rule,
    "unstack": _unstack_rule,
    "rev": _rev_rule,
    "concatenate": _concatenate_rule,
    "dot_general": _product_rule,
    "conv_general_dilated": convolution_rule,
    "gather": gather_rule,
    "dynamic_slice": gather_rule,
    **dict.fromkeys(REDUCTIONS, _reduce_rule),
}
