"""PRNG keys among the inputs of a call: as `jax.random.key`, drawn from as the model says, compared bit by bit."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from helpers import just

import equiv
from equiv.core.batch_spec import parse_batch
from equiv.errors import CaseError

BATCH = {"x": "float32[3,4]", "key": "key[]"}
DRAWS = just("outputs", "randomness")


@pytest.fixture(autouse=True)
def not_compiled(monkeypatch):
    monkeypatch.setenv("EQUIV_COMPILED", "0")


def noise(key, x):
    return x + 0.5 * jax.random.normal(key, x.shape)


def linen(change=noise):
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, key):
            return nn.Dense(3, name="d")(change(key, x))

    return Model


def of_nnx(change=noise):
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.d = nnx.Linear(4, 3, rngs=rngs)

        def __call__(self, x, key):
            return self.d(change(key, x))

    return Model


def compared(left, right, batch=BATCH, **options):
    (case,) = equiv.compare(left, right, batch=batch, **options).cases
    (found,) = case.verdicts.values()
    return str(found), {one.check: one.grade for one in case.checks}, case


def test_a_key_is_an_input_and_its_draws_are_proved():
    verdict, grades, _ = compared(linen(), of_nnx())
    assert verdict == "same"
    assert {grades[check] for check in ("outputs", "gradients", "train")} == {"proved"}


@pytest.mark.parametrize(
    "other",
    [
        lambda key, x: noise(jax.random.fold_in(key, 1), x),
        lambda key, x: noise(jax.random.split(key)[0], x),
        lambda key, x: x + 0.5 * jax.random.normal(jax.random.key(0), x.shape),
        lambda key, x: x + 0.5 * jax.random.uniform(key, x.shape),
    ],
    ids=["folded", "split", "constant", "uniform"],
)
def test_another_use_of_the_key_is_different(other):
    assert compared(linen(), of_nnx(other), checks=DRAWS)[0] == "different"


def test_keys_of_each_row_are_drawn_from_in_a_vmap():
    def rows(keys, x):
        return x + jax.vmap(lambda key: jax.random.normal(key, (4,)))(keys)

    def loop(keys, x):
        return x + jnp.stack([jax.random.normal(key, (4,)) for key in keys])

    batch = {"x": "float32[3,4]", "key": "key<fry>[3]"}
    assert compared(linen(rows), of_nnx(loop), batch, checks=DRAWS)[0] == "same"
    wrong = of_nnx(lambda keys, x: loop(keys[::-1], x))
    assert compared(linen(rows), wrong, batch, checks=DRAWS)[0] == "different"


def test_the_values_of_a_key_can_be_kept():
    kept = {"x": "float32[3,4]", "key": jax.random.key(7)}

    def own(_, x):
        return noise(jax.random.key(7), x)

    assert compared(linen(), of_nnx(own), kept, checks=DRAWS)[0] == "same"
    assert compared(linen(), of_nnx(own), checks=DRAWS)[0] == "different"


def test_a_key_is_written_as_jax_prints_it():
    entries = parse_batch({"a": "key[]", "b": "key<fry>[2]"})
    assert [str(one) for one in entries.values()] == ["key[]", "key[2]"]
    with pytest.raises(CaseError, match=r"no dtype 'keys'.*key for a PRNG key"):
        parse_batch({"a": "keys[]"})
