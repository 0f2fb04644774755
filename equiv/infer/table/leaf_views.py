"""Mapped leaves of a layer table as strided views, for comparison with inferred pairs."""

from dataclasses import replace

from equiv.core.layouts import Chain, Flip, Identity, Layout, Shift, SwapAxes, Transpose
from equiv.core.leaves import MappedLeaf
from equiv.core.packing import Block, Columns
from equiv.infer.dataflow.strided_views import (
    Shape,
    StridedView,
    flip_view,
    merge_digits,
    reshape_view,
    row_major_strides,
    transpose_view,
    whole_leaf_view,
)
from equiv.infer.matching.proposal import Bounds, LeafPair
from equiv.infer.matching.relations import ElementMap


def leaf_bounds(leaf: MappedLeaf) -> Bounds:
    """Bounds of a mapped leaf within its native leaf."""
    return tuple((0, size) for size in leaf.native_shape) if leaf.region is None else leaf.region


def stack_index(bounds: Bounds, shape: Shape) -> int | None:
    """The index on the first axis if the bounds are one item of a stack, else None."""
    full = bounds[1:] == tuple((0, size) for size in shape[1:])
    return bounds[0][0] if full and bounds and bounds[0][1] - bounds[0][0] == 1 < shape[0] else None


def packed_columns(bounds: Bounds, shape: Shape, native: Shape) -> Columns | None:
    """The columns if the bounds are whole on all axes but the last one, else None.

    Args:
        bounds: of a part.
        shape: in which they count: with parts that recur one axis of the leaf is two.
        native: of the leaf.
    """
    if shape != native:
        recurs = shape[:-2] == native[:-1] and bounds[:-1] == tuple((0, size) for size in shape[:-1])
        return Columns(*bounds[-1], period=shape[-1]) if recurs else None
    if not bounds or bounds[:-1] != tuple((0, size) for size in shape[:-1]) or bounds[-1] == (0, shape[-1]):
        return None
    return Columns(*bounds[-1])


def canonical_view(leaf: MappedLeaf) -> tuple[StridedView, float] | None:
    """A native leaf as a view in its canonical layout, and the number added to it."""
    view = whole_leaf_view(leaf.grid, leaf.region)
    if leaf.grid != leaf.native_shape:
        view = replace(view, axes=(*view.axes[:-2], merge_digits((*view.axes[-2], *view.axes[-1]))))
    view = StridedView(tuple(axis for at, axis in enumerate(view.axes) if at not in leaf.dropped_axes), view.start)
    return _apply_layout(view, leaf.layout, 0.0)


def _apply_layout(view: StridedView, layout: Layout, shift: float) -> tuple[StridedView, float] | None:
    if isinstance(layout, Chain):
        for one in layout.layouts:
            if (found := _apply_layout(view, one, shift)) is None:
                return None
            view, shift = found
        return view, shift
    if isinstance(layout, Shift):
        return view, shift + layout.offset
    rank = len(view.axes)
    if isinstance(layout, Flip):
        return flip_view(view, [axis % rank for axis in layout.axes]), shift
    if isinstance(layout, Transpose):
        return transpose_view(view, layout.axes), shift
    if isinstance(layout, SwapAxes):
        order = list(range(rank))
        order[layout.one], order[layout.other] = order[layout.other], order[layout.one]
        return transpose_view(view, order), shift
    # All other layouts only regroup axes.
    found = reshape_view(view, layout.canonical_shape(view.shape))
    return None if found is None else (found, shift)


def part_index(bounds: Bounds, shape: Shape, native: Shape) -> str | None:
    """The index of a scope that has these bounds: as numpy takes it, empty for a whole leaf; None: there is none.

    Arguments as of `packed_columns`.
    """
    if (item := stack_index(bounds, shape)) is not None:
        return f"[{item}]"
    if some := packed_columns(bounds, shape, native):
        return columns_index(some)
    if shape != native:
        inside = packed_columns(bounds[1:], shape[1:], native[1:]) if bounds[0][1] - bounds[0][0] == 1 else None
        return None if inside is None else f"[{bounds[0][0]}]{columns_index(inside)}"
    items: list[tuple[int, int] | int | None] = []
    for axis, ((start, stop), size) in enumerate(zip(bounds, shape, strict=True)):
        whole, one = (start, stop) == (0, size), axis in _dropped_axes(bounds, shape, native)
        items.append(None if whole else start if one else (start, stop))
    while items and items[-1] is None:
        items.pop()
    return str(Block(tuple(items))) if items else ""


def columns_index(columns: Columns) -> str:
    """The index of a scope that has these columns."""
    return f"[..., {columns.start}:{columns.stop}{f' of {columns.period}' if columns.period else ''}]"


def _dropped_axes(bounds: Bounds, shape: Shape, native: Shape) -> tuple[int, ...]:
    """The axes that a part does not have: one index of them is taken; columns are always a range."""
    if packed_columns(bounds, shape, native):
        return ()
    found = tuple(axis for axis, ((a, b), size) in enumerate(zip(bounds, shape, strict=True)) if b - a == 1 < size)
    return found if shape == native else tuple(axis for axis in found if axis == 0)


def within_parts(
    found: ElementMap, pair: LeafPair, natives: tuple[Shape, Shape]
) -> tuple[ElementMap, tuple[Shape, Shape]]:
    """The element map of a pair and the shapes as if the parts were leaves of their own."""
    sides = [_side_within_part(found, side, pair.shapes[side], pair.bounds[side], natives[side]) for side in (0, 1)]
    (one, ours, left), (two, theirs, right) = sides
    sizes = [size for size, _, _ in found.steps]
    return ElementMap((one, two), tuple(zip(sizes, ours, theirs, strict=True))), (left, right)


def _side_within_part(
    found: ElementMap, side: int, shape: Shape, bounds: Bounds, native: Shape
) -> tuple[int, list[int], Shape]:
    """Start, strides and shape of one side."""
    sizes = tuple(stop - start for start, stop in bounds)
    whole, part = row_major_strides(shape), row_major_strides(sizes)

    def moved(stride: int) -> int:
        # A stride lies in one axis of the leaf: it is as many indices of that axis in the part.
        axis = next((axis for axis, step in enumerate(whole) if step <= abs(stride) and shape[axis] > 1), None)
        return stride if axis is None else stride // whole[axis] * part[axis]

    rest, start = found.starts[side], 0
    for step, own, (low, _) in zip(whole, part, bounds, strict=True):
        start += (rest // step - low) * own
        rest %= step
    dropped = _dropped_axes(bounds, shape, native)
    kept = tuple(size for axis, size in enumerate(sizes) if axis not in dropped)
    if shape != native:
        kept = (*kept[:-2], kept[-2] * kept[-1])  # a row has the columns of all periods on one axis
    return start, [moved(step[1 + side]) for step in found.steps], kept


def add_shift_layout(found: tuple[Layout, Layout], shift: float) -> tuple[Layout, Layout]:
    """The layouts, with `Shift` appended to the left one."""
    if not shift:
        return found
    left, right = found
    return (Shift(shift) if left == Identity() else Chain((left, Shift(shift)))), right
