"""The train step of a port as programs: variables to the carry of training, and one step on that carry."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from equiv.backends.base import pytree_path
from equiv.core.layouts import Identity, optimizer_layout
from equiv.core.leaves import LeafSpec, MappedLeaf, NativeKey
from equiv.core.packing import assemble_native_leaf
from equiv.errors import PortError
from equiv.programs.program import Program
from equiv.programs.trace import Tracer, flatten_outputs, trace_function

CarryLeafParts = tuple[MappedLeaf, ...]
"""The canonical leaves, or blocks of them, that one leaf of the carry of training holds.

Their names: a canonical variable, `opt_state/0/mu/block.linear/kernel`, `opt_state/0/count`, `step`, `random/...`.
"""


def trace_training(tracer: Tracer) -> tuple[Program, Program]:
    """Trace `begin`, variables to the initial carry of training, and `step`, one train step on that carry."""
    seen: list[tuple[Any, list[CarryLeafParts]]] = []

    def run_begin(inputs: Mapping[str, Any]) -> dict[str, Any]:
        carry = tracer.port.init_training(tracer.native(inputs), inputs["key"])
        leaves = map_carry_leaves(tracer, carry)
        seen[:] = [(jax.tree.structure(carry), leaves)]
        return _carry_to_canonical(leaves, carry)

    begin = trace_function("begin", run_begin, {**tracer.variables(), **tracer.random()})
    structure, leaves = seen[0]

    def run_step(inputs: Mapping[str, Any]) -> dict[str, Any]:
        native = [assemble_native_leaf(held, inputs) for held in leaves]
        batch = {name: inputs[f"batch/{name}"] for name in tracer.request.batch}
        after, outputs = tracer.port.step(jax.tree.unflatten(structure, native), batch, inputs["key"])
        carried = _carry_to_canonical(map_carry_leaves(tracer, after), after)
        if lost := [leaf.name for held in leaves for leaf in held if leaf.name not in carried]:
            raise PortError(
                f"{tracer.port.backend}: train_step was given {lost[0]} and does not return it "
                f"({len(lost)} of {len(leaves)} leaves). Return the whole carry, in the order of its arguments."
            )
        return {**carried, **flatten_outputs("step output", outputs)}

    carried = zip(begin.outputs, begin.jaxpr.out_avals, strict=True)
    specs = {name: jax.ShapeDtypeStruct(aval.shape, aval.dtype) for name, aval in carried}
    return begin, trace_function("step", run_step, {**specs, **tracer.batch(), "key": tracer.random()["key"]})


def _carry_to_canonical(leaves: list[CarryLeafParts], carry: Any) -> dict[str, Any]:
    return {
        leaf.name: leaf.to_canonical(jnp.asarray(array))
        for held, array in zip(leaves, jax.tree.leaves(carry), strict=True)
        for leaf in held
    }


def map_carry_leaves(tracer: Tracer, carry: Any) -> list[CarryLeafParts]:
    """Map each leaf of a carry to canonical leaves, in the order of its pytree.

    An optax state repeats the tree of the parameters (optax 0.2.8, `transform.py`), so a leaf of it is known by the
    end of its path, whatever the library wraps around it.
    """
    return [
        _map_carry_leaf(tracer, pytree_path(path), np.shape(leaf))
        for path, leaf in jax.tree_util.tree_flatten_with_path(carry)[0]
    ]


def _map_carry_leaf(tracer: Tracer, path: str, shape: tuple[int, ...]) -> CarryLeafParts:
    parts = path.split("/")
    of_optimizer = "opt_state" in parts
    slot = "/".join(parts[parts.index("opt_state") :]) if of_optimizer else parts[-1]
    best, found = -1, (_unmapped_leaf(slot, shape),)
    for key in tracer.port.leaves:
        native, collection = key.path.replace(".", "/"), tracer.port.collections[key]
        if f"/{path}".endswith(f"/{native}") and len(native) + _collection_score(path, native, key.collection) > best:
            if of_optimizer and collection != "params":
                continue
            best = len(native) + _collection_score(path, native, key.collection)
            if collection == "random":
                found = (_unmapped_leaf(f"random/{key.path}", shape),)
                continue
            found = tuple(leaf for leaf in tracer.table.leaves if leaf.key == key)
            if of_optimizer:
                prefix = slot.removesuffix(native)
                found = tuple(
                    replace(leaf, name=f"{prefix}{leaf.name}", layout=optimizer_layout(leaf.layout), native_shape=shape)
                    for leaf in found
                )
    return found


def _unmapped_leaf(name: str, shape: tuple[int, ...]) -> MappedLeaf:
    """A leaf of the carry that is in no row of the layer table."""
    return MappedLeaf(name, NativeKey("", name), Identity(), LeafSpec(shape, ""), shape)


def _collection_score(path: str, native: str, collection: str) -> float:
    """Half a point for the right collection, where two of them hold the same path."""
    return 0.5 * (f"{collection}/{native}" in path)
