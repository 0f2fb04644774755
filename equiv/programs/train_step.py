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
