"""Rounding noise: what one ulp in every input does, measured alike for compiled and for eager ports."""

import weakref

import numpy as np
import pytest
from helpers import reference, workshop_of

from equiv.comparison.numeric import rounding
from equiv.comparison.numeric.held_outputs import drop_observed, run_in_step
from equiv.comparison.numeric.rounding import UNBOUNDED, measure_parts, measure_responses
from equiv.comparison.selfcheck.eager_port import measure_eager_noise, open_eager_port
from equiv.core.budget import rounding_response
from equiv.programs.probes import Probe
from equiv.programs.traced_port import trace_port

X = np.array([1.0, 2.0, -4.0], "float32")
PROBES = [Probe("0", 1, {"w": X}, {}), Probe("1", 2, {"w": X}, {})]


def responses(run, in_float64=False):
    return measure_responses(run, {probe.name: run(probe) for probe in PROBES}, PROBES, in_float64)


@pytest.mark.parametrize(("in_float64", "ulp"), [(False, 2.0**-23), (True, 2.0**-52)])
def test_a_linear_output_moves_by_its_coefficient_in_ulps(in_float64, ulp):
    found = responses(lambda probe: {"y": 3.0 * probe.variables["w"].astype("float64")}, in_float64)
    assert found["0"]["y"].largest == found["1"]["y"].largest == pytest.approx(3 * 4 * ulp, rel=1e-6)


def test_integers_and_what_depends_on_no_input_do_not_move():
    found = responses(lambda _: {"count": np.arange(3), "constant": X})
    assert [(list(outputs), outputs["constant"].largest) for outputs in found.values()] == [(["constant"], 0.0)] * 2


def test_a_difference_between_two_equal_runs_is_noise():
    """On the first probe, the inputs of which are also run on as they are."""
    runs = iter(range(100))

    def run(probe):
        return {"y": np.array([float(next(runs) == 2)])}

    found = responses(run)
    assert (found["0"]["y"].largest, found["1"]["y"].largest) == (1.0, 0.0)


def test_values_that_are_not_finite_are_left_out():
    found = responses(lambda probe: {"y": np.append(probe.variables["w"], np.float32("inf"))})
    assert 0 < found["0"]["y"].largest < 1e-5


def test_what_one_ulp_takes_out_of_the_numbers_is_unbounded():
    """Where the port itself gives a number; a mask of infinities is none."""
    masked = np.append(X, np.float32("-inf"))

    def run(probe):
        root = np.full(4, np.nan if np.any(probe.variables["w"] > X) else 1.0, "float32")
        return {"root": root, "masked": np.append(probe.variables["w"], np.float32("-inf"))}

    actual = {probe.name: {"root": np.ones(4, "float32"), "masked": masked} for probe in PROBES}
    given = {probe.name: run(probe) for probe in PROBES}
    found = measure_responses(run, given, PROBES, False, 8, actual)["0"]
    assert found["root"] == UNBOUNDED
    assert found["masked"].largest < 1e-5


def test_few_runs_at_a_time_give_the_same_responses(monkeypatch):
    """And no more of them are in memory."""
    alive: set[int] = set()

    class Part(dict):
        def __init__(self, probe):
            super().__init__(y=3 * probe.variables["w"])
            alive.add(id(self))
            assert len(alive) <= 1 + rounding.MOST_TOGETHER, "beside the run that others are compared with"

        def __del__(self):
            alive.discard(id(self))

    given = {probe.name: Part(probe) for probe in PROBES[:1]}
    found = measure_parts(lambda probe: iter([Part(probe)]), given, PROBES[:1], False, 8)
    assert alive == {id(given["0"])}
    monkeypatch.setattr(rounding, "MOST_TOGETHER", 9)
    assert measure_parts(lambda probe: iter([Part(probe)]), given, PROBES[:1], False, 8) == found


@pytest.mark.parametrize("observed", [False, True])
def test_streams_in_step_keep_no_part(observed):
    """`zip` keeps the last parts while it waits for the next ones, as a generator expression does."""
    alive: list[weakref.ref[np.ndarray]] = []

    def stream():
        for _ in range(3):
            assert not any(one() is not None for one in alive), "of an earlier step"
            array = np.zeros(2)
            alive.append(weakref.ref(array))
            yield (array, {}) if observed else array
            del array

    steps = 0
    for parts in run_in_step([drop_observed(stream()) if observed else stream()]):
        steps += 1
        del parts
    assert steps == 3
    assert all(one() is None for one in alive)


@pytest.mark.parametrize("name", ["counter", "rnn_scan"])
def test_compiled_and_eager_ports_have_the_same_noise(name):
    """To a factor: both are the largest of few random directions, and a compiler may fuse operations."""
    case = workshop_of(name)
    eager = measure_eager_noise(open_eager_port(case, trace_port(case, next(iter(case.case.models))), False))
    compiled = reference(name)
    assert eager.depth == compiled.noise.depth
    for probe, outputs in eager.native.items():
        arrays, measured = compiled.observed.samples[probe].float64, compiled.noise.float64[probe]
        for place in outputs.keys() & arrays.keys():
            largest = np.max(np.abs(arrays[place]), initial=0.0)
            one, other = (rounding_response(noise[place].largest, 2.0**-52, largest) for noise in (outputs, measured))
            assert max(one, other) <= 16 * min(one, other), (probe, place)
