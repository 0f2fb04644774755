"""What inference evaluates in numpy: the same arrays as operation by operation in jax, but for the last digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from equiv.infer.dataflow import quick_evaluation
from equiv.infer.dataflow.quick_evaluation import QUICK_RULES, evaluate_quickly
from equiv.programs.eager import EagerEvaluation, evaluate_eagerly
from equiv.programs.jaxpr import visit_equations

RNG = np.random.default_rng(3)
X = RNG.uniform(0.2, 2.0, (2, 3, 4)).astype("float32")

ELEMENTWISE = {
    "convert_element_type": lambda x: lax.convert_element_type(x, "complex64"),
    "cos": jnp.cos,
    "exp": jnp.exp,
    "expm1": jnp.expm1,
    "integer_pow": lambda x: lax.integer_pow(x, 3) + lax.integer_pow(x, -2),
    "log": jnp.log,
    "log1p": jnp.log1p,
    "logistic": lambda x: jax.nn.sigmoid(100 * (x - 1)),
    "rsqrt": lax.rsqrt,
    "sin": jnp.sin,
    "stop_gradient": lax.stop_gradient,
    "tanh": jnp.tanh,
}
"""A function with the operation of each rule but `dot_general`."""

PRODUCTS = {
    "rows and columns": ((2, 3), (3, 4), (((1,), (0,)), ((), ()))),
    "columns and rows": ((3, 2), (4, 3), (((0,), (1,)), ((), ()))),
    "two axes in another order": ((2, 3, 4), (4, 5, 3), (((1, 2), (2, 0)), ((), ()))),
    "a shared axis": ((2, 5, 3), (3, 2, 4), (((2,), (0,)), ((0,), (1,)))),
    "two shared axes in another order": ((2, 5, 3), (3, 2, 4), (((), ()), ((0, 2), (1, 0)))),
    "all axes": ((2, 3), (3, 2), (((0, 1), (1, 0)), ((), ()))),
    "no axis": ((2, 3), (4,), (((), ()), ((), ()))),
    "an axis without elements": ((2, 0), (0, 4), (((1,), (0,)), ((), ()))),
}
"""Shapes of both operands, and the axes that are summed and shared."""


def both(function, *arrays):
    closed = jax.make_jaxpr(function)(*arrays)
    return evaluate_quickly(closed, arrays), evaluate_eagerly(closed, arrays)


def are_close(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)


def test_every_rule_has_a_test():
    assert {*ELEMENTWISE, "dot_general"} == set(QUICK_RULES)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_functions_of_elements_are_those_of_jax(name, monkeypatch):
    closed = jax.make_jaxpr(ELEMENTWISE[name])(X)
    assert name in {eqn.primitive.name for _, eqn in visit_equations(closed)}
    wanted = evaluate_eagerly(closed, (X,))
    monkeypatch.setattr(EagerEvaluation, "_bind", None)  # nothing of it is left to jax
    are_close(evaluate_quickly(closed, (X,)), wanted)


def product_of(shapes, dtype="float32", numbers=None):
    one, other = (RNG.standard_normal(shape).astype(dtype) for shape in shapes)
    return both(lambda x, y: lax.dot_general(x, y, numbers), one, other)


@pytest.mark.parametrize("case", PRODUCTS.values(), ids=PRODUCTS)
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_products_of_arrays_are_those_of_jax(case, dtype):
    left, right, numbers = case
    are_close(*product_of((left, right), dtype, numbers))


def test_a_product_along_other_axes_would_be_noticed(monkeypatch):
    def wrong(params, left, right):
        return quick_evaluation.multiply(params, left.swapaxes(0, 1), right)

    monkeypatch.setitem(QUICK_RULES, "dot_general", wrong)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        are_close(*product_of(((3, 3), (3, 3)), numbers=(((1,), (0,)), ((), ()))))


def test_what_numpy_lacks_or_computes_otherwise_is_left_to_jax():
    """Half precision, whole numbers, the real part of complex ones, draws, and operations without a rule."""

    def rest(x, key):
        half, whole = x.astype("bfloat16"), x.astype("int32")
        drawn = jax.random.uniform(key, x.shape)
        real = lax.complex(x, x).real
        return jnp.exp(half), jnp.dot(half[0], half[1].T), whole**2, lax.erf(x), drawn, real

    key = jax.random.key(1)
    closed = jax.make_jaxpr(rest)(X, key)
    for one, other in zip(evaluate_quickly(closed, (X, key)), evaluate_eagerly(closed, (X, key)), strict=True):
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()


def test_values_that_overflow_are_infinite_without_a_warning():
    (found,), _ = both(lambda x: jnp.exp(1000 * x), X)
    assert np.isinf(found).all()
