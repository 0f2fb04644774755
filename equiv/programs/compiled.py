"""All programs of one port, compiled as one and run on probes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from equiv.core.leaves import LeafTable
from equiv.programs.draws import bits
from equiv.programs.jaxpr import equations
from equiv.programs.probes import Arrays, Probe, widened, with_own
from equiv.programs.program import Program, Programs, turns

COTANGENT_SEED, DRAW_SEED = 101, 202


QUICK: dict[str, str | bool] = {"xla_backend_optimization_level": "0", "xla_llvm_disable_expensive_passes": True}
"""For what is run a few times only: compiles the guides' programs in 0.6 of the time (jax 0.10.2, CPU)."""


LARGE = 4000
"""Equations above which XLA's CPU fusion is left out: it duplicates float64 work, and compiling grows too fast."""


@dataclass(frozen=True)
class Executable:
    """The programs of one port as one compiled function, and how to feed it."""

    programs: Programs
    table: LeafTable
    steps: int
    compiled: Callable[[Any], dict[str, Any]]


def feed(programs: Programs, table: LeafTable, steps: int, probe: Probe, own: Arrays | None = None) -> dict[str, Any]:
    """The inputs of all programs for one probe.

    Args:
        programs: the port's programs.
        table: its leaf table.
        steps: number of train steps.
        probe: the probe.
        own: values of the leaves that only this library has; None: where its own formula settles.
    """
    variables = with_own(table, {**probe.variables, **(own or {})})
    batches = probe.batches
    if programs.lifted:
        variables, batches = widened(variables), widened(batches)
    every = [*programs.parts, *(part for part in (programs.step,) if part is not None)]
    return {
        "variables": variables,
        "batches": batches,
        "cotangents": {
            f"{program.name}: {name}": _cotangent(program, name, probe.seed)
            for program in programs.parts
            for name in program.inputs
            if name.startswith("cotangent/")
        },
        "draws": {
            program.name: [
                _bits(program, index, steps if program is programs.step else None, probe.seed)
                for index in range(len(program.draws))
            ]
            for program in every
        },
    }


def _cotangent(program: Program, name: str, seed: int) -> np.ndarray:
    aval = program.jaxpr.in_avals[program.inputs.index(name)]
    return np.random.default_rng((seed, COTANGENT_SEED)).normal(0.3, 1.0, size=aval.shape).astype(aval.dtype)


def _bits(program: Program, index: int, steps: int | None, seed: int) -> np.ndarray:
    """The same bits for the same turn, whether a scan draws it or a loop that is written out."""
    draw, numbers = program.draws[index], turns(program.draws)[index]

    def of_step(*step: int) -> np.ndarray:
        if not draw.loop:
            return bits(draw, (seed, DRAW_SEED, numbers[0], *step))
        turn = replace(draw, shape=draw.shape[1:])
        return np.stack([bits(turn, (seed, DRAW_SEED, number, *step)) for number in numbers])

    return of_step() if steps is None else np.stack([of_step(step) for step in range(steps)])


def lower_programs(
    programs: Programs, table: LeafTable, steps: int, probe: Probe, quick: bool = False
) -> Callable[[], Executable]:
    """All programs of a port as one function, ready to be compiled; nothing runs op by op.

    Args:
        programs: what is compiled.
        table: the port's leaf table.
        steps: number of train steps.
        probe: for shapes and dtypes.
        quick: without XLA's backend optimisation, for a run that only double-checks proofs.
    """
    inputs = feed(programs, table, steps, probe)
    structs = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), inputs)
    with jax.enable_x64(programs.lifted):
        lowered = jax.jit(_fused(programs)).lower(structs)

    def compile_it() -> Executable:
        with jax.enable_x64(programs.lifted):
            compiled = lowered.compile(compiler_options=_options(programs, quick))
        return Executable(programs, table, steps, compiled)

    return compile_it


def _options(programs: Programs, quick: bool) -> dict[str, str | bool] | None:
    """A native run that decides compiles as users compile; a lifted one, or a double-check, as fast as can be."""
    if not programs.lifted:
        return dict(QUICK) if quick else None
    size = sum(map(equations, (part.jaxpr for part in (*programs.parts, programs.begin, programs.step) if part)))
    return {**QUICK, "xla_disable_hlo_passes": "fusion"} if size > LARGE else dict(QUICK)


def run(executable: Executable, probe: Probe, own: Arrays | None = None) -> Arrays:
    """Every output of every program on one probe, as `program: output`; train outputs have the step first."""
    inputs = feed(executable.programs, executable.table, executable.steps, probe, own)
    with jax.enable_x64(executable.programs.lifted):
        outputs = jax.device_get(executable.compiled(inputs))
    return {name: np.asarray(value) for name, value in outputs.items()}


def _fused(programs: Programs) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    def fused(inputs: Mapping[str, Any]) -> dict[str, Any]:
        first = {f"batch/{name}": array[0] for name, array in inputs["batches"].items()}
        named = {**inputs["variables"], **first}
        outputs: dict[str, Any] = {}
        for program in programs.parts:
            more = {name: inputs["cotangents"].get(f"{program.name}: {name}") for name in program.inputs}
            outputs |= _call(program, {**more, **named}, inputs["draws"][program.name], f"{program.name}: ")
        if programs.begin is not None and programs.step is not None:
            outputs |= _train(programs.begin, programs.step, inputs)
        return outputs

    return fused


def _call(program: Program, named: Mapping[str, Any], draws: list[Any], prefix: str = "") -> dict[str, Any]:
    given = {**named, **{f"draw/{index}": array for index, array in enumerate(draws)}}
    results = jaxpr_as_fun(program.jaxpr)(*(given[name] for name in program.inputs))
    return {f"{prefix}{name}": value for name, value in zip(program.outputs, results, strict=True)}


def _train(begin: Program, step: Program, inputs: Mapping[str, Any]) -> dict[str, Any]:
    carried = [name for name in step.inputs if not name.startswith(("batch/", "draw/"))]
    dtypes = {name: step.jaxpr.in_avals[step.inputs.index(name)].dtype for name in carried}
    started = _call(begin, inputs["variables"], [])

    def one(carry: dict[str, Any], given: tuple[dict[str, Any], list[Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
        batch = {f"batch/{name}": array for name, array in given[0].items()}
        outputs = _call(step, {**carry, **batch}, given[1])
        return {name: jnp.asarray(outputs[name], dtypes[name]) for name in carried}, outputs

    first = {name: jnp.asarray(started[name], dtypes[name]) for name in carried}
    _, stacked = jax.lax.scan(one, first, (inputs["batches"], inputs["draws"]["step"]))
    return {f"train: {name}": value for name, value in stacked.items()}
