"""Timing of callables: what is measured and what is not, and what may be said of it. The clock is a fake one."""

import gc
import math
import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equiv.bench.blocks import FIRST_LOOK, MOST_CALLS, back_to_back, collect_blocks, run_block
from equiv.bench.ratios import (
    MAX_HALF_WIDTH,
    MIN_BLOCKS,
    block_quartiles,
    claim,
    difference_ratio,
    half_width,
    naive_ratio,
    paired_ratio,
)
from equiv.core.timings import FASTER, NO_DIFFERENCE, SLOWER, TOO_FEW, Ratio


@dataclass
class Clock:
    """Seconds that pass only when somebody works."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Work:
    """A runner that takes so many seconds; `loaded` is a factor on them, and its name goes into the log."""

    clock: Clock
    name: str
    seconds: float = 1e-3
    waiting: float = 0.0
    afterwards: float = 0.0
    log: list[str] = field(default_factory=list)
    loaded: list[float] = field(default_factory=lambda: [1.0])

    def call(self) -> str:
        self.log.append(self.name)
        self.clock.now += self.seconds * self.loaded[0]
        return self.name

    def wait(self, outputs: str) -> None:
        assert outputs == self.name
        self.clock.now += self.waiting * self.loaded[0]

    def advance(self, outputs: str) -> None:
        self.clock.now += self.afterwards


def works(clock: Clock, **seconds: float) -> dict[str, Work]:
    """Runners that share one log."""
    log: list[str] = []
    return {name: Work(clock, name, amount, log=log) for name, amount in seconds.items()}


def test_a_block_times_runners_equally_often_after_a_warm_call() -> None:
    """The unmeasured call before brings a runner's data back into the caches."""
    clock = Clock()
    runners = works(clock, a=1e-3, b=2e-3, c=3e-3)
    seconds = run_block(runners, random.Random(1), clock)
    log = runners["a"].log[2 * len(runners) :]  # without the calls that choose how many there are
    assert log[::2] == log[1::2]
    calls = {len(array) for array in seconds.values()}
    assert calls == {len(log) // 6}
    assert {name: pytest.approx(array.mean()) for name, array in seconds.items()} == {"a": 1e-3, "b": 2e-3, "c": 3e-3}


def test_the_order_within_a_block_is_random() -> None:
    """A fixed order would give one side the other's leftovers each time."""
    clock = Clock()
    runners = works(clock, a=1e-4, b=1e-4, c=1e-4)
    run_block(runners, random.Random(1), clock)
    measured = runners["a"].log[6::2]
    turns = [tuple(measured[start : start + 3]) for start in range(0, len(measured), 3)]
    firsts = Counter(turn[0] for turn in turns)
    assert len(turns) == MOST_CALLS
    assert len(set(turns)) == 6
    assert min(firsts.values()) > len(turns) // 6


def test_waiting_counts_and_what_comes_after_does_not() -> None:
    """A step is over when its outputs are there; handing them on is not the step."""
    clock = Clock()
    seconds = run_block({"a": Work(clock, "a", 1e-3, waiting=2e-3, afterwards=1.0)}, random.Random(1), clock)
    np.testing.assert_allclose(seconds["a"], 3e-3)


def test_a_long_call_is_measured_once_in_a_block() -> None:
    """Else a block of a large model would take minutes."""
    clock = Clock()
    assert len(run_block(works(clock, a=9.0), random.Random(1), clock)["a"]) == 1


class BrokenError(Exception):
    """What a planted runner raises."""


def test_no_garbage_is_collected_in_a_block_and_again_afterwards() -> None:
    """A collection would hit whoever happens to run."""
    clock, seen = Clock(), []

    class Watching(Work):
        def call(self) -> str:
            seen.append(gc.isenabled())
            if len(seen) == 20:
                raise BrokenError
            return super().call()

    assert gc.isenabled()
    with pytest.raises(BrokenError):
        run_block({"a": Watching(clock, "a")}, random.Random(1), clock)
    assert seen[:2] == [True, True]
    assert not any(seen[2:])
    assert gc.isenabled()


def blocks_of(clock: Clock, noise: float, seconds: float = 1.0, **arguments: float) -> int:
    """How many blocks are collected of two runners that differ by noise."""
    rng = np.random.default_rng(3)

    def measure() -> dict[str, np.ndarray]:
        clock.now += seconds
        return {name: np.exp(noise * rng.normal(size=1)) for name in ("a", "b")}

    found = collect_blocks(measure, lambda: [("a", "b")], arguments.pop("until"), clock, **arguments)
    assert len(found["a"]) == len(found["b"])
    return len(found["a"])


def test_collecting_stops_at_the_first_look_where_all_is_narrow() -> None:
    """The time that is left is not spent."""
    assert blocks_of(Clock(), noise=1e-4, until=1000.0) == FIRST_LOOK


def test_collecting_uses_all_time_where_intervals_stay_wide() -> None:
    """Wide intervals get all blocks that there is time for."""
    assert blocks_of(Clock(), noise=0.5, until=100.0) == 100


def test_collecting_checks_seldom_so_that_no_lucky_interval_stops_it() -> None:
    """Where it stops, it is after 20, 30, 45, ... blocks."""
    counts = {blocks_of(Clock(), noise=noise, until=1000.0) for noise in np.linspace(0.005, 0.05, 12)}
    assert counts <= {20, 30, 45, 67, 100, 150, 225, 337, 505, 757}
    assert len(counts) > 2


@pytest.mark.parametrize(
    ("until", "grace", "count"), [(0.0, 0.0, 1), (3.0, 0.0, 3), (3.0, 4.0, 7), (3.0, 99.0, MIN_BLOCKS)]
)
def test_one_block_is_always_made_and_grace_allows_a_claim(until: float, grace: float, count: int):
    """A budget that is too small still gives a number, and says that it claims nothing."""
    assert blocks_of(Clock(), noise=0.5, until=until, grace=grace) == count


TIMES = st.lists(st.floats(1e-6, 1e3), min_size=2, max_size=30)


def close(one: Ratio | None, value: float, low: float, high: float) -> bool:
    """Whether a ratio is the given one, but for rounding."""
    return one is not None and np.allclose((one.value, one.low, one.high), (value, low, high), rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(TIMES, st.floats(1e-3, 1e3), st.randoms())
@pytest.mark.parametrize("ratio_of", [paired_ratio, difference_ratio])
def test_a_ratio_has_no_unit_and_inverts_with_its_sides(ratio_of, times, factor, chance) -> None:
    """The laws of a ratio, with its interval."""
    over, under = np.array(times), np.array([time * chance.uniform(0.5, 2) for time in times])
    ratio = ratio_of(over, under)
    assert ratio.low <= ratio.value * (1 + 1e-12)
    assert ratio.value <= ratio.high * (1 + 1e-12)
    assert close(ratio_of(factor * over, factor * under), ratio.value, ratio.low, ratio.high)
    assert close(ratio_of(under, over), 1 / ratio.value, 1 / ratio.high, 1 / ratio.low)


@given(TIMES, st.floats(0.01, 100))
@settings(max_examples=30, deadline=None)
def test_a_constant_slowdown_gives_that_number_as_interval(times, factor) -> None:
    """There is nothing to be unsure of."""
    assert close(paired_ratio(factor * np.array(times), np.array(times)), factor, factor, factor)


def test_a_slow_neighbour_changes_the_naive_ratio_but_not_ours() -> None:
    """He slows both sides of a pair; back to back he slows one."""
    clock, load = Clock(), [1.0]
    runners = works(clock, first=1e-3, second=1.1e-3)
    for runner in runners.values():
        runner.loaded = load
    found: dict[str, list[np.ndarray]] = {name: [] for name in runners}
    for number in range(20):
        load[0] = 10.0 if number % 3 == 0 else 1.0
        for name, seconds in run_block(runners, random.Random(number), clock).items():
            found[name].append(seconds)
    over, under = block_quartiles(found["second"]), block_quartiles(found["first"])
    assert close(paired_ratio(over, under), 1.1, 1.1, 1.1)
    load[0] = 1.0
    one = back_to_back({"first": runners["first"]}, 50, clock)["first"]
    load[0] = 10.0
    other = back_to_back({"second": runners["second"]}, 50, clock)["second"]
    astray = naive_ratio(other, one)
    assert astray is not None
    assert astray.value == pytest.approx(11.0)


def test_back_to_back_finishes_one_runner_before_the_next() -> None:
    """As it is usually done."""
    clock = Clock()
    runners = works(clock, a=1e-3, b=2e-3)
    back_to_back(runners, 5, clock)
    assert runners["a"].log == ["a"] * 5 + ["b"] * 5


def synthetic(
    seed: int, slower: float, count: int = 24, noise: float = 0.08
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers block by block: the reference, the same again, and one that is slower; the machine drifts under all."""
    rng = np.random.default_rng(seed)
    drift = np.exp(0.5 * np.sin(np.arange(count) / 3))
    return tuple(drift * factor * np.exp(noise / 2 * rng.standard_t(4, size=count)) for factor in (1.0, 1.0, slower))


def test_intervals_cover_95_of_100_and_a_tenth_is_claimed() -> None:
    """On synthetic noise with heavy tails; the figures of a machine are the bench's."""
    covered = claimed = 0
    for seed in range(100):
        first, again, slow = synthetic(seed, 1.10, count=40)
        control, ratio = paired_ratio(again, first), paired_ratio(slow, first)
        covered += control is not None and control.low <= 1 <= control.high
        claimed += claim(ratio, control, len(first)) == SLOWER
    assert covered >= 95
    assert claimed >= 95


def test_nothing_is_claimed_of_equals_in_98_of_100_runs() -> None:
    """A false claim needs a false interval and a control that does not show it."""
    claims = []
    for seed in range(100):
        first, again, other = synthetic(1000 + seed, 1.0)
        claims.append(claim(paired_ratio(other, first), paired_ratio(again, first), len(first)))
    assert claims.count(NO_DIFFERENCE) >= 98


CALM, ASTRAY, BELOW = Ratio(1.0, 0.99, 1.01), Ratio(1.08, 1.02, 1.15), Ratio(0.93, 0.87, 0.98)


@pytest.mark.parametrize(
    ("ratio", "control", "blocks", "said"),
    [
        (Ratio(1.05, 1.02, 1.08), CALM, MIN_BLOCKS, SLOWER),
        (Ratio(0.95, 0.92, 0.98), CALM, MIN_BLOCKS, FASTER),
        (Ratio(1.02, 1.005, 1.04), CALM, MIN_BLOCKS, NO_DIFFERENCE),  # excludes 1, by less than the control strays
        (Ratio(0.98, 0.97, 0.995), CALM, MIN_BLOCKS, NO_DIFFERENCE),
        (Ratio(1.12, 1.10, 1.14), ASTRAY, MIN_BLOCKS, NO_DIFFERENCE),
        (Ratio(0.9, 0.88, 0.92), ASTRAY, MIN_BLOCKS, NO_DIFFERENCE),
        (Ratio(1.12, 1.10, 1.14), BELOW, MIN_BLOCKS, NO_DIFFERENCE),
        (Ratio(1.3, 1.2, 1.4), ASTRAY, MIN_BLOCKS, SLOWER),
        (Ratio(9.0, 9.0, 9.0), CALM, MIN_BLOCKS - 1, TOO_FEW),
        (None, CALM, 99, ""),
        (Ratio(9.0, 9.0, 9.0), None, 99, ""),
    ],
)
def test_nothing_is_claimed_below_what_the_control_allows(ratio, control, blocks, said) -> None:
    """Slower and faster need an interval beyond the control's, and enough blocks."""
    assert claim(ratio, control, blocks) == said


def test_the_fewest_blocks_that_may_claim_are_not_chance() -> None:
    """By chance they fall on one side in under 1 of 100 runs; with one block fewer in more."""
    assert 2 * 0.5**MIN_BLOCKS <= 0.01 < 2 * 0.5 ** (MIN_BLOCKS - 1)


def test_a_difference_within_noise_of_zero_has_no_ratio() -> None:
    """A dispatch below the noise of a step is not faster than another, it is not known."""
    rng = np.random.default_rng(0)
    noise, clear = rng.normal(0, 1e-6, size=20), rng.normal(5e-6, 1e-7, size=20)
    assert difference_ratio(noise, clear) is None
    assert difference_ratio(clear, noise) is None
    assert difference_ratio(-clear, clear) is None
    assert paired_ratio(noise, clear) is None
    twice = difference_ratio(2 * clear, clear)
    assert close(twice, 2.0, 2.0, 2.0)


def test_one_block_gives_a_number_without_any_interval() -> None:
    """A wide interval says nothing, and no claim is based on it."""
    assert paired_ratio(np.array([3.0]), np.array([2.0])) == Ratio(*[pytest.approx(1.5)] * 3)


def test_no_blocks_give_no_ratio() -> None:
    """Nothing was measured."""
    assert paired_ratio(np.array([]), np.array([])) is None
    assert difference_ratio(np.array([]), np.array([])) is None


def test_the_half_width_is_relative_and_equal_for_the_inverse() -> None:
    """It says when measuring may stop."""
    assert half_width(Ratio(2.0, 2 / 1.02, 2 * 1.02)) == pytest.approx(0.02)
    assert half_width(Ratio(0.5, 0.5 / 1.02, 0.5 * 1.02)) == pytest.approx(0.02)
    assert math.isclose(MAX_HALF_WIDTH, 0.02)


def test_a_blocks_number_is_below_its_median_and_ignores_outliers() -> None:
    """A neighbour makes calls slower, never faster."""
    seconds = np.array([1.0, 1.0, 1.1, 1.2, 1.3, 1.4, 50.0, 60.0])
    assert block_quartiles([seconds])[0] < np.median(seconds)
    assert block_quartiles([seconds])[0] == block_quartiles([np.where(seconds > 2, 1e3, seconds)])[0]


def test_more_blocks_make_an_interval_narrower() -> None:
    """It is what more time is for."""
    widths = []
    for count in (10, 40, 160, 640):
        first, again, _ = synthetic(7, 1.0, count=count)
        ratio = paired_ratio(again, first)
        assert ratio is not None
        widths.append(half_width(ratio))
    assert all(fewer > more for fewer, more in pairwise(widths))
