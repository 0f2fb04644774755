"""Who is to blame where what users run differs from what it means: a value beside a kink, asked before all else."""

import pytest

from equiv.comparison import as_users


@pytest.mark.parametrize(
    ("moved", "unstable", "runs"),
    [
        ([{"kink": 9e5, "other": 40.0}], True, 1),
        ([{"kink": 9e5, "other": 0.0}, {"kink": 0.0, "other": 40.0}], True, 2),
        ([{"kink": 9e5, "other": 5.0}] * 2, False, 2),
        ([{"kink": 9e5}] * 2, False, 2),
    ],
)
def test_a_kink_excuses_no_other_output(monkeypatch, moved, unstable, runs):
    """Each output that is off has to move about as far by an ulp; no run is made once all have."""
    made = iter(moved)
    monkeypatch.setattr(as_users._JudgedCall, "_distances", lambda *_, **__: next(made))
    judged = as_users._JudgedCall(None, None, (), {"kink": 1e6, "other": 100.0, "right": 0.5})
    assert judged.is_unstable(None, runs=2) == unstable
    assert len(list(made)) == len(moved) - runs
