"""The train step of a port as programs: variables to the carry of training, and one step on that carry."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from equiv.backends.base import path_of
from equiv.core.layouts import Identity, of_updates
from equiv.core.leaves import LeafSpec, MappedLeaf, NativeKey
from equiv.core.packing import to_native
from equiv.errors import PortError
from equiv.programs.program import Program
from equiv.programs.trace import Tracer, flat_outputs, trace

Held = tuple[MappedLeaf, ...]
"""What one leaf of the carry of training holds, by name.

A canonical variable, or blocks of it; `opt_state/0/mu/block.linear/kernel`, `opt_state/0/count`, `step`, `random/...`.
"""


def training(tracer: Tracer) -> tuple[Program, Program]:
    """`begin`: variables to the carry of training. `step`: one train step on that carry."""
    seen: list[tuple[Any, list[Held]]] = []

    def run_begin(inputs: Mapping[str, Any]) -> dict[str, Any]:
        carry = tracer.port.begin(tracer.native(inputs), inputs["key"])
        leaves = carry_leaves(tracer, carry)
        seen[:] = [(jax.tree.structure(carry), leaves)]
        return _canonical(leaves, carry)

    begin = trace("begin", run_begin, {**tracer.variables(), **tracer.random()})
    structure, leaves = seen[0]

    def run_step(inputs: Mapping[str, Any]) -> dict[str, Any]:
        native = [to_native(held, inputs) for held in leaves]
        batch = {name: inputs[f"batch/{name}"] for name in tracer.request.batch}
        after, outputs = tracer.port.step(jax.tree.unflatten(structure, native), batch, inputs["key"])
        carried = _canonical(carry_leaves(tracer, after), after)
        if lost := [leaf.name for held in leaves for leaf in held if leaf.name not in carried]:
            raise PortError(
                f"{tracer.port.backend}: train_step was given {lost[0]} and does not return it "
                f"({len(lost)} of {len(leaves)} leaves). Return what it carries whole, in the order of its arguments."
            )
        return {**carried, **flat_outputs("step output", outputs)}

    carried = zip(begin.outputs, begin.jaxpr.out_avals, strict=True)
    specs = {name: jax.ShapeDtypeStruct(aval.shape, aval.dtype) for name, aval in carried}
    return begin, trace("step", run_step, {**specs, **tracer.batch(), "key": tracer.random()["key"]})


def _canonical(leaves: list[Held], carry: Any) -> dict[str, Any]:
    return {
        leaf.name: leaf.to_canonical(jnp.asarray(array))
        for held, array in zip(leaves, jax.tree.leaves(carry), strict=True)
        for leaf in held
    }


def carry_leaves(tracer: Tracer, carry: Any) -> list[Held]:
    """What each leaf of a carry is, in the order of its pytree.

    An optax state repeats the tree of the parameters (optax 0.2.8, `transform.py`), so a leaf of it is known by the
    end of its path, whatever the library wraps around it.
    """
    return [
        _carry_leaf(tracer, path_of(path), np.shape(leaf))
        for path, leaf in jax.tree_util.tree_flatten_with_path(carry)[0]
    ]


def _carry_leaf(tracer: Tracer, path: str, shape: tuple[int, ...]) -> Held:
    parts = path.split("/")
    of_optimizer = "opt_state" in parts
    slot = "/".join(parts[parts.index("opt_state") :]) if of_optimizer else parts[-1]
    best, found = -1, (_plain(slot, shape),)
    for key in tracer.port.leaves:
        native, collection = key.path.replace(".", "/"), tracer.port.collections[key]
        if f"/{path}".endswith(f"/{native}") and len(native) + _in_collection(path, native, key.collection) > best:
            if of_optimizer and collection != "params":
                continue
            best = len(native) + _in_collection(path, native, key.collection)
            if collection == "random":
                found = (_plain(f"random/{key.path}", shape),)
                continue
            found = tuple(leaf for leaf in tracer.table.leaves if leaf.key == key)
            if of_optimizer:
                beside = slot.removesuffix(native)
                found = tuple(
                    replace(leaf, name=f"{beside}{leaf.name}", layout=of_updates(leaf.layout), native_shape=shape)
                    for leaf in found
                )
    return found


def _plain(name: str, shape: tuple[int, ...]) -> MappedLeaf:
    """A leaf of the carry that no row of the layer table speaks of."""
    return MappedLeaf(name, NativeKey("", name), Identity(), LeafSpec(shape, ""), shape)


def _in_collection(path: str, native: str, collection: str) -> float:
    """Half a point for the right collection, where two of them hold the same path."""
    return 0.5 * (f"{collection}/{native}" in path)
