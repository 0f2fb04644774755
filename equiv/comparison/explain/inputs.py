"""The inputs on which programs of two ports are run operation by operation, in float64."""

import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from equiv.core.batch_spec import INEXACT_DTYPES
from equiv.core.output_name import BEGIN, STEP, InputName, OutputName
from equiv.programs.compiled import probe_inputs
from equiv.programs.counters import find_counters
from equiv.programs.eager import evaluate_eagerly
from equiv.programs.joined_programs import part_inputs
from equiv.programs.probes import Probe, perturb_by_ulp
from equiv.programs.program import Program
from equiv.programs.traced_port import TracedPort, trace_program_float64

InputArrays = Mapping[InputName, Any]

Programs = tuple[Program, Program]

Ports = tuple[TracedPort, TracedPort]


def program_inputs(pair: Programs, ports: Ports, probe: Probe, steps: int) -> tuple[InputArrays, InputArrays]:
    """Give the inputs of a program of both ports on a probe.

    Args:
        pair: the program of the reference and of the candidate, in float64.
        ports: the ports.
        probe: the probe.
        steps: number of train steps that it has batches for.
    """
    left, right = (_inputs_of(program, port, probe, steps) for program, port in zip(pair, ports, strict=True))
    return left, right


def nudged_inputs(pair: Programs, ports: Ports, probe: Probe, steps: int) -> tuple[InputArrays, InputArrays]:
    """Give the inputs of `program_inputs` moved by one ulp of a float64; arguments as there."""
    return program_inputs(pair, ports, perturb_by_ulp(probe, 1, "float64"), steps)


def _inputs_of(program: Program, port: TracedPort, probe: Probe, steps: int) -> InputArrays:
    if program.name == STEP:
        return _step_inputs(port, program, probe, steps)
    programs = replace(port.programs, float64=True, parts=(program,), begin=None, step=None)
    return part_inputs(program, probe_inputs(programs, port.table, steps, probe))


def _step_inputs(port: TracedPort, step: Program, probe: Probe, steps: int) -> InputArrays:
    """The inputs of a train step on a probe, in float64, with a state of the optimizer that is not zero.

    At first it is, so that two momenta, for one, make the same first step. Of a round of steps it is the last, in which
    parameters are updated.
    """
    begin = trace_program_float64(port, BEGIN)
    programs = replace(port.programs, float64=True, parts=(), begin=begin, step=step)
    inputs = probe_inputs(programs, port.table, steps, probe)
    inputs["draws"] = {name: [bits[0] for bits in drawn] for name, drawn in inputs["draws"].items()}
    given = part_inputs(step, inputs)
    carried = evaluate_eagerly(begin.jaxpr, [given[name] for name in begin.inputs])
    named = zip(begin.outputs, carried, strict=True)
    filled = {name.as_input: _fill_slot(name, array) for name, array in named if name.as_input is not None}
    counters = find_counters(programs)
    last = {} if counters is None else counters.after((counters.round - 1,))
    return given | filled | {name: counts[0] for name, counts in last.items()}


def _fill_slot(name: OutputName, array: np.ndarray) -> np.ndarray:
    """The same positive numbers for the same slot of both ports; anything else as it is."""
    if name.kind != "optimizer" or not name.leaf or str(array.dtype) not in INEXACT_DTYPES:
        return array
    rng = np.random.default_rng(zlib.crc32(str(name).encode()))
    return rng.uniform(0.3, 2.0, array.shape).astype(array.dtype)
