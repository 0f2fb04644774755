"""Inputs with a meaning, such as masks and positions: their values are kept in every probe, and that is said."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import just

import equiv
from equiv.backends.batches import resolve_batch
from equiv.comparison.edges.edge_probes import exact_values, small_gradients, small_inputs, zero_inputs
from equiv.comparison.longer_batch import longer_batches
from equiv.comparison.numeric.probe_set import make_probes
from equiv.core.batch_spec import parse_batch
from equiv.core.case import Case
from equiv.core.leaves import LeafTable
from equiv.errors import CaseError
from equiv.programs.built_case import build_case
from equiv.programs.probes import perturb_by_ulp

MASK = np.array([True, True, False])
POSITIONS = np.array([[-1, 0, 1], [0, 1, 2]], "int32")
BATCH = {"x": "f32[2,4]", "mask": lambda: MASK, "positions": POSITIONS}


class Left(nnx.Module):
    def __init__(self, rngs):
        self.l = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x, mask, positions):
        return jnp.where(mask, self.l(x), positions)


class Right(Left):
    """The same where the last of three is masked: the mask itself is not read."""

    def __call__(self, x, mask, positions):
        return super().__call__(x, jnp.arange(3) < 2, positions)


@pytest.fixture(autouse=True)
def not_compiled(monkeypatch):
    monkeypatch.setenv("EQUIV_COMPILED", "0")


def judge(**batch):
    (case,) = equiv.compare(Left, Right, batch={**BATCH, **batch}, steps=1, checks=just("outputs")).cases
    (verdict,) = case.verdicts.values()
    return verdict, case.scope.text


def test_a_verdict_holds_for_the_kept_values_only():
    """A mask of random values tells the two apart, and one that is given does not."""
    verdict, text = judge()
    assert verdict == "same"
    assert "mask bool[3] (only the given values), positions int32[2,3] (only the given values);" in text
    assert judge(mask="bool[3]")[0] == "different"


def test_what_is_proved_holds_for_every_value():
    (case,) = equiv.compare(Left, Left, batch=BATCH, steps=1, names=("one", "other")).cases
    assert case.scope.text.startswith("every value of these shapes and dtypes: x float32[2,4], mask bool[3], pos")


def test_no_probe_has_other_values():
    batch = {**BATCH, "scale": np.ones(3, "f")}
    built = build_case(Case("", {}, batch, (), methods=("__call__(x, mask, positions)",)))
    table = LeafTable("one", ())
    ordinary = make_probes(built, table)
    first = ordinary[0]
    made = [*ordinary, perturb_by_ulp(first, 3), small_inputs(first, table), small_gradients(first, table)]
    made += [zero_inputs(first, table, True), exact_values(first, table, (1.0, 2.0))]
    for probe in made:
        steps = len(probe.batches["x"])
        for name, values in (("mask", MASK), ("positions", POSITIONS), ("scale", np.ones(3, "f"))):
            assert np.array_equal(probe.batches[name], [values] * steps), (probe.name, name)
    assert any(not np.array_equal(one.batches["x"], first.batches["x"]) for one in made)


def test_no_longer_batch_is_tried_where_values_are_kept():
    case = resolve_batch(Case("", {}, {"x": "f32[2,1,4]", "mask": np.ones((1, 1), bool), "n": {"a": "i32[2]:9"}}, ()))
    changed = {changed for changed, _ in longer_batches(case)}
    assert changed == {("x to float32[5,1,4]", "n/a to int32[5]:9"), ("x to float32[2,1,9]",)}


def given():
    return {"x": np.ones((2, 3), "f"), "pair": {"mask": MASK, "ids": np.array([4, 2])}, "none": None}


def test_keep_names_what_a_function_for_all_gives():
    """The others have its shapes, dtypes and bounds."""
    batch = resolve_batch(Case("", {}, given, (), keep=("pair/mask",))).batch
    entries = parse_batch(batch)
    assert {name: str(one) for name, one in entries.items()} == {
        "x": "float32[2,3]",
        "pair/mask": "bool[3]",
        "pair/ids": "int64[2]:5",
    }
    assert [name for name, one in entries.items() if one.kept is not None] == ["pair/mask"]
    both = parse_batch(resolve_batch(Case("", {}, given, (), keep=("pair",))).batch)
    assert [name for name, one in both.items() if one.kept is not None] == ["pair/mask", "pair/ids"]


def raising():
    raise ValueError("no data here")


@pytest.mark.parametrize(
    ("batch", "keep", "message"),
    [
        (
            raising,
            (),
            r"the batch function raising: calling it raised ValueError: no data here\. Fix ",
        ),
        (lambda: None, (), r"the batch is None\. Return an array, or a dictionary of names to arrays"),
        (lambda: {"x": [1.0]}, (), r"'x/0' is 1\.0\. Return an array"),
        (given, ("mask",), r"keep names 'mask', of which there are no values; the batch has x, pair/mask, pair/ids"),
        (
            {"x": "f32[2]"},
            ("x",),
            r"keep names 'x', of which there are no values.*Give its values: a function",
        ),
        ({"x": lambda: "f32"}, (), r"batch entry 'x': cannot parse 'f32'"),
        ({"x": np.zeros((0, 2))}, (), r"batch entry 'x': float64\[0, 2\] is empty"),
        ({"x": np.array(["a"])}, (), r"batch entry 'x': no dtype '<U1'"),
    ],
)
def test_a_batch_that_cannot_be_kept_says_why(batch, keep, message):
    with pytest.raises(CaseError, match=message):
        parse_batch(resolve_batch(Case("", {}, batch, (), keep=keep)).batch)
