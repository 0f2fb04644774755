"""Tracing of several calls as one program: each is given the state that the one before left.

The first is given the state as the library initialises it. A cache of random values at a random index is none.
"""

from typing import Any

import jax
import jax.numpy as jnp

from equiv.backends.base import Leaves
from equiv.core.leaves import MappedLeaf
from equiv.core.output_name import KEY, OutputName, ProgramName, batch_input
from equiv.errors import PortError
from equiv.programs.program import Program
from equiv.programs.trace import NamedInputs, NamedOutputs, Tracer, flatten_outputs, leaf_after_call, trace_function


def trace_sequence(tracer: Tracer, program: ProgramName) -> Program:
    """Trace a sequence in one mode.

    Its outputs are those of every call, `output/2/hidden`, and the state after it; where they are joined, the outputs
    joined, and the state after the last call.

    Raises:
        PortError: the outputs cannot be joined.
    """
    sequence, training = tracer.port.sequences[program.method], program.kind == "train"
    names = sequence.inputs

    def run(inputs: NamedInputs) -> NamedOutputs:
        first = native = _with_fresh_state(tracer, tracer.native(inputs))
        named: dict[OutputName, Any] = {}
        returned: list[Any] = []
        for number, (text, call) in enumerate(sequence.calls):
            if number and sequence.join is None:
                named |= _state_between(tracer, program, number, native)
            arguments = tuple(inputs[batch_input(name)] for name in call.inputs)
            # Every call is a call of its own: it draws from its own key.
            key = jax.random.fold_in(inputs[KEY], number) if number else inputs[KEY]
            outputs, native = tracer.port.apply(native, text, arguments, training, key)
            if sequence.join is None:
                named |= flatten_outputs(program, {str(number + 1): outputs})
            returned.append(outputs)
        if sequence.join is not None:
            named |= flatten_outputs(program, _join(tracer.port.name, program, returned, sequence.join))
        state, params = _split_leaves(tracer)
        return named | {
            **{OutputName(program, "state", leaf=one.name): one.to_canonical(native[one.key]) for one in state},
            **{
                OutputName(program, "state", leaf=one.name): leaf_after_call(one, first, native, inputs)
                for one in params
            },
        }

    return trace_function(program, run, {**tracer.variables(), **tracer.batch(names), **tracer.random()})


def _state_between(tracer: Tracer, program: ProgramName, number: int, native: Any) -> dict[OutputName, Any]:
    """The state after a call that is not the last one."""
    state, _ = _split_leaves(tracer)
    return {
        OutputName(program, "state", f"after call {number}, ", leaf.name): leaf.to_canonical(native[leaf.key])
        for leaf in state
    }


def _split_leaves(tracer: Tracer) -> tuple[list[MappedLeaf], list[MappedLeaf]]:
    """The leaves of state, and all others."""
    leaves = tracer.table.leaves
    return (
        [leaf for leaf in leaves if leaf.spec.collection == "state"],
        [leaf for leaf in leaves if leaf.spec.collection != "state"],
    )


def _with_fresh_state(tracer: Tracer, native: Leaves) -> Leaves:
    """The leaves, with the state as the library initialises it."""
    port = tracer.port
    if "state" not in port.collections.values():
        return native
    # Of parameters nothing is read, and what only they need is removed with all dead equations.
    fresh = port.init(jax.random.key(0))
    return {
        key: jnp.asarray(fresh[key], array.dtype) if port.collections[key] == "state" else array
        for key, array in native.items()
    }


def _join(port: str, program: ProgramName, returned: list[Any], axis: int) -> Any:
    """The outputs of all calls, joined on an axis."""
    try:
        return jax.tree.map(lambda *arrays: jnp.concatenate(arrays, axis), *returned)
    except (TypeError, ValueError) as error:
        raise PortError(
            f"{port}: the outputs of sequence {program.method} cannot be joined on axis {axis}: {error}",
            fix="Give another axis, or return arrays that have it.",
            port=port,
        ) from error
