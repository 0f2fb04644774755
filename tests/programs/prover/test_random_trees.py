"""Programs at random: equal names only for equal values, and one name for all spellings of a program."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from programs.prover.numbered import RULES, N, names
from programs.prover.random_trees import grow, meaning, parts, replaced, sample_inputs, seeded, spelled, twist

TREES = grow(3)


def tree_name(tree, seed, rules):
    """The name of a tree in one spelling."""

    def program(A, B, u, w):
        return spelled(tree, {"A": A, "B": B, "u": u, "w": w}, seeded(seed))

    return names(program, (N, N), (N, N), (N,), (N,), rules=rules)


SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def tried(times):
    """So many examples, the same ones every time."""
    return settings(max_examples=times, deadline=None, derandomize=True, suppress_health_check=SLOW_IS_FINE)


def assert_equal_values(one, other):
    with np.errstate(all="ignore"):
        for seed in range(3):
            given = sample_inputs(seed)
            left, right = meaning(one, given), meaning(other, given)
            if np.isfinite(left).all() and np.isfinite(right).all():
                scale = max(1e-3, float(np.abs(left).max()))
                assert np.abs(left - right).max() <= 1e-12 * scale


@tried(300)
@given(TREES, st.data(), st.integers(0, 99), st.sampled_from(sorted(RULES)))
def test_programs_of_equal_name_have_equal_values(tree, data, seed, rules):
    path = data.draw(st.sampled_from(list(parts(tree))))
    choice = data.draw(st.integers(0, 9))
    other = replaced(tree, path, lambda node: twist(node, choice))
    if tree_name(tree, seed, RULES[rules]) == tree_name(other, seed + 1, RULES[rules]):
        assert_equal_values(tree, other)


SMALL = grow(2)


@tried(60)
@given(st.lists(SMALL, min_size=8, max_size=8), st.sampled_from(sorted(RULES)))
def test_unrelated_programs_of_equal_name_have_equal_values(trees, rules):
    known = {}
    for index, tree in enumerate(trees):
        (name,) = tree_name(tree, index, RULES[rules])
        assert_equal_values(tree, known.setdefault(name, tree))


def of_itself(tree):
    """Whether a tree multiplies something with itself, or chooses between the same: no normal form knows these."""
    tokens = lambda item: sorted(t for t in re.findall(r"[\w.]+", str(item)) if t != "T")  # noqa: E731
    here = tree[0] in ("dot", "branch") and tokens(tree[-2]) == tokens(tree[-1])
    return here or any(of_itself(child) for child in tree if isinstance(child, tuple))


@tried(60)
@given(TREES, st.integers(0, 99), st.integers(0, 99))
def test_the_spelling_of_a_program_does_not_change_its_name(tree, one, other):
    assume(not of_itself(tree) and "spread" not in str(tree))  # a sum over what is repeated has no normal form
    assert tree_name(tree, one, frozenset()) == tree_name(tree, other, frozenset())


@pytest.mark.slow
@tried(12)
@given(TREES, st.integers(0, 99))
def test_the_spellings_mean_what_the_trees_mean(tree, seed):
    given_ = sample_inputs(0)
    with np.errstate(all="ignore"):
        wanted = meaning(tree, given_)
    with jax.enable_x64(False):
        got = spelled(tree, {name: jnp.asarray(value, "float32") for name, value in given_.items()}, seeded(seed))
    finite = np.isfinite(wanted) & (np.abs(wanted) < 100)
    np.testing.assert_allclose(np.asarray(got)[finite], wanted[finite], rtol=0.02, atol=0.02)
