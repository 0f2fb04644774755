"""All programs of one port, compiled as one function and run on probes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import jax
import numpy as np

from equiv.compat import enable_x64
from equiv.core.leaves import LeafTable
from equiv.core.output_name import TRAINING, InputName, OutputName, ProgramName
from equiv.programs.compiler_passes import LIBRARY_PASSES, without_passes
from equiv.programs.counters import Counters, NamedCounts, find_counters
from equiv.programs.draws import draw_bits, put_tails
from equiv.programs.exercise import (
    Observed,
    Site,
    merge_observed,
)
from equiv.programs.freed_memory import return_freed_memory
from equiv.programs.jaxpr import count_equations, visit_equations
from equiv.programs.joined_programs import (
    BY_OPERATION,
    Evaluation,
    NamedCarry,
    OutputsAndStatistics,
    carry_of,
    compute_step,
    first_carry,
    join_programs,
    scanned_inputs,
)
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


COMPILED_EQUATIONS = 4000
"""Number of equations above which programs that run once or twice are evaluated operation by operation.

Two runs of a decoder of 12 layers, with 12,000 equations, took 0.4 of the time that compiling it takes, of 24 layers
0.3 (jax 0.10.2, CPU).
"""

LARGE_TRAINING = 2**24
"""Bytes of all outputs of one train step above which steps are run one by one, so that never all are in memory."""


@dataclass(frozen=True)
class StepByStep:
    """Training as two compiled functions, where the outputs of all steps together are large.

    Attributes:
        begin: variables to the first carry.
        step: carry and what one step is given to its outputs, and to the statistics of every site.
        sites: places that are observed.
    """

    begin: Callable[[Any], NamedCarry]
    step: Callable[[Any, Any], OutputsAndStatistics]
    sites: tuple[Site, ...]


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
        training: the train steps, where they are run one by one; None: they are in `compiled`.
    """

    programs: Programs
    table: LeafTable
    steps: int
    compiled: Callable[[Any], OutputsAndStatistics]
    sites: tuple[Site, ...]
    counters: Counters | None = None
    training: StepByStep | None = None


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
    rng = np.random.default_rng((seed, COTANGENT_SEED))
    made = rng.normal(0.3, 1.0, size=aval.shape)
    return (made + 1j * rng.normal(0.3, 1.0, size=aval.shape) if aval.dtype.kind == "c" else made).astype(aval.dtype)


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
    programs: Programs,
    table: LeafTable,
    steps: int,
    probe: Probe,
    quick: bool = False,
    earlier: Callable[[], Executable | None] | None = None,
) -> Callable[[], Executable]:
    """Lower all programs of a port as one function; the returned function compiles it.

    Args:
        programs: the programs to compile.
        table: the port's leaf table.
        steps: number of train steps.
        probe: gives shapes and dtypes.
        quick: disable XLA's backend optimisation, for a run that only double-checks proofs.
        earlier: waits for the same programs with another train step, whose calls are the same; where training is large
            they are taken from it.
    """
    counters = None if quick else find_counters(programs)
    inputs = probe_inputs(programs, table, steps, probe, counters=counters)
    structs = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), inputs)
    sites: list[Site] = []
    options = _compiler_options(programs, quick)
    large = is_large_training(programs)
    joined = replace(programs, begin=None, step=None) if large else programs
    calls = jax.jit(join_programs(joined, sites, observe=not quick))
    earlier = earlier if large else None
    with enable_x64(programs.float64):
        lowered = calls.lower(structs) if earlier is None else None
        training = _lower_step_by_step(programs, structs, options, observe=not quick) if large else None

    def compile_it() -> Executable:
        known = None if earlier is None else earlier()
        with enable_x64(programs.float64):
            if known is not None and known.programs.parts == programs.parts and known.training is not None:
                compiled, sites[:] = known.compiled, known.sites
            else:
                compiled = (lowered or calls.lower(structs)).compile(compiler_options=options)
            step_by_step = None if training is None else training()
        return Executable(programs, table, steps, compiled, tuple(sites), counters, step_by_step)

    return compile_it


def by_operation(
    programs: Programs,
    table: LeafTable,
    steps: int,
    evaluation: Evaluation = BY_OPERATION,
    counters: Counters | None = None,
) -> Executable:
    """Evaluate programs operation by operation: nothing is compiled as a whole, and nothing observed.

    Args:
        programs: the programs of a port, or some of them.
        table: the port's leaf table.
        steps: number of train steps.
        evaluation: how.
        counters: those of training, which a probe can set.
    """
    begin, step, large = programs.begin, programs.step, is_large_training(programs)
    joined = replace(programs, begin=None, step=None) if large else programs
    run = join_programs(joined, [], observe=False, evaluation=evaluation)
    training = None
    if large and begin is not None and step is not None:
        training = StepByStep(
            lambda variables: first_carry(begin, step, variables, evaluation),
            lambda carry, given: (compute_step(step, carry, given, observe=False, evaluation=evaluation)[0], []),
            (),
        )
    return Executable(programs, table, steps, run, (), counters, training)


def is_large_training(programs: Programs) -> bool:
    """Whether the outputs of a train step take more than `LARGE_TRAINING`."""
    avals = () if programs.step is None else programs.step.jaxpr.out_avals
    return sum(prod(aval.shape) * aval.dtype.itemsize for aval in avals) > LARGE_TRAINING


def _lower_step_by_step(
    programs: Programs, structs: Mapping[str, Any], options: dict[str, str | bool] | None, observe: bool
) -> Callable[[], StepByStep]:
    begin, step = programs.begin, programs.step
    assert begin is not None, "a train step has a beginning"
    assert step is not None, "only what is trained is large"
    sites: list[Site] = []

    def one(carry: NamedCarry, given: Mapping[str, Any]) -> OutputsAndStatistics:
        outputs, found = compute_step(step, carry, given, observe and not programs.float64)
        sites[:] = [site for site, _ in found]
        return outputs, [statistics for _, statistics in found]

    def begun(variables: Mapping[str, Any]) -> NamedCarry:
        return first_carry(begin, step, variables)

    first = jax.jit(begun).lower(structs["variables"])
    carry = jax.eval_shape(begun, structs["variables"])
    scanned = scanned_inputs(step, structs)
    given = jax.tree.map(lambda one: jax.ShapeDtypeStruct(one.shape[1:], one.dtype), scanned)
    lowered = jax.jit(one).lower(carry, given | {"late": structs["late"]})

    def compile_them() -> StepByStep:
        compiled = [one.compile(compiler_options=options) for one in (first, lowered)]
        return StepByStep(compiled[0], compiled[1], tuple(sites))

    return compile_them


def _compiler_options(programs: Programs, quick: bool) -> dict[str, str | bool] | None:
    """Default passes but those of libraries for native runs that decide; fast compilation for float64, double-checks.

    What users run is compiled beside it, with the default options; see `equiv.programs.user_calls`.
    """
    if not programs.float64 and _multiplies_into_wider(programs):
        return dict(QUICK_OPTIONS) if quick else None
    if not programs.float64:
        return dict(FAST_COMPILE_OPTIONS) if quick else without_passes(LIBRARY_PASSES)
    return (
        {**FAST_COMPILE_OPTIONS, **without_passes((*LIBRARY_PASSES, "fusion"))}
        if count_all_equations(programs) > FUSION_EQUATION_LIMIT
        else dict(FAST_COMPILE_OPTIONS)
    )


def count_all_equations(programs: Programs) -> int:
    """Number of equations of all programs of a port."""
    parts = (*programs.parts, programs.begin, programs.step)
    return sum(count_equations(part.jaxpr) for part in parts if part is not None)


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
    parts, exercised = list[NamedOutputs](), list[Observed]()
    for outputs, observed in stream_outputs(executable, probe, own):
        parts.append(outputs)
        exercised.append(observed)
    return join_parts(parts), merge_observed(exercised)


def stream_outputs(
    executable: Executable, probe: Probe, own: NamedArrays | None = None
) -> Iterator[tuple[NamedOutputs, Observed]]:
    """Yield the outputs of all programs in parts, and what each part exercises; arguments as of `run_executable`.

    Where training is large the calls are one part, and each step is one, whose outputs have an axis 0 of size one.
    """
    inputs = probe_inputs(executable.programs, executable.table, executable.steps, probe, own, executable.counters)
    yield from _stream_parts(executable, inputs)


def _stream_parts(executable: Executable, inputs: dict[str, Any]) -> Iterator[tuple[NamedOutputs, Observed]]:
    """Yield the outputs in parts; `inputs` lose the variables once training has begun."""
    step, training = executable.programs.step, executable.training

    def fetch(outputs: Mapping[OutputName, Any], sites: Sequence[Site], statistics: Sequence[Any]) -> Any:
        # A site is observed by every program and in every call of a function: one line of code is one place.
        found = [{site: np.asarray(one)} for site, one in zip(sites, statistics, strict=True)]
        return {name: np.asarray(value) for name, value in outputs.items()}, merge_observed(found)

    with enable_x64(executable.programs.float64):
        part = fetch(*_with_sites(executable.sites, jax.device_get(executable.compiled(inputs))))
    yield part
    if training is None or step is None:
        return
    del part
    return_freed_memory()
    with enable_x64(executable.programs.float64):
        carry = training.begin(inputs.pop("variables"))
    scanned = scanned_inputs(step, inputs)
    for number in range(executable.steps):
        given = jax.tree.map(lambda array, number=number: array[number], scanned) | {"late": inputs["late"]}
        with enable_x64(executable.programs.float64):
            outputs, statistics = training.step(carry, given)
            carry = carry_of(step, outputs)
            found, observed = fetch(*_with_sites(training.sites, jax.device_get((outputs, statistics))))
        part = {name.of(TRAINING): array[np.newaxis] for name, array in found.items()}
        del outputs, found
        yield part, observed
        del part  # before the next step
        return_freed_memory()


def _with_sites(sites: Sequence[Site], found: OutputsAndStatistics) -> tuple[Any, Sequence[Site], list[Any]]:
    return found[0], sites, found[1]


def join_parts(parts: Sequence[NamedOutputs]) -> NamedOutputs:
    """Join the parts of a run: train steps on axis 0."""
    if len(parts) == 1:
        return parts[0]
    found: dict[OutputName, list[np.ndarray]] = {}
    for part in parts:
        for name, array in part.items():
            found.setdefault(name, []).append(array)
    return {name: arrays[0] if len(arrays) == 1 else np.concatenate(arrays) for name, arrays in found.items()}


def stream_with_draws(
    executable: Executable, probe: Probe, draws: Mapping[ProgramName, Sequence[Any]]
) -> Iterator[tuple[NamedOutputs, Observed]]:
    """Run all programs on one probe, some of them with given bits, and yield what `stream_outputs` does.

    Args:
        executable: the programs.
        probe: the probe.
        draws: program to the bits of its draws; of `STEP` with the step on axis 0.
    """
    inputs = probe_inputs(executable.programs, executable.table, executable.steps, probe, counters=executable.counters)
    given = {**inputs, "draws": {**inputs["draws"], **{name: list(bits) for name, bits in draws.items()}}}
    yield from _stream_parts(executable, given)
