"""Aiming a probe at a threshold: which there are to aim at, and by how much to scale. Nothing is compiled."""

from dataclasses import replace

import numpy as np
import pytest

from equiv.comparison.edges.aim import aim_probes, list_targets
from equiv.core.layouts import Identity
from equiv.core.leaves import LeafSpec, LeafTable, MappedLeaf, NativeKey
from equiv.programs.exercise import Site
from equiv.programs.probes import Probe

KERNEL = MappedLeaf("l/kernel", NativeKey("params", "l"), Identity(), LeafSpec((2, 2), "float32"), (2, 2))
TABLE = LeafTable("port", (KERNEL,))
X = np.linspace(-1.0, 2.0, 10, dtype="float32").reshape(1, 5, 2)
PROBE = Probe("0", 1, {"l/kernel": np.full((2, 2), 0.5, "float32")}, {"x": X})


def observer(site, function):
    """A port whose values at a site are a function of its input and kernel."""

    def observe(probe):
        values = function(probe.batches["x"].astype("float64"), probe.variables["l/kernel"].astype("float64").mean())
        return {site: np.array([values.min(), values.max(), 0.0])}

    return observe


def aimed(site, function, others=()):
    observe = {
        "old": observer(site, function),
        "new": lambda _: {other: np.array([-1.0, 1.0, 0.0]) for other in others},
    }
    exercised = {port: run(PROBE) for port, run in observe.items()}
    return aim_probes(PROBE, TABLE, exercised, observe), observe["old"]


@pytest.mark.parametrize(
    ("bound", "relation", "function"),
    [
        (60.0, ">", lambda x, w: x * w),
        (-60.0, "<", lambda x, w: x * w),
        (1e6, ">", lambda x, w: x**2 * w + 3),
        (1e-3, "<", lambda x, w: np.abs(x * w) + 1e-2 * np.abs(x).max()),
        (9.0, ">", lambda x, w: x / np.abs(x).max() * w),
    ],
)
def test_a_probe_has_values_just_beyond_a_threshold(bound, relation, function):
    site = Site("threshold", "m.py:1", bound, relation)
    ((probe, aimed_at),), observe = aimed(site, function)
    low, high, _ = observe(probe)[site]
    assert aimed_at == site
    assert low < bound < high
    extreme = high if relation == ">" else low
    assert 1 / 1.6 <= extreme / bound <= 1.6


def test_what_is_above_zero_by_rounding_is_not_aimed_at():
    """As `x - max(x)`, whose maximum another operation has rounded."""
    site = Site("overflow", "m.py:1", 88.7, ">")
    assert aimed(site, lambda x, w: x * w - 1.01 * np.max(x * w) + 1e-6 * np.abs(x).max())[0] == []
    rounded = aimed(site, lambda x, w: np.array([-1e3, 1e-7]) * np.abs(x).max() * w)
    assert rounded[0] == []


def test_values_stay_before_a_threshold_of_the_other_port_alone():
    site, other = Site("threshold", "m.py:1", 60.0, ">"), Site("threshold", "n.py:1", 61.0, ">")
    probes, observe = aimed(site, lambda x, w: x * w, [other])
    assert 60 < observe(probes[0][0])[site][1] < 61


def test_a_threshold_that_no_scale_reaches_is_left():
    site = Site("threshold", "m.py:1", 2.0, ">")
    assert aimed(site, lambda x, w: np.tanh(x * w))[0] == []
    assert aimed(site, lambda x, w: x * 0 + 1)[0] == []


def test_a_threshold_with_values_on_both_sides_is_no_target():
    shared = Site("threshold", "m.py:1", 1.0, ">")
    both = {shared: np.array([-1.0, 2.0, 0.0])}
    drawn = {replace(shared, drawn=True): both[shared]}
    assert list(list_targets({"old": drawn, "new": {}})) == [], "no scale changes a draw"
    assert list(list_targets({"old": both, "new": both})) == []
    assert len(list(list_targets({"old": both, "new": {}}))) == 1
