"""The carry of training by name: variables, slots of the optimizer by role and parameter, counts.

An optax state repeats the tree of the parameters (optax 0.2.8, `transform.py`), so a leaf of it is known by the end of
its path, and its role is the word before that: `mu`, `nu`, `trace`. What is around it does not count: chains, wrappers,
a train state, the dict that a user keeps it in. Two ports then name the same slot alike, wherever each keeps it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from equiv.backends.base import pytree_path
from equiv.backends.leaf_table import leaves_by_native_key
from equiv.core.layouts import Identity, optimizer_layout
from equiv.core.leaves import LeafSpec, MappedLeaf, NativeKey
from equiv.core.output_name import InputName, bookkeeping_input, leaf_input, optimizer_count, optimizer_slot
from equiv.programs.trace import Tracer, random_input

OPTIMIZER_STATE = "opt_state"
"""The word in a path below which the optimizer's state is."""


@dataclass(frozen=True)
class CarryLeaf:
    """A canonical leaf in the carry of training, or a block of one.

    Attributes:
        name: a canonical variable, `opt_state/mu/block.linear/kernel`, `opt_state/mu,nu/count`, `step`, `random/...`.
        mapped: how the carry stores it.
    """

    name: InputName
    mapped: MappedLeaf


HeldLeaves = Mapping[NativeKey, tuple[MappedLeaf, ...]]
"""Native leaf to the canonical leaves, or blocks of them, that it holds."""

CarryLeafParts = tuple[CarryLeaf, ...]
"""The canonical leaves, or blocks of them, that one leaf of the carry of training holds."""


@dataclass(frozen=True)
class CarryPath:
    """One leaf of a carry: where it is, and the native leaf whose path its own ends with.

    Attributes:
        words: its path.
        shape: of the leaf.
        key: the native leaf; None: it is none of the model's, such as a count.
        score: how well it fits the native leaf: its length, and half a point for the right collection.
    """

    words: tuple[str, ...]
    shape: tuple[int, ...]
    key: NativeKey | None = None
    score: float = -1.0

    @property
    def of_optimizer(self) -> bool:
        """Whether it is below the optimizer's state."""
        return OPTIMIZER_STATE in self.words

    @property
    def node(self) -> tuple[tuple[str, ...], str]:
        """What it is kept in, and its role there: the last word before the native leaf that is neither a number nor
        a collection, as `params` is where a whole variable tree is optimized."""
        if self.key is None:
            return self.words[:-1], self.words[-1]
        before = self.words[: len(self.words) - len(self.key.path.replace(".", "/").split("/"))]
        while before and (before[-1].isdigit() or before[-1] == self.key.collection):
            before = before[:-1]
        named = bool(before) and before[-1] != OPTIMIZER_STATE
        return (before[:-1], before[-1]) if named else (before, "")


def map_carry_leaves(tracer: Tracer, carry: Any) -> list[CarryLeafParts]:
    """Map each leaf of a carry to canonical leaves, in the order of its pytree."""
    paths = fit_carry_paths(tracer, carry)
    variables = choose_carry_variables(tracer, paths)
    moments: dict[tuple[str, ...], set[str]] = {}
    for index, path in enumerate(paths):
        if path.key is not None and index not in variables:
            moments.setdefault(path.node[0], set()).add(path.node[1])
    seen, held = Counter[tuple[Any, ...]](), leaves_by_native_key(tracer.table)
    return [
        _variable_parts(tracer, path, held) if index in variables else _slot_parts(path, held, moments, seen)
        for index, path in enumerate(paths)
    ]


def fit_carry_paths(tracer: Tracer, carry: Any) -> list[CarryPath]:
    """Find for each leaf of a carry the native leaf that it is, or is kept for, in the order of its pytree."""
    ends = _native_ends(tracer)
    return [
        _fit_path(tracer, ends, tuple(pytree_path(path).split("/")), np.shape(leaf))
        for path, leaf in jax.tree_util.tree_flatten_with_path(carry)[0]
    ]


def _native_ends(tracer: Tracer) -> dict[str, list[NativeKey]]:
    """Map the paths of native leaves, as they stand in the path of a carry, to the leaves."""
    ends: dict[str, list[NativeKey]] = {}
    for key in tracer.port.leaves:
        ends.setdefault(key.path.replace(".", "/"), []).append(key)
    return ends


def _fit_path(
    tracer: Tracer, ends: Mapping[str, Sequence[NativeKey]], words: tuple[str, ...], shape: tuple[int, ...]
) -> CarryPath:
    """Find the native leaf with the longest path that a path ends with; an optimizer has slots of parameters only."""
    best, text = CarryPath(words, shape), "/".join(words)
    for native in ("/".join(words[start:]) for start in range(len(words))):
        for key in ends.get(native, ()):
            if best.of_optimizer and tracer.port.collections[key] != "params":
                continue
            score = len(native) + 0.5 * (f"/{key.collection}/{native}" in f"/{text}")
            if score > best.score:
                best = replace(best, key=key, score=score)
    return best


def choose_carry_variables(tracer: Tracer, paths: Sequence[CarryPath]) -> set[int]:
    """The leaves that are the model's own variables: of several with one native leaf, as an average of the parameters
    kept beside them, the one below its collection, else the one nearest to the root."""
    best: dict[NativeKey, int] = {}
    chosen: set[int] = set()
    for index, path in enumerate(paths):
        if path.key is None or path.of_optimizer:
            continue
        if tracer.port.collections[path.key] == "random":
            chosen.add(index)
            continue
        other = paths[best.setdefault(path.key, index)]
        if (path.score, -len(path.words)) > (other.score, -len(other.words)):
            best[path.key] = index
    return chosen | set(best.values())


def _variable_parts(tracer: Tracer, path: CarryPath, held: HeldLeaves) -> CarryLeafParts:
    assert path.key is not None, "a variable has a native leaf"
    if tracer.port.collections[path.key] == "random":
        return (_unmapped_leaf(random_input(path.key), path.shape),)
    return tuple(CarryLeaf(leaf_input(leaf.name), leaf) for leaf in held.get(path.key, ()))


def _slot_parts(
    path: CarryPath, held: HeldLeaves, moments: dict[tuple[str, ...], set[str]], seen: Counter[tuple[Any, ...]]
) -> CarryLeafParts:
    """Name a slot by its role and parameter, a count by its role and the slots that it is kept with.

    Of several with one name, as in a chain of two momenta, the first has it alone, the others are numbered in order.
    """
    node, role = path.node
    beside = tuple(sorted(moments.get(node, ())))
    same = (path.key, role) if path.key or not path.of_optimizer else (role, beside)
    seen[same] += 1
    number = seen[same]
    if path.key is not None:
        leaves = held.get(path.key, ())
        return tuple(_slot_leaf(optimizer_slot(role, leaf.name, number), leaf, path) for leaf in leaves)
    name = optimizer_count(role, beside, number) if path.of_optimizer else bookkeeping_input(role, number)
    return (_unmapped_leaf(name, path.shape),)


def _slot_leaf(name: InputName, leaf: MappedLeaf, path: CarryPath) -> CarryLeaf:
    """A leaf with the layout of a variable; what an optimizer keeps of it has no number added to it."""
    layout = optimizer_layout(leaf.layout, path.node[1]) if path.of_optimizer else leaf.layout
    return CarryLeaf(name, replace(leaf, name=str(name), layout=layout, native_shape=path.shape))


def _unmapped_leaf(name: InputName, shape: tuple[int, ...]) -> CarryLeaf:
    """A leaf of the carry that is in no row of the layer table."""
    mapped = MappedLeaf(str(name), NativeKey("", str(name)), Identity(), LeafSpec(shape, ""), shape)
    return CarryLeaf(name, mapped)
