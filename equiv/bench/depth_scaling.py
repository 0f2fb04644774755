"""How cost grows with depth: the same model with more and more layers, unrolled and scanned."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

import jax.numpy as jnp
import numpy as np

from equiv.backends.base import PortSpec
from equiv.backends.batches import resolve_batch
from equiv.backends.build import call_user_code, identify_library, port_spec
from equiv.backends.registry import load_backend
from equiv.bench import hlo
from equiv.bench.blocks import Clock, collect_blocks
from equiv.bench.measure import block_values, call_blocks
from equiv.bench.measurement import begin_measurement
from equiv.bench.stages import BENCH_SEED, STAGES, Bench, random_leaf, uncached
from equiv.core.batch_spec import BatchEntry
from equiv.core.case import Builder, Case
from equiv.core.leaves import LeafTable
from equiv.core.timings import PHASES, Growth
from equiv.errors import NotRun
from equiv.programs.jaxpr import count_equations
from equiv.programs.probes import make_probe

PROGRAM = "gradients"

DepthForm = Literal["unrolled", "scanned"]


def measure_growth(
    case: Case,
    withheld: Mapping[str, str],
    seconds: float,
    progress: Callable[[str], None] = lambda _: None,
    clock: Clock = time.perf_counter,
) -> tuple[Growth, ...]:
    """Time every phase of the gradients at every depth that the case names; nothing where it names none.

    Args:
        case: the case.
        withheld: backends that are not timed.
        seconds: for how long to measure; each depth is measured at least once.
        progress: called with what is being done.
        clock: seconds.

    Raises:
        EquivError: a model cannot be built or timed.
        NotRun: every model is withheld.
    """
    if case.depths is None:
        return ()
    request, entries = port_spec(resolve_batch(case))
    forms: tuple[tuple[DepthForm, Mapping[str, Builder]], ...] = (
        ("unrolled", case.depths.unrolled),
        ("scanned", case.depths.scanned),
    )
    share = seconds / (len(forms) * len(case.depths.layers))
    found: list[Growth] = []
    with uncached():
        for form, builders in forms:
            for depth in case.depths.layers:
                progress(f"{depth} layers {form}")
                used = {backend: builder for backend, builder in builders.items() if backend not in withheld}
                if not used:
                    raise NotRun(f"nothing to time at {depth} layers: every model of `{form}` is withheld.")
                found += _growth_at_depth(_bench_at_depth(used, depth, request, entries), form, depth, share, clock)
    return tuple(found)


def _bench_at_depth(
    builders: Mapping[str, Builder], depth: int, request: PortSpec, entries: Mapping[str, BatchEntry]
) -> Bench:
    ports, native = {}, {}
    for name, builder in builders.items():
        at_depth = partial(builder, num_layers=depth)
        build, spec = load_backend(identify_library(name, at_depth).name, name).build, replace(request, port=name)
        ports[name] = call_user_code(name, f"building {depth} layers", partial(build, at_depth, spec))
        rng = np.random.default_rng(BENCH_SEED)
        native[name] = {key: random_leaf(struct, rng) for key, struct in ports[name].leaves.items()}
    # The layer table is that of one depth, so every port has values of its own.
    batches = make_probe("timing", BENCH_SEED, LeafTable("", ()), entries, 1).batches
    return Bench(ports, native, {name: jnp.asarray(array[0]) for name, array in batches.items()})


def _growth_at_depth(bench: Bench, form: DepthForm, depth: int, seconds: float, clock: Clock) -> list[Growth]:
    measurement = begin_measurement(bench, PROGRAM, {}, clock, control=False)
    once = collect_blocks(measurement.compile_all, lambda: measurement.pairs("compile"), clock() + seconds / 2, clock)
    steady = call_blocks(measurement, seconds / 2, grace=0.0)
    found = []
    for who in measurement.timed_runners:
        one = measurement.variants[who][-1]
        size = count_equations(one.jaxpr), hlo.instructions(one.text)
        for phase in PHASES:
            seconds = float(np.median(block_values(once if phase in STAGES else steady, who, phase)[1]))
            if seconds > 0:  # a difference of two times can be lost in their noise
                found.append(Growth(who.backend, form, depth, phase, seconds, size[0], who.runner, PROGRAM, size[1]))
    return found
