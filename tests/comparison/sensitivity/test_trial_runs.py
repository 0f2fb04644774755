"""In which run a change is tried first."""

from types import SimpleNamespace

import pytest

from equiv.comparison.sensitivity import trial_runs
from equiv.comparison.sensitivity.trial_runs import LeafChange, Shown, TrialRuns


@pytest.mark.parametrize(("ratio", "asked"), [(2.0, ["one by one"]), (0.5, ["one by one", "whole"])])
def test_outputs_one_by_one_are_asked_first(ratio, asked, monkeypatch):
    """That run ends with the first that shows the change; a whole one in bfloat16 looks blind and makes every step."""
    bases = (
        SimpleNamespace(name="whole", one_by_one=False, calls_alone=None),
        SimpleNamespace(name="one by one", one_by_one=True, calls_alone=None),
    )
    made: list[str] = []

    def compare(self, base, change, in_calls):
        made.append(base.name)
        return Shown("output", ratio)

    monkeypatch.setattr(trial_runs.TrialRuns, "_compare", compare)
    change = LeafChange("swapped", ("a", "b"))
    found = TrialRuns(bases, left=4).try_changes([change])
    assert (made, found[change].noticed) == (asked, ratio > 1)
