"""Paths of leaves: how nested trees, flat names and the libraries' wrappers become comparable."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from equiv.errors import EquivError

TreePath = tuple[str, ...]
"""The keys down to a leaf, as text: `("params", "mlp/~/linear", "w")`."""


WRAPPERS = ("value", "raw_value")
"""What NNX puts below each variable when its state is saved as it is (flax 0.12.8: `.../kernel/value`)."""


DEEPEST, MOST = 64, 200_000
"""Levels and leaves above which a tree is no checkpoint but an attack or a mistake."""


@dataclass(frozen=True)
class Empty:
    """A node without leaves: an `EmptyState` of optax, `()`, `{}`; or `None`, which is kept apart."""

    none: bool = False


def shown(path: TreePath) -> str:
    """A path as one name, as it stands in npz and safetensors files and in messages."""
    return "/".join(path)


def words(path: TreePath) -> TreePath:
    """A path by its words alone: separators, integer keys and NNX's wrappers make no difference.

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
    """Path to leaf, in the tree's order; a node without children is an `Empty`.

    Args:
        tree: nested.
        children: see `children`.

    Raises:
        EquivError: two leaves of one path, a tree that is too deep or too large.
    """
    found: dict[TreePath, Any] = {}
    for path, leaf in _walk(tree, (), children):
        if path in found:
            raise EquivError(f"two leaves are called {shown(path)!r}. Leave one out.")
        if len(found) >= MOST:
            raise EquivError(f"more than {MOST} leaves. Give the checkpoint of a model.")
        found[path] = leaf
    return found


def _walk(node: Any, path: TreePath, children: Callable[[Any], Any]) -> Iterator[tuple[TreePath, Any]]:
    if len(path) > DEEPEST:
        raise EquivError(f"nested more than {DEEPEST} deep, at {shown(path[:4])!r}. Give the checkpoint of a model.")
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
            yield from _walk(child, (*path, str(key)), children)


def mapped(function: Callable[[TreePath, Any], Any], node: Any, path: TreePath = ()) -> Any:
    """The same nested dicts and lists, with `function` of path and leaf in place of each leaf."""
    if isinstance(node, Mapping):
        return {key: mapped(function, child, (*path, str(key))) for key, child in node.items()}
    if isinstance(node, list | tuple):
        return [mapped(function, child, (*path, str(index))) for index, child in enumerate(node)]
    return node if node is None else function(path, node)


def nested(leaves: Iterable[tuple[TreePath, Any]]) -> Any:
    """A nested dict from paths and leaves; an `Empty` is an empty dict or None, a leaf without a path is itself."""
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
