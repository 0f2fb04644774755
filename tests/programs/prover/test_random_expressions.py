"""Expressions at random: whatever all rewrites together call the same is the same in real numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from programs.prover.rewritten import ALL, S, V, under

from equiv.programs.prover.conditions import REORDERED_PRODUCTS, REORDERED_SUMS

LEAVES = ("a", "b", "v")


def _grow(depth):
    tree = st.sampled_from([(name,) for name in LEAVES])
    for _ in range(depth):
        below = tree
        tree = st.one_of(
            below,
            st.tuples(st.sampled_from(("add", "sub", "mul", "div")), below, below),
            st.tuples(st.sampled_from(("neg", "square", "sqrt", "rsqrt", "cut", "T")), below),
            st.tuples(st.sampled_from(("scale", "shift")), st.sampled_from((2.0, 0.5, -1.0, 3.0)), below),
            st.tuples(st.sampled_from(("sum", "mean", "centre")), st.sampled_from((0, 1)), below),
            st.tuples(st.just("mask"), below, below),
            st.tuples(st.just("dot"), below, below),
        )
    return tree


def value_of(tree, given_, xp):
    """A tree as an array of `xp` (numpy or jax.numpy); reductions keep their axes and spread again."""
    head, *rest = tree
    if head in given_:
        return given_[head]
    args = [value_of(item, given_, xp) if isinstance(item, tuple) else item for item in rest]
    if head in ("sum", "mean", "centre"):
        axis, x = args
        total = x.sum(axis, keepdims=True)
        return {
            "sum": lambda: xp.broadcast_to(total, (3, 3)),
            "mean": lambda: xp.broadcast_to(total / 3, (3, 3)),
            "centre": lambda: x - total / 3,
        }[head]()
    return {
        "add": lambda x, y: x + y,
        "sub": lambda x, y: x - y,
        "mul": lambda x, y: x * y,
        "div": lambda x, y: x / y,
        "neg": lambda x: -x,
        "square": lambda x: x * x,
        "sqrt": lambda x: xp.sqrt(x),
        "rsqrt": lambda x: 1 / xp.sqrt(x) if xp is np else jax.lax.rsqrt(x),
        "cut": lambda x: xp.maximum(0.0, x),
        "T": lambda x: x.T,
        "scale": lambda c, x: c * x,
        "shift": lambda c, x: x + c,
        "mask": lambda x, y: xp.where(y > 0.25, x, 0.0),
        "dot": lambda x, y: x @ y,
    }[head](*args)


def tree_name(tree, rules=ALL):
    inputs = (S, S, V)
    return under(lambda a, b, v: value_of(tree, {"a": a, "b": b, "v": jnp.broadcast_to(v, (3, 3))}, jnp), inputs, rules)


def real(seed):
    numbers = np.random.default_rng(seed)
    v = numbers.normal(size=3)
    return {"a": numbers.normal(size=(3, 3)), "b": numbers.normal(size=(3, 3)), "v": np.broadcast_to(v, (3, 3))}


def assert_same(one, other):
    with np.errstate(all="ignore"):
        for seed in range(4):
            # Once of both signs; then positive, that roots are finite.
            given_ = {name: np.abs(array) if seed else array for name, array in real(seed).items()}
            left, right = value_of(one, given_, np), value_of(other, given_, np)
            both = np.isfinite(left) & np.isfinite(right)
            scale = max(1.0, float(np.abs(left[both]).max(initial=0)))
            if scale < 1e6:
                assert np.abs(left - right)[both].max(initial=0.0) <= 1e-7 * scale


TRIED = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@TRIED
@given(st.lists(_grow(2), min_size=12, max_size=12))
def test_expressions_that_all_rewrites_equate_have_the_same_value(trees):
    known = {}
    for tree in trees:
        assert_same(tree, known.setdefault(tree_name(tree), tree))


@pytest.mark.slow
@TRIED
@given(_grow(3), _grow(1), st.sampled_from(("add", "sub", "mul", "div")), st.sampled_from(("sum", "mean", "square")))
def test_expressions_rewritten_by_hand_keep_their_value(tree, small, operation, outer):
    """What is equal in real numbers may have one name; what has one name is equal."""
    around = (lambda t: (outer, t)) if outer == "square" else (lambda t: (outer, 0, t))
    forms = [
        around((operation, tree, small)),
        around((operation, small, tree)),
        (operation, around(tree), around(small)),
        around(("scale", 2.0, (operation, tree, small))),
        ("scale", 2.0, around((operation, tree, small))),
    ]
    known = {}
    for form in forms:
        assert_same(form, known.setdefault(tree_name(form), form))


@TRIED
@given(_grow(2))
def test_numbering_an_expression_twice_gives_one_name(tree):
    """Under any set of rewrites."""
    assume(tree[0] not in LEAVES)
    for rules in (frozenset(), {REORDERED_PRODUCTS}, {REORDERED_PRODUCTS, REORDERED_SUMS}, ALL):
        assert tree_name(tree, rules) == tree_name(tree, rules)
