"""The train step of a port as programs: variables to the carry of training, and one step on that carry."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from equiv.backends.base import path_of
from equiv.errors import PortError
from equiv.program import Program
from equiv.trace import Tracer, flat_outputs, trace
from equiv.variables import Identity, Layout


@dataclass(frozen=True)
class CarryLeaf:
    """One leaf of the carry of training.

    Attributes:
        name: a canonical variable, `opt_state/0/mu/block.linear/kernel`, `opt_state/0/count`, `step`, `random/...`.
        layout: of the variable it is or belongs to.
        shape: native shape.
    """

    name: str
    layout: Layout
    shape: tuple[int, ...]


def training(tracer: Tracer) -> tuple[Program, Program]:
    """`begin`: variables to the carry of training. `step`: one train step on that carry."""
    seen: list[tuple[Any, list[CarryLeaf]]] = []

    def run_begin(inputs: Mapping[str, Any]) -> dict[str, Any]:
        carry = tracer.port.begin(tracer.native(inputs), inputs["key"])
        leaves = carry_leaves(tracer, carry)
        seen[:] = [(jax.tree.structure(carry), leaves)]
        return _canonical(leaves, carry)

    begin = trace("begin", run_begin, {**tracer.variables(), **tracer.random()})
    structure, leaves = seen[0]

    def run_step(inputs: Mapping[str, Any]) -> dict[str, Any]:
        native = [leaf.layout.to_native(inputs[leaf.name], leaf.shape) for leaf in leaves]
        batch = {name: inputs[f"batch/{name}"] for name in tracer.request.batch}
        after, outputs = tracer.port.step(jax.tree.unflatten(structure, native), batch, inputs["key"])
        carried = _canonical(carry_leaves(tracer, after), after)
        if lost := [leaf.name for leaf in leaves if leaf.name not in carried]:
            raise PortError(
                f"{tracer.port.backend}: train_step was given {lost[0]} and does not return it "
                f"({len(lost)} of {len(leaves)} leaves). Return what it carries whole, in the order of its arguments."
            )
        return {**carried, **flat_outputs("step output", outputs)}

    carried = zip(begin.outputs, begin.jaxpr.out_avals, strict=True)
    specs = {name: jax.ShapeDtypeStruct(aval.shape, aval.dtype) for name, aval in carried}
    return begin, trace("step", run_step, {**specs, **tracer.batch(), "key": tracer.random()["key"]})


def _canonical(leaves: list[CarryLeaf], carry: Any) -> dict[str, Any]:
    return {
        leaf.name: leaf.layout.to_canonical(jnp.asarray(array))
        for leaf, array in zip(leaves, jax.tree.leaves(carry), strict=True)
    }


def carry_leaves(tracer: Tracer, carry: Any) -> list[CarryLeaf]:
    """What each leaf of a carry is, in the order of its pytree.

    An optax state repeats the tree of the parameters (optax 0.2.8, `transform.py`), so a leaf of it is known by the
    end of its path, whatever the library wraps around it.
    """
    return [
        _carry_leaf(tracer, path_of(path), np.shape(leaf))
        for path, leaf in jax.tree_util.tree_flatten_with_path(carry)[0]
    ]


def _carry_leaf(tracer: Tracer, path: str, shape: tuple[int, ...]) -> CarryLeaf:
    parts = path.split("/")
    of_optimizer = "opt_state" in parts
    slot = "/".join(parts[parts.index("opt_state") :]) if of_optimizer else parts[-1]
    best, name, layout = -1, slot, Identity()
    for key in tracer.port.leaves:
        native, collection = key.path.replace(".", "/"), tracer.port.collections[key]
        if f"/{path}".endswith(f"/{native}") and len(native) + _in_collection(path, native, key.collection) > best:
            if of_optimizer and collection != "params":
                continue
            best = len(native) + _in_collection(path, native, key.collection)
            if collection == "random":
                name, layout = f"random/{key.path}", Identity()
                continue
            leaf = next(leaf for leaf in tracer.table.leaves if leaf.key == key)
            name = f"{slot.removesuffix(native)}{leaf.name}" if of_optimizer else leaf.name
            layout = leaf.layout
    return CarryLeaf(name, layout, shape)


def _in_collection(path: str, native: str, collection: str) -> float:
    """Half a point for the right collection, where two of them hold the same path."""
    return 0.5 * (f"{collection}/{native}" in path)
