"""Case to what its ports give: build, map, trace, compile, run on the probes."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from equiv.backends.base import Port
from equiv.errors import PortError
from equiv.evidence import depth, randomness
from equiv.evidence.execute import Executable, compile_programs, run
from equiv.evidence.rewrite import rewrite
from equiv.observed import Noise, Observed, Sample
from equiv.probe import Arrays, Probe, make_probe, nudged
from equiv.program import Program, Programs
from equiv.trace import Tracer, forward, gradient
from equiv.train import training
from equiv.variables import LeafTable
from equiv.workshop import Workshop, guarded

SEEDS = {"0": 1, "1": 2}
"""Probe name to seed: two different batches and sets of variables."""

NUDGES = 2
"""How often every input is moved by an ulp; the largest response counts."""


@dataclass(frozen=True)
class Prepared:
    """One port, ready to run: its compiled programs, native and, where possible, lifted."""

    port: Port
    table: LeafTable
    native: Executable
    lifted: Executable | None
    unlifted: str
    raw_step: Program


def trace_port(tracer: Tracer) -> tuple[Programs, Program]:
    """All programs of a port, with their draws as inputs, and the train step as it was with its own keys."""
    methods, modes = tracer.request.methods, tracer.modes()
    parts = [forward(tracer, method, mode) for method in methods for mode in modes]
    parts += [gradient(tracer, method) for method in methods]
    begin, step = training(tracer)
    rewritten = [rewrite(part, tracer.lifted) for part in (*parts, begin, step)]
    return Programs(tracer.port.backend, tracer.lifted, tuple(rewritten[:-2]), rewritten[-2], rewritten[-1]), step


def prepare(workshop: Workshop, backend: str) -> Prepared:
    """Trace and compile one port, native and lifted.

    A port that cannot be traced in float64 is judged by its native run alone, and its grade says so.

    Raises:
        PortError: it cannot be traced or compiled in its own precision.
    """
    case, built = workshop.case, workshop.built[backend]
    port, table = built.port, built.table
    tracer = Tracer(port, table, workshop.request, False, workshop.has_modes)
    probe = probes(workshop, table)[0]
    programs, raw_step = guarded(backend, "tracing", partial(trace_port, tracer))
    native = guarded(backend, "compiling", partial(compile_programs, programs, table, case.steps, probe))
    try:
        with jax.enable_x64(True):
            wide, _ = guarded(backend, "tracing in float64", partial(trace_port, replace(tracer, lifted=True)))
        lifted = guarded(backend, "compiling in float64", partial(compile_programs, wide, table, case.steps, probe))
        return Prepared(port, table, native, lifted, "", raw_step)
    except PortError as error:
        return Prepared(port, table, native, None, f"no float64 run: {error}", raw_step)


def probes(workshop: Workshop, table: LeafTable, spread: float = 1.0, seeds: Mapping[str, int] = SEEDS) -> list[Probe]:
    """The probes of a case: two, with every leaf randomised."""
    steps = workshop.case.steps
    return [make_probe(name, seed, table, workshop.entries, steps, spread) for name, seed in seeds.items()]


def sample(prepared: Prepared, probe: Probe, reference: Sample | None = None, converted: Iterable[str] = ()) -> Sample:
    """Run a port on a probe: every program, then eval again with what training left.

    Args:
        prepared: the port.
        probe: the probe; `cold` takes the library's own fresh state.
        reference: what the reference gave on it, where leaves are converted.
        converted: leaves that differ by a known formula: the eval after training takes them from the reference.
    """
    own = fresh_state(prepared) if probe.name == "cold" else {}
    runs = [(prepared.native, reference.native if reference else None)]
    if prepared.lifted is not None:
        runs.append((prepared.lifted, reference.lifted if reference else None))
    outputs = []
    for executable, theirs in runs:
        taken = {} if theirs is None else {leaf: theirs[f"train: {leaf}"][-1] for leaf in converted}
        outputs.append(_run_twice(executable, probe, own, taken))
    return Sample(outputs[0], outputs[1] if len(outputs) > 1 else None)


def _run_once(executable: Executable, probe: Probe, own: Arrays) -> Arrays:
    return guarded(executable.programs.backend, "running", partial(run, executable, probe, own))


def _run_twice(executable: Executable, probe: Probe, own: Arrays, taken: Arrays) -> Arrays:
    table = executable.table
    outputs = _run_once(executable, probe, own)
    if not table.names("state"):
        return outputs
    trained = {name: outputs[f"train: {name}"][-1] for name in table.names()} | taken
    again = _run_once(executable, replace(probe, variables={}), trained)
    mode = executable.programs.parts[0].name.partition(" ")[0]
    after = {f"after training, {name}": value for name, value in again.items() if name.startswith(f"{mode} ")}
    kept = {name: value for name, value in outputs.items() if probe.name != "cold" or name.startswith("train: ")}
    return {**kept, **after}


def fresh_state(prepared: Prepared) -> Arrays:
    """The state leaves as the library itself initialises them."""
    table, port = prepared.table, prepared.port
    wanted = [leaf for leaf in table.leaves if leaf.spec.collection == "state"]

    def make(key: Any) -> dict[str, Any]:
        leaves = port.fresh(key)
        return {leaf.name: leaf.layout.to_canonical(leaves[leaf.key]) for leaf in wanted}

    made = guarded(port.backend, "initialising", lambda: jax.device_get(jax.jit(make)(jax.random.key(0))))
    return {name: np.asarray(value) for name, value in made.items()}


def noise_of(prepared: Prepared, given: Mapping[str, Sample], all_probes: list[Probe]) -> Noise:
    """How far the reference moves when each of its inputs moves by one ulp, in both precisions."""
    responses: tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]] = ({}, {})
    for probe in all_probes:
        own = fresh_state(prepared) if probe.name == "cold" else {}
        # The first is not moved at all: where the same run twice gives two answers, that is noise too.
        for seed in range(NUDGES + 1):
            for lifted, executable in ((False, prepared.native), (True, prepared.lifted)):
                base = given[probe.name].lifted if lifted else given[probe.name].native
                if executable is None or base is None:
                    continue
                given_probe = probe if seed == 0 else nudged(probe, seed, "float64" if lifted else None)
                moved = _run_twice(executable, given_probe, own, {})
                known = responses[lifted].setdefault(probe.name, {})
                for place, value in _responses(base, moved):
                    known[place] = max(known.get(place, 0.0), value)
    return Noise(*responses, depths_of(prepared.native))


def _responses(base: Mapping[str, np.ndarray], moved: Mapping[str, np.ndarray]) -> Iterator[tuple[str, float]]:
    for place, array in base.items():
        if "float" in str(array.dtype):
            with np.errstate(invalid="ignore"):  # inf - inf; what is not finite is left out below, and refused later
                apart = np.abs(moved[place].astype("float64") - array.astype("float64"))
            yield place, float(np.max(apart[np.isfinite(apart)], initial=0.0))


def depths_of(executable: Executable) -> dict[str, int]:
    """Output to rounded operations in a row; training counts every step, and what follows it counts it too."""
    programs = executable.programs
    found = {f"{part.name}: {name}": value for part in programs.parts for name, value in depth.depths(part).items()}
    if programs.step is None:
        return found
    per_step = depth.depths(programs.step)
    trained = max(per_step.values(), default=1) * executable.steps
    found |= {f"train: {name}": trained for name in per_step}
    return found | {f"after training, {name}": value + trained for name, value in list(found.items())}


def outline(workshop: Workshop, backend: str) -> Observed:
    """What is known of a port before it runs: its leaves."""
    return _observed(workshop.built[backend].port, workshop.built[backend].table)


def observe(prepared: Prepared, samples: Mapping[str, Sample]) -> Observed:
    """What checks are told of a port."""
    programs = prepared.native.programs
    every = [*programs.parts, *(part for part in (programs.step,) if part is not None)]
    reused, drawn = randomness.reused_draws(prepared.port, prepared.raw_step)
    return replace(
        _observed(prepared.port, prepared.table),
        samples=samples,
        draws={program.name: program.draws for program in every},
        unlifted=prepared.unlifted,
        reused=reused,
        drawn=drawn,
    )


def _observed(port: Port, table: LeafTable) -> Observed:
    kept = {key: tuple(leaf.shape) for key, leaf in port.leaves.items() if port.collections[key] != "random"}
    return Observed(table, len(port.leaves) - len(kept), {}, {}, kept)


def cold_probe(warm: Probe, table: LeafTable) -> Probe:
    """Training from fresh state: the parameters and batches of a probe, and no state, which each library brings."""
    params = {name: array for name, array in warm.variables.items() if table[name].spec.collection == "params"}
    return Probe("cold", warm.seed, params, warm.batches)
