"""One program of every timed runner: compiled several times, and sampled for each block of calls."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from equiv.backends.build import call_user_code
from equiv.bench.blocks import Clock, Runner
from equiv.bench.stages import BENCH_SEED, Bench, CompiledVariant, TimedRunner, compile_variant, warm_up
from equiv.core.timings import Phase
from equiv.errors import EquivError

Sampled = TypeVar("Sampled")

MAX_VARIANTS = 4
"""Compiled variants of each runner that its blocks are sampled from."""


@dataclass
class Measurement:
    """The timed runners of one program, and their compiled variants.

    Attributes:
        bench: the ports.
        program: which.
        clock: seconds.
        timed_runners: the reference, its control (a second run of the reference), then the candidates.
        variants: the latest compiled variants of each.
        failed: candidate to the reason why it is left out.
        rng: for random orders and samples.
    """

    bench: Bench
    program: str
    clock: Clock
    timed_runners: list[TimedRunner]
    variants: dict[TimedRunner, list[CompiledVariant]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    rng: random.Random = field(default_factory=lambda: random.Random(BENCH_SEED))

    def pairs(self, phase: Phase) -> list[tuple[Any, Any]]:
        """Every other runner over the reference, in one phase."""
        first, *others = self.timed_runners
        return [((who, phase), (first, phase)) for who in others]

    def drop(self, backend: str, reason: EquivError) -> None:
        """Leave a candidate out. Without the reference there is nothing to measure.

        Raises:
            EquivError: it is the reference.
        """
        if backend == self.bench.reference:
            raise reason
        self.failed[backend] = str(reason)
        self.timed_runners = [who for who in self.timed_runners if who.backend != backend]

    def compile_one(self, who: TimedRunner) -> CompiledVariant:
        """Compile a new variant of one runner's program, with every phase that happens once timed.

        Raises:
            PortError: the program raised.
        """
        what = f"timing the {self.program}"
        written = call_user_code(who.backend, what, lambda: self.bench.written(who.backend, self.program))
        one = next(one for one in written if one.runner == who.runner)
        return call_user_code(who.backend, what, partial(compile_variant, one, self.clock))

    def compile_all(self) -> dict[Any, np.ndarray]:
        """Compile a variant of every runner, in random order; seconds of each phase, shape (1,)."""
        seconds: dict[Any, np.ndarray] = {}
        for who in self.rng.sample(self.timed_runners, len(self.timed_runners)):
            if who in self.timed_runners:
                try:
                    variant = self.compile_one(who)
                except EquivError as reason:
                    self.drop(who.backend, reason)
                    continue
                self.variants[who] = [*self.variants.get(who, ()), variant][-MAX_VARIANTS:]
                seconds |= {(who, phase): np.array([value]) for phase, value in variant.seconds.items()}
        return seconds

    def sample_variants(self, variants: Mapping[TimedRunner, Sequence[Sampled]]) -> dict[TimedRunner, Sampled]:
        """Sample one variant of each runner for a block; the reference and its control are sampled jointly.

        The memory layout of a compiled program makes it faster or slower by a percent for its whole lifetime. Sampled
        for every block, that becomes noise, which the interval includes.
        """
        sampled = {runner: self.rng.choice(variants[runner]) for runner in self.timed_runners}
        first = self.timed_runners[0]
        for control in (runner for runner in self.timed_runners if runner.is_control):
            sampled[first], sampled[control] = self.rng.sample([*variants[first], *variants[control]], 2)
        return sampled

    def start_runners(self, starts: Mapping[Any, Callable[[], Runner]]) -> dict[Any, Runner]:
        """Start every runner with buffers of its own, in random order: the allocator reuses the first free address."""
        order = self.rng.sample(list(starts), len(starts))
        return {name: starts[name]() for name in order}


def begin_measurement(
    bench: Bench, program: str, withheld: Mapping[str, str], clock: Clock, control: bool = True
) -> Measurement:
    """Trace and lower every program once, unmeasured, so that the libraries' own caches are filled.

    Raises:
        EquivError: the reference cannot be traced.
    """
    measurement = Measurement(bench, program, clock, [])
    for backend in bench.ports:
        if backend in withheld:
            continue
        try:
            written = call_user_code(backend, f"timing the {program}", partial(bench.written, backend, program))
            for one in written:
                call_user_code(backend, f"timing the {program}", partial(warm_up, one))
        except EquivError as reason:
            measurement.drop(backend, reason)
            continue
        measurement.timed_runners += [TimedRunner(backend, one.runner) for one in written]
        if control and backend == bench.reference:
            measurement.timed_runners.insert(1, TimedRunner(backend, written[0].runner, is_control=True))
    return measurement
