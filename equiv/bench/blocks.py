"""Timing of callables in interleaved blocks. It knows neither jax nor a library.

A block holds every runner many times in random order. A ratio is taken within each block, so that what disturbs the
machine for longer than a block disturbs both sides alike; the interval is that of the blocks' ratios.
"""

import gc
import random
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from equiv.bench.ratios import FEWEST, narrow, paired, typical

Clock = Callable[[], float]
"""Seconds, from any origin."""


Name = Hashable
"""Of a runner."""


Blocks = dict[Name, list[np.ndarray]]
"""Name of a runner to one array of seconds per block; every name has as many blocks."""


FIRST_LOOK = 20
"""Blocks before the width of an interval is first looked at; then again after half as many more."""


BLOCK_SECONDS, MOST_CALLS = 0.2, 50
"""How long a block takes at most, where one call does not take longer, and how many measured calls it has at most."""


class Runner(Protocol):
    """What is timed: again and again `call`, then `wait` until its work is done; `after` is not timed."""

    def call(self) -> Any:
        """Begin; what is returned goes to `wait` and `after`."""
        ...

    def wait(self, outputs: Any) -> None:
        """Return when all is done."""
        ...

    def after(self, outputs: Any) -> None:
        """Make ready for the next call."""
        ...


def once(runner: Runner, clock: Clock) -> float:
    """One call until all is done, in seconds."""
    started = clock()
    outputs = runner.call()
    runner.wait(outputs)
    seconds = clock() - started
    runner.after(outputs)
    return seconds


def block(runners: Mapping[Name, Runner], rng: random.Random, clock: Clock) -> dict[Name, np.ndarray]:
    """One block: every runner in turn, in a new random order each time.

    Each measured call follows an unmeasured one of the same runner, which brings its own data back into the caches.

    Returns:
        Seconds per runner, shape (calls,).
    """
    for runner in runners.values():
        once(runner, clock)
    turn = 2 * sum(once(runner, clock) for runner in runners.values())
    calls = max(1, min(MOST_CALLS, int(BLOCK_SECONDS / max(turn, 1e-9))))
    seconds, names = {name: np.empty(calls) for name in runners}, list(runners)
    collected = gc.isenabled()
    gc.disable()
    try:
        for number in range(calls):
            rng.shuffle(names)
            for name in names:
                once(runners[name], clock)
                seconds[name][number] = once(runners[name], clock)
    finally:
        if collected:
            gc.enable()
    return seconds


def collect(
    measure: Callable[[], Mapping[Name, np.ndarray]],
    pairs: Callable[[], Iterable[tuple[Name, Name]]],
    until: float,
    clock: Clock,
    grace: float = 0.0,
) -> Blocks:
    """Blocks until the interval of every pair is narrow, or the time is over.

    The width is looked at after 20, 30, 45, ... blocks and not after each: whoever stops at the first interval that he
    likes is wrong more often than its level says.

    Args:
        measure: makes one block.
        pairs: gives every (numerator, denominator) whose interval has to be narrow.
        until: when the time is over, by the clock.
        clock: seconds.
        grace: seconds after `until` for as many blocks as a claim needs. One block is always made.
    """
    blocks: Blocks = {}
    done, look = 0, FIRST_LOOK
    while not done or clock() < until + grace * (done < FEWEST):
        for name, seconds in measure().items():
            blocks.setdefault(name, []).append(seconds)
        done += 1
        if done == look:
            if all(narrow(paired(typical(blocks[over]), typical(blocks[under]))) for over, under in pairs()):
                break
            look += look // 2
    return blocks


def back_to_back(runners: Mapping[Name, Runner], calls: int, clock: Clock) -> dict[Name, np.ndarray]:
    """What is usually done: all calls of one runner, then all calls of the next. Seconds, shape (calls,)."""
    return {name: np.array([once(runner, clock) for _ in range(calls)]) for name, runner in runners.items()}
