"""All programs of one port, compiled as one function and run on probes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from equiv.core.leaves import LeafTable
from equiv.core.output_name import TRAINING, InputName, OutputName, ProgramName, batch_input, draw_input, leaf_input
from equiv.programs.compiler_passes import LIBRARY_PASSES, without_passes
from equiv.programs.counters import Counters, NamedCounts, find_counters
from equiv.programs.draws import draw_bits, put_tails
from equiv.programs.exercise import Observed, Site, merge_observed, merge_statistics
from equiv.programs.jaxpr import count_equations, visit_equations
from equiv.programs.observer import is_worth_observing, observe_program
from equiv.programs.probes import NamedArrays, Probe, add_library_only_leaves, to_float64
from equiv.programs.program import Program, Programs, iteration_numbers

NamedOutputs = Mapping[OutputName, np.ndarray]


COTANGENT_SEED, DRAW_SEED = 101, 202

QUICK_OPTIONS: dict[str, str | bool] = {
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": True,
}

FAST_COMPILE_OPTIONS: dict[str, str | bool] = {**QUICK_OPTIONS, **without_passes(LIBRARY_PASSES)}
"""For functions that run only a few times: compiles the guides' programs in 0.6 of the time (jax 0.10.2, CPU)."""

FUSION_EQUATION_LIMIT = 4000
"""Number of equations above which XLA's CPU fusion is disabled: it duplicates float64 work and compiles too slowly."""


@dataclass(frozen=True)
class Executable:
    """The programs of one port as one compiled function, with what is needed to make its inputs.

    Attributes:
        programs: the programs.
        table: the port's leaf table.
        steps: number of train steps.
        compiled: inputs to outputs, and to the statistics of every site.
        sites: places that are observed; none in float64.
        counters: those of training, which a probe can set; None: there are none, or the run only double-checks proofs.
    """

    programs: Programs
    table: LeafTable
    steps: int
    compiled: Callable[[Any], tuple[dict[OutputName, Any], list[Any]]]
    sites: tuple[Site, ...]
    counters: Counters | None = None


def probe_inputs(
    programs: Programs,
    table: LeafTable,
    steps: int,
    probe: Probe,
    own: NamedArrays | None = None,
    counters: Counters | None = None,
) -> dict[str, Any]:
    """The inputs of all programs for one probe.

    Args:
        programs: the port's programs.
        table: its leaf table.
        steps: number of train steps.
        probe: the probe.
        own: values of the leaves that only this library has; None: the values to which their formulas converge.
        counters: those of training, which the probe may set.
    """
    variables = add_library_only_leaves(table, {**probe.variables, **(own or {})})
    batches = probe.batches
    if programs.float64:
        variables, batches = to_float64(variables), to_float64(batches)
    every = [*programs.parts, *(part for part in (programs.step,) if part is not None)]
    return {
        "variables": variables,
        "batches": batches,
        "cotangents": {
            program.name: {
                name: _cotangent(program, name, probe.seed) for name in program.inputs if name.kind == "cotangent"
            }
            for program in programs.parts
        },
        "draws": {
            program.name: [
                put_tails(
                    _program_bits(program, index, steps if program is programs.step else None, probe.seed), probe.tails
                )
                for index in range(len(program.draws))
            ]
            for program in every
        },
        "late": np.bool_(bool(probe.late)),
        "counts": {} if counters is None else _late_counts(counters, probe, steps),
    }


def _late_counts(counters: Counters, probe: Probe, steps: int) -> NamedCounts:
    """The counters before each step, where a probe sets them; zeros, which are not used, where it does not."""
    if probe.late:
        return counters.after(probe.late)
    avals = dict(zip(counters.step.inputs, counters.step.jaxpr.in_avals, strict=True))
    return {name: np.zeros(steps, avals[name].dtype) for name in counters.names}


def _cotangent(program: Program, name: InputName, seed: int) -> np.ndarray:
    aval = program.jaxpr.in_avals[program.inputs.index(name)]
    return np.random.default_rng((seed, COTANGENT_SEED)).normal(0.3, 1.0, size=aval.shape).astype(aval.dtype)


def _program_bits(program: Program, index: int, steps: int | None, seed: int) -> np.ndarray:
    """Random bits of one draw: the same for the same loop iteration, whether in a scan or in an unrolled loop."""
    draw, numbers = program.draws[index], iteration_numbers(program.draws)[index]

    def of_step(*step: int) -> np.ndarray:
        if not draw.loop:
            return draw_bits(draw, (seed, DRAW_SEED, numbers[0], *step))
        one = replace(draw, shape=draw.shape[1:])
        return np.stack([draw_bits(one, (seed, DRAW_SEED, number, *step)) for number in numbers])

    return of_step() if steps is None else np.stack([of_step(step) for step in range(steps)])


def lower_programs(
    programs: Programs, table: LeafTable, steps: int, probe: Probe, quick: bool = False
) -> Callable[[], Executable]:
    """Lower all programs of a port as one function; the returned function compiles it.

    Args:
        programs: the programs to compile.
        table: the port's leaf table.
        steps: number of train steps.
        probe: gives shapes and dtypes.
        quick: disable XLA's backend optimisation, for a run that only double-checks proofs.
    """
    counters = None if quick else find_counters(programs)
    inputs = probe_inputs(programs, table, steps, probe, counters=counters)
    structs = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), inputs)
    sites: list[Site] = []
    with jax.enable_x64(programs.float64):
        lowered = jax.jit(_join_programs(programs, sites, observe=not quick)).lower(structs)

    def compile_it() -> Executable:
        with jax.enable_x64(programs.float64):
            compiled = lowered.compile(compiler_options=_compiler_options(programs, quick))
        return Executable(programs, table, steps, compiled, tuple(sites), counters)

    return compile_it


def _compiler_options(programs: Programs, quick: bool) -> dict[str, str | bool] | None:
    """Default passes but those of libraries for native runs that decide; fast compilation for float64, double-checks.

    What users run is compiled beside it, with the default options; see `equiv.programs.user_calls`.
    """
    if not programs.float64 and _multiplies_into_wider(programs):
        return dict(QUICK_OPTIONS) if quick else None
    if not programs.float64:
        return dict(FAST_COMPILE_OPTIONS) if quick else without_passes(LIBRARY_PASSES)
    size = sum(map(count_equations, (part.jaxpr for part in (*programs.parts, programs.begin, programs.step) if part)))
    return (
        {**FAST_COMPILE_OPTIONS, **without_passes((*LIBRARY_PASSES, "fusion"))}
        if size > FUSION_EQUATION_LIMIT
        else dict(FAST_COMPILE_OPTIONS)
    )


def _multiplies_into_wider(programs: Programs) -> bool:
    """Whether it has a product of bfloat16 into float32: the CPU has a kernel for it only in a library (jax 0.10.2)."""
    parts = (part for part in (*programs.parts, programs.begin, programs.step) if part is not None)
    products = (eqn for part in parts for _, eqn in visit_equations(part.jaxpr) if eqn.primitive.name == "dot_general")
    return any(atom.aval.dtype != eqn.outvars[0].aval.dtype for eqn in products for atom in eqn.invars)


def run_executable(executable: Executable, probe: Probe, own: NamedArrays | None = None) -> NamedOutputs:
    """Run all programs on one probe; outputs of training have the step on axis 0."""
    return run_observed(executable, probe, own)[0]


def run_observed(executable: Executable, probe: Probe, own: NamedArrays | None = None) -> tuple[NamedOutputs, Observed]:
    """Run all programs on one probe: their outputs, and what they exercise; arguments as of `run_executable`."""
    programs, counters = executable.programs, executable.counters
    inputs = probe_inputs(programs, executable.table, executable.steps, probe, own, counters)
    with jax.enable_x64(executable.programs.float64):
        outputs, statistics = jax.device_get(executable.compiled(inputs))
    # A site is observed by every program and in every call of a function: one line of code is one place.
    found = [{site: np.asarray(one)} for site, one in zip(executable.sites, statistics, strict=True)]
    return {name: np.asarray(value) for name, value in outputs.items()}, merge_observed(found)


def run_with_draws(executable: Executable, probe: Probe, draws: Mapping[ProgramName, Sequence[Any]]) -> NamedOutputs:
    """Run all programs on one probe, some of them with given bits.

    Args:
        executable: the programs.
        probe: the probe.
        draws: program to the bits of its draws; of `STEP` with the step on axis 0.
    """
    inputs = probe_inputs(executable.programs, executable.table, executable.steps, probe, counters=executable.counters)
    given = {**inputs, "draws": {**inputs["draws"], **{name: list(bits) for name, bits in draws.items()}}}
    outputs, _ = jax.device_get(executable.compiled(given))
    return {name: np.asarray(value) for name, value in outputs.items()}


def part_inputs(program: Program, inputs: Mapping[str, Any], step: int = 0) -> dict[InputName, Any]:
    """The inputs of one forward or gradient program, or of the train step without its carry.

    Args:
        program: the program.
        inputs: from `probe_inputs`.
        step: number of the batch.
    """
    return {
        **{leaf_input(name): array for name, array in inputs["variables"].items()},
        **{batch_input(name): array[step] for name, array in inputs["batches"].items()},
        **inputs["cotangents"].get(program.name, {}),
        **number_draws(inputs["draws"][program.name]),
    }


def number_draws(draws: Sequence[Any]) -> dict[InputName, Any]:
    """The bits of draws by input."""
    return {draw_input(index): bits for index, bits in enumerate(draws)}


def _join_programs(
    programs: Programs, sites: list[Site], observe: bool
) -> Callable[[Mapping[str, Any]], tuple[dict[OutputName, Any], list[Any]]]:
    """All programs as one function; `sites` gets the places that it observes, in the order of their statistics.

    Where a run only double-checks proofs nothing is observed: what is proved holds for every input.
    """

    def fused(inputs: Mapping[str, Any]) -> tuple[dict[OutputName, Any], list[Any]]:
        outputs: dict[OutputName, Any] = {}
        observed: list[tuple[Site, Any]] = []
        for program in programs.parts:
            same = programs.same_in_train_mode(program.name)
            if same is not None:
                outputs |= {output: outputs[output.of(same)] for output in program.outputs}
                continue
            found, more = _compute_program(program, part_inputs(program, inputs), observe and not programs.float64)
            outputs |= found
            observed += more
        if programs.begin is not None and programs.step is not None:
            found, more = _scan_train_steps(programs.begin, programs.step, inputs, observe and not programs.float64)
            outputs |= found
            observed += more
        sites[:] = [site for site, _ in observed]
        return outputs, [statistics for _, statistics in observed]

    return fused


def _compute_program(
    program: Program, given: Mapping[InputName, Any], observe: bool
) -> tuple[dict[OutputName, Any], list[tuple[Site, Any]]]:
    """Compute a program: its outputs, and what it exercises where that is observed."""
    if observe and (program.name.is_forward or is_worth_observing(program)):
        return observe_program(program, [given[name] for name in program.inputs])
    return _call_program(program, given), []


def _call_program(program: Program, given: Mapping[InputName, Any]) -> dict[OutputName, Any]:
    results = jaxpr_as_fun(program.jaxpr)(*(given[name] for name in program.inputs))
    return dict(zip(program.outputs, results, strict=True))


NamedCarry = dict[InputName, Any]


def _scan_train_steps(
    begin: Program, step: Program, inputs: Mapping[str, Any], observe: bool
) -> tuple[dict[OutputName, Any], list[tuple[Site, Any]]]:
    dtypes = {name: aval.dtype for name, aval in zip(step.inputs, step.jaxpr.in_avals, strict=True) if name.is_carried}
    sites: list[Site] = []

    def carry_of(outputs: Mapping[OutputName, Any]) -> NamedCarry:
        named = {name.as_input: array for name, array in outputs.items()}
        return {name: jnp.asarray(named[name], dtype) for name, dtype in dtypes.items()}

    def one(carry: NamedCarry, given: Mapping[str, Any]) -> tuple[NamedCarry, tuple[dict[OutputName, Any], list[Any]]]:
        batch = {batch_input(name): array for name, array in given["batches"].items()}
        counts = {name: jnp.where(inputs["late"], late, carry[name]) for name, late in given["counts"].items()}
        outputs, found = _compute_program(step, {**carry, **counts, **batch, **number_draws(given["draws"])}, observe)
        sites[:] = [site for site, _ in found]
        return carry_of(outputs), (outputs, [statistics for _, statistics in found])

    variables = {leaf_input(name): array for name, array in inputs["variables"].items()}
    first = carry_of(_call_program(begin, variables))
    scanned = {"batches": inputs["batches"], "draws": inputs["draws"][step.name], "counts": inputs["counts"]}
    _, (stacked, seen) = jax.lax.scan(one, first, scanned)
    found = [(site, merge_statistics(site, one)) for site, one in zip(sites, seen, strict=True)]
    return {name.of(TRAINING): value for name, value in stacked.items()}, found
