"""The contenders of one program: staged in rounds, and drawn anew for every block in which they are called."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from equiv.backends.build import guarded
from equiv.bench.blocks import Clock, Runner
from equiv.bench.stages import SEED, Bench, Contender, Staged, stage, warm
from equiv.core.timings import Phase
from equiv.errors import EquivError

Drawn = TypeVar("Drawn")


KEPT = 4
"""Compiled programs of each contender that are kept for its blocks."""


@dataclass
class Race:
    """The contenders of one program.

    Attributes:
        bench: the ports.
        program: which.
        clock: seconds.
        contenders: the reference, the reference again, then the candidates.
        pools: the last few of each, as staged.
        failed: candidate to the reason why it is out.
        rng: of the orders.
    """

    bench: Bench
    program: str
    clock: Clock
    contenders: list[Contender]
    pools: dict[Contender, list[Staged]] = field(default_factory=dict)
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
                    staged = self.stage(who)
                except EquivError as reason:
                    self.drop(who.backend, reason)
                    continue
                self.pools[who] = [*self.pools.get(who, ()), staged][-KEPT:]
                seconds |= {(who, phase): np.array([value]) for phase, value in staged.seconds.items()}
        return seconds

    def draw(self, pools: Mapping[Contender, Sequence[Drawn]]) -> dict[Contender, Drawn]:
        """For one block, one of what each contender has; the reference and its control draw from one pot.

        Where code and data lie makes a program faster or slower by a percent for as long as it lives. Drawn anew for
        every block that is noise, which the interval shows.
        """
        drawn = {who: self.rng.choice(pools[who]) for who in self.contenders}
        first = self.contenders[0]
        for again in (who for who in self.contenders if who.again):
            drawn[first], drawn[again] = self.rng.sample([*pools[first], *pools[again]], 2)
        return drawn

    def started(self, starts: Mapping[Any, Callable[[], Runner]]) -> dict[Any, Runner]:
        """Every runner with buffers of its own, made in random order: whoever comes first gets the same place again."""
        order = self.rng.sample(list(starts), len(starts))
        return {name: starts[name]() for name in order}


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
