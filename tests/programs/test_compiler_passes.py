"""The pass to blame is found by leaving passes out, those first that change the program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from equiv.programs.compiler_passes import (
    NEEDED_PASSES,
    SUSPECTED_PASSES,
    find_guilty_passes,
    list_changing_passes,
    list_suspects,
    without_passes,
)

SUSPECTS = tuple("abcdefghij")


@pytest.mark.parametrize("guilty", [*SUSPECTS, "bc", "aj", "dei", "abcdefghij"])
def test_the_smallest_group_without_which_it_is_right(guilty):
    assert find_guilty_passes(SUSPECTS, lambda names: set(guilty) <= set(names)) == tuple(guilty)


def test_one_of_two_that_each_suffice_is_enough():
    assert find_guilty_passes(SUSPECTS, lambda names: "c" in names or "h" in names) == ("c",)


def test_nothing_is_guilty_where_it_stays_wrong():
    assert find_guilty_passes(SUSPECTS, lambda _: False) == ()


def test_few_compilations_find_one_of_many():
    tried = []
    find_guilty_passes(tuple(map(str, range(64))), lambda names: tried.append(names) or "37" in names)
    assert len(tried) <= 13


def test_the_compiler_says_which_passes_change_a_program():
    x = np.ones((4, 3), "float32")
    lowered = jax.jit(lambda x: jnp.sum(jnp.tanh(x) * 2 + 0.0 * x, axis=0)).lower(x)
    compile_with = lambda options: lowered.compile(compiler_options=options)  # noqa: E731
    changing = list_changing_passes(compile_with)
    assert changing
    assert not any(map(NEEDED_PASSES.search, changing))
    suspects = list_suspects(compile_with)
    assert set(changing) | set(SUSPECTED_PASSES) == set(suspects)
    # All of them can be left out: the program still compiles, and means the same.
    np.testing.assert_allclose(compile_with(without_passes(suspects))(x), 2 * np.tanh(1.0) * np.full(3, 4.0), rtol=1e-5)
