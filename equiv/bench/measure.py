"""One program of all ports, measured: staged in rounds, counted, and called in interleaved blocks beside a control."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from equiv.bench import hlo_diff as same_hlo
from equiv.bench.blocks import Blocks, Clock, Runner, back_to_back, block, collect
from equiv.bench.contenders import Race, enter
from equiv.bench.ratios import claim, naive, of_differences, paired, typical
from equiv.bench.stages import STAGES, Alone, Bench, Contender, Staged, alone, program_cost
from equiv.core.timings import CaseCosts, HostPart, Phase, Timing

STEADY: tuple[Phase, ...] = ("step", "dispatch", "device")


BARE = ("program", "empty")
"""A compiled program by itself, and an empty one of as many arrays."""


NAIVE_CALLS, INSIDE_CALLS = 50, 50
"""Calls that are timed back to back, and calls whose inside is looked at."""


def measure(bench: Bench, program: str, withheld: Mapping[str, str], seconds: float, clock: Clock) -> CaseCosts:
    """One program: half of the time for what happens once, the rest for what is called again and again.

    Args:
        bench: the ports.
        program: which.
        withheld: backends that are not timed.
        seconds: for how long; some must be measured even where it takes longer.
        clock: seconds.

    Raises:
        EquivError: the reference cannot be timed.
    """
    race = enter(bench, program, withheld, clock)
    once = collect(race.stage_all, lambda: race.pairs("compile"), clock() + seconds / 2, clock)
    staged = {who: race.pools[who][-1] for who in race.contenders}
    first = staged[race.contenders[0]]
    costs = tuple(program_cost(who, one, first) for who, one in staged.items() if not who.again)
    steady = call_blocks(race, seconds / 2, grace=seconds)
    usual = back_to_back(race.started({who: one.written.start for who, one in staged.items()}), NAIVE_CALLS, clock)
    parts = tuple(part for who, one in staged.items() for part in _inside(who, one, steady, clock))
    timings = (*_timings(race, STAGES, once, {}), *_timings(race, STEADY, steady, usual))
    return CaseCosts(timings=timings, programs=costs, parts=parts, withheld=race.failed)


def call_blocks(race: Race, seconds: float, grace: float) -> Blocks:
    """Blocks of steps, of compiled programs by themselves, and of empty ones.

    Args:
        race: whose contenders have been staged.
        seconds: for how long.
        grace: and how much longer, for as many blocks as a claim needs.
    """
    programs = _alone({who: race.pools[who][-1] for who in race.contenders})

    def call_all() -> dict[Any, np.ndarray]:
        starts: dict[Any, Callable[[], Runner]] = {}
        for who, one in race.draw(race.pools).items():
            starts[who, "step"] = one.written.start
        for who, pair in race.draw({who: [pair] for who, pair in programs.items()}).items():
            starts |= {(who, kind): start for kind, start in zip(BARE, pair, strict=True)}
        return block(race.started(starts), race.rng, race.clock)

    return collect(call_all, lambda: race.pairs("step"), race.clock() + seconds, race.clock, grace)


def _alone(staged: Mapping[Contender, Staged]) -> dict[Contender, tuple[Callable[[], Alone], Callable[[], Alone]]]:
    """Every compiled program by itself; where two runners of a port compile to the same one, it is taken once."""
    programs: dict[Contender, tuple[Callable[[], Alone], Callable[[], Alone]]] = {}
    for who, one in staged.items():
        like = [
            pair
            for other, pair in programs.items()
            if other.backend == who.backend and not who.again and not same_hlo.difference(staged[other].text, one.text)
        ]
        programs[who] = like[0] if like else alone(one)
    return programs


def _inside(who: Contender, staged: Staged, steady: Blocks, clock: Clock) -> list[HostPart]:
    """Where a call goes on the host, for a runner that can tell; the compiled program is what it takes alone."""
    look = staged.written.inside
    if look is None:
        return []
    running = staged.written.start()
    looked = [look(running, clock) for _ in range(INSIDE_CALLS)]
    parts = {part: float(typical([np.array([one[part] for one in looked])])[0]) for part in looked[0]}
    device = float(np.median(numbers(steady, who, "device")[0]))
    shown = {
        "modules to arrays": parts["modules to arrays"],
        "jax.jit dispatch": max(0.0, parts["jax.jit"] - device),
        "compiled program": min(device, parts["jax.jit"]),
        "arrays to modules": parts["arrays to modules"],
    }
    program = staged.written.program
    return [HostPart(who.backend, program, who.runner, part, seconds) for part, seconds in shown.items()]


def _timings(race: Race, phases: tuple[Phase, ...], blocks: Blocks, usual: Mapping[Any, np.ndarray]) -> list[Timing]:
    """Rows of the report: every contender but the control, which is a column of each."""
    first, again, *candidates = race.contenders
    rows = []
    for phase in phases:
        under, _ = numbers(blocks, first, phase)
        ratio_of = of_differences if phase in ("dispatch", "device") else paired
        control = ratio_of(numbers(blocks, again, phase)[0], under)
        for who in (first, *candidates):
            over, calls = numbers(blocks, who, phase)
            ratio = None if who is first else ratio_of(over, under)
            p50, p90, p99 = np.quantile(calls, (0.5, 0.9, 0.99)).tolist()
            rows.append(
                Timing(
                    backend=who.backend,
                    program=race.program,
                    runner=who.runner,
                    phase=phase,
                    rounds=len(over),
                    p50=p50,
                    p90=p90,
                    p99=p99,
                    ratio=ratio,
                    control=control,
                    naive=naive(usual[again if who is first else who], usual[first]) if phase == "step" else None,
                    claim=claim(ratio, control, len(over)),
                    calls=len(calls),
                )
            )
    return rows


def numbers(blocks: Blocks, who: Contender, phase: Phase) -> tuple[np.ndarray, np.ndarray]:
    """One number per block, and what percentiles are taken of: all calls, or the differences block by block.

    `device` is what the compiled program takes beyond an empty one, `dispatch` the rest of a step.
    """
    if phase not in ("dispatch", "device"):
        return typical(blocks[who, phase]), np.concatenate(blocks[who, phase])
    device = typical(blocks[who, "program"]) - typical(blocks[who, "empty"])
    part = device if phase == "device" else typical(blocks[who, "step"]) - device
    return part, part
