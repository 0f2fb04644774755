"""The train step of a port as programs: variables to the carry of training, and one step on that carry."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from equiv.backends.base import pytree_path
from equiv.core.layouts import Identity, optimizer_layout
from equiv.core.leaves import LeafSpec, MappedLeaf, NativeKey
from equiv.core.output_name import BEGIN, KEY, STEP, InputName, ProgramName, batch_input, carried_output, leaf_input
from equiv.core.packing import assemble_native_leaf
from equiv.errors import PortError
from equiv.programs.program import Program
from equiv.programs.trace import NamedInputs, NamedOutputs, Tracer, flatten_outputs, random_input, trace_function


@dataclass(frozen=True)
class CarryLeaf:
    """A canonical leaf in the carry of training, or a block of one.

    Attributes:
        name: a canonical variable, `opt_state/0/mu/block.linear/kernel`, `opt_state/0/count`, `step`, `random/...`.
        mapped: how the carry stores it.
    """

    name: InputName
    mapped: MappedLeaf


CarryLeafParts = tuple[CarryLeaf, ...]
"""The canonical leaves, or blocks of them, that one leaf of the carry of training holds."""


def trace_training(tracer: Tracer) -> tuple[Program, Program]:
    """Trace `begin`, variables to the initial carry of training, and `step`, one train step on that carry."""
    seen: list[tuple[Any, list[CarryLeafParts]]] = []

    def run_begin(inputs: NamedInputs) -> NamedOutputs:
        carry = tracer.port.init_training(tracer.native(inputs), inputs[KEY])
        leaves = map_carry_leaves(tracer, carry)
        seen[:] = [(jax.tree.structure(carry), leaves)]
        return _carry_to_canonical(BEGIN, leaves, carry)

    begin = trace_function(BEGIN, run_begin, {**tracer.variables(), **tracer.random()})
    structure, leaves = seen[0]

    def run_step(inputs: NamedInputs) -> NamedOutputs:
        native = [_assemble_carry_leaf(held, inputs) for held in leaves]
        batch = {name: inputs[batch_input(name)] for name in tracer.request.batch}
        after, outputs = tracer.port.step(jax.tree.unflatten(structure, native), batch, inputs[KEY])
        carried = _carry_to_canonical(STEP, map_carry_leaves(tracer, after), after)
        returned = {name.as_input for name in carried}
        if lost := [leaf.name for held in leaves for leaf in held if leaf.name not in returned]:
            raise PortError(
                f"{tracer.port.name}: train_step was given {lost[0]} and does not return it "
                f"({len(lost)} of {len(leaves)} leaves).",
                fix="Return the whole carry, in the order of its arguments.",
                port=tracer.port.name,
            )
        return {**carried, **flatten_outputs(STEP, outputs)}

    specs = {
        name: jax.ShapeDtypeStruct(aval.shape, aval.dtype)
        for output, aval in zip(begin.outputs, begin.jaxpr.out_avals, strict=True)
        if (name := output.as_input) is not None
    }
    return begin, trace_function(STEP, run_step, {**specs, **tracer.batch(), KEY: tracer.random()[KEY]})


def _assemble_carry_leaf(held: CarryLeafParts, inputs: NamedInputs) -> Any:
    return assemble_native_leaf([leaf.mapped for leaf in held], {leaf.mapped.name: inputs[leaf.name] for leaf in held})


def _carry_to_canonical(program: ProgramName, leaves: list[CarryLeafParts], carry: Any) -> NamedOutputs:
    return {
        carried_output(program, leaf.name): leaf.mapped.to_canonical(jnp.asarray(array))
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
    best, found = -1, (_unmapped_leaf(InputName("optimizer" if of_optimizer else "bookkeeping", slot), shape),)
    for key in tracer.port.leaves:
        native, collection = key.path.replace(".", "/"), tracer.port.collections[key]
        if f"/{path}".endswith(f"/{native}") and len(native) + _collection_score(path, native, key.collection) > best:
            if of_optimizer and collection != "params":
                continue
            best = len(native) + _collection_score(path, native, key.collection)
            if collection == "random":
                found = (_unmapped_leaf(random_input(key), shape),)
                continue
            held = [leaf for leaf in tracer.table.leaves if leaf.key == key]
            prefix = slot.removesuffix(native)
            found = tuple(
                _optimizer_leaf(prefix, leaf, shape) if of_optimizer else CarryLeaf(leaf_input(leaf.name), leaf)
                for leaf in held
            )
    return found


def _optimizer_leaf(prefix: str, leaf: MappedLeaf, shape: tuple[int, ...]) -> CarryLeaf:
    """A leaf of the optimizer's state that has the layout of a parameter."""
    name = InputName("optimizer", prefix, leaf.name)
    layout = optimizer_layout(leaf.layout)
    return CarryLeaf(name, replace(leaf, name=str(name), layout=layout, native_shape=shape))


def _unmapped_leaf(name: InputName, shape: tuple[int, ...]) -> CarryLeaf:
    """A leaf of the carry that is in no row of the layer table."""
    mapped = MappedLeaf(str(name), NativeKey("", str(name)), Identity(), LeafSpec(shape, ""), shape)
    return CarryLeaf(name, mapped)


def _collection_score(path: str, native: str, collection: str) -> float:
    """Half a point for the right collection, where two of them hold the same path."""
    return 0.5 * (f"{collection}/{native}" in path)
