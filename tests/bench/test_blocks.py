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

from equiv.bench.blocks import FIRST_LOOK, MOST_CALLS, back_to_back, block, collect
from equiv.bench.ratios import FEWEST, NARROW, claim, half_width, naive, of_differences, paired, typical
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

    def after(self, outputs: str) -> None:
        self.clock.now += self.afterwards


def works(clock: Clock, **seconds: float) -> dict[str, Work]:
    """Runners that share one log."""
    log: list[str] = []
    return {name: Work(clock, name, amount, log=log) for name, amount in seconds.items()}


def test_a_block_times_every_runner_as_often_and_each_call_after_one_of_its_own() -> None:
    """The unmeasured call before brings a runner's data back into the caches."""
    clock = Clock()
    runners = works(clock, a=1e-3, b=2e-3, c=3e-3)
    seconds = block(runners, random.Random(1), clock)
    log = runners["a"].log[2 * len(runners) :]  # without the calls that choose how many there are
    assert log[::2] == log[1::2]
    calls = {len(array) for array in seconds.values()}
    assert calls == {len(log) // 6}
    assert {name: pytest.approx(array.mean()) for name, array in seconds.items()} == {"a": 1e-3, "b": 2e-3, "c": 3e-3}


def test_the_order_within_a_block_is_random_and_nobody_is_always_first() -> None:
    """A fixed order would give one side the other's leftovers each time."""
    clock = Clock()
    runners = works(clock, a=1e-4, b=1e-4, c=1e-4)
    block(runners, random.Random(1), clock)
    measured = runners["a"].log[6::2]
    turns = [tuple(measured[start : start + 3]) for start in range(0, len(measured), 3)]
    firsts = Counter(turn[0] for turn in turns)
    assert len(turns) == MOST_CALLS
    assert len(set(turns)) == 6
    assert min(firsts.values()) > len(turns) // 6


def test_waiting_counts_and_what_comes_after_does_not() -> None:
    """A step is over when its outputs are there; handing them on is not the step."""
    clock = Clock()
    seconds = block({"a": Work(clock, "a", 1e-3, waiting=2e-3, afterwards=1.0)}, random.Random(1), clock)
    np.testing.assert_allclose(seconds["a"], 3e-3)


def test_a_long_call_is_measured_once_in_a_block() -> None:
    """Else a block of a large model would take minutes."""
    clock = Clock()
    assert len(block(works(clock, a=9.0), random.Random(1), clock)["a"]) == 1


class BrokenError(Exception):
    """What a planted runner raises."""


def test_garbage_is_not_collected_in_a_block_and_is_again_after_it_even_where_a_runner_fails() -> None:
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
        block({"a": Watching(clock, "a")}, random.Random(1), clock)
    assert seen[:2] == [True, True]
    assert not any(seen[2:])
    assert gc.isenabled()


def blocks_of(clock: Clock, noise: float, seconds: float = 1.0, **arguments: float) -> int:
    """How many blocks are collected of two runners that differ by noise."""
    rng = np.random.default_rng(3)

    def measure() -> dict[str, np.ndarray]:
        clock.now += seconds
        return {name: np.exp(noise * rng.normal(size=1)) for name in ("a", "b")}

    found = collect(measure, lambda: [("a", "b")], arguments.pop("until"), clock, **arguments)
    assert len(found["a"]) == len(found["b"])
    return len(found["a"])


def test_collecting_stops_at_the_first_look_where_all_is_narrow() -> None:
    """The time that is left is not spent."""
    assert blocks_of(Clock(), noise=1e-4, until=1000.0) == FIRST_LOOK


def test_collecting_goes_on_to_the_end_of_the_time_where_it_is_not() -> None:
    """Wide intervals get all blocks that there is time for."""
    assert blocks_of(Clock(), noise=0.5, until=100.0) == 100


def test_collecting_looks_seldom_so_that_it_does_not_stop_at_a_lucky_interval() -> None:
    """Where it stops, it is after 20, 30, 45, ... blocks."""
    counts = {blocks_of(Clock(), noise=noise, until=1000.0) for noise in np.linspace(0.005, 0.05, 12)}
    assert counts <= {20, 30, 45, 67, 100, 150, 225, 337, 505, 757}
    assert len(counts) > 2


@pytest.mark.parametrize(
    ("until", "grace", "count"), [(0.0, 0.0, 1), (3.0, 0.0, 3), (3.0, 4.0, 7), (3.0, 99.0, FEWEST)]
)
def test_one_block_is_always_made_and_grace_is_for_as_many_as_a_claim_needs(until: float, grace: float, count: int):
    """A budget that is too small still gives a number, and says that it claims nothing."""
    assert blocks_of(Clock(), noise=0.5, until=until, grace=grace) == count


TIMES = st.lists(st.floats(1e-6, 1e3), min_size=2, max_size=30)


def close(one: Ratio | None, value: float, low: float, high: float) -> bool:
    """Whether a ratio is the given one, but for rounding."""
    return one is not None and np.allclose((one.value, one.low, one.high), (value, low, high), rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(TIMES, st.floats(1e-3, 1e3), st.randoms())
@pytest.mark.parametrize("ratio_of", [paired, of_differences])
def test_a_ratio_does_not_depend_on_the_unit_and_swapping_its_sides_inverts_it(ratio_of, times, factor, chance) -> None:
    """The laws of a ratio, with its interval."""
    over, under = np.array(times), np.array([time * chance.uniform(0.5, 2) for time in times])
    ratio = ratio_of(over, under)
    assert ratio.low <= ratio.value * (1 + 1e-12)
    assert ratio.value <= ratio.high * (1 + 1e-12)
    assert close(ratio_of(factor * over, factor * under), ratio.value, ratio.low, ratio.high)
    assert close(ratio_of(under, over), 1 / ratio.value, 1 / ratio.high, 1 / ratio.low)


@given(TIMES, st.floats(0.01, 100))
@settings(max_examples=30, deadline=None)
def test_where_one_side_is_always_as_many_times_slower_the_interval_is_that_number(times, factor) -> None:
    """There is nothing to be unsure of."""
    assert close(paired(factor * np.array(times), np.array(times)), factor, factor, factor)


def test_blocks_that_a_neighbour_slows_tenfold_leave_the_ratio_alone_and_not_the_naive_one() -> None:
    """He slows both sides of a pair; back to back he slows one."""
    clock, load = Clock(), [1.0]
    runners = works(clock, first=1e-3, second=1.1e-3)
    for runner in runners.values():
        runner.loaded = load
    found: dict[str, list[np.ndarray]] = {name: [] for name in runners}
    for number in range(20):
        load[0] = 10.0 if number % 3 == 0 else 1.0
        for name, seconds in block(runners, random.Random(number), clock).items():
            found[name].append(seconds)
    over, under = typical(found["second"]), typical(found["first"])
    assert close(paired(over, under), 1.1, 1.1, 1.1)
    load[0] = 1.0
    one = back_to_back({"first": runners["first"]}, 50, clock)["first"]
    load[0] = 10.0
    other = back_to_back({"second": runners["second"]}, 50, clock)["second"]
    astray = naive(other, one)
    assert astray is not None
    assert astray.value == pytest.approx(11.0)


def test_back_to_back_is_all_calls_of_one_and_then_all_of_the_next() -> None:
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


def test_the_control_covers_one_in_at_least_95_of_100_runs_and_a_tenth_is_claimed_in_as_many() -> None:
    """On synthetic noise with heavy tails; the figures of a machine are the bench's."""
    covered = claimed = 0
    for seed in range(100):
        first, again, slow = synthetic(seed, 1.10, count=40)
        control, ratio = paired(again, first), paired(slow, first)
        covered += control is not None and control.low <= 1 <= control.high
        claimed += claim(ratio, control, len(first)) == SLOWER
    assert covered >= 95
    assert claimed >= 95


def test_of_what_does_not_differ_nothing_is_claimed_in_at_least_98_of_100_runs() -> None:
    """A false claim needs a false interval and a control that does not show it."""
    claims = []
    for seed in range(100):
        first, again, other = synthetic(1000 + seed, 1.0)
        claims.append(claim(paired(other, first), paired(again, first), len(first)))
    assert claims.count(NO_DIFFERENCE) >= 98


CALM, ASTRAY, BELOW = Ratio(1.0, 0.99, 1.01), Ratio(1.08, 1.02, 1.15), Ratio(0.93, 0.87, 0.98)


@pytest.mark.parametrize(
    ("ratio", "control", "blocks", "said"),
    [
        (Ratio(1.05, 1.02, 1.08), CALM, FEWEST, SLOWER),
        (Ratio(0.95, 0.92, 0.98), CALM, FEWEST, FASTER),
        (Ratio(1.02, 1.005, 1.04), CALM, FEWEST, NO_DIFFERENCE),  # excludes 1, by less than the control strays
        (Ratio(0.98, 0.97, 0.995), CALM, FEWEST, NO_DIFFERENCE),
        (Ratio(1.12, 1.10, 1.14), ASTRAY, FEWEST, NO_DIFFERENCE),
        (Ratio(0.9, 0.88, 0.92), ASTRAY, FEWEST, NO_DIFFERENCE),
        (Ratio(1.12, 1.10, 1.14), BELOW, FEWEST, NO_DIFFERENCE),
        (Ratio(1.3, 1.2, 1.4), ASTRAY, FEWEST, SLOWER),
        (Ratio(9.0, 9.0, 9.0), CALM, FEWEST - 1, TOO_FEW),
        (None, CALM, 99, ""),
        (Ratio(9.0, 9.0, 9.0), None, 99, ""),
    ],
)
def test_nothing_is_claimed_below_what_the_control_allows(ratio, control, blocks, said) -> None:
    """Slower and faster need an interval beyond the control's, and enough blocks."""
    assert claim(ratio, control, blocks) == said


def test_as_few_blocks_as_may_claim_anything_fall_on_one_side_by_chance_in_less_than_one_of_a_hundred_runs() -> None:
    """One block fewer would do so more often."""
    assert 2 * 0.5**FEWEST <= 0.01 < 2 * 0.5 ** (FEWEST - 1)


def test_a_difference_that_cannot_be_told_from_zero_has_no_ratio() -> None:
    """A dispatch below the noise of a step is not faster than another, it is not known."""
    rng = np.random.default_rng(0)
    noise, clear = rng.normal(0, 1e-6, size=20), rng.normal(5e-6, 1e-7, size=20)
    assert of_differences(noise, clear) is None
    assert of_differences(clear, noise) is None
    assert of_differences(-clear, clear) is None
    assert paired(noise, clear) is None
    twice = of_differences(2 * clear, clear)
    assert close(twice, 2.0, 2.0, 2.0)


def test_one_block_gives_a_number_without_any_interval() -> None:
    """As wide as it is, so that nothing can be read from it; no claim rests on it."""
    assert paired(np.array([3.0]), np.array([2.0])) == Ratio(*[pytest.approx(1.5)] * 3)


def test_no_blocks_give_no_ratio() -> None:
    """Nothing was measured."""
    assert paired(np.array([]), np.array([])) is None
    assert of_differences(np.array([]), np.array([])) is None


def test_the_half_width_is_relative_and_the_same_for_a_ratio_and_its_inverse() -> None:
    """It says when measuring may stop."""
    assert half_width(Ratio(2.0, 2 / 1.02, 2 * 1.02)) == pytest.approx(0.02)
    assert half_width(Ratio(0.5, 0.5 / 1.02, 0.5 * 1.02)) == pytest.approx(0.02)
    assert math.isclose(NARROW, 0.02)


def test_the_number_of_a_block_is_below_its_median_and_does_not_move_with_its_slowest_calls() -> None:
    """A neighbour makes calls slower, never faster."""
    seconds = np.array([1.0, 1.0, 1.1, 1.2, 1.3, 1.4, 50.0, 60.0])
    assert typical([seconds])[0] < np.median(seconds)
    assert typical([seconds])[0] == typical([np.where(seconds > 2, 1e3, seconds)])[0]


def test_more_blocks_make_an_interval_narrower() -> None:
    """It is what more time is for."""
    widths = []
    for count in (10, 40, 160, 640):
        first, again, _ = synthetic(7, 1.0, count=count)
        ratio = paired(again, first)
        assert ratio is not None
        widths.append(half_width(ratio))
    assert all(fewer > more for fewer, more in pairwise(widths))
