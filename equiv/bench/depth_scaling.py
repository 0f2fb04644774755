"""What depth costs: the same model with more and more layers, written out and scanned."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import jax.numpy as jnp
import numpy as np

from equiv import backends
from equiv.backends.base import Request
from equiv.backends.build import guarded, request_of
from equiv.bench import hlo
from equiv.bench.blocks import Clock, collect
from equiv.bench.contenders import enter
from equiv.bench.measure import call_blocks, numbers
from equiv.bench.stages import SEED, STAGES, Bench, filled, uncached
from equiv.core.batch_spec import Entry
from equiv.core.case import Builder, Case
from equiv.core.leaves import LeafTable
from equiv.core.timings import PHASES, Growth
from equiv.errors import NotRun
from equiv.programs.jaxpr import equations
from equiv.programs.probes import make_probe

PROGRAM = "gradients"


Form = Literal["unrolled", "scanned"]


def grow(
    case: Case,
    withheld: Mapping[str, str],
    seconds: float,
    progress: Callable[[str], None] = lambda _: None,
    clock: Clock = time.perf_counter,
) -> tuple[Growth, ...]:
    """Every phase of the gradients at every depth that the case names; nothing where it names none.

    Args:
        case: the case.
        withheld: backends that are not timed.
        seconds: for how long to measure; each depth is measured at least once.
        progress: told what is being done.
        clock: seconds.

    Raises:
        EquivError: a model cannot be built or timed.
        NotRun: every model is withheld.
    """
    if case.depths is None:
        return ()
    request, entries = request_of(case)
    forms: tuple[tuple[Form, Mapping[str, Builder]], ...] = (
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
                found += _at_depth(_bench(used, depth, request, entries), form, depth, share, clock)
    return tuple(found)


def _bench(builders: Mapping[str, Builder], depth: int, request: Request, entries: Mapping[str, Entry]) -> Bench:
    ports, native = {}, {}
    for backend, builder in builders.items():
        build = backends.load(backend).build
        what = f"building {depth} layers"
        ports[backend] = guarded(backend, what, partial(build, partial(builder, num_layers=depth), request))
        rng = np.random.default_rng(SEED)
        native[backend] = {key: filled(struct, rng) for key, struct in ports[backend].leaves.items()}
    # The layer table is that of one depth, so every port has values of its own.
    batches = make_probe("timing", SEED, LeafTable("", ()), entries, 1).batches
    return Bench(ports, native, {name: jnp.asarray(array[0]) for name, array in batches.items()})


def _at_depth(bench: Bench, form: Form, depth: int, seconds: float, clock: Clock) -> list[Growth]:
    race = enter(bench, PROGRAM, {}, clock, control=False)
    once = collect(race.stage_all, lambda: race.pairs("compile"), clock() + seconds / 2, clock)
    steady = call_blocks(race, seconds / 2, grace=0.0)
    found = []
    for who in race.contenders:
        one = race.pools[who][-1]
        size = equations(one.jaxpr), hlo.instructions(one.text)
        for phase in PHASES:
            seconds = float(np.median(numbers(once if phase in STAGES else steady, who, phase)[1]))
            if seconds > 0:  # a difference of two times can be lost in their noise
                found.append(Growth(who.backend, form, depth, phase, seconds, size[0], who.runner, PROGRAM, size[1]))
    return found
