"""When an optimizer's state can be converted: what a layout does to a leaf, and which transforms do not depend on it.

A layout is either the same in both libraries, or it permutes elements, packs leaves together, or adds a number. A
transform of optax commutes with that where training in either layout gives the same model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import optax

from equiv.core.layouts import optimizer_layout
from equiv.core.leaves import MappedLeaf

LayoutRelation = Literal["same", "moved", "packed", "shifted", "unknown"]
"""Layout of a leaf in the other library: the same; elements permuted or reshaped; packed with other leaves or split
from them; with a number added; or none of these."""

LAYOUT_RELATIONS: tuple[LayoutRelation, ...] = ("same", "moved", "packed", "shifted", "unknown")

Need = Literal["value", "leaf", "shape", "draws"]
"""What a transform depends on besides each gradient element by itself: the parameter's value (weight decay), a norm
over a whole leaf, the axes of a leaf, or random numbers drawn for a leaf's shape."""

CHANGES: Mapping[LayoutRelation, frozenset[Need]] = {
    "same": frozenset(),
    "moved": frozenset(("shape", "draws")),
    "packed": frozenset(("leaf", "shape", "draws")),
    "shifted": frozenset(("value",)),
}
"""What a relation changes."""


@dataclass(frozen=True)
class Transform:
    """One optimizer or transform of optax.

    Attributes:
        make: constructs it.
        needs: what it depends on.
    """

    make: Callable[[], optax.GradientTransformation]
    needs: frozenset[Need] = frozenset()


def _transform(make: Callable[[], Any], *needs: Need) -> Transform:
    return Transform(make, frozenset(needs))


_STEP = 0.05

TRANSFORMS: dict[str, Transform] = {
    "sgd": _transform(lambda: optax.sgd(_STEP)),
    "sgd, momentum": _transform(lambda: optax.sgd(_STEP, momentum=0.9)),
    "sgd, nesterov": _transform(lambda: optax.sgd(_STEP, momentum=0.9, nesterov=True)),
    "sgd, schedule": _transform(lambda: optax.sgd(optax.cosine_decay_schedule(_STEP, 4), momentum=0.9)),
    "adam": _transform(lambda: optax.adam(_STEP)),
    "adagrad": _transform(lambda: optax.adagrad(_STEP)),
    "rmsprop": _transform(lambda: optax.rmsprop(_STEP, momentum=0.9)),
    "clip": _transform(lambda: optax.chain(optax.clip(0.3), optax.sgd(_STEP))),
    "clip_by_global_norm": _transform(lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.adam(_STEP))),
    "adamw": _transform(lambda: optax.adamw(_STEP, weight_decay=0.1), "value"),
    "lion": _transform(lambda: optax.lion(_STEP, weight_decay=0.1), "value"),
    "clip_by_block_rms": _transform(lambda: optax.chain(optax.clip_by_block_rms(0.3), optax.sgd(_STEP)), "leaf"),
    "novograd": _transform(lambda: optax.novograd(_STEP), "leaf"),
    "lamb": _transform(lambda: optax.lamb(_STEP), "value", "leaf"),
    "lars": _transform(lambda: optax.lars(_STEP), "value", "leaf"),
    "adaptive_grad_clip": _transform(
        lambda: optax.chain(optax.adaptive_grad_clip(0.1), optax.sgd(_STEP)), "value", "leaf", "shape"
    ),
    "adafactor": _transform(lambda: optax.adafactor(_STEP, min_dim_size_to_factor=2), "value", "leaf", "shape"),
    "sm3": _transform(lambda: optax.sm3(_STEP), "shape"),
    "add_noise": _transform(lambda: optax.chain(optax.add_noise(0.1, 0.5, 0), optax.sgd(_STEP)), "draws"),
}
"""Optimizers and transforms of optax (0.2.8), each with what it depends on; a chain has the needs of its parts."""


def commutes(transform: str, relation: LayoutRelation) -> bool:
    """Whether training with a transform is the same in both layouts, predicted from what it depends on."""
    return relation in CHANGES and not TRANSFORMS[transform].needs & CHANGES[relation]


def predict_transforms(relations: frozenset[LayoutRelation]) -> tuple[list[str], list[str]]:
    """The transforms that commute with all of these relations, and those that do not."""
    fitting = [name for name in TRANSFORMS if all(commutes(name, relation) for relation in relations)]
    return fitting, [name for name in TRANSFORMS if name not in fitting]


def describe_optimizer_effects(relations: Mapping[LayoutRelation, str]) -> list[str]:
    """Describe, before anything is run, which transforms depend on the layouts of a conversion.

    Args:
        relations: each relation with its first leaf.
    """
    if set(relations) <= {"same"}:
        return []
    moved = ", ".join(f"{leaf} is {relation}" for relation, leaf in relations.items() if relation != "same")
    fitting, dependent = predict_transforms(frozenset(relations))
    return [
        f"{moved}. Optimizers that do not depend on it: {'; '.join(fitting) or 'none'}. "
        f"Those that do: {'; '.join(dependent)}"
    ]


def layout_relation(source: Sequence[MappedLeaf], target: Sequence[MappedLeaf]) -> LayoutRelation:
    """The relation of one leaf of the target to the source: the one that changes the most of all the leaves it holds.

    Args:
        source: where each of the target's canonical leaves is in the source, in the target's order.
        target: what the target's leaf holds.
    """
    pairs = [_relation(ours, theirs) for ours, theirs in zip(source, target, strict=True)]
    return LAYOUT_RELATIONS[max(map(LAYOUT_RELATIONS.index, pairs))]


def _relation(source: MappedLeaf, target: MappedLeaf) -> LayoutRelation:
    if source.layout == target.layout and source.native_shape == target.native_shape and source.region == target.region:
        return "same"
    order = _permutation(source, target)
    if order is None:
        return "unknown"
    if optimizer_layout(source.layout) != source.layout or optimizer_layout(target.layout) != target.layout:
        return "shifted"
    if source.region != target.region:
        return "packed"
    in_order = source.block_shape == target.block_shape and bool((order == np.arange(order.size)).all())
    return "same" if in_order else "moved"


def _permutation(source: MappedLeaf, target: MappedLeaf) -> np.ndarray | None:
    """Index in the source's block of each element of the target's; None where a layout does not only permute elements.

    Tried on the numbers of the elements: what only moves them gives each back once.
    """
    size = int(np.prod(source.block_shape))
    numbers = np.arange(size, dtype=np.int32 if size < 2**31 else np.int64).reshape(source.block_shape)
    canonical = optimizer_layout(source.layout).to_canonical(numbers)
    moved = np.asarray(optimizer_layout(target.layout).to_native(canonical, target.block_shape))
    if moved.dtype != numbers.dtype or moved.shape != target.block_shape:
        return None
    seen = np.zeros(size, bool)
    inside = moved.reshape(-1)
    if inside.size != size or (inside < 0).any() or (inside >= size).any():
        return None
    seen[inside] = True
    return inside if seen.all() else None
