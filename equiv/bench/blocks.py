"""Timing of callables in interleaved blocks, independent of jax and of any library.

A block holds every runner many times in random order. A ratio is taken within each block, so that what disturbs the
machine for longer than a block disturbs both sides equally; the interval is that of the blocks' ratios.
"""

import gc
import random
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from equiv.bench.ratios import MIN_BLOCKS, block_quartiles, is_narrow, paired_ratio

Clock = Callable[[], float]
"""Seconds, from any origin."""

RunnerName = Hashable
"""Of a runner."""

Blocks = dict[RunnerName, list[np.ndarray]]
"""Name of a runner to one array of seconds per block; every name has the same number of blocks."""

FIRST_LOOK = 20
"""Blocks before the width of an interval is first checked; then after 1.5 times as many, and so on."""

BLOCK_SECONDS, MOST_CALLS = 0.2, 50
"""Maximal duration of a block (exceeded where one round of calls takes longer), and its maximal number of rounds."""


class Runner(Protocol):
    """What is timed: `call`, then `wait` until its work is done; `after`, between calls, is not timed."""

    def call(self) -> Any:
        """Start the work; the return value is passed to `wait` and `advance`."""
        ...

    def wait(self, outputs: Any) -> None:
        """Block until the work is done."""
        ...

    def advance(self, outputs: Any) -> None:
        """Prepare the next call."""
        ...


def time_call(runner: Runner, clock: Clock) -> float:
    """Time one call until its work is done, in seconds."""
    started = clock()
    outputs = runner.call()
    runner.wait(outputs)
    seconds = clock() - started
    runner.advance(outputs)
    return seconds


def run_block(runners: Mapping[RunnerName, Runner], rng: random.Random, clock: Clock) -> dict[RunnerName, np.ndarray]:
    """Time one block: rounds in which every runner is called, in a new random order each.

    Each measured call follows an unmeasured one of the same runner, which brings its own data back into the caches.

    Returns:
        Seconds per runner, shape (calls,).
    """
    for runner in runners.values():
        time_call(runner, clock)
    round_seconds = 2 * sum(time_call(runner, clock) for runner in runners.values())
    calls = max(1, min(MOST_CALLS, int(BLOCK_SECONDS / max(round_seconds, 1e-9))))
    seconds, names = {name: np.empty(calls) for name in runners}, list(runners)
    collected = gc.isenabled()
    gc.disable()
    try:
        for number in range(calls):
            rng.shuffle(names)
            for name in names:
                time_call(runners[name], clock)
                seconds[name][number] = time_call(runners[name], clock)
    finally:
        if collected:
            gc.enable()
    return seconds


def collect_blocks(
    measure: Callable[[], Mapping[RunnerName, np.ndarray]],
    pairs: Callable[[], Iterable[tuple[RunnerName, RunnerName]]],
    until: float,
    clock: Clock,
    grace: float = 0.0,
) -> Blocks:
    """Collect blocks until the interval of every pair is narrow, or the time is over.

    The width is checked after 20, 30, 45, ... blocks and not after each: optional stopping would inflate the
    false-positive rate.

    Args:
        measure: times one block.
        pairs: gives every (numerator, denominator) whose interval has to be narrow.
        until: when the time is over, by the clock.
        clock: seconds.
        grace: seconds after `until` for as many blocks as a claim needs. One block is always timed.
    """
    blocks: Blocks = {}
    done, look = 0, FIRST_LOOK
    while not done or clock() < until + grace * (done < MIN_BLOCKS):
        for name, seconds in measure().items():
            blocks.setdefault(name, []).append(seconds)
        done += 1
        if done == look:
            if all(
                is_narrow(paired_ratio(block_quartiles(blocks[over]), block_quartiles(blocks[under])))
                for over, under in pairs()
            ):
                break
            look += look // 2
    return blocks


def back_to_back(runners: Mapping[RunnerName, Runner], calls: int, clock: Clock) -> dict[RunnerName, np.ndarray]:
    """The naive method: time all calls of one runner, then all calls of the next. Seconds, shape (calls,)."""
    return {name: np.array([time_call(runner, clock) for _ in range(calls)]) for name, runner in runners.items()}
