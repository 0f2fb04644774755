"""One port as programs: traced in its own precision, and, when asked, in float64."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from equiv.backends.base import Port
from equiv.backends.build import guarded
from equiv.core.batch_spec import FLOATS
from equiv.core.leaves import LeafTable
from equiv.errors import EquivError
from equiv.programs import compile_thread as background
from equiv.programs.built_case import Workshop
from equiv.programs.compiled import QUICK
from equiv.programs.probes import Arrays, numpy_dtype
from equiv.programs.program import Program, Programs
from equiv.programs.prover.value_numbering import input_term, number_program
from equiv.programs.trace import Tracer, forward, gradient, trace
from equiv.programs.train_step import training
from equiv.programs.transform import prune, rewrite, select


@dataclass(frozen=True, eq=False)
class Traced:
    """One port as programs in its own precision.

    Attributes:
        tracer: with which it was traced.
        programs: its programs, with their draws as inputs.
        raw_step: the train step as it was, with its own keys.
        start: gives what the library itself initialises: state leaves by name, and random state as `random/path`.
    """

    tracer: Tracer
    programs: Programs
    raw_step: Program
    start: Callable[[], Mapping[str, Any]]

    @property
    def port(self) -> Port:
        """The port."""
        return self.tracer.port

    @property
    def table(self) -> LeafTable:
        """Its leaf table."""
        return self.tracer.table

    @property
    def fresh(self) -> Arrays:
        """The state leaves as the library itself initialises them; what it draws is replayed."""
        return {name: np.asarray(value) for name, value in self._started().items() if not name.startswith("random/")}

    def random(self) -> Mapping[str, Any]:
        """The library's own random state as it initialises it, as `random/path`."""
        return {name: value for name, value in self._started().items() if name.startswith("random/")}

    def _started(self) -> Mapping[str, Any]:
        return guarded(self.port.backend, "initialising", self.start)


def trace_programs(tracer: Tracer) -> tuple[Programs, Program]:
    """All programs of a port, with their draws as inputs, and the train step as it was with its own keys."""
    parts = tuple(rewrite(trace(), tracer.lifted) for trace in _parts(tracer).values())
    begin, step = training(tracer)
    ready = (rewrite(begin, tracer.lifted), rewrite(step, tracer.lifted))
    return Programs(tracer.port.backend, tracer.lifted, parts, *ready), step


def _parts(tracer: Tracer) -> dict[str, Callable[[], Program]]:
    """Name of every forward and gradient program to what traces it."""

    def changed(method: str, mode: str) -> Program:
        return changed_only(forward(tracer, method, mode), tracer.table)

    methods = tracer.request.methods
    calls = {f"{mode} {method}": partial(changed, method, mode) for method in methods for mode in tracer.modes()}
    return calls | {f"gradient {method}": partial(gradient, tracer, method) for method in methods}


def changed_only(program: Program, table: LeafTable) -> Program:
    """A forward program without the parameters that the call leaves as they are (nnx.SpectralNorm changes its own)."""
    jaxpr = program.jaxpr.jaxpr
    inputs = dict(zip(program.inputs, jaxpr.invars, strict=True))
    outputs = dict(zip(program.outputs, jaxpr.outvars, strict=True))
    asked = [name for name in table.names("params") if outputs[f"state {name}"] is not inputs[name]]
    values = number_program(program) if asked else {}
    changed = {f"state {name}" for name in asked if values[f"state {name}"].term != input_term(name)}
    same = {f"state {name}" for name in table.names("params")} - changed
    return select(program, tuple(output for output in program.outputs if output not in same))


def trace_port(workshop: Workshop, backend: str) -> Traced:
    """Trace one port in its own precision.

    Raises:
        PortError: it cannot be traced.
    """
    tracer = workshop.tracers[backend]
    programs, raw_step = guarded(backend, "tracing", partial(trace_programs, tracer))
    return Traced(tracer, programs, raw_step, guarded(backend, "initialising", partial(_begin_start, tracer)))


def lift_port(traced: Traced, names: frozenset[str] | None = None) -> Programs | str:
    """Programs in float64, or the reason why there are none.

    Args:
        traced: the port.
        names: of the programs; `begin` comes with `step`; None: all.
    """
    wanted = [part.name for part in traced.programs.parts if names is None or part.name in names]
    training_too = traced.programs.step is not None and (names is None or "step" in names)
    try:
        parts = tuple(lift_program(traced, name) for name in wanted)
        begin, step = (lift_program(traced, name) if training_too else None for name in ("begin", "step"))
        return Programs(traced.port.backend, True, parts, begin, step)
    except EquivError as error:
        return f"no float64 run: {error}"


@lru_cache(maxsize=64)
def lift_program(traced: Traced, name: str) -> Program:
    """One program in float64.

    Raises:
        EquivError: it cannot be traced so.
    """
    tracer = replace(traced.tracer, lifted=True)
    trace = _parts(tracer).get(name)
    with jax.enable_x64(True):
        if trace is None:
            return _lift_training(traced)[("begin", "step").index(name)]
        return guarded(tracer.port.backend, "tracing in float64", lambda: rewrite(trace(), True))


@lru_cache(maxsize=8)
def _lift_training(traced: Traced) -> tuple[Program, Program]:
    def trace() -> tuple[Program, Program]:
        begin, step = training(replace(traced.tracer, lifted=True))
        return rewrite(begin, True), rewrite(step, True)

    with jax.enable_x64(True):
        return guarded(traced.port.backend, "tracing in float64", trace)


def _begin_start(tracer: Tracer) -> Callable[[], Mapping[str, Any]]:
    table, port = tracer.table, tracer.port
    state = [leaf for leaf in table.leaves if leaf.spec.collection == "state"]
    random = [key for key in port.leaves if port.collections[key] == "random"]
    if not state and not random:
        return dict

    def make(key: Any) -> dict[str, Any]:
        leaves = port.fresh(key)
        found = {leaf.name: leaf.to_canonical(leaves[leaf.key]) for leaf in state}
        return found | {f"random/{leaf.path}": leaves[leaf] for leaf in random}

    key = jax.eval_shape(lambda: jax.random.key(0))
    known = None if random else _constants(prune(trace("start", lambda inputs: make(inputs["key"]), {"key": key})))
    if known is not None:
        return lambda: known
    lowered = jax.jit(make).lower(key)

    def started() -> Mapping[str, Any]:
        compiled = lowered.compile(compiler_options=QUICK)
        first, other = (compiled(jax.random.key(seed)) for seed in (0, 1))
        return {name: _replayed(name, array, other[name]) for name, array in first.items()}

    return background.begin(started, short=True)


def _constants(program: Program) -> Arrays | None:
    """A program's outputs, where each is one number everywhere, as zeros and ones are; nothing need be compiled."""
    values = number_program(program)
    if any(value.constant is None for value in values.values()):
        return None
    return {name: np.full(one.shape, one.constant, numpy_dtype(one.dtype)) for name, one in values.items()}


def _replayed(name: str, array: Any, other: Any) -> Any:
    """A fresh value; of a state leaf that a library draws, as any draw is replayed: one that hangs on its name alone.

    Args:
        name: the leaf, or `random/path`.
        array: what is drawn with one key.
        other: and with another.
    """
    dtype = str(array.dtype)
    whole = dtype.startswith(("int", "uint"))
    if name.startswith("random/") or not (whole or dtype in FLOATS) or np.array_equal(array, other):
        return array
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    drawn = rng.integers(3, 9, array.shape) if whole else rng.uniform(0.3, 2.0, array.shape)
    return drawn.astype(array.dtype)
