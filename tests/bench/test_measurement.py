"""How a measurement goes: who is timed, in which order, with which of its compiled programs."""

import re
from dataclasses import replace

import helpers
import numpy as np
import pytest
from bench.small_bench import bench

from equiv.bench.case_costs import measure_costs
from equiv.bench.measure import block_values
from equiv.bench.measurement import MAX_VARIANTS, Measurement, begin_measurement
from equiv.bench.stages import TimedRunner
from equiv.errors import PortError
from equiv.programs.built_case import build_case

pytestmark = pytest.mark.usefixtures("serial")


def failing(*_) -> None:
    raise AssertionError("planted")


def test_a_candidate_that_fails_while_timed_is_dropped() -> None:
    """First when its programs are written, then in the middle of a round."""
    ports = {**bench().ports, "linen": replace(bench().ports["linen"], user_programs=failing)}
    measurement = begin_measurement(replace(bench(), ports=ports), "forward", {}, lambda: 0.0)
    assert {who.backend for who in measurement.timed_runners} == {"haiku", "nnx"}
    assert re.match(r"linen: timing the forward raised AssertionError: planted\. Fix ", measurement.failed["linen"])
    measurement.bench = replace(bench(), ports={**ports, "nnx": replace(ports["nnx"], user_programs=failing)})
    assert {who.backend for who, _ in measurement.compile_all()} == {"haiku"}
    assert {who.backend for who in measurement.timed_runners} == {"haiku"}
    assert "nnx: timing the forward raised" in measurement.failed["nnx"]


def test_a_reference_that_cannot_be_timed_is_an_error() -> None:
    """There is nothing to divide by."""
    ports = {**bench().ports, "haiku": replace(bench().ports["haiku"], user_programs=failing)}
    with pytest.raises(PortError, match="haiku: timing the forward raised AssertionError: planted"):
        begin_measurement(replace(bench(), ports=ports), "forward", {}, lambda: 0.0)
    workshop = build_case(helpers.patched("counter", ("def haiku():\n", "def haiku():\n    assert False, 'planted'\n")))
    with pytest.raises(PortError, match="haiku: building the model raised AssertionError: planted"):
        measure_costs(workshop, {}, 0.0)


def test_the_reference_and_its_control_are_sampled_jointly() -> None:
    """Else an unlucky memory layout would always be on one side; candidates have programs of their own."""
    measurement = begin_measurement(bench(), "forward", {}, lambda: 0.0)
    first, again, *others = measurement.timed_runners
    assert (first, again) == (TimedRunner("haiku", "jax.jit"), TimedRunner("haiku", "jax.jit", is_control=True))
    pools = {first: ["a", "b"], again: ["c", "d"], **{who: [who.runner, "other"] for who in others}}
    drawn = [measurement.sample_variants(pools) for _ in range(200)]
    assert {one[first] for one in drawn} == {one[again] for one in drawn} == {"a", "b", "c", "d"}
    assert all(one[first] != one[again] for one in drawn)
    assert all({one[who] for one in drawn} == {who.runner, "other"} for who in others)


def test_runners_are_made_in_another_order_for_every_block() -> None:
    """Whoever is made first gets the place in memory that was freed last."""
    measurement, made = Measurement(bench(), "forward", lambda: 0.0, []), []
    starts = {name: lambda name=name: made.append(name) for name in "abcd"}
    for _ in range(40):
        assert set(measurement.start_runners(starts)) == set(starts)
    assert len({tuple(made[start : start + 4]) for start in range(0, len(made), 4)}) > 12


def test_a_step_is_device_time_plus_dispatch() -> None:
    """Device time is what its program takes beyond an empty one; the two parts make up the step."""
    who = TimedRunner("nnx", "nnx.jit")
    seconds = {"step": 20.0, "program": 7.0, "empty": 2.0}
    blocks = {(who, kind): [np.full(4, value), np.full(4, 2 * value)] for kind, value in seconds.items()}
    for phase, expected in (("step", [20, 40]), ("device", [5, 10]), ("dispatch", [15, 30])):
        np.testing.assert_array_equal(block_values(blocks, who, phase)[0], expected)


def test_a_few_compiled_programs_are_kept_of_each() -> None:
    """All of them would fill the memory of a large model."""
    measurement = begin_measurement(
        replace(bench(), ports={"linen": bench().ports["linen"]}), "forward", {}, lambda: 0.0
    )
    for _ in range(MAX_VARIANTS + 2):
        measurement.compile_all()
    assert {len(pool) for pool in measurement.variants.values()} == {MAX_VARIANTS}
