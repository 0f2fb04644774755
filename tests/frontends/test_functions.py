"""`equiv.compare`, `run`, `infer_layers`, `freeze` and `convert`: what the command line does, from Python."""

import json
from dataclasses import replace
from functools import cache

import helpers
import numpy as np
import pytest
from click.testing import CliRunner

import equiv
import equiv.comparison
from equiv.conversion.manifest import read_manifest
from equiv.frontends.cli.main import main
from equiv.infer.draft_case import draft_case
from equiv.infer.table.case_writer import case_text
from equiv.layers import linear

BATCH = {"x": "float32[4,5]"}
OUTPUTS = helpers.just("outputs")
ROWS = (linear("hidden", linen="hidden", nnx="hidden"), linear("out", linen="out", nnx="out"))


def linen(scale=1):
    import flax.linen as nn
    import jax

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3, name="out")(jax.nn.relu(nn.Dense(6, name="hidden")(x))) * scale

    return Model()


def nnx(rngs):
    import jax
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self):
            self.hidden, self.out = nnx.Linear(5, 6, rngs=rngs), nnx.Linear(6, 3, rngs=rngs)

        def __call__(self, x):
            return self.out(jax.nn.relu(self.hidden(x)))

    return Model()


def doubled():
    return linen(scale=2)


def grades(run):
    return {(check.candidate, check.check): check.grade for case in run.cases for check in case.checks}


def test_the_functions_are_public_beside_their_packages():
    """`import equiv.comparison` must not hide a function: packages have other names."""
    assert all(callable(getattr(equiv, name)) for name in ("compare", "run", "infer_layers", "freeze", "convert"))


@cache
def inferred():
    """The two models, compared without a layer table."""
    return equiv.compare(linen, nnx, batch=BATCH)


def test_two_models_are_compared_without_a_layer_table():
    run = inferred()
    assert run.verdict == "same"
    assert {row.leaf for row in run.cases[0].leaves} == {"hidden/kernel", "hidden/bias", "out/kernel", "out/bias"}


def test_an_inferred_table_gives_a_given_ones_grades():
    given = equiv.compare(linen, nnx, batch=BATCH, layers=ROWS)
    assert grades(given) == grades(inferred())


@pytest.mark.slow
def test_a_fault_is_found_with_either_table():
    for layers in (None, ROWS):
        run = equiv.compare(doubled, nnx, batch=BATCH, layers=layers)
        assert run.verdict == "different"
        assert grades(run)["nnx", "outputs"] == "refuted"


def test_names_of_two_models_of_one_library_are_free():
    run = equiv.compare(linen, doubled, batch=BATCH, names=("old", "new"), checks=OUTPUTS)
    assert (run.cases[0].reference, run.cases[0].candidates, run.verdict) == ("old", ("new",), "different")


def test_command_function_and_file_give_the_same_grades(tmp_path, monkeypatch):
    """`equiv check`, `equiv.compare` and the case file that `equiv new` writes."""
    monkeypatch.chdir(helpers.CASES.parent)
    places = [f"tests/frontends/test_functions.py:{name}" for name in ("linen", "nnx")]
    printed = CliRunner().invoke(main, ["check", *places, "--input", "float32[4,5]", "--json"])
    assert printed.exit_code == 0, printed.output
    checked = {
        (check["candidate"], check["check"]): check["grade"]
        for case in json.loads(printed.stdout)["cases"]
        for check in case["checks"]
    }
    assert checked == grades(equiv.compare(*places, batch=BATCH))
    written = tmp_path / "case.py"
    assert CliRunner().invoke(main, ["new", *places, "--input", "float32[4,5]", "-o", str(written)]).exit_code == 0
    assert checked == grades(equiv.run([written]))


def test_a_drafted_case_is_the_one_that_is_written(tmp_path):
    found = equiv.infer_layers(linen, nnx, batch=BATCH)
    assert found.complete
    drafted = draft_case(found.draft, equiv.Case("", {}, BATCH, ()))
    written = helpers.case_from(case_text(replace(found.draft, builders=found.draft.builders), tmp_path), "written")
    assert (drafted.layers, drafted.known_differences, drafted.batch) == (
        written.layers,
        written.known_differences,
        written.batch,
    )
    assert list(drafted.models) == list(written.models)


def test_the_users_own_builder_is_the_source_of_its_port():
    (case,) = inferred().cases
    assert case.sources["linen"].text.startswith("def linen(scale=1):")
    assert case.sources["nnx"].file.endswith("tests/frontends/test_functions.py")


def test_models_without_the_same_leaves_are_compared_all_the_same():
    def with_gain(rngs):
        import jax.numpy as jnp
        from flax import nnx as nnx_library

        class Model(nnx_library.Module):
            def __init__(self):
                self.inner, self.gain = nnx(rngs), nnx_library.Param(jnp.ones(3))

            def __call__(self, x):
                return self.inner(x) * self.gain[...]

        return Model()

    run = equiv.compare(linen, with_gain, batch=BATCH, checks=OUTPUTS)
    assert run.verdict == "different"
    assert [check.check for check in run.cases[0].checks if check.grade == "refuted"] == ["structure"]
    told = "leaf gain: linen none, nnx float32[3]: linen has no counterpart of it; same where it is 1"
    assert run.headline.endswith(told)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"batch": {"x": 3}}, r"compare: batch is \{'x': 3\}, wanted names to text"),
        ({"batch": {"x": 3}, "layers": ROWS}, r"compare: batch is \{'x': 3\}, wanted names to text"),
        ({"steps": 0}, "compare: steps is 0, wanted a whole number"),
        ({"left": 3}, "left: got 3. Give a function"),
        ({"left": 3, "layers": ROWS}, "left: got 3. Give a function"),
        ({"left": "nowhere.py:model"}, "no such file. Give file.py:function"),
    ],
)
def test_what_cannot_be_used_is_an_error_of_ours(changed, match):
    with pytest.raises(equiv.EquivError, match=match):
        equiv.compare(**({"left": linen, "right": nnx, "batch": BATCH} | changed))


def test_a_run_of_files_reports_each_as_it_finishes():
    told = []
    run = equiv.run(["cases/counter.py"], prove_only=True, finished=lambda case: told.append(case.name))
    assert (run.verdict, told) == ("same", ["counter"])


def test_options_that_exclude_each_other_are_refused():
    with pytest.raises(equiv.EquivError, match="--against runs without --prove-only"):
        equiv.run(["cases/counter.py"], prove_only=True, against="counter.equiv")


def test_a_frozen_reference_is_written_and_compared_with(tmp_path):
    frozen = equiv.freeze("cases/counter.py", tmp_path / "counter.equiv")
    assert (frozen.port, frozen.case) == ("haiku", "counter")
    run = equiv.run(["cases/counter.py"], against=tmp_path / "counter.equiv")
    assert (run.verdict, run.cases[0].reference) == ("same", "frozen haiku")


def test_a_checkpoint_is_converted(tmp_path):
    old = {"hidden/kernel": (5, 6), "hidden/bias": (6,), "out/kernel": (6, 3), "out/bias": (3,)}
    arrays = {f"params/{name}": np.full(shape, 0.5, "float32") for name, shape in old.items()}
    np.savez(tmp_path / "old.npz", **arrays)
    written = tmp_path / "case.py"
    place = "tests/frontends/test_functions.py"
    CliRunner().invoke(main, ["new", f"{place}:linen", f"{place}:nnx", "--input", "float32[4,5]", "-o", str(written)])
    manifest = equiv.convert(tmp_path / "old.npz", tmp_path / "new.npz", case=written, to="nnx", verify=True)
    assert manifest is not None
    assert manifest == read_manifest(tmp_path / "new.npz")
    assert manifest.verified.startswith("same: ")
    assert equiv.convert(tmp_path / "old.npz", tmp_path / "x.npz", case=written, to="nnx", dry_run=True) is None


def test_a_partial_of_a_class_is_a_builder():
    from functools import partial

    from flax import nnx as nnx_library

    class Model(nnx_library.Module):
        def __init__(self, width, *, rngs):
            self.hidden, self.out = (
                nnx_library.Linear(5, width, rngs=rngs),
                nnx_library.Linear(width, 3, rngs=rngs),
            )

        def __call__(self, x):
            return self.out(nnx_library.relu(self.hidden(x)))

    assert equiv.compare(linen, partial(Model, 6), batch=BATCH, checks=OUTPUTS).verdict == "same"


def test_an_instance_is_taken_with_and_without_a_table():
    for layers in (None, ROWS):
        assert equiv.compare(linen(), nnx, batch=BATCH, layers=layers, checks=OUTPUTS).verdict == "same"


def test_a_missing_library_is_named_as_such():
    def missing():
        import nonexistent_library  # noqa: F401

    with pytest.raises(equiv.NotRun, match=r"needs nonexistent_library, which is not installed here\. Install it\."):
        equiv.compare(linen, missing, batch=BATCH)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: equiv.compare(linen, nnx, batch=BATCH, names=("a", "a")), "wanted two different names"),
        (lambda: equiv.compare(linen, nnx, batch=BATCH, names=("a", None)), "wanted two different names"),
        (lambda: equiv.compare(linen, nnx, batch=BATCH, names=5), "wanted two different names"),
        (lambda: equiv.compare(linen, nnx, batch=BATCH, layers=3), "layers is 3, wanted a tuple of rows"),
        (lambda: equiv.compare(linen, nnx, batch=BATCH, layers=ROWS[0]), "layers is a Layer, wanted a tuple of rows"),
        (lambda: equiv.compare(linen, nnx, batch=BATCH, known_differences=3), "known_differences is 3, wanted"),
        (lambda: equiv.compare(linen, nnx, batch=BATCH, budget_factor="2"), "budget_factor is '2', wanted a number"),
        (lambda: equiv.compare(linen, nnx, batch=BATCH, budget_factor=float("inf")), "budget_factor is inf, wanted"),
        (lambda: equiv.compare(linen, nnx, batch=BATCH, loss=3), "loss is 3, wanted a function"),
        (lambda: equiv.infer_layers(linen, nnx, batch=None), "batch is None, wanted names to text"),
        (lambda: equiv.infer_layers(linen, nnx, batch=BATCH, methods="x"), "methods is 'x', wanted calls"),
        (lambda: equiv.run(None), "paths is None, wanted a path"),
        (lambda: equiv.freeze(None, "x"), "path is None, wanted a path"),
        (lambda: equiv.run("cases/counter.py", against=3), "against is 3, wanted a path"),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(call, match):
    with pytest.raises(equiv.EquivError, match=match):
        call()
