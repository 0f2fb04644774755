"""Try a layout on numbers: whether it brings a leaf back, and whether it changes values. A case may bring its own."""

import math

import numpy as np

from equiv.core import layouts
from equiv.core.layouts import ArrayShape, Chain, Layout

MAX_TRIED_ELEMENTS = 2**22
"""Above so many elements a layout is not tried: it would take longer than what it protects from."""

LOST_SPACINGS = 4.0
"""Spacings of float32 that a layout may lose on the way there and back: two roundings, and the operations within it."""


def is_own_layout(layout: Layout) -> bool:
    """Whether a layout is of a class that is not in `equiv.core.layouts`, whose laws are tested."""
    if isinstance(layout, Chain):
        return any(map(is_own_layout, layout.layouts))
    return type(layout).__module__ != layouts.__name__


def inversion_problem(layout: Layout, shape: ArrayShape) -> str:
    """What a layout does not do that every layout has to, in words; empty: it brings a leaf of a shape back.

    Args:
        layout: to be tried.
        shape: of the native leaf.
    """
    if math.prod(shape) > MAX_TRIED_ELEMENTS:
        return ""
    native = np.random.default_rng(0).normal(size=shape).astype("float32")
    try:
        wanted, canonical = layout.canonical_shape(shape), layout.to_canonical(native)
        back = layout.to_native(canonical, shape)
    except Exception as error:  # noqa: BLE001 - the layout is the case author's code; the message says what it raised
        return f"it raised {type(error).__name__}: {error}"
    if tuple(canonical.shape) != tuple(wanted):
        return f"canonical_shape says {tuple(wanted)}, and to_canonical gives {tuple(canonical.shape)}"
    if (tuple(back.shape), str(back.dtype)) != (shape, "float32"):
        return f"to_native gives {back.dtype}{list(back.shape)} for float32{list(shape)}"
    if not native.size:
        return ""
    largest = max(float(np.abs(native).max()), float(np.abs(canonical).max()))
    if np.abs(back - native).max() <= LOST_SPACINGS * np.finfo("float32").eps * largest:
        return ""
    worst = np.unravel_index(int(np.abs(back - native).argmax()), shape)
    return f"{native[worst]:.6g} comes back as {back[worst]:.6g}"


def changes_values(layout: Layout, shape: ArrayShape) -> bool:
    """Whether a layout does more to elements than to move them and to change signs, so that training depends on it."""
    if math.prod(shape) > MAX_TRIED_ELEMENTS:
        return False
    numbers = np.random.default_rng(0).normal(size=shape).astype("float32")
    moved = np.asarray(layouts.optimizer_layout(layout).to_canonical(numbers))
    return not np.array_equal(np.sort(np.abs(moved), axis=None), np.sort(np.abs(numbers), axis=None))
