"""One port as programs: traced in its own precision, and, when asked, in float64."""

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from equiv.backends.base import Port
from equiv.errors import EquivError
from equiv.evidence.execute import QUICK
from equiv.evidence.number import input_term, number_program
from equiv.evidence.rewrite import rewrite, select
from equiv.probe import Arrays
from equiv.program import Program, Programs
from equiv.trace import Tracer, forward, gradient
from equiv.train import training
from equiv.variables import LeafTable
from equiv.workshop import Workshop, guarded


@dataclass(frozen=True, eq=False)
class Traced:
    """One port as programs in its own precision.

    Attributes:
        tracer: with which it was traced.
        programs: its programs, with their draws as inputs.
        raw_step: the train step as it was, with its own keys.
        fresh: the state leaves as the library itself initialises them.
    """

    tracer: Tracer
    programs: Programs
    raw_step: Program
    fresh: Arrays

    @property
    def port(self) -> Port:
        """The port."""
        return self.tracer.port

    @property
    def table(self) -> LeafTable:
        """Its leaf table."""
        return self.tracer.table


def trace_programs(tracer: Tracer) -> tuple[Programs, Program]:
    """All programs of a port, with their draws as inputs, and the train step as it was with its own keys."""
    methods, modes = tracer.request.methods, tracer.modes()
    parts = [changed_only(forward(tracer, method, mode), tracer.table) for method in methods for mode in modes]
    parts += [gradient(tracer, method) for method in methods]
    begin, step = training(tracer)
    rewritten = [rewrite(part, tracer.lifted) for part in (*parts, begin, step)]
    return Programs(tracer.port.backend, tracer.lifted, tuple(rewritten[:-2]), rewritten[-2], rewritten[-1]), step


def changed_only(program: Program, table: LeafTable) -> Program:
    """A forward program without the parameters that the call leaves as they are (nnx.SpectralNorm changes its own)."""
    values = number_program(program)
    same = {f"state {name}" for name in table.names("params") if values[f"state {name}"].term == input_term(name)}
    return select(program, tuple(output for output in program.outputs if output not in same))


def trace_port(workshop: Workshop, backend: str) -> Traced:
    """Trace one port in its own precision.

    Raises:
        PortError: it cannot be traced.
    """
    built = workshop.built[backend]
    tracer = Tracer(built.port, built.table, workshop.request, False, workshop.has_modes)
    programs, raw_step = guarded(backend, "tracing", partial(trace_programs, tracer))
    return Traced(tracer, programs, raw_step, _fresh_state(tracer))


@lru_cache(maxsize=8)
def lift_port(traced: Traced) -> Programs | str:
    """The same programs in float64, or the reason why there are none."""
    tracer = replace(traced.tracer, lifted=True)
    try:
        with jax.enable_x64(True):
            programs, _ = guarded(tracer.port.backend, "tracing in float64", partial(trace_programs, tracer))
        return programs
    except EquivError as error:
        return f"no float64 run: {error}"


def only(programs: Programs, names: frozenset[str]) -> Programs:
    """Some of the programs of a port; `begin` and `step` stand or fall together."""
    parts = tuple(part for part in programs.parts if part.name in names)
    training_too = "step" in names
    return replace(
        programs,
        parts=parts,
        begin=programs.begin if training_too else None,
        step=programs.step if training_too else None,
    )


def _fresh_state(tracer: Tracer) -> Arrays:
    table, port = tracer.table, tracer.port
    wanted = [leaf for leaf in table.leaves if leaf.spec.collection == "state"]
    if not wanted:
        return {}

    def make(key: Any) -> dict[str, Any]:
        leaves = port.fresh(key)
        return {leaf.name: leaf.layout.to_canonical(leaves[leaf.key]) for leaf in wanted}

    compiled = jax.jit(make, compiler_options=QUICK)
    made = guarded(port.backend, "initialising", lambda: jax.device_get(compiled(jax.random.key(0))))
    return {name: np.asarray(value) for name, value in made.items()}
