"""What each port of a case costs: every program of every port, timed beside the reference's."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from equiv.backends.leaf_table import to_native
from equiv.backends.user_programs import PROGRAMS
from equiv.bench.blocks import Clock
from equiv.bench.measure import measure
from equiv.bench.stages import SEED, Bench, filled, uncached
from equiv.core.timings import CaseCosts
from equiv.errors import NotRun
from equiv.programs.built_case import Workshop
from equiv.programs.probes import make_probe, with_own

Progress = Callable[[str], None]
"""Told what is being done."""


def price(
    workshop: Workshop,
    withheld: Mapping[str, str],
    seconds: float,
    progress: Progress = lambda _: None,
    clock: Clock = time.perf_counter,
) -> CaseCosts:
    """Every program of every port that is not withheld, timed beside the reference's.

    Args:
        workshop: the case with its ports built.
        withheld: candidate to the reason why it is not timed.
        seconds: for how long to measure; a large program takes longer, since some must be measured.
        progress: told what is being done.
        clock: seconds.

    Raises:
        EquivError: the reference cannot be timed.
        NotRun: pytest-xdist runs several processes at once.
    """
    refuse_under_xdist()
    started, load = clock(), _load()
    out = {**{backend: str(problem) for backend, problem in workshop.problems.items()}, **withheld}
    bench, found = bench_of(workshop, out), CaseCosts(withheld=out)
    with uncached():
        for program in PROGRAMS:
            progress(program)
            found = joined(found, measure(bench, program, found.withheld, seconds / len(PROGRAMS), clock))
    return replace(found, seconds=round(clock() - started, 3), load=(*load, *_load()))


def joined(one: CaseCosts, other: CaseCosts) -> CaseCosts:
    """What both have measured."""
    return CaseCosts(
        timings=one.timings + other.timings,
        programs=one.programs + other.programs,
        growth=one.growth + other.growth,
        parts=one.parts + other.parts,
        withheld={**one.withheld, **other.withheld},
    )


def refuse_under_xdist() -> None:
    """Raise in a worker of pytest-xdist: its workers would time each other.

    Raises:
        NotRun: always there.
    """
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        raise NotRun(f"timing: the pytest-xdist worker {worker} shares the machine with others. Run it without -n.")


def _load() -> tuple[float, ...]:
    return (round(os.getloadavg()[0], 2),) if hasattr(os, "getloadavg") else ()


def bench_of(workshop: Workshop, withheld: Mapping[str, str]) -> Bench:
    """The ports with the same variables and batch for all, as a probe has them."""
    first = next(iter(workshop.case.models))
    if problem := workshop.problems.get(first):
        raise problem
    probe = make_probe("timing", SEED, workshop.built[first].table, workshop.entries, 1)
    ports, native = {}, {}
    for backend, built in workshop.built.items():
        if backend in withheld:
            continue
        rng, table = np.random.default_rng(SEED), built.table
        known: dict[Any, Any] = to_native(table, with_own(table, probe.variables), False)
        ports[backend] = built.port
        native[backend] = {
            key: jnp.asarray(known[key]) if key in known else filled(struct, rng)
            for key, struct in built.port.leaves.items()
        }
    return Bench(ports, native, {name: jnp.asarray(array[0]) for name, array in probe.batches.items()})
