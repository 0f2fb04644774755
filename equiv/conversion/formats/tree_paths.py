"""Paths of leaves, which make nested trees, flat names and the libraries' wrappers comparable."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from equiv.errors import EquivError

TreePath = tuple[str, ...]
"""The keys down to a leaf, as text: `("params", "mlp/~/linear", "w")`."""

WRAPPERS = ("value", "raw_value")
"""Keys that NNX adds below each variable when its state is saved directly (flax 0.12.8: `.../kernel/value`)."""

MAX_DEPTH, MAX_LEAVES = 64, 200_000
"""Maximal levels and leaves of a tree: a larger one is an attack or a mistake."""


@dataclass(frozen=True)
class Empty:
    """A node without leaves: an `EmptyState` of optax, `()`, `{}`; or `None`, if `none`."""

    none: bool = False


def path_text(path: TreePath) -> str:
    """A path as one name, as written in npz and safetensors files and in messages."""
    return "/".join(path)


def path_words(path: TreePath) -> TreePath:
    """The words of a path, independent of separators, integer keys and NNX's wrappers.

    `("layers", "0.kernel", "value")`, `("layers/0/kernel",)` and `("layers", "0", "kernel")` are all the last.
    """
    split = [word for key in path for word in re.split(r"[/.]", key) if word]
    while len(split) > 1 and split[-1] in WRAPPERS:
        split.pop()
    return tuple(split)


def children(node: Any) -> Sequence[tuple[Any, Any]] | None:
    """Key and child of a dict, list, tuple or named tuple; None for a leaf."""
    if isinstance(node, Mapping):
        return list(node.items())
    if isinstance(node, tuple) and (fields := getattr(node, "_fields", None)):
        return list(zip(fields, node, strict=True))
    if isinstance(node, list | tuple):
        return list(enumerate(node))
    return None


def flatten(tree: Any, children: Callable[[Any], Sequence[tuple[Any, Any]] | None] = children) -> dict[TreePath, Any]:
    """Path to leaf, in the tree's order; a node without children becomes an `Empty`.

    Args:
        tree: nested.
        children: see `children`.

    Raises:
        EquivError: two leaves of one path, a tree that is too deep or too large.
    """
    found: dict[TreePath, Any] = {}
    for path, leaf in _iter_leaves(tree, (), children):
        if path in found:
            raise EquivError(f"two leaves are called {path_text(path)!r}.", fix="Leave one out.")
        if len(found) >= MAX_LEAVES:
            raise EquivError(f"more than {MAX_LEAVES} leaves.", fix="Give the checkpoint of a model.")
        found[path] = leaf
    return found


def _iter_leaves(node: Any, path: TreePath, children: Callable[[Any], Any]) -> Iterator[tuple[TreePath, Any]]:
    if len(path) > MAX_DEPTH:
        raise EquivError(
            f"nested more than {MAX_DEPTH} deep, at {path_text(path[:4])!r}.", fix="Give the checkpoint of a model."
        )
    if node is None:
        yield path, Empty(none=True)
        return
    below = children(node)
    if below is None:
        yield path, node
    elif not below:
        yield path, Empty()
    else:
        for key, child in below:
            yield from _iter_leaves(child, (*path, str(key)), children)


def map_leaves(function: Callable[[TreePath, Any], Any], node: Any, path: TreePath = ()) -> Any:
    """The same nested dicts and lists, with `function` of path and leaf in place of each leaf."""
    if isinstance(node, Mapping):
        return {key: map_leaves(function, child, (*path, str(key))) for key, child in node.items()}
    if isinstance(node, list | tuple):
        return [map_leaves(function, child, (*path, str(index))) for index, child in enumerate(node)]
    return node if node is None else function(path, node)


def nest(leaves: Iterable[tuple[TreePath, Any]]) -> Any:
    """A nested dict from paths and leaves; an `Empty` becomes an empty dict or None, a single leaf is returned."""
    root: dict[str, Any] = {}
    for path, leaf in leaves:
        if isinstance(leaf, Empty):
            leaf = None if leaf.none else {}
        if not path:
            return leaf
        node = root
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = leaf
    return root
