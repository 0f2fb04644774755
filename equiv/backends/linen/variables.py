"""The variables of a Linen model: its trees of collections, and native leaves by key."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from flax.core.meta import AxisMetadata

from equiv.backends.base import Leaves, path_words
from equiv.backends.sharding import make_annotation
from equiv.core.annotation import Annotation
from equiv.core.leaves import NativeKey

OPTIMIZER_STATE = "opt_state"
"""Where the carry of training has what is not of the model."""


def _named_leaves(trees: Mapping[str, Any]) -> Iterator[tuple[NativeKey, Any]]:
    """Every array with its key, in the order of the pytree.

    What holds an array with its axis names, as `nn.with_partitioning` makes it, is no part of its path.
    """
    for collection in sorted(trees):
        for path, value in jax.tree_util.tree_flatten_with_path(trees[collection], is_leaf=_is_box)[0]:
            words = path_words(path)
            if not _is_box(value):
                yield NativeKey(collection, "/".join(words)), value
                continue
            inside = jax.tree.leaves(value)
            for number, leaf in enumerate(inside):
                own = words if len(inside) == 1 else (*words, str(number))
                yield NativeKey(collection, "/".join(own)), leaf


def linen_leaves(trees: Mapping[str, Any]) -> Leaves:
    """The native leaves of the collections; of the carry of training too, which has the optimizer's state besides."""
    return dict(_named_leaves({name: tree for name, tree in trees.items() if name != OPTIMIZER_STATE}))


def linen_annotations(tree: Any) -> list[Annotation | None]:
    """What the boxes of a pytree say of the sharding of each of its arrays, in order."""
    nodes = jax.tree.leaves(tree, is_leaf=_is_box)
    return [_annotation(node) for node in nodes for _ in jax.tree.leaves(node)]


def named_annotations(trees: Mapping[str, Any]) -> dict[NativeKey, Annotation]:
    """Native leaf to what its box says of its sharding, of the leaves that are in one with names of axes."""
    keys = [key for key, _ in _named_leaves(trees)]
    found = [one for name in sorted(trees) for one in linen_annotations(trees[name])]
    return {key: one for key, one in zip(keys, found, strict=True) if one is not None}


def _annotation(node: Any) -> Annotation | None:
    """What a box says; an `nn.Partitioned` has names, a box of another kind may have none."""
    names = getattr(node, "names", None) if _is_box(node) else None
    return None if names is None else make_annotation(names, getattr(node, "rules", None))


def linen_trees(like: Mapping[str, Any]) -> Callable[[Leaves], dict[str, Any]]:
    """How native leaves become the trees that `init` gives, with the same boxes around the arrays.

    Args:
        like: the trees, with the shapes of the arrays.
    """
    trees = {"params": {}, **like}  # a model without parameters needs an empty tree of them for training
    structure = jax.tree.structure(trees)
    keys = [key for key, _ in _named_leaves(trees)]
    return lambda native: jax.tree.unflatten(structure, [native[key] for key in keys])


def _is_box(node: Any) -> bool:
    return isinstance(node, AxisMetadata)
