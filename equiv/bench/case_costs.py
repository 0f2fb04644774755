"""What each port of a case costs: every program of every port, timed together with the reference's."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from equiv.backends.leaf_table import to_native_leaves
from equiv.backends.user_programs import PROGRAMS
from equiv.bench.blocks import Clock
from equiv.bench.measure import measure
from equiv.bench.stages import BENCH_SEED, Bench, random_leaf, uncached
from equiv.core.timings import CaseCosts
from equiv.errors import NotRun
from equiv.programs.built_case import BuiltCase
from equiv.programs.probes import add_library_only_leaves, make_probe

CostProgress = Callable[[str], None]
"""Called with what is being done."""


def measure_costs(
    built_case: BuiltCase,
    withheld: Mapping[str, str],
    seconds: float,
    progress: CostProgress = lambda _: None,
    clock: Clock = time.perf_counter,
) -> CaseCosts:
    """Time every program of every port that is not withheld, together with the reference's.

    Args:
        built_case: the case with its ports built.
        withheld: candidate to the reason why it is not timed.
        seconds: for how long to measure; a large program takes longer, since a minimum is always measured.
        progress: called with what is being done.
        clock: seconds.

    Raises:
        EquivError: the reference cannot be timed.
        NotRun: pytest-xdist runs several processes at once.
    """
    refuse_under_xdist()
    started, load = clock(), _load()
    out = {**{backend: str(problem) for backend, problem in built_case.problems.items()}, **withheld}
    bench, found = make_bench(built_case, out), CaseCosts(withheld=out)
    with uncached():
        for program in PROGRAMS:
            progress(program)
            found = merge_costs(found, measure(bench, program, found.withheld, seconds / len(PROGRAMS), clock))
    return replace(found, seconds=round(clock() - started, 3), load=(*load, *_load()))


def merge_costs(one: CaseCosts, other: CaseCosts) -> CaseCosts:
    """The costs that both have measured, as one."""
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
        NotRun: always in such a worker.
    """
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        raise NotRun(
            f"timing: the pytest-xdist worker {worker} shares the machine with others.", fix="Run it without -n."
        )


def _load() -> tuple[float, ...]:
    return (round(os.getloadavg()[0], 2),) if hasattr(os, "getloadavg") else ()


def make_bench(built_case: BuiltCase, withheld: Mapping[str, str]) -> Bench:
    """The ports with the same variables and batch for all, those of one probe."""
    first = next(iter(built_case.case.models))
    if problem := built_case.problems.get(first):
        raise problem
    probe = make_probe("timing", BENCH_SEED, built_case.built[first].table, built_case.entries, 1)
    ports, native = {}, {}
    for backend, built in built_case.built.items():
        if backend in withheld:
            continue
        rng, table = np.random.default_rng(BENCH_SEED), built.table
        known: dict[Any, Any] = to_native_leaves(table, add_library_only_leaves(table, probe.variables), False)
        ports[backend] = built.port
        native[backend] = {
            key: jnp.asarray(known[key]) if key in known else random_leaf(struct, rng)
            for key, struct in built.port.leaves.items()
        }
    return Bench(ports, native, {name: jnp.asarray(array[0]) for name, array in probe.batches.items()})
