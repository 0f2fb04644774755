"""Can the timings be trusted? The reference against itself, a planted slow-down, and naive timing of both.

    python tests/benchmarks/bench_timing.py [RUNS] [CASE] [BACKEND] [SECONDS]

Each run is one timing run of a train step: newly staged, interleaved blocks until the interval is narrow or the time is
over. Run it with neighbours, too: whatever else the machine does is part of the question.
"""

import os
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equiv.backends.base import ProgramRun
from equiv.bench.blocks import back_to_back, collect_blocks, run_block
from equiv.bench.case_costs import make_bench
from equiv.bench.measure import NAIVE_CALLS
from equiv.bench.measurement import begin_measurement
from equiv.bench.ratios import block_quartiles, claim, half_width, naive_ratio, paired_ratio
from equiv.bench.stages import Bench, uncached
from equiv.core.case_files import CaseFile, load_case
from equiv.core.timings import SLOWER, Ratio
from equiv.programs.built_case import build_case

CASES = Path(__file__).parents[2] / "cases"
SLOW_BY = 0.10


@dataclass
class Slow:
    """A runner that takes a tenth longer: it waits where the other has returned."""

    running: ProgramRun
    extra: float

    def call(self) -> Any:
        return self.running.call()

    def wait(self, outputs: Any) -> None:
        self.running.wait(outputs)
        until = time.perf_counter() + self.extra
        while time.perf_counter() < until:
            pass

    def advance(self, outputs: Any) -> None:
        self.running.advance(outputs)


@dataclass
class Run:
    """What one timing run said."""

    control: Ratio
    slow: Ratio
    claimed: str
    naive_control: float
    naive_slow: float
    seconds: float
    blocks: int


def one_run(bench: Bench, seconds: float, seed: int) -> Run:
    """The step twice and a slow one, as a timing run has them."""
    clock = time.perf_counter
    started = clock()
    race = begin_measurement(bench, "train step", {}, clock)
    race.timed_runners, race.rng = race.timed_runners[:2], random.Random(seed)
    race.compile_all()
    first, again = race.timed_runners
    usual = back_to_back({0: race.variants[first][0].written.start()}, 2 * NAIVE_CALLS, clock)[0]
    extra = SLOW_BY * float(np.quantile(usual, 0.25))

    def runners() -> dict[Any, Any]:
        drawn, other = race.sample_variants(race.variants), race.sample_variants(race.variants)[again].written
        starts = {"first": drawn[first].written.start, "again": drawn[again].written.start}
        return race.start_runners({**starts, "slow": lambda: Slow(other.start(), extra)})

    blocks = collect_blocks(
        lambda: run_block(runners(), race.rng, clock),
        lambda: [("again", "first"), ("slow", "first")],
        clock() + seconds,
        clock,
        grace=seconds,
    )
    numbers = {name: block_quartiles(parts) for name, parts in blocks.items()}
    control, slow = (paired_ratio(numbers[name], numbers["first"]) for name in ("again", "slow"))
    usual = back_to_back(dict(sorted(runners().items())), NAIVE_CALLS, clock)
    ratios = [naive_ratio(usual[name], usual["first"]) for name in ("again", "slow")]
    taken, count = clock() - started, len(blocks["first"])
    return Run(control, slow, claim(slow, control, count), *(one.value for one in ratios), taken, count)


def spread(values: list[float]) -> str:
    """Standard deviation and largest distance from 1, in percent."""
    return f"sd {100 * np.std(values):.1f} %, furthest {100 * max(abs(value - 1) for value in values):.1f} %"


def main() -> None:
    """Run and print."""
    given = dict(enumerate(sys.argv[1:]))
    runs, name, backend, seconds = int(given.get(0, 100)), given.get(1, "dropout"), given.get(2), given.get(3, 10)
    workshop = build_case(load_case(CaseFile(name, CASES / f"{name}.py")).case)
    whole = make_bench(workshop, {})
    backend = backend or whole.reference
    bench = Bench({backend: whole.ports[backend]}, whole.native, whole.batch)
    load_before, done = os.getloadavg(), []
    with uncached():
        for seed in range(runs):
            done.append(one_run(bench, float(seconds), seed))
    covered = sum(run.control.low <= 1 <= run.control.high for run in done)
    widths = [half_width(run.control) for run in done]
    took, blocks = [run.seconds for run in done], np.median([run.blocks for run in done])
    print(f"{name}, {backend}, train step; load {load_before} before, {os.getloadavg()} after")
    print(f"control interval covers 1.00: {covered} of {runs}; control {spread([run.control.value for run in done])}")
    print(
        f"half-width: median {100 * np.median(widths):.2f} %, largest {100 * max(widths):.2f} %; at most 2 %: "
        f"{sum(width <= 0.02 for width in widths)} of {runs}"
    )
    print(f"a run took {np.median(took):.1f} s (longest {max(took):.1f}), {blocks:.0f} blocks")
    print(f"naive control: {spread([run.naive_control for run in done])}")
    print(
        f"{SLOW_BY:.0%} slow-down claimed slower: {sum(run.claimed == SLOWER for run in done)} of {runs}; "
        f"ratio {np.median([run.slow.value for run in done]):.3f}, naive "
        f"{min(run.naive_slow for run in done):.2f} to {max(run.naive_slow for run in done):.2f}"
    )


if __name__ == "__main__":
    main()
