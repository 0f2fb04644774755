"""A case's ports as programs to time: each phase up to the first call once, then repeated calls."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jax.extend.core import jaxpr_as_fun

from equiv.backends.base import Leaves, Port, ProgramRun, UserProgram
from equiv.backends.user_programs import copy_arrays
from equiv.bench import hlo, hlo_diff
from equiv.bench.blocks import Clock
from equiv.core.timings import Phase, ProgramCost
from equiv.errors import PortError
from equiv.programs.jaxpr import count_equations

BENCH_SEED = 404

STAGES: tuple[Phase, ...] = ("trace", "lower", "compile", "first call")
"""The phases that a program goes through once."""

CALLS_FOR_RETRACES = 3

CACHE = "jax_enable_compilation_cache"


@dataclass(frozen=True, order=True)
class TimedRunner:
    """Whose program is called how; `is_control` for the second run of the reference, the control."""

    backend: str
    runner: str
    is_control: bool = False


@dataclass(frozen=True)
class Bench:
    """Built ports with the values that they are timed on; every call of `written` returns programs not yet traced.

    Attributes:
        ports: backend to port, the reference first.
        native: backend to its leaves.
        batch: batch entry to array.
        key: the PRNG key.
    """

    ports: Mapping[str, Port]
    native: Mapping[str, Leaves]
    batch: Mapping[str, Any]
    key: Any = field(default_factory=lambda: jax.random.key(BENCH_SEED))

    @property
    def reference(self) -> str:
        """The backend whose times all others are divided by."""
        return next(iter(self.ports))

    def written(self, backend: str, program: str) -> list[UserProgram]:
        """One program of one port, in each way that its library's users call it.

        Raises:
            PortError: the backend defines none.
        """
        write = self.ports[backend].user_programs
        if write is None:
            raise PortError(
                f"{backend}: its backend defines no programs to time.", fix="Set `written` of its Port.", port=backend
            )
        return [one for one in write(self.native[backend], self.batch, self.key) if one.program == program]


def random_leaf(struct: Any, rng: np.random.Generator) -> Any:
    """An array of that shape and dtype whose values keep a deep model finite; integers are 1, keys are keys."""
    if _is_key_dtype(struct.dtype):
        return (
            jax.random.split(jax.random.key(BENCH_SEED), struct.shape) if struct.shape else jax.random.key(BENCH_SEED)
        )
    if not jnp.issubdtype(struct.dtype, jnp.floating):
        return jnp.ones(struct.shape, struct.dtype)
    if len(struct.shape) < 2:
        return jnp.asarray(rng.uniform(0.5, 1.5, struct.shape), struct.dtype)
    return jnp.asarray(rng.normal(size=struct.shape) * struct.shape[-2] ** -0.5, struct.dtype)


def _is_key_dtype(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jax.dtypes.prng_key)


@dataclass
class CompiledVariant:
    """A program that has been traced, lowered, compiled and called once.

    Attributes:
        written: the program before that.
        running: its state after the first call.
        jaxpr: as traced.
        text: optimised HLO.
        compiled: for XLA's own analyses.
        seconds: per phase.
    """

    written: UserProgram
    running: ProgramRun
    jaxpr: Any
    text: str
    compiled: Any
    seconds: dict[Phase, float]


def warm_up(written: UserProgram) -> None:
    """Trace and lower once without measuring, which fills the caches of the library."""
    positional, keywords = written.start().arguments
    written.function.trace(*positional, **keywords).lower()


def compile_variant(written: UserProgram, clock: Clock) -> CompiledVariant:
    """Trace, lower, compile and call a program for the first time, each timed by itself.

    The call reuses what was compiled before it: jax caches it in the jitted function (seen with jax 0.10.2 to 0.12.0).
    """
    running = written.start()
    positional, keywords = running.arguments
    marks = [clock()]
    traced = written.function.trace(*positional, **keywords)
    marks.append(clock())
    lowered = traced.lower()
    marks.append(clock())
    compiled = lowered.compile()
    marks.append(clock())
    outputs = running.call()
    running.wait(outputs)
    marks.append(clock())
    running.advance(outputs)
    seconds = dict(zip(STAGES, np.diff(marks).tolist(), strict=True))
    jaxpr = getattr(traced, "traced", traced).jaxpr  # nnx.jit wraps the result of jax.jit
    return CompiledVariant(written, running, jaxpr, compiled.as_text(), compiled, seconds)


@dataclass
class BareProgram:
    """The compiled program by itself, called with a flat list of arrays: a step without its library."""

    compiled: Callable[..., Any]
    arrays: list[Any]

    def call(self) -> Any:
        """Run it."""
        return self.compiled(*self.arrays)

    def wait(self, outputs: Any) -> None:
        """Block until it has run."""
        jax.block_until_ready(outputs)

    def advance(self, outputs: Any) -> None:
        """Keep the same arrays."""


def bare_program(variant: CompiledVariant) -> tuple[Callable[[], BareProgram], Callable[[], BareProgram]]:
    """The bare program of a compiled variant, and an empty one of as many arrays; each call makes one with own buffers.

    The time that a program takes beyond the empty one is its own work: passing the arrays costs the same in both.
    """
    arrays = variant.written.flat_arguments(variant.written.start())
    dtypes = [np.dtype("uint32") if _is_key_dtype(out.dtype) else out.dtype for out in variant.jaxpr.out_avals]

    def nothing(*_: Any) -> list[Any]:
        return [jnp.zeros((), dtype) for dtype in dtypes]

    whole, empty = (
        jax.jit(function, keep_unused=True).lower(*arrays).compile()
        for function in (jaxpr_as_fun(variant.jaxpr), nothing)
    )
    return lambda: BareProgram(whole, copy_arrays(arrays)), lambda: BareProgram(empty, copy_arrays(arrays))


def retraces(variant: CompiledVariant) -> int:
    """Traces in further calls, each with the outputs of the last one: a step may change a dtype and be retraced."""
    with traces() as seen:
        for _ in range(CALLS_FOR_RETRACES):
            outputs = variant.running.call()
            variant.running.wait(outputs)
            variant.running.advance(outputs)
    return len(seen)


@contextmanager
def traces() -> Iterator[list[str]]:
    """Collect every trace that JAX reports in the meantime."""
    seen: list[str] = []

    def listen(event: str, *_: Any, **__: Any) -> None:
        if event.endswith("/jaxpr_trace_duration"):
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@contextmanager
def uncached() -> Iterator[None]:
    """Disable the persistent compilation cache: reading a file is not compiling."""
    before = getattr(jax.config, CACHE)
    _switch(False)
    try:
        yield
    finally:
        _switch(before)


def _switch(on: bool) -> None:
    """Set the cache; jax 0.11 reads the setting only before its first compilation and after a reset (keeps files)."""
    jax.config.update(CACHE, on)
    compilation_cache.reset_cache()


def program_cost(runner: TimedRunner, variant: CompiledVariant, reference: CompiledVariant) -> ProgramCost:
    """Everything that can be counted of a compiled program."""
    analysis = variant.compiled.cost_analysis() or {}
    memory = variant.compiled.memory_analysis()
    differs = hlo_diff.difference(reference.text, variant.text)
    return ProgramCost(
        backend=runner.backend,
        program=variant.written.program,
        runner=runner.runner,
        equations=count_equations(variant.jaxpr),
        instructions=hlo.instructions(variant.text),
        flops=_known_cost(analysis.get("flops")),
        bytes=_known_cost(analysis.get("bytes accessed")),
        peak_bytes=getattr(memory, "peak_memory_in_bytes", None) or None,
        retraces=retraces(variant),
        identical=not differs,
        differs=differs,
    )


def _known_cost(number: float | None) -> float | None:
    """The number, or None: XLA reports -1 where it has none."""
    return None if number is None or number < 0 else float(number)
