"""Whole numbers without a bound are as large as the table that is looked up with them has rows."""

import flax.linen as nn
import haiku as hk
import jax.numpy as jnp
import pytest
from flax import nnx

import equiv
from equiv.core.batch_spec import parse_batch
from equiv.core.case import Case
from equiv.errors import CaseError
from equiv.programs.table_bounds import bound_by_tables


def haiku():
    return hk.transform(lambda tokens: hk.Embed(11, 3, name="e")(tokens).sum(1))


def linen():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            return nn.Embed(7, 3, name="e")(tokens[:, 1:]).sum(1)

    return Net()


class Nnx(nnx.Module):
    def __init__(self, rngs, rows=7):
        self.e = nnx.Embed(rows, 3, rngs=rngs)

    def __call__(self, tokens):
        return self.e(tokens[:, 1:]).sum(1)


class Shifted(nnx.Module):
    """The numbers that look up are others than those of the batch."""

    def __init__(self, rngs):
        self.e = nnx.Embed(7, 3, rngs=rngs)

    def __call__(self, tokens):
        return self.e(tokens + 1)


def direct():
    return hk.transform(lambda tokens: hk.get_parameter("w", (9, 4), init=jnp.zeros)[tokens.astype("int32")])


def bound(*builders, text="i32[2,5]"):
    models = {f"port{number}": builder for number, builder in enumerate(builders)}
    case = bound_by_tables(Case("", models, {"tokens": text}, ()))
    return parse_batch(case.inputs)["tokens"]


@pytest.mark.parametrize(
    ("builders", "rows"), [((haiku,), 11), ((linen,), 7), ((Nnx,), 7), ((direct,), 9), ((haiku, Nnx), 7)]
)
def test_the_smallest_table_bounds_what_looks_it_up(builders, rows):
    found = bound(*builders)
    assert (str(found), found.by_table) == (f"int32[2,5]:{rows}", True)


def test_a_bound_that_is_given_stays():
    found = bound(haiku, text="i32[2,5]:3")
    assert (found.bound, found.by_table) == (3, False)


def test_without_a_table_a_bound_is_asked_for():
    with pytest.raises(
        CaseError, match=r"'int32\[2,5\]' has no upper bound, and no table is looked up with it\. Write"
    ):
        bound(Shifted)


def test_a_model_that_cannot_be_called_says_that_instead():
    with pytest.raises(CaseError, match=r"no upper bound.* port0: tracing raised TypeError: .* positional argument"):
        bound(Broken)


class Broken(Nnx):
    def __call__(self, tokens, other):
        return super().__call__(tokens)


def test_the_default_bound_is_said():
    (case,) = equiv.compare(linen, Nnx, batch={"tokens": "i32[2,4]"}, steps=1, checks=("outputs",)).cases
    assert case.verdicts == {"nnx": "same"}
    assert case.scope.batch == {"tokens": "int32[2,4]:7"}
    assert "tokens is below 7, the rows of the table that is looked up with it" in case.scope.notes
