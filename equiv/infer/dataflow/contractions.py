"""Operations that sum over axes of two values, and look-ups, which are such a sum over rows of ones and zeros."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from equiv.infer.dataflow.blocks import NOWHERE, Scene, Value, aligned, collapsed, filled, order, parts, single
from equiv.infer.dataflow.leaf_uses import Atom, contract, merged, other
from equiv.infer.dataflow.strided_views import Shape


def dot(scene: Scene, eqn: Any, ins: list[Value], shapes: list[Shape]) -> list[Value]:
    """`dot_general`: where one operand is cut along a sum, so is the other."""
    (one_sum, two_sum), (one_batch, two_batch) = eqn.params["dimension_numbers"]
    sums, batch = list(zip(one_sum, two_sum, strict=True)), list(zip(one_batch, two_batch, strict=True))
    _want_along(scene, ins, sums)
    one, two = aligned(_as_cut(scene, ins, sums), [*sums, *batch])
    # The order of the activation's axes is the order of a leaf's, whichever side it stands on.
    ranks = [order(value.origins) for value in ins]
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
    left = one.cells.transpose([*one_batch, *free[0], *one_sum])
    right = two.cells.transpose([*two_batch, *free[1], *two_sum])
    counts, split = [len(one.cuts[axis]) + 1 for axis in one_sum], len(one_batch)

    def make(index: tuple[int, ...]) -> Atom:
        at, ours, theirs = index[:split], index[split : split + len(free[0])], index[split + len(free[0]) :]
        terms = [
            contract(scene.uses, left[*at, *ours, *k], right[*at, *theirs, *k], firsts, (*index, *k))
            for k in np.ndindex(*counts)
        ]
        return merged(scene.uses, terms, total=True)

    return [Value(shapes[0], filled(shapes[0], cuts, make), cuts, origins)]


def _want_along(scene: Scene, ins: Sequence[Value], sums: Sequence[tuple[int, int]]) -> None:
    """Where one operand is cut along a sum, the leaves along the other's axis are."""
    for pair in sums:
        for side in (0, 1):
            scene.want(ins[1 - side].origins[pair[1 - side]], ins[side].cuts[pair[side]])


def _as_cut(scene: Scene, ins: Sequence[Value], sums: Sequence[tuple[int, int]]) -> list[Value]:
    """What moves, uncut along a sum where the leaves that it meets are whole: they are used as a whole."""
    found = list(ins)
    for side in (0, 1):
        if not any(atom.moving for atom in parts(ins[side])):
            whole = [pair[1 - side] for pair in sums if not ins[side].cuts[pair[side]]]
            found[1 - side] = collapsed(scene, found[1 - side], whole)
    return found


def conv(scene: Scene, eqn: Any, ins: list[Value], shapes: list[Shape]) -> list[Value]:
    """A convolution, as a sum over the window and the input features."""
    numbers = eqn.params["dimension_numbers"]
    (_, one_in, *places), (two_out, two_in, *window), out = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
    grouped = eqn.params["feature_group_count"] > 1 or eqn.params["batch_group_count"] > 1
    one = collapsed(scene, ins[0], [axis for axis in range(len(ins[0].shape)) if grouped or axis != one_in])
    two = collapsed(scene, ins[1], [axis for axis in range(len(ins[1].shape)) if grouped or axis in window])
    if not grouped:
        _want_along(scene, [one, two], [(one_in, two_in)])
        one, two = aligned(_as_cut(scene, [one, two], [(one_in, two_in)]), [(one_in, two_in)])
    firsts = ([*places, one_in], [*window, two_in])
    cuts = tuple(two.cuts[two_out] if axis == out[1] else () for axis in range(len(shapes[0])))
    origins = tuple(two.origins[two_out] if axis == out[1] else NOWHERE for axis in range(len(shapes[0])))
    left, right = np.moveaxis(one.cells, one_in, 0), np.moveaxis(two.cells, (two_in, two_out), (0, 1))

    def make(index: tuple[int, ...]) -> Atom:
        atoms = [
            contract(scene.uses, left[k].flat[0], right[k, index[out[1]]].flat[0], firsts, (*index, k))
            for k in range(len(left))
        ]
        return merged(scene.uses, atoms, total=True)

    return [Value(shapes[0], filled(shapes[0], cuts, make), cuts, origins)]


def gather(scene: Scene, eqn: Any, ins: list[Value], shapes: list[Shape]) -> list[Value]:
    """A look-up by what moves is a sum; by fixed indices it leaves its operand in its place."""
    table, *places = (collapsed(scene, value, range(len(value.shape))) for value in ins)
    index = merged(scene.uses, [atom for value in places for atom in parts(value)], total=False)
    row = parts(table)[0]
    if eqn.primitive.name == "gather" and index.moving and row.leaves and not row.moving:
        collapsed_axes = eqn.params["dimension_numbers"].collapsed_slice_dims
        return [single(shapes[0], contract(scene.uses, index, row, ((), collapsed_axes)))]
    if row.moving and not index.moving and not index.leaves:
        return [single(shapes[0], row)]
    return [single(shape, other(scene.uses, [atom for value in ins for atom in parts(value)])) for shape in shapes]
