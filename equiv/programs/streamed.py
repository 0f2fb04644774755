"""Outputs of calls and gradients one by one, as they are computed operation by operation.

The gradients of a large port take as much memory as its parameters; what is read and dropped at once takes none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jax.extend import core

from equiv.compat import enable_x64
from equiv.core.output_name import OutputName
from equiv.programs.compiled import Executable, probe_inputs
from equiv.programs.content import is_key
from equiv.programs.eager import EagerEvaluation
from equiv.programs.freed_memory import return_freed_memory
from equiv.programs.jaxpr import find_last_reads, open_jaxpr
from equiv.programs.joined_programs import part_inputs
from equiv.programs.probes import Probe

FREED = 2**26
"""Bytes of outputs after which what their readers freed goes back to the machine."""


def stream_each_output(executable: Executable, probe: Probe) -> Iterator[tuple[OutputName, np.ndarray]]:
    """Run the calls and gradients of a port operation by operation, and yield each output as soon as it is computed.

    Simple programs come first: what does not ask for an output of a later one does not compute it. The inputs of
    float64 programs stay as the probe has them; each is widened where it is read.

    Args:
        executable: the programs; training is left out.
        probe: the probe.
    """
    programs = executable.programs
    inputs = probe_inputs(replace(programs, float64=False), executable.table, executable.steps, probe)
    yielded = 0
    for part in sorted(programs.parts, key=lambda one: one.name.complexity):
        if programs.same_in_train_mode(part.name) is not None:
            continue
        given = part_inputs(part, inputs)
        twins = [one.name for one in programs.parts if programs.same_in_train_mode(one.name) == part.name]
        arrays = [given[name] for name in part.inputs]
        for index, array in evaluate_one_by_one(part.jaxpr, arrays, programs.float64):
            for program in (part.name, *twins):
                yield part.outputs[index].of(program), array
            yielded += array.nbytes
            del array
            if yielded > FREED:
                yielded = 0
                return_freed_memory()


def evaluate_one_by_one(closed: Any, arrays: Sequence[Any], float64: bool) -> Iterator[tuple[int, np.ndarray]]:
    """Evaluate a jaxpr operation by operation, and yield the index and the array of each output once it is known.

    Args:
        closed: the jaxpr.
        arrays: its inputs; a float may have fewer digits than the jaxpr says.
        float64: whether it is a float64 program.
    """
    jaxpr, consts = open_jaxpr(closed)
    evaluation = _Widened()
    values: dict[Any, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arrays), strict=True))
    places: dict[Any, list[int]] = {}
    for index, atom in enumerate(jaxpr.outvars):
        if isinstance(atom, core.Literal):
            yield index, evaluation.literal(atom)
        else:
            places.setdefault(atom, []).append(index)
    for var in places.keys() & values.keys():
        for index in places[var]:
            yield index, np.asarray(_widen(values[var], var))
    for eqn, last in zip(jaxpr.eqns, find_last_reads(jaxpr), strict=True):
        ins = [evaluation.literal(atom) if isinstance(atom, core.Literal) else values[atom] for atom in eqn.invars]
        with enable_x64(float64):
            values.update(zip(eqn.outvars, evaluation.step(eqn, ins), strict=True))
        del ins
        for var in eqn.outvars:
            for index in places.get(var, ()):
                yield index, np.asarray(values[var])
        for var in last:
            del values[var]


class _Widened(EagerEvaluation):
    """Evaluation of which each operand is given the dtype that the jaxpr says, where it is read."""

    def step(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        return super().step(eqn, [_widen(value, atom) for value, atom in zip(ins, eqn.invars, strict=True)])

    def in_loop(self) -> EagerEvaluation:
        return EagerEvaluation()


def _widen(value: Any, atom: Any) -> Any:
    return value if is_key(value) or value.dtype == atom.aval.dtype else np.asarray(value, atom.aval.dtype)
