"""One port as programs: traced in its own precision, and, when asked, in float64."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from equiv.backends.base import Port
from equiv.backends.build import call_user_code
from equiv.compat import enable_x64
from equiv.core.batch_spec import COMPLEX_DTYPES, INEXACT_DTYPES
from equiv.core.leaves import LeafTable
from equiv.core.no_gradient import NoGradient
from equiv.core.output_name import (
    BEGIN,
    KEY,
    START,
    STEP,
    InputName,
    OutputName,
    ProgramName,
    carried_output,
    leaf_input,
)
from equiv.errors import EquivError, PortError
from equiv.programs import compile_thread as background
from equiv.programs.built_case import BuiltCase
from equiv.programs.compiled import FAST_COMPILE_OPTIONS
from equiv.programs.content import ContentReader, digest
from equiv.programs.jaxpr import visit_equations
from equiv.programs.no_gradient import find_no_gradient
from equiv.programs.primitives import HOST_CALLS
from equiv.programs.probes import NamedArrays, numpy_dtype
from equiv.programs.program import Program, Programs
from equiv.programs.prover.value_numbering import input_term, number_program
from equiv.programs.trace import Tracer, random_input, trace_forward, trace_function, trace_gradient
from equiv.programs.trace_parts import trace_parts
from equiv.programs.trace_sequence import trace_sequence
from equiv.programs.train_step import trace_training
from equiv.programs.transform import (
    KeyedProgram,
    drop_random_outputs,
    make_draws_inputs,
    replay_draws,
    select_outputs,
)


@dataclass(frozen=True, eq=False)
class TracedPort:
    """One port as programs in its own precision.

    Attributes:
        tracer: the tracer that traced it.
        programs: its programs, with their draws as inputs.
        keyed: its programs with their own keys, but for `begin`.
        initialise: gives the library's own initial values of state leaves and random state.
        before: the same port with another train step, which shares all else.
    """

    tracer: Tracer
    programs: Programs
    keyed: tuple[KeyedProgram, ...]
    initialise: Callable[[], Mapping[InputName, Any]]
    before: "TracedPort | None" = None

    @property
    def port(self) -> Port:
        """The port."""
        return self.tracer.port

    @property
    def table(self) -> LeafTable:
        """Its leaf table."""
        return self.tracer.table

    @property
    def fresh(self) -> NamedArrays:
        """The state leaves as the library itself initialises them; values that it draws are replayed."""
        return {name.leaf: np.asarray(value) for name, value in self._started().items() if name.kind == "leaf"}

    def random(self) -> Mapping[InputName, Any]:
        """The library's own random state as it initialises it."""
        return {name: value for name, value in self._started().items() if name.is_random}

    def _started(self) -> Mapping[InputName, Any]:
        return call_user_code(self.port.name, "initialising", self.initialise)


def trace_programs(tracer: Tracer) -> tuple[Programs, tuple[KeyedProgram, ...]]:
    """Trace all programs of a port, with their draws as inputs, and with their own keys.

    A gradient that does not exist is left out, and so is the default train step where it would need it. What only
    checks need that are not made is left out, too.
    """
    parts: dict[ProgramName, Program] = {}
    keyed: list[KeyedProgram] = []
    tracers = _program_tracers(tracer)
    for name, trace in tracers.items():
        if name.is_forward:  # what a call raises is raised by the simplest call
            parts[name], own = replay_draws(trace(), tracer.float64)
            keyed.append(own)
    missing = _find_no_gradients(tracer)
    for name, trace in tracers.items():
        if name.is_forward or name in missing:
            continue
        train = parts.get(ProgramName("gradient", name.method))
        if name.kind == "eval gradient" and train is not None:  # its keys are those of the call in eval mode
            parts[name] = _trace_eval_gradient(tracer, trace, train, name)
            continue
        parts[name], own = replay_draws(trace(), tracer.float64)
        keyed += [] if name.kind == "eval gradient" else [own]
    traced = Programs(tracer.port.name, tracer.float64, tuple(parts.values()), None, None, tuple(missing.values()))
    first = ProgramName("gradient", next(iter(tracer.request.methods)))
    if "train" in tracer.request.left_out or (tracer.port.default_step and first in missing):
        return traced, tuple(keyed)
    begin, step, own = _trace_own_training(tracer)
    return replace(traced, begin=begin, step=step), (*keyed, own)


def _trace_own_training(tracer: Tracer) -> tuple[Program, Program, KeyedProgram]:
    """`begin` and `step` with their draws as inputs, and `step` with its own keys."""
    begin, step = trace_training(tracer)
    last, own = replay_draws(step, tracer.float64)
    return make_draws_inputs(begin, tracer.float64), last, own


def _find_no_gradients(tracer: Tracer) -> dict[ProgramName, NoGradient]:
    """The gradients that a port does not have, by name."""
    names = [ProgramName(kind, method) for kind in tracer.gradients() for method in tracer.request.methods]
    found: dict[ProgramName, NoGradient] = {}
    for name in names:
        same = None if tracer.port.has_modes else found.get(ProgramName("gradient", name.method))
        why = replace(same, program=name) if same is not None else find_no_gradient(tracer, name)
        if why is not None:
            found[name] = why
    return found


def _trace_eval_gradient(tracer: Tracer, trace: Callable[[], Program], train: Program, name: ProgramName) -> Program:
    """The gradient in eval mode; with the jaxpr of that in train mode, where both are the same operations."""
    same = train.renamed(name)
    if not tracer.port.has_modes:
        return same
    program = make_draws_inputs(trace(), tracer.float64)
    if (program.inputs, program.outputs, program.draws) != (same.inputs, same.outputs, same.draws):
        return program
    reader = ContentReader()
    return same if digest(reader.read(program.jaxpr)) == digest(reader.read(same.jaxpr)) else program


def _program_tracers(tracer: Tracer) -> dict[ProgramName, Callable[[], Program]]:
    """Map the name of every forward and gradient program to the function that traces it."""

    def changed(name: ProgramName) -> Program:
        return drop_unchanged_parameters(trace_forward(tracer, name), tracer.table)

    def traced_sequence(name: ProgramName) -> Program:
        if tracer.port.sequences[name.method].parts:
            return trace_parts(tracer, name)
        return drop_unchanged_parameters(trace_sequence(tracer, name), tracer.table)

    methods = tracer.request.methods
    calls = [ProgramName(mode, method) for method in methods for mode in tracer.modes()]
    gradients = [ProgramName(kind, method) for kind in tracer.gradients() for method in methods]
    sequences = [
        ProgramName(mode, name)
        for name, sequence in tracer.port.sequences.items()
        # In train mode a batch norm makes rows depend on each other, as it has to.
        for mode in tracer.modes()[: 1 if sequence.parts else None]
    ]
    return (
        {name: partial(changed, name) for name in calls}
        | {name: partial(traced_sequence, name) for name in sequences}
        | {name: partial(trace_gradient, tracer, name) for name in gradients}
    )


def drop_unchanged_parameters(program: Program, table: LeafTable) -> Program:
    """Drop the outputs for parameters that the call does not change (nnx.SpectralNorm does change some)."""
    jaxpr = program.jaxpr.jaxpr
    inputs = dict(zip(program.inputs, jaxpr.invars, strict=True))
    outputs = dict(zip(program.outputs, jaxpr.outvars, strict=True))
    params = {OutputName(program.name, "state", leaf=name): leaf_input(name) for name in table.names("params")}
    asked = {output: before for output, before in params.items() if outputs[output] is not inputs[before]}
    values = number_program(program) if asked else {}
    changed = {
        output
        for output, before in asked.items()
        if values[output].term != input_term(before, inputs[before].aval.shape)
    }
    return select_outputs(program, tuple(one for one in program.outputs if one not in params or one in changed))


def trace_port(built_case: BuiltCase, backend: str) -> TracedPort:
    """Trace one port in its own precision.

    Raises:
        PortError: it cannot be traced.
    """
    tracer = built_case.tracers[backend]
    programs, keyed = call_user_code(backend, "tracing", partial(trace_programs, tracer))
    return TracedPort(
        tracer, programs, keyed, call_user_code(backend, "initialising", partial(_lower_initial_values, tracer))
    )


def trace_other_step(built_case: BuiltCase, before: TracedPort) -> TracedPort:
    """Trace a port whose train step alone is another one: its calls and gradients are those that are traced already.

    Args:
        built_case: the case with the other step.
        before: the port with the step that it had.

    Raises:
        PortError: its step cannot be traced.
    """
    if before.programs.step is None:
        return before
    name = before.port.name
    tracer = built_case.tracers[name]
    begin, step, own = call_user_code(name, "tracing", partial(_trace_own_training, tracer))
    programs, keyed = replace(before.programs, begin=begin, step=step), (*before.keyed[:-1], own)
    return TracedPort(tracer, programs, keyed, before.initialise, before.before or before)


def trace_port_float64(traced: TracedPort, names: frozenset[ProgramName] | None = None) -> Programs | str:
    """Trace programs in float64, or return the reason why that is impossible.

    Args:
        traced: the port.
        names: names of the programs; `begin` is included with `step`; None: all.
    """
    wanted = [part.name for part in traced.programs.parts if names is None or part.name in names]
    training_too = traced.programs.step is not None and (names is None or STEP in names)
    try:
        parts = tuple(trace_program_float64(traced, name) for name in wanted)
        begin, step = (trace_program_float64(traced, name) if training_too else None for name in (BEGIN, STEP))
        return Programs(traced.port.name, True, parts, begin, step, traced.programs.no_gradients)
    except EquivError as error:
        return f"no float64 run: {error}"


@lru_cache(maxsize=64)
def trace_program_float64(traced: TracedPort, name: ProgramName) -> Program:
    """Trace one program in float64. Cached.

    Raises:
        EquivError: it cannot be traced in float64.
    """
    if (same := traced.programs.same_in_train_mode(name)) is not None:
        return trace_program_float64(traced, same).renamed(name)
    if traced.before is not None and name not in (BEGIN, STEP):
        return trace_program_float64(traced.before, name)
    tracer = replace(traced.tracer, float64=True)
    own = (*traced.programs.parts, traced.programs.begin, traced.programs.step)
    if any(part is not None and part.name == name and _calls_host(part.jaxpr) for part in own):
        # jax calls it in a thread of its own, where 64-bit types are off whatever is on here (jax 0.10.2, callback.py).
        raise PortError(f"{tracer.port.name}: a host function is called with 32-bit floats only", port=tracer.port.name)
    trace = _program_tracers(tracer).get(name)
    with enable_x64(True):
        if trace is None:
            return _trace_training_float64(traced)[(BEGIN, STEP).index(name)]
        return call_user_code(tracer.port.name, "tracing in float64", lambda: make_draws_inputs(trace(), True))


def _calls_host(jaxpr: Any) -> bool:
    return any(eqn.primitive.name in HOST_CALLS for _, eqn in visit_equations(jaxpr))


@lru_cache(maxsize=8)
def _trace_training_float64(traced: TracedPort) -> tuple[Program, Program]:
    def trace() -> tuple[Program, Program]:
        begin, step = trace_training(replace(traced.tracer, float64=True))
        return make_draws_inputs(begin, True), make_draws_inputs(step, True)

    with enable_x64(True):
        return call_user_code(traced.port.name, "tracing in float64", trace)


def _lower_initial_values(tracer: Tracer) -> Callable[[], Mapping[InputName, Any]]:
    table, port = tracer.table, tracer.port
    state = [leaf for leaf in table.leaves if leaf.spec.collection == "state"]
    random = [key for key in port.leaves if port.collections[key] == "random"]
    if not state and not random:
        return dict

    def make(key: Any) -> dict[InputName, Any]:
        leaves = port.init(key)
        found = {leaf_input(leaf.name): leaf.to_canonical(leaves[leaf.key]) for leaf in state}
        return found | {random_input(leaf): leaves[leaf] for leaf in random}

    def start(inputs: Mapping[InputName, Any]) -> dict[OutputName, Any]:
        return {carried_output(START, name): array for name, array in make(inputs[KEY]).items()}

    key = jax.eval_shape(lambda: jax.random.key(0))
    known = None if random else _constant_outputs(drop_random_outputs(trace_function(START, start, {KEY: key})))
    if known is not None:
        return lambda: known
    lowered = jax.jit(make).lower(key)

    def started() -> Mapping[InputName, Any]:
        compiled = lowered.compile(compiler_options=FAST_COMPILE_OPTIONS)
        first, other = (compiled(jax.random.key(seed)) for seed in (0, 1))
        return {name: _replay_initial_value(name, array, other[name]) for name, array in first.items()}

    return background.run_in_background(started, short=True)


def _constant_outputs(program: Program) -> dict[InputName, np.ndarray] | None:
    """The leaves a program gives if each is filled with one known number, as zeros and ones are; otherwise None."""
    values = number_program(program)
    if any(value.constant is None for value in values.values()):
        return None
    return {
        leaf_input(name.leaf): np.full(one.shape, one.constant, numpy_dtype(one.dtype)) for name, one in values.items()
    }


def _replay_initial_value(name: InputName, array: Any, other: Any) -> Any:
    """Return an initial value; for a state leaf that the library draws, random values that depend on its name alone.

    Args:
        name: the leaf, or one of random state.
        array: its value with one key.
        other: its value with another key.
    """
    dtype = str(array.dtype)
    whole = dtype.startswith(("int", "uint"))
    if name.is_random or not (whole or dtype in INEXACT_DTYPES) or np.array_equal(array, other):
        return array
    rng = np.random.default_rng(zlib.crc32(name.leaf.encode()))
    if dtype in COMPLEX_DTYPES:
        return (rng.normal(size=array.shape) + 1j * rng.normal(size=array.shape)).astype(array.dtype)
    drawn = rng.integers(3, 9, array.shape) if whole else rng.uniform(0.3, 2.0, array.shape)
    return drawn.astype(array.dtype)
