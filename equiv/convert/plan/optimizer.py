"""When an optimizer's state may move with a model: what a layout does to a leaf, and which transforms do not notice.

A layout is either the same in both libraries, or it moves elements, packs leaves together, or adds a number. A
transform of optax commutes with that where training in one layout and training in the other stay the same model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import optax

from equiv.core.layouts import of_updates
from equiv.core.leaves import MappedLeaf
from equiv.programs.train_step import Held

Relation = Literal["same", "moved", "packed", "shifted", "unknown"]
"""How a leaf lies in the other library: as here; elements in other places or another shape; together with other leaves
or apart from them; with a number added; or in a way that is none of these."""


RELATIONS: tuple[Relation, ...] = ("same", "moved", "packed", "shifted", "unknown")


Need = Literal["value", "leaf", "shape", "draws"]
"""What a transform looks at besides one element of a gradient after the other: the parameter's value (weight decay), a
norm over a whole leaf, the axes of a leaf, or random numbers drawn for a leaf's shape."""


BROKEN: Mapping[Relation, frozenset[Need]] = {
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
        make: makes it.
        needs: what it looks at.
    """

    make: Callable[[], optax.GradientTransformation]
    needs: frozenset[Need] = frozenset()


def _row(make: Callable[[], Any], *needs: Need) -> Transform:
    return Transform(make, frozenset(needs))


_STEP = 0.05


TRANSFORMS: dict[str, Transform] = {
    "sgd": _row(lambda: optax.sgd(_STEP)),
    "sgd, momentum": _row(lambda: optax.sgd(_STEP, momentum=0.9)),
    "sgd, nesterov": _row(lambda: optax.sgd(_STEP, momentum=0.9, nesterov=True)),
    "sgd, schedule": _row(lambda: optax.sgd(optax.cosine_decay_schedule(_STEP, 4), momentum=0.9)),
    "adam": _row(lambda: optax.adam(_STEP)),
    "adagrad": _row(lambda: optax.adagrad(_STEP)),
    "rmsprop": _row(lambda: optax.rmsprop(_STEP, momentum=0.9)),
    "clip": _row(lambda: optax.chain(optax.clip(0.3), optax.sgd(_STEP))),
    "clip_by_global_norm": _row(lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.adam(_STEP))),
    "adamw": _row(lambda: optax.adamw(_STEP, weight_decay=0.1), "value"),
    "lion": _row(lambda: optax.lion(_STEP, weight_decay=0.1), "value"),
    "clip_by_block_rms": _row(lambda: optax.chain(optax.clip_by_block_rms(0.3), optax.sgd(_STEP)), "leaf"),
    "novograd": _row(lambda: optax.novograd(_STEP), "leaf"),
    "lamb": _row(lambda: optax.lamb(_STEP), "value", "leaf"),
    "lars": _row(lambda: optax.lars(_STEP), "value", "leaf"),
    "adaptive_grad_clip": _row(
        lambda: optax.chain(optax.adaptive_grad_clip(0.1), optax.sgd(_STEP)), "value", "leaf", "shape"
    ),
    "adafactor": _row(lambda: optax.adafactor(_STEP, min_dim_size_to_factor=2), "value", "leaf", "shape"),
    "sm3": _row(lambda: optax.sm3(_STEP), "shape"),
    "add_noise": _row(lambda: optax.chain(optax.add_noise(0.1, 0.5, 0), optax.sgd(_STEP)), "draws"),
}
"""Optimizers and transforms of optax (0.2.8), each with what it needs; a chain needs what its parts need."""


def commutes(transform: str, relation: Relation) -> bool:
    """Whether training with a transform is the same in both layouts, predicted from what it looks at."""
    return relation in BROKEN and not TRANSFORMS[transform].needs & BROKEN[relation]


def predicted(relations: frozenset[Relation]) -> tuple[list[str], list[str]]:
    """The transforms that commute with all of these relations, and those that do not."""
    fitting = [name for name in TRANSFORMS if all(commutes(name, relation) for relation in relations)]
    return fitting, [name for name in TRANSFORMS if name not in fitting]


def forecast(relations: Mapping[Relation, str]) -> list[str]:
    """What is said of a mapping before anything is tried: which transforms notice it.

    Args:
        relations: each with the first leaf of it.
    """
    if set(relations) <= {"same"}:
        return []
    moved = ", ".join(f"{leaf} is {relation}" for relation, leaf in relations.items() if relation != "same")
    fitting, noticing = predicted(frozenset(relations))
    return [
        f"{moved}. Optimizers that do not notice: {'; '.join(fitting) or 'none'}. Those that do: {'; '.join(noticing)}"
    ]


def relation_of(source: Held, target: Held) -> Relation:
    """How the leaves that make up one leaf of the target lie in the source, the most disturbing of them.

    Args:
        source: where each of the target's canonical leaves is in the source, in the target's order.
        target: what the target's leaf holds.
    """
    pairs = [_relation(ours, theirs) for ours, theirs in zip(source, target, strict=True)]
    return RELATIONS[max(map(RELATIONS.index, pairs))]


def _relation(source: MappedLeaf, target: MappedLeaf) -> Relation:
    if source.layout == target.layout and source.native_shape == target.native_shape and source.region == target.region:
        return "same"
    order = _order(source, target)
    if order is None:
        return "unknown"
    if of_updates(source.layout) != source.layout or of_updates(target.layout) != target.layout:
        return "shifted"
    if source.region != target.region:
        return "packed"
    in_order = source.block_shape == target.block_shape and bool((order == np.arange(order.size)).all())
    return "same" if in_order else "moved"


def _order(source: MappedLeaf, target: MappedLeaf) -> np.ndarray | None:
    """Where each element of the target's block is in the source's; None where a layout does more than to move them.

    Tried on the numbers of the elements: what only moves them gives each back once.
    """
    size = int(np.prod(source.block_shape))
    numbers = np.arange(size, dtype=np.int32 if size < 2**31 else np.int64).reshape(source.block_shape)
    canonical = of_updates(source.layout).to_canonical(numbers)
    moved = np.asarray(of_updates(target.layout).to_native(canonical, target.block_shape))
    if moved.dtype != numbers.dtype or moved.shape != target.block_shape:
        return None
    seen = np.zeros(size, bool)
    inside = moved.reshape(-1)
    if inside.size != size or (inside < 0).any() or (inside >= size).any():
        return None
    seen[inside] = True
    return inside if seen.all() else None
