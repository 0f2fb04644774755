"""Initial values: a library that draws otherwise is named with the initialiser that fixes it; no verdict."""

from functools import cache

import helpers
import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from equiv.comparison.initial_values import (
    TRUNCATED_SD,
    _apply_holm,
    compare_initial_values,
    describe_distribution,
    distribution_family,
    initialiser_hint,
)
from equiv.core.results import InitialValues
from equiv.core.results_json import read_results
from equiv.frontends.cli.main import main
from equiv.programs.built_case import build_case
from equiv.report.terminal import initial_values as starts


@cache
def of_case(name: str, *changes: tuple[str, str]) -> dict[tuple[str, str], InitialValues]:
    case = helpers.patched(name, *changes) if changes else helpers.loaded(name).case
    return {(start.leaf, start.candidate): start for start in compare_initial_values(build_case(case))}


def test_haiku_truncates_without_correcting_and_flax_corrects():
    """0.88 of the standard deviation (dm-haiku 0.0.17, `TruncatedNormal`; jax.nn.initializers.lecun_normal)."""
    start = of_case("rnn_scan")["cell.linear/kernel", "linen"]
    assert not start.same
    assert start.ratio is not None
    assert abs(start.ratio * TRUNCATED_SD - 1) < 0.01
    assert start.reference.startswith("truncated normal, mean 0, sd 0.0")
    assert start.candidate_values.startswith("truncated normal, mean 0, sd 0.1")


def test_the_hint_makes_both_start_the_same():
    told = of_case("rnn_scan")["cell.linear/kernel", "linen"].hint
    form = told.removeprefix("To start as the reference: ").removesuffix(".")
    mended = of_case(
        "rnn_scan", ("nn.Dense(self.", f"nn.Dense(kernel_init=__import__('jax').nn.{form[7:]}, features=self.")
    )
    assert form.startswith("jax.nn.initializers.truncated_normal(")
    assert mended["cell.linear/kernel", "linen"].same
    assert not mended["cell.linear/kernel", "nnx"].same


def test_constants_are_compared_as_they_are():
    alike = of_case("mlp")
    assert all(start.same for start in alike.values())
    changed = of_case("mlp", ("self.b = nnx.Param(jnp.zeros((dout,)))", "self.b = nnx.Param(jnp.ones((dout,)))"))
    apart = {place for place, start in changed.items() if not start.same}
    assert apart == {("linear1/b", "nnx"), ("linear2/b", "nnx")}
    start = changed["linear1/b", "nnx"]
    assert (start.reference, start.candidate_values) == ("constant 0", "constant 1")
    assert start.hint == "To start as the reference: jax.nn.initializers.constant(0)."


def scaled(values: np.ndarray, spread: float) -> np.ndarray:
    """Of mean 0 and this standard deviation."""
    return (values - values.mean()) / values.std() * spread


RNG = np.random.default_rng(0)
FAMILIES = {
    "normal": scaled(RNG.normal(size=20_000), 0.1),
    "truncated normal": scaled(stats.truncnorm(-2, 2).rvs(20_000, random_state=1), 0.1 * TRUNCATED_SD),
    "uniform": RNG.uniform(0, 1, 20_000),
    "constant": np.full(10, 3.0),
    "few values": RNG.normal(size=20),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_recognised_by_its_farthest_value(name):
    assert distribution_family(FAMILIES[name]) == name
    assert distribution_family(FAMILIES[name] * 7) == name


def test_a_hint_names_what_jax_draws_or_nothing_if_unknown():
    assert initialiser_hint(FAMILIES["normal"]) == "To start as the reference: jax.nn.initializers.normal(0.1)."
    assert (
        initialiser_hint(FAMILIES["truncated normal"])
        == "To start as the reference: jax.nn.initializers.truncated_normal(0.1)."
    )
    assert (
        initialiser_hint(FAMILIES["uniform"])
        == initialiser_hint(FAMILIES["few values"])
        == initialiser_hint(FAMILIES["normal"] + 1)
        == ""
    )
    assert describe_distribution(FAMILIES["normal"] + 1).startswith("normal, mean 1, sd 0.1")


@pytest.mark.parametrize(
    ("ps", "apart"),
    [
        ([1.0, 1e-9, 0.5], [1]),
        ([4e-7, 4e-7], [0, 1]),  # half the level for the first, the whole for the second
        ([6e-7, 6e-7], []),  # neither is below half
        ([0.0, 6e-7, 6e-7], [0]),
        ([], []),
    ],
)
def test_many_leaves_do_not_make_a_difference_by_chance(ps, apart):
    made = _apply_holm(
        [InitialValues(str(index), "linen", True, p, "a", "b", 1.0, "mend") for index, p in enumerate(ps)]
    )
    assert [index for index, start in enumerate(made) if not start.same] == apart
    assert [bool(start.hint) for start in made] == [index in apart for index in range(len(ps))]


def test_a_run_keeps_and_prints_initial_values_without_a_verdict(tmp_path):
    path = str(helpers.CASES / "rnn_scan.py")
    ran = CliRunner().invoke(main, ["run", path, "--initial", "--reports", str(tmp_path)])
    (case,) = read_results(tmp_path / "results.json").cases
    assert case.initial_values == tuple(of_case("rnn_scan").values())
    assert ran.stdout.startswith("✓ Same: all 2 comparisons of 1 case.\n")
    assert (
        "\nrnn_scan: ≈ initial values: 2 of 4 leaves have the same distribution; "
        "cell.linear/kernel: reference truncated" in ran.stdout
    )
    assert starts.describe_initial_values(()) == "✓ initial values: 0 of 0 leaves have the same distribution"
