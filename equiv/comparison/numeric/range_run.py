"""Run programs twice: in their own dtypes, and with the same precision but the range of float32."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from equiv.backends.build import call_user_code
from equiv.comparison.observation import Outputs
from equiv.core.output_name import BEGIN, STEP, TRAINING, InputName, OutputName, ProgramName, leaf_input
from equiv.programs.compiled import FAST_COMPILE_OPTIONS, probe_inputs
from equiv.programs.joined_programs import part_inputs
from equiv.programs.probes import Probe
from equiv.programs.program import Program, Programs
from equiv.programs.prover.numbered_port import all_programs
from equiv.programs.range_limits import WIDE, RangeSite, is_narrow, observe_ranges, range_sites
from equiv.programs.traced_port import TracedPort
from equiv.programs.transform import select_outputs

STRICT_OPTIONS: dict[str, str | bool] = {**FAST_COMPILE_OPTIONS, "xla_allow_excess_precision": False}
"""XLA may keep a value in float32 where the program casts it to float16; here it computes what the program says."""

ProgramSite = tuple[ProgramName, RangeSite]
"""A site and the program that it is in."""


@dataclass(frozen=True)
class RangeRun:
    """The outputs of one port on one probe, with and without the limits of its dtypes.

    Attributes:
        native: in the dtypes of the port.
        wide: with the range of float32.
        sites: where a value may leave the range, in order, with the largest and the smallest magnitude but zero.
    """

    native: Outputs
    wide: Outputs
    sites: tuple[tuple[ProgramSite, float, float], ...]


@dataclass(frozen=True)
class RangeExecutable:
    """Programs of one port, compiled in both forms.

    Attributes:
        traced: the port.
        programs: those of them that are no part of training.
        steps: number of train steps of the case, of which the first is run.
        compiled: inputs to outputs in both forms and the statistics of every site.
        sites: in the order of their statistics.
    """

    traced: TracedPort
    programs: tuple[Program, ...]
    steps: int
    compiled: Callable[[Any], Any]
    sites: tuple[ProgramSite, ...]

    @property
    def has_gradients(self) -> bool:
        """Whether a program takes cotangents."""
        return any(name.kind == "cotangent" for part in self.programs for name in part.inputs)

    def sites_of(self, output: OutputName) -> frozenset[RangeSite]:
        """The sites on which an output of a program depends."""
        every = (part for part in all_programs(self.traced.programs) if part.name == output.program)
        return frozenset[RangeSite]().union(*(range_sites(select_outputs(part, (output,))) for part in every))

    def run(self, probe: Probe, cotangents: float = 1.0) -> RangeRun:
        """Run all programs once; every cotangent times a factor."""
        inputs = _range_inputs(self.traced, self.steps, probe, cotangents)
        native, wide, seen = call_user_code(
            self.traced.port.name, "running", lambda: jax.device_get(self.compiled(inputs))
        )
        sites = tuple((site, float(one[0]), float(one[1])) for site, one in zip(self.sites, seen, strict=True))
        native, wide = ({name: np.asarray(one) for name, one in part.items()} for part in (native, wide))
        return RangeRun(native, wide, sites)


def _range_inputs(traced: TracedPort, steps: int, probe: Probe, cotangents: float) -> dict[str, Any]:
    inputs = probe_inputs(traced.programs, traced.table, steps, probe)
    given = {
        program: {name: np.asarray(array * cotangents, array.dtype) for name, array in arrays.items()}
        for program, arrays in inputs["cotangents"].items()
    }
    return {**inputs, "cotangents": given}


def compile_ranges(traced: TracedPort, names: frozenset[ProgramName], steps: int, probe: Probe) -> RangeExecutable:
    """Compile programs of a port in both forms.

    Args:
        traced: the port.
        names: of the programs; that of the train step stands for its first step.
        steps: number of train steps.
        probe: gives shapes and dtypes.

    Raises:
        PortError: they cannot be compiled.
    """
    inputs = _range_inputs(traced, steps, probe, 1.0)
    structs = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), inputs)
    sites: list[ProgramSite] = []

    def compile_it() -> Any:
        lowered = jax.jit(partial(_run_both, traced.programs, names, sites)).lower(structs)
        return lowered.compile(compiler_options=STRICT_OPTIONS)

    compiled = call_user_code(traced.port.name, "compiling for its range", compile_it)
    parts = tuple(part for part in traced.programs.parts if part.name in names)
    return RangeExecutable(traced, parts, steps, compiled, tuple(sites))


def _run_both(
    programs: Programs, names: frozenset[ProgramName], sites: list[ProgramSite], inputs: Mapping[str, Any]
) -> tuple[dict[OutputName, Any], dict[OutputName, Any], list[Any]]:
    native: dict[OutputName, Any] = {}
    wide: dict[OutputName, Any] = {}
    seen: list[Any] = []
    sites.clear()

    def run(program: Program, given: Mapping[InputName, Any], widened: Mapping[InputName, Any]) -> None:
        native.update(
            zip(program.outputs, jaxpr_as_fun(program.jaxpr)(*(given[one] for one in program.inputs)), strict=True)
        )
        outs, found = observe_ranges(program.jaxpr, [widened[one] for one in program.inputs])
        wide.update(zip(program.outputs, outs, strict=True))
        sites.extend((program.name, site) for site, _ in found)
        seen.extend(statistics for _, statistics in found)

    for program in programs.parts:
        if program.name in names:
            given = part_inputs(program, inputs)
            run(program, given, given)
    begin, step = programs.begin, programs.step
    if begin is not None and step is not None and STEP in names:
        variables = {leaf_input(name): array for name, array in inputs["variables"].items()}
        run(begin, variables, variables)
        first = {**inputs, "draws": {STEP: [bits[0] for bits in inputs["draws"][STEP]]}}
        batch = part_inputs(step, first)
        run(step, {**batch, **_carry(step, native)}, {**batch, **_carry(step, wide, wide=True)})
    return _as_trained(native), _as_trained(wide), seen


def _carry(step: Program, outputs: Mapping[OutputName, Any], wide: bool = False) -> dict[InputName, Any]:
    """The initial carry of training in a step's dtypes; with `wide`, float32 for those of a narrow range."""
    named = {name.as_input: array for name, array in outputs.items() if name.program == BEGIN}
    avals = {name: aval for name, aval in zip(step.inputs, step.jaxpr.in_avals, strict=True) if name.is_carried}
    dtypes = {name: WIDE if wide and is_narrow(aval.dtype) else aval.dtype for name, aval in avals.items()}
    return {name: jnp.asarray(named[name], dtype) for name, dtype in dtypes.items()}


def _as_trained(outputs: Mapping[OutputName, Any]) -> dict[OutputName, Any]:
    """Name the outputs of the first step as those of training; those of `begin` are only its inputs."""
    return {
        name.of(TRAINING) if name.program == STEP else name: array
        for name, array in outputs.items()
        if name.program != BEGIN
    }
