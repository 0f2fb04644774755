"""Mapped leaves of a layer table as strided views, for comparison with inferred pairs."""

from collections.abc import Sequence

from equiv.core.layouts import Chain, Flip, Identity, Layout, Shift, SwapAxes, Transpose
from equiv.core.leaves import MappedLeaf
from equiv.core.packing import Columns
from equiv.infer.dataflow.strided_views import (
    Shape,
    StridedView,
    flip_view,
    reshape_view,
    row_major_strides,
    transpose_view,
    whole_leaf_view,
)
from equiv.infer.matching.proposal import Bounds
from equiv.infer.matching.relations import ElementMap


def leaf_bounds(leaf: MappedLeaf) -> Bounds:
    """Bounds of a mapped leaf within its native leaf."""
    return tuple((0, size) for size in leaf.native_shape) if leaf.region is None else leaf.region


def stack_index(bounds: Bounds, shape: Shape) -> int | None:
    """The index on the first axis if the bounds are one item of a stack, else None."""
    full = bounds[1:] == tuple((0, size) for size in shape[1:])
    return bounds[0][0] if full and bounds and bounds[0][1] - bounds[0][0] == 1 < shape[0] else None


def packed_columns(bounds: Bounds, shape: Shape) -> Columns | None:
    """The range of the last axis if the bounds are whole on all other axes, else None."""
    if not bounds or bounds[:-1] != tuple((0, size) for size in shape[:-1]) or bounds[-1] == (0, shape[-1]):
        return None
    return Columns(*bounds[-1])


def canonical_view(leaf: MappedLeaf) -> tuple[StridedView, float] | None:
    """A native leaf as a view in its canonical layout, and the number added to it."""
    view = whole_leaf_view(leaf.native_shape, leaf.region)
    if leaf.stack_index is not None:
        view = StridedView(view.axes[1:], view.start)
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


def within_stack_item(
    found: ElementMap, shapes: Sequence[Shape], items: Sequence[int | None]
) -> tuple[ElementMap, tuple[Shape, Shape]]:
    """The element map and shapes within one item of a stack."""
    starts = [
        start - (0 if item is None else item * row_major_strides(shape)[0])
        for start, shape, item in zip(found.starts, shapes, items, strict=True)
    ]
    rest = [shape if item is None else shape[1:] for shape, item in zip(shapes, items, strict=True)]
    return ElementMap((starts[0], starts[1]), found.steps), (rest[0], rest[1])


def within_columns(
    found: ElementMap, shapes: Sequence[Shape], columns: Sequence[Columns | None]
) -> tuple[ElementMap, tuple[Shape, Shape]]:
    """The element map and shapes within a range of columns."""
    sides = [_side_within_columns(found, side, shapes[side], columns[side]) for side in (0, 1)]
    (one, ours, left), (two, theirs, right) = sides
    sizes = [size for size, _, _ in found.steps]
    return ElementMap((one, two), tuple(zip(sizes, ours, theirs, strict=True))), (left, right)


def _side_within_columns(
    found: ElementMap, side: int, shape: Shape, columns: Columns | None
) -> tuple[int, list[int], Shape]:
    """Start, strides and shape of one side, as if its leaf had those columns only."""
    start, steps = found.starts[side], [step[1 + side] for step in found.steps]
    if columns is None:
        return start, steps, shape
    size, every = columns.stop - columns.start, shape[-1]
    # A step is either within a row or a multiple of whole rows: a row of the part is not contiguous with the
    # next. The layouts are sought as if these columns were a leaf of their own, with rows of their own length.
    fewer = [step // every * size if abs(step) >= every else step for step in steps]
    return start // every * size + start % every - columns.start, fewer, (*shape[:-1], size)


def add_shift_layout(found: tuple[Layout, Layout], shift: float) -> tuple[Layout, Layout]:
    """The layouts, with `Shift` appended to the left one."""
    if not shift:
        return found
    left, right = found
    return (Shift(shift) if left == Identity() else Chain((left, Shift(shift)))), right
