"""Lookups that differ out of range only: the same where indices are in range, different where a batch has others."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from helpers import just

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


TABLE = (parameter("table", clip="table", fill="table"),)


class LastLookup(nn.Module):
    """Rows of a table of ten, those of the sums of the words so far."""

    mode: str

    @nn.compact
    def __call__(self, words):
        return Lookup(self.mode, name="l")(jnp.cumsum(words, axis=-1))


@pytest.mark.quick(1)
@pytest.mark.parametrize(("bound", "verdict"), [(3, "same"), (4, "different")])
def test_the_largest_numbers_of_an_input_are_tried(bound, verdict):
    """Sums of four words go beyond nine only where nearly all of them are three: on no ordinary probe."""
    models = {mode: lambda mode=mode: LastLookup(mode) for mode in ("clip", "fill")}
    rows = (parameter("table", clip="l/table", fill="l/table"),)
    case = Case("none", models, {"words": f"int32[4,4]:{bound}"}, rows, checks=just("outputs"))
    assert run_case(LoadedCase("lookups", "A lookup.", case)).verdicts["fill"] == verdict


class Attends(nn.Module):
    """Attention to all but words that are zero."""

    fill: float

    @nn.compact
    def __call__(self, words):
        table = self.param("table", nn.initializers.normal(), (100, 4))
        h = table[words]
        scores = jnp.where((words != 0)[:, None, :], h @ h.swapaxes(-1, -2), self.fill)
        return jax.nn.softmax(scores) @ h


@pytest.mark.quick(1)
@pytest.mark.parametrize(("fill", "verdict"), [(-1e30, "same"), (-jnp.inf, "different")])
def test_a_row_of_padding_alone_is_tried(fill, verdict):
    """There one mask gives equal weights, and the other no numbers."""
    models = {"old": lambda: Attends(-1e20), "new": lambda: Attends(fill)}
    case = Case(
        "none",
        models,
        {"words": "int32[2,3]:100"},
        (parameter("table", old="table", new="table"),),
        checks=just("outputs"),
    )
    assert run_case(LoadedCase("attends", "A mask.", case)).verdicts["new"] == verdict


@pytest.mark.quick(1)
@pytest.mark.parametrize(("bound", "verdict"), [(10, "same"), (20, "different")])
def test_a_mode_counts_only_out_of_range(bound, verdict):
    models = {mode: lambda mode=mode: Lookup(mode) for mode in ("clip", "fill")}
    case = Case("none", models, {"words": f"int32[6]:{bound}"}, TABLE, checks=just("outputs"))
    result = run_case(LoadedCase("lookups", "A lookup.", case))
    assert result.verdicts["fill"] == verdict
    named = {name for check in result.checks for item in check.findings for name in item.rewrites}
    # Below the size of the table it is known, and no rewrite.
    assert ("indices in range" in named) == (bound > 10)
    notes = [item.note for check in result.checks for item in check.findings if item.grade == "refuted"]
    assert all("does not hold here" in note for note in notes if "train" not in note)
