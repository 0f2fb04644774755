"""A case's ports as things that can be timed: staged one phase after the other, then called again and again."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jax.extend.core import jaxpr_as_fun

from equiv.backends.base import Leaves, Port, Running, Written
from equiv.backends.user_programs import copied
from equiv.bench import hlo
from equiv.bench import hlo_diff as same_hlo
from equiv.bench.blocks import Clock
from equiv.core.timings import Phase, ProgramCost
from equiv.errors import PortError
from equiv.programs.jaxpr import equations

SEED = 404


STAGES: tuple[Phase, ...] = ("trace", "lower", "compile", "first call")
"""The phases that a program goes through once."""


CALLS_FOR_RETRACES = 3


CACHE = "jax_enable_compilation_cache"


@dataclass(frozen=True, order=True)
class Contender:
    """Whose program is called how; `again` for the reference beside itself, the control."""

    backend: str
    runner: str
    again: bool = False


@dataclass(frozen=True)
class Bench:
    """Built ports with the values that they are timed on; every call of `written` gives programs not yet traced.

    Attributes:
        ports: backend to port, the reference first.
        native: backend to its leaves.
        batch: batch entry to array.
        key: of the randomness.
    """

    ports: Mapping[str, Port]
    native: Mapping[str, Leaves]
    batch: Mapping[str, Any]
    key: Any = field(default_factory=lambda: jax.random.key(SEED))

    @property
    def reference(self) -> str:
        """The backend that all others are divided by."""
        return next(iter(self.ports))

    def written(self, backend: str, program: str) -> list[Written]:
        """One program of one port, as many ways as its library's users call it.

        Raises:
            PortError: the backend writes none.
        """
        write = self.ports[backend].written
        if write is None:
            raise PortError(f"{backend}: its backend gives no programs to time. Give its Port `written`.")
        return [one for one in write(self.native[backend], self.batch, self.key) if one.program == program]


def filled(struct: Any, rng: np.random.Generator) -> Any:
    """An array of that shape and dtype whose values keep a deep model finite; integers are 1, keys are keys."""
    if _is_key(struct.dtype):
        return jax.random.split(jax.random.key(SEED), struct.shape) if struct.shape else jax.random.key(SEED)
    if not jnp.issubdtype(struct.dtype, jnp.floating):
        return jnp.ones(struct.shape, struct.dtype)
    if len(struct.shape) < 2:
        return jnp.asarray(rng.uniform(0.5, 1.5, struct.shape), struct.dtype)
    return jnp.asarray(rng.normal(size=struct.shape) * struct.shape[-2] ** -0.5, struct.dtype)


def _is_key(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jax.dtypes.prng_key)


@dataclass
class Staged:
    """A program that has been traced, lowered, compiled and called once.

    Attributes:
        written: what it was.
        running: after its first call.
        jaxpr: traced.
        text: optimised HLO.
        compiled: for XLA's own analyses.
        seconds: per phase.
    """

    written: Written
    running: Running
    jaxpr: Any
    text: str
    compiled: Any
    seconds: dict[Phase, float]


def warm(written: Written) -> None:
    """Trace and lower, and forget it: what a library keeps of a first trace is kept from then on."""
    positional, keywords = written.start().given
    written.function.trace(*positional, **keywords).lower()


def stage(written: Written, clock: Clock) -> Staged:
    """Trace, lower, compile and call a program for the first time, each timed by itself.

    The call finds what was compiled before it: jax keeps it with the jitted function (seen with jax 0.10.2 to 0.12.0).
    """
    running = written.start()
    positional, keywords = running.given
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
    running.after(outputs)
    seconds = dict(zip(STAGES, np.diff(marks).tolist(), strict=True))
    jaxpr = getattr(traced, "traced", traced).jaxpr  # nnx.jit wraps what jax.jit gives
    return Staged(written, running, jaxpr, compiled.as_text(), compiled, seconds)


@dataclass
class Alone:
    """The compiled program by itself, called with a flat list of arrays: what is left of a step without its library."""

    compiled: Callable[..., Any]
    arrays: list[Any]

    def call(self) -> Any:
        """Run it."""
        return self.compiled(*self.arrays)

    def wait(self, outputs: Any) -> None:
        """Until it has run."""
        jax.block_until_ready(outputs)

    def after(self, outputs: Any) -> None:
        """The same arrays again."""


def alone(staged: Staged) -> tuple[Callable[[], Alone], Callable[[], Alone]]:
    """The program of a staged one, and an empty one of as many arrays; each call makes one with buffers of its own.

    What a program takes beyond the empty one is its own work: handing over arrays costs as much in both.
    """
    arrays = staged.written.flat(staged.written.start())
    dtypes = [np.dtype("uint32") if _is_key(out.dtype) else out.dtype for out in staged.jaxpr.out_avals]

    def nothing(*_: Any) -> list[Any]:
        return [jnp.zeros((), dtype) for dtype in dtypes]

    whole, empty = (
        jax.jit(function, keep_unused=True).lower(*arrays).compile()
        for function in (jaxpr_as_fun(staged.jaxpr), nothing)
    )
    return lambda: Alone(whole, copied(arrays)), lambda: Alone(empty, copied(arrays))


def retraces(staged: Staged) -> int:
    """Traces in further calls, each with what the last one returned; a step may change a dtype and be traced again."""
    with traces() as seen:
        for _ in range(CALLS_FOR_RETRACES):
            outputs = staged.running.call()
            staged.running.wait(outputs)
            staged.running.after(outputs)
    return len(seen)


@contextmanager
def traces() -> Iterator[list[str]]:
    """Every trace that JAX reports meanwhile."""
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
    """Without the persistent compilation cache: reading a file is not compiling."""
    before = getattr(jax.config, CACHE)
    _switch(False)
    try:
        yield
    finally:
        _switch(before)


def _switch(on: bool) -> None:
    """jax 0.11 looks at the setting once, before its first compilation, and again after a reset, which keeps files."""
    jax.config.update(CACHE, on)
    compilation_cache.reset_cache()


def program_cost(contender: Contender, staged: Staged, reference: Staged) -> ProgramCost:
    """What can be counted of a compiled program."""
    analysis = staged.compiled.cost_analysis() or {}
    memory = staged.compiled.memory_analysis()
    differs = same_hlo.difference(reference.text, staged.text)
    return ProgramCost(
        backend=contender.backend,
        program=staged.written.program,
        runner=contender.runner,
        equations=equations(staged.jaxpr),
        instructions=hlo.instructions(staged.text),
        flops=_known(analysis.get("flops")),
        bytes=_known(analysis.get("bytes accessed")),
        peak_bytes=getattr(memory, "peak_memory_in_bytes", None) or None,
        retraces=retraces(staged),
        identical=not differs,
        differs=differs,
    )


def _known(number: float | None) -> float | None:
    """XLA says -1 where it does not know."""
    return None if number is None or number < 0 else float(number)
