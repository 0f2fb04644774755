"""Tracing of one call with a batch, or with parts of it, as one program: its outputs are those of each part."""

from collections.abc import Sequence
from typing import Any

import jax

from equiv.core.batch_parts import BatchPart
from equiv.core.output_name import KEY, OutputName, ProgramName, batch_input
from equiv.errors import PortError
from equiv.programs.program import Program
from equiv.programs.trace import NamedInputs, NamedOutputs, Tracer, flatten_outputs, trace_function


def trace_parts(tracer: Tracer, program: ProgramName) -> Program:
    """Trace a call whose outputs are compared part by part: with the whole batch, or with each part alone.

    Every call begins with the same state. An output without a row for each of the batch, such as a loss, is left out.

    Raises:
        PortError: no output has such rows.
    """
    sequence = tracer.port.sequences[program.method]
    ((name, call),) = sequence.calls

    def run(inputs: NamedInputs) -> NamedOutputs:
        native = tracer.native(inputs)
        arrays = {entry: inputs[batch_input(entry)] for entry in call.inputs}

        def outputs_of(given: Sequence[Any]) -> Any:
            return tracer.port.apply(native, name, tuple(given), program.kind == "train", inputs[KEY])[0]

        whole = list(arrays.values())
        given = {part: [part.take_input(entry, array) for entry, array in arrays.items()] for part in sequence.parts}
        returned = jax.eval_shape(outputs_of, whole) if sequence.alone else outputs_of(whole)
        named: dict[OutputName, Any] = {}
        for part in sequence.parts:
            own = outputs_of(given[part]) if sequence.alone else jax.eval_shape(outputs_of, given[part])
            named |= _rows_of(program, part, returned, own, sequence.alone)
        if not named:
            raise PortError(
                f"{tracer.port.name}: no output of {name} has a row for each of the {sequence.parts[0].rows} of the "
                "batch, so that nothing of it can be compared with rows alone.",
                fix="Name a method that returns an array with the batch axis.",
                port=tracer.port.name,
            )
        return named

    return trace_function(program, run, {**tracer.variables(), **tracer.batch(call.inputs), **tracer.random()})


def _rows_of(program: ProgramName, part: BatchPart, batch: Any, own: Any, alone: bool) -> NamedOutputs:
    """The outputs of a part by name: its own, or those of the batch at its place."""
    ours, theirs = flatten_outputs(program, {part.name: own}), flatten_outputs(program, {part.name: batch})
    if ours.keys() != theirs.keys():
        raise ValueError(f"{part.name} has other outputs alone than in the batch")
    return {
        name: value if alone else part.take_output(theirs[name], value.shape)
        for name, value in ours.items()
        if part.is_row(theirs[name].shape, value.shape)
    }
