"""Lookups that differ out of range only: the same where indices are in range, different where a batch has others."""

import flax.linen as nn
import jax.numpy as jnp
import pytest

from equiv.case import Case
from equiv.comparison.pipeline import run_case
from equiv.core.case_files import LoadedCase
from equiv.layers import parameter


class Lookup(nn.Module):
    """Rows of a table of ten."""

    mode: str

    @nn.compact
    def __call__(self, words):
        table = self.param("table", nn.initializers.normal(), (10, 3))
        return jnp.take(table, words, axis=0, mode=self.mode, fill_value=0.0)


@pytest.mark.parametrize(("bound", "verdict"), [(10, "same"), (20, "different")])
def test_a_mode_counts_only_out_of_range(bound, verdict):
    models = {mode: lambda mode=mode: Lookup(mode) for mode in ("clip", "fill")}
    case = Case("none", models, {"words": f"int32[6]:{bound}"}, (parameter("table", clip="table", fill="table"),))
    result = run_case(LoadedCase("lookups", "A lookup.", case))
    assert result.verdicts["fill"] == verdict
    named = {name for check in result.checks for item in check.findings for name in item.rewrites}
    assert "indices in range" in named
    notes = [item.note for check in result.checks for item in check.findings if item.grade == "refuted"]
    assert all("does not hold here" in note for note in notes if "train" not in note)
