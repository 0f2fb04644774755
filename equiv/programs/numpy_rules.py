"""Operations that only move elements, and sums, whose order is free, in numpy: exactly what XLA gives."""

from collections.abc import Callable
from typing import Any

import numpy as np


def _broadcast_in_dim(eqn: Any, array: np.ndarray) -> np.ndarray:
    shape, places = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    sizes = [1] * len(shape)
    for place, size in zip(places, array.shape, strict=True):
        sizes[place] = size
    return np.broadcast_to(array.reshape(sizes), shape)


def _reshape(eqn: Any, array: np.ndarray) -> np.ndarray:
    order = eqn.params.get("dimensions")  # `lax.reshape` can take axes in another order first
    return (array if order is None else array.transpose(order)).reshape(eqn.outvars[0].aval.shape)


def _slice(eqn: Any, array: np.ndarray) -> np.ndarray:
    steps = eqn.params["strides"] or [1] * array.ndim
    return array[tuple(map(slice, eqn.params["start_indices"], eqn.params["limit_indices"], steps))]


MOVE_RULES: dict[str, Callable[..., np.ndarray]] = {
    "broadcast_in_dim": _broadcast_in_dim,
    "concatenate": lambda eqn, *arrays: np.concatenate(arrays, axis=eqn.params["dimension"]),
    "reshape": _reshape,
    "rev": lambda eqn, array: np.flip(array, eqn.params["dimensions"]),
    "slice": _slice,
    "squeeze": lambda eqn, array: array.reshape(eqn.outvars[0].aval.shape),
    "transpose": lambda eqn, array: array.transpose(eqn.params["permutation"]),
}
"""Primitive to its result, from the equation and its operands: the same elements in other places."""


REDUCTION_RULES: dict[str, Callable[..., np.ndarray]] = {
    "reduce_sum": lambda eqn, array: np.sum(array, axis=eqn.params["axes"], dtype=array.dtype),
    "reduce_max": lambda eqn, array: np.max(array, axis=eqn.params["axes"]),
    "reduce_min": lambda eqn, array: np.min(array, axis=eqn.params["axes"]),
}
"""Reductions, likewise; a sum in numpy's order."""
