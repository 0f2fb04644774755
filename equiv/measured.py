"""One program of all ports, measured: staged in rounds, counted, and called in interleaved blocks beside a control."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from equiv.costs import CaseCosts, HostPart, Phase, Timing
from equiv.errors import EquivError
from equiv.evidence import same_hlo
from equiv.evidence.ratios import claim, naive, of_differences, paired, typical
from equiv.evidence.timing import Blocks, Clock, back_to_back, block, collect
from equiv.timed import SEED, STAGES, Alone, Bench, Contender, Staged, alone, program_cost, stage, warm
from equiv.workshop import guarded

STEADY: tuple[Phase, ...] = ("step", "dispatch", "device")
BARE = ("program", "empty")
"""A compiled program by itself, and an empty one of as many arrays."""

NAIVE_CALLS, INSIDE_CALLS = 50, 50
"""Calls that are timed back to back, and calls whose inside is looked at."""


@dataclass
class Race:
    """The contenders of one program.

    Attributes:
        bench: the ports.
        program: which.
        clock: seconds.
        contenders: the reference, the reference again, then the candidates.
        staged: as staged last.
        failed: candidate to the reason why it is out.
        rng: of the orders.
    """

    bench: Bench
    program: str
    clock: Clock
    contenders: list[Contender]
    staged: dict[Contender, Staged] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    rng: random.Random = field(default_factory=lambda: random.Random(SEED))

    def pairs(self, phase: Phase) -> list[tuple[Any, Any]]:
        """Every contender over the reference, in one phase."""
        first, *others = self.contenders
        return [((who, phase), (first, phase)) for who in others]

    def drop(self, backend: str, reason: EquivError) -> None:
        """Leave a candidate out; without the reference there is nothing to measure.

        Raises:
            EquivError: it is the reference.
        """
        if backend == self.bench.reference:
            raise reason
        self.failed[backend] = str(reason)
        self.contenders = [who for who in self.contenders if who.backend != backend]

    def stage(self, who: Contender) -> Staged:
        """A new program of one contender through every phase that happens once.

        Raises:
            PortError: it raised.
        """
        what = f"timing the {self.program}"
        written = guarded(who.backend, what, lambda: self.bench.written(who.backend, self.program))
        one = next(one for one in written if one.runner == who.runner)
        return guarded(who.backend, what, partial(stage, one, self.clock))

    def stage_all(self) -> dict[Any, np.ndarray]:
        """Every contender once, in random order."""
        seconds: dict[Any, np.ndarray] = {}
        for who in self.rng.sample(self.contenders, len(self.contenders)):
            if who in self.contenders:
                try:
                    self.staged[who] = self.stage(who)
                except EquivError as reason:
                    self.drop(who.backend, reason)
                    continue
                seconds |= {(who, phase): np.array([value]) for phase, value in self.staged[who].seconds.items()}
        return seconds


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
    staged = {who: race.staged[who] for who in race.contenders}
    first = staged[race.contenders[0]]
    costs = tuple(program_cost(who, one, first) for who, one in staged.items() if not who.again)
    steady = call_blocks(race, staged, seconds / 2, grace=seconds)
    usual = back_to_back({who: one.written.start() for who, one in staged.items()}, NAIVE_CALLS, clock)
    parts = tuple(part for who, one in staged.items() for part in _inside(who, one, steady, clock))
    timings = (*_timings(race, STAGES, once, {}), *_timings(race, STEADY, steady, usual))
    return CaseCosts(timings=timings, programs=costs, parts=parts, withheld=race.failed)


def enter(bench: Bench, program: str, withheld: Mapping[str, str], clock: Clock, control: bool = True) -> Race:
    """Trace and lower everything once, unmeasured: what the libraries keep between traces is kept from now on.

    Raises:
        EquivError: the reference cannot be traced.
    """
    race = Race(bench, program, clock, [])
    for backend in bench.ports:
        if backend in withheld:
            continue
        try:
            written = guarded(backend, f"timing the {program}", partial(bench.written, backend, program))
            for one in written:
                guarded(backend, f"timing the {program}", partial(warm, one))
        except EquivError as reason:
            race.drop(backend, reason)
            continue
        race.contenders += [Contender(backend, one.runner) for one in written]
        if control and backend == bench.reference:
            race.contenders.insert(1, Contender(backend, written[0].runner, again=True))
    return race


def call_blocks(race: Race, staged: Mapping[Contender, Staged], seconds: float, grace: float) -> Blocks:
    """Blocks of steps, of compiled programs by themselves, and of empty ones; every block with buffers of its own."""
    programs = _alone(staged)

    def call_all() -> dict[Any, np.ndarray]:
        steps = {(who, "step"): one.written.start() for who, one in staged.items()}
        bare = {(who, kind): start() for who, pair in programs.items() for kind, start in zip(BARE, pair, strict=True)}
        return block({**steps, **bare}, race.rng, race.clock)

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
    parts = {part: float(np.median([one[part] for one in looked])) for part in looked[0]}
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
