"""Randomness by key, from model to verdict: fixed keys, keys used twice, draws in loops, draws that nothing uses."""

import jax
import jax.numpy as jnp
import pytest
from helpers import just

import equiv
from equiv.comparison.frozen.freeze import freeze_reference
from equiv.comparison.pipeline import RunOptions, run_case
from equiv.core.case import Case
from equiv.core.case_files import LoadedCase
from equiv.layers import linear

ROWS = (linear("l", left="l", right="l"),)
FIXED = jax.random.key(42)
DRAWS = just("randomness", "outputs")


def port(function):
    """A layer, and a function of what it gives and of a key of the call."""

    def build():
        import haiku as hk

        return hk.transform(lambda x: function(hk.Linear(4, name="l")(x), hk.next_rng_key()))

    return build


def linen(call, **others):
    """A layer, and functions of what it gives, of the module and of whether it trains; one for each method."""

    def build():
        import flax.linen as nn

        def method(function):
            return lambda self, x, training: function(self.l(x), self, training)

        body = {"__call__": method(call), **{name: method(function) for name, function in others.items()}}
        return type("Model", (nn.Module,), {"setup": lambda self: setattr(self, "l", nn.Dense(4)), **body})()

    return build


def compared(left, right, methods=None, checks=None):
    """The case's result for two builders."""
    given = {"layers": ROWS, "methods": methods, "names": ("left", "right"), "checks": checks}
    result = equiv.compare(left, right, batch={"x": "float32[5,3]"}, **given)
    return result.cases[0]


def refused(case):
    """Check to the places that it refuses."""
    found = {one.check: [f.place for f in one.findings if f.grade == "refuted"] for one in case.checks}
    return {check: places for check, places in found.items() if places}


def of_key(make, shape=(4,)):
    return lambda y, key: y * jax.random.normal(make(), shape)


def scan_of(key_of, length=3):
    """A mask for every turn of a loop, from a key of its own."""

    def function(y, key):
        def turn(h, i):
            return jnp.tanh(h * jax.random.bernoulli(key_of(key, i), 0.5, h.shape)) + h, None

        return jax.lax.scan(turn, y, jnp.arange(length))[0]

    return function


def reuse(y, key):
    return y * jax.random.normal(key, (5, 4)) + jax.random.normal(key, (4,))


def no_reuse(y, key):
    one, two = jax.random.split(key)
    return y * jax.random.normal(one, (5, 4)) + jax.random.normal(two, (4,))


def dead(y, key):
    one, two = jax.random.split(key)
    jax.random.normal(two, (7,))
    return y * jax.random.normal(one, y.shape)


SAME = {
    "fixed-key-made-inside-and-outside": (of_key(lambda: jax.random.key(42)), of_key(lambda: FIXED)),
    "fixed-key-typed-and-raw": (of_key(lambda: FIXED), of_key(lambda: jax.random.PRNGKey(42))),
    "fixed-keys-of-a-loop": (
        scan_of(lambda _, i: jax.random.fold_in(FIXED, i)),
        scan_of(lambda _, i: jax.random.fold_in(jax.random.key(42), i)),
    ),
    "fixed-keys-in-an-array": (
        lambda y, _: scan_of(lambda keys, i: keys[i])(y, jax.random.split(FIXED, 3)),
        lambda y, _: scan_of(lambda keys, i: keys[i])(y, jax.random.split(jax.random.key(42), 3)),
    ),
    "fixed-big-mask": (of_key(lambda: FIXED, (5, 4)), of_key(lambda: FIXED, (5, 4))),
    "one-key-twice-in-both": (reuse, reuse),
    "dead-draw": (dead, lambda y, key: y * jax.random.normal(key, y.shape)),
    "one-mask-for-all-turns": (
        scan_of(lambda key, _: key),
        lambda y, key: scan_of(lambda key, i: jax.random.fold_in(key, 1))(y, key),
    ),
}
"""Pairs of functions that are the same model."""

DIFFERENT = {
    "fixed-scalar": (of_key(lambda: FIXED, ()), of_key(lambda: jax.random.key(43), ())),
    "fixed-big": (of_key(lambda: FIXED, (5, 4)), of_key(lambda: jax.random.key(43), (5, 4))),
    "fixed-and-of-the-run": (of_key(lambda: FIXED, (5, 4)), lambda y, key: y * jax.random.normal(key, (5, 4))),
    "fixed-keys-of-a-loop": (
        scan_of(lambda _, i: jax.random.fold_in(FIXED, i)),
        scan_of(lambda _, i: jax.random.fold_in(FIXED, i + 1)),
    ),
    "fixed-keys-in-an-array": (
        lambda y, _: scan_of(lambda keys, i: keys[i])(y, jax.random.split(FIXED, 3)),
        lambda y, _: scan_of(lambda keys, i: keys[i])(y, jax.random.split(jax.random.key(43), 3)),
    ),
    "one-mask-for-all-turns": (
        scan_of(lambda key, _: key),
        scan_of(lambda key, i: jax.random.fold_in(key, i)),
    ),
    "roll-by-a-random-number": (
        lambda y, key: jnp.roll(y, jax.random.randint(key, (), 0, 4), axis=0),
        lambda y, key: jnp.roll(y, -jax.random.randint(key, (), 0, 4), axis=0),
    ),
    "choice-in-another-order": (
        lambda y, key: y * jax.random.choice(key, jnp.array([1.0, 2.0, 3.0, 4.0])),
        lambda y, key: y * jax.random.choice(key, jnp.array([1.0, 3.0, 2.0, 4.0])),
    ),
    "diffusion-time-wrong-but-at-zero": (
        lambda y, key: y * jnp.cos(jax.random.randint(key, (5, 1), 0, 1024) / 1024),
        lambda y, key: y * jnp.cos(jax.random.randint(key, (5, 1), 0, 1024) / 1000),
    ),
}
"""Pairs of functions that are different models."""


@pytest.mark.quick(3)
@pytest.mark.parametrize("name", SAME)
def test_the_same_randomness_is_the_same(name):
    case = compared(*map(port, SAME[name]), checks=DRAWS)
    assert case.verdicts == {"right": "same"}
    assert [one.grade for one in case.checks if one.check == "outputs"] == ["proved"]


@pytest.mark.quick(3)
@pytest.mark.parametrize("name", DIFFERENT)
def test_other_randomness_is_different(name):
    assert compared(*map(port, DIFFERENT[name]), checks=DRAWS).verdicts == {"right": "different"}


@pytest.mark.parametrize(("left", "right"), [(reuse, no_reuse), (no_reuse, reuse)], ids=["reference", "candidate"])
def test_one_key_twice_is_found_by_nothing_else(left, right):
    """A planted fault: other shapes, so that outputs, gradients and training are proved."""
    case = compared(port(left), port(right))
    assert case.verdicts == {"right": "different"}
    assert refused(case) == {"randomness": ["left draws new bits" if left is reuse else "right draws new bits"]}


def drawn(function):
    return lambda y, module, training: function(y, module.make_rng("dropout"))


def plain(y, module, training):
    return y


def in_eval_only(function):
    return lambda y, module, training: y if training else function(y, module.make_rng("dropout"))


METHODS = {"__call__": ("x",), "encode": ("x",)}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (linen(in_eval_only(of_key(lambda: FIXED))), linen(in_eval_only(of_key(lambda: jax.random.key(43))))),
        (linen(in_eval_only(no_reuse)), linen(in_eval_only(reuse))),
    ],
    ids=["fixed-key", "key-twice"],
)
def test_eval_mode_alone_is_judged(left, right):
    assert compared(left, right, checks=DRAWS).verdicts == {"right": "different"}


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("left", "right"), [(of_key(lambda: FIXED), of_key(lambda: jax.random.key(43))), (no_reuse, reuse)]
)
def test_a_second_method_alone_is_judged(left, right):
    builders = (linen(plain, encode=drawn(one)) for one in (left, right))
    assert compared(*builders, METHODS, DRAWS).verdicts == {"right": "different"}


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("candidate", "verdict"), [(FIXED, "same"), (jax.random.key(43), "different")], ids=["its-key", "another"]
)
def test_a_frozen_reference_keeps_its_fixed_key(candidate, verdict):
    models = {"left": port(of_key(lambda: jax.random.key(42))), "right": port(of_key(lambda: candidate))}
    loaded = LoadedCase("fixed", "", Case("", models, {"x": "float32[5,3]"}, ROWS))
    result = run_case(loaded, options=RunOptions(against=freeze_reference(loaded)))
    assert result.verdicts == {"right": verdict}
