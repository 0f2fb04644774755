"""Constant keys: what they draw is part of the program, and has one name however the key is made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun
from programs.random_functions import X, avals, program_of

from equiv.programs.primitives import RANDOM_BITS
from equiv.programs.prover.value_numbering import number_program
from equiv.programs.transform import make_draws_inputs

CONSTANT_KEY = jax.random.key(42)


SAME = {
    "made-inside": lambda: jax.random.normal(jax.random.key(42), (4,)),
    "made-outside": lambda: jax.random.normal(CONSTANT_KEY, (4,)),
    "raw": lambda: jax.random.normal(jax.random.PRNGKey(42), (4,)),
    "wrapped": lambda: jax.random.normal(jax.random.wrap_key_data(jnp.array([0, 42], "uint32")), (4,)),
}
OTHER = {
    "other-seed": lambda: jax.random.normal(jax.random.key(43), (4,)),
    "folded": lambda: jax.random.normal(jax.random.fold_in(CONSTANT_KEY, 0), (4,)),
    "split": lambda: jax.random.normal(jax.random.split(CONSTANT_KEY)[0], (4,)),
    "other-generator": lambda: jax.random.normal(jax.random.key(42, impl="rbg"), (4,)),
}


@pytest.mark.parametrize("how", [*SAME, *OTHER])
def test_a_constant_key_however_made_gives_one_name(how):
    """And another key gives another."""
    draw = {**SAME, **OTHER}[how]
    (name,), (wanted,) = (
        [value.name for value in number_program(make_draws_inputs(program_of(one, X), float64=False)).values()]
        for one in (lambda key, x: x * draw(), lambda key, x: x * jax.random.normal(jax.random.key(42), (4,)))
    )
    assert (name == wanted) == (how in SAME)


@pytest.mark.parametrize("float64", [False, True])
def test_a_constant_key_draws_its_own_bits_in_both_precisions(float64):
    """A float64 program draws 64 bits for each number: the upper ones are those of the port's own precision."""
    x = np.ones((3, 4), "float64" if float64 else "float32")
    with jax.enable_x64(float64):
        program = make_draws_inputs(program_of(lambda key, x: x * jax.random.uniform(CONSTANT_KEY, (4,)), x), float64)
        (output,) = jaxpr_as_fun(program.jaxpr)(x)
    assert any(name == RANDOM_BITS for name, _ in avals(program.jaxpr))
    assert program.draws == ()
    wanted = np.broadcast_to(jax.random.uniform(CONSTANT_KEY, (4,)), (3, 4))
    assert np.max(np.abs(np.asarray(output) - wanted)) <= np.finfo("float32").eps
