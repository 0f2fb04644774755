"""The train step of a port as programs: variables to the carry of training, and one step on that carry."""

from typing import Any

import jax
import jax.numpy as jnp

from equiv.core.output_name import BEGIN, KEY, STEP, ProgramName, batch_input, carried_output
from equiv.core.packing import assemble_native_leaf
from equiv.errors import PortError
from equiv.programs.carry import CarryLeafParts, map_carry_leaves
from equiv.programs.program import Program
from equiv.programs.trace import NamedInputs, NamedOutputs, Tracer, flatten_outputs, trace_function


def trace_training(tracer: Tracer) -> tuple[Program, Program]:
    """Trace `begin`, variables to the initial carry of training, and `step`, one train step on that carry."""
    seen: list[tuple[Any, list[CarryLeafParts], list[str]]] = []

    def run_begin(inputs: NamedInputs) -> NamedOutputs:
        carry, kinds = _open_keys(tracer, tracer.port.init_training(tracer.native(inputs), inputs[KEY]))
        leaves = map_carry_leaves(tracer, carry)
        seen[:] = [(jax.tree.structure(carry), leaves, kinds)]
        return _carry_to_canonical(BEGIN, leaves, carry)

    begin = trace_function(BEGIN, run_begin, {**tracer.variables(), **tracer.random()})
    structure, leaves, kinds = seen[0]

    def run_step(inputs: NamedInputs) -> NamedOutputs:
        native = [_assemble_carry_leaf(held, kind, inputs) for held, kind in zip(leaves, kinds, strict=True)]
        batch = {name: inputs[batch_input(name)] for name in tracer.request.batch}
        after, outputs = tracer.port.step(jax.tree.unflatten(structure, native), batch, inputs[KEY])
        after, _ = _open_keys(tracer, after)
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


def is_typed_key(array: Any) -> bool:
    """Whether an array, or the description of one, is of typed keys, as `jax.random.key` makes them."""
    return jnp.issubdtype(array.dtype, jax.dtypes.prng_key)


def key_kind(array: Any) -> str:
    """The name of the generator that typed keys are for: `fry`, `rbg`."""
    found: list[str] = []
    jax.eval_shape(lambda keys: found.append(str(jax.random.key_impl(keys))), array)  # a description has no keys itself
    return found[0]


def open_key(array: Any) -> Any:
    """The numbers of typed keys; any other array as it is."""
    return jax.random.key_data(array) if is_typed_key(array) else array


def _open_keys(tracer: Tracer, carry: Any) -> tuple[Any, list[str]]:
    """Replace the typed keys that an optimizer keeps, as `optax.add_noise` does, by their numbers, which are compared.

    Returns:
        The carry, and for each of its leaves how its keys are made; empty where it is none, or the model's own.
    """
    leaves, structure = jax.tree.flatten(jax.tree.map(jnp.asarray, carry))
    held = map_carry_leaves(tracer, carry)
    kinds = [
        key_kind(leaf) if is_typed_key(leaf) and not parts[0].name.is_random else ""
        for leaf, parts in zip(leaves, held, strict=True)
    ]
    opened = [open_key(leaf) if kind else leaf for leaf, kind in zip(leaves, kinds, strict=True)]
    return jax.tree.unflatten(structure, opened), kinds


def _assemble_carry_leaf(held: CarryLeafParts, kind: str, inputs: NamedInputs) -> Any:
    given = {leaf.mapped.name: inputs[leaf.name] for leaf in held}
    array = assemble_native_leaf([leaf.mapped for leaf in held], given)
    return jax.random.wrap_key_data(array, impl=kind) if kind else array


def _carry_to_canonical(program: ProgramName, leaves: list[CarryLeafParts], carry: Any) -> NamedOutputs:
    return {
        carried_output(program, leaf.name): leaf.mapped.to_canonical(jnp.asarray(array))
        for held, array in zip(leaves, jax.tree.leaves(carry), strict=True)
        for leaf in held
    }
