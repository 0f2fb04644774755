"""Pairs of functions that are nearly the same: their names differ, with all rewrites in force too."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from programs.prover.numbered import ALL, RULES, N, S, V, names, scan_sum, twice

from equiv.core.grades import IN_RANGE


def swapped_update(x, swap):
    """Two carries of equal start; which of them is squared, and which result is taken."""

    def turn(carry, row):
        a, b = carry
        return ((a * a + row, b + row) if not swap else (a + row, b * b + row)), None

    return lax.scan(turn, (jnp.ones(N), jnp.ones(N)), x)[0][0]


def kept_outside(x, starts_anew):
    """An inner carry that the outer loop never changes, or hands on."""

    def outer(carry, one):
        inside = lax.scan(lambda c, row: (c * row + one, None), jnp.ones(N) if starts_anew else carry, x)[0]
        return (carry if starts_anew else inside), inside

    return lax.scan(outer, jnp.ones(N), x)[1]


def resliced(x, shift):
    """What one loop stacked, sliced by another at the same place or at the next."""
    kept = lax.scan(lambda c, row: (c + row, jnp.tanh(c)), jnp.zeros(N), x)[1]
    return lax.scan(lambda c, row: (c * row, c + row), jnp.ones(N), jnp.roll(kept, shift, 0))[1]


def nested_stack(x, flat):
    """Rows stacked by an inner loop, sliced by the outer or by another inner loop."""

    def outer(c, one):
        kept = lax.scan(lambda d, row: (d, row * one), 0.0, x)[1]
        again = lax.scan(lambda d, row: (d + row, None), jnp.zeros(N), kept.T if flat else kept)[0]
        return c + again, None

    return lax.scan(outer, jnp.zeros(N), x)[0]


def counted(x, body, test):
    return lax.while_loop(lambda s: s[0] < test, lambda s: (s[0] + body, s[1] * x), (0, x))[1]


def last_of_two(x, first):
    a, b = lax.scan(lambda c, r: ((c[0] + r, c[1] + 2 * r), None), (jnp.zeros(N), jnp.zeros(N)), x)[0]
    return a if first else b


def crossing(x, cross):
    """Carries that are exchanged in every iteration, or stay."""
    turn = lambda c, r: ((c[1] + r, c[0] * r) if cross else (c[0] + r, c[1] * r), None)  # noqa: E731
    return lax.scan(turn, (jnp.ones(N), jnp.ones(N)), x)[0][0]


def delayed(x, late):
    """Three carries of equal start that differ only after some iterations."""
    turn = lambda c, r: ((c[1], c[2], jnp.tanh(c[2]) if late else c[2] * 2), None)  # noqa: E731
    return lax.scan(turn, (jnp.ones(N),) * 3, x)[0][0] + x[0]


def ulp_apart(dtype, step):
    constant = np.asarray(0.1, dtype)
    return constant if not step else np.nextafter(constant, np.asarray(1, dtype))


def gathered(x, mode, fill=None):
    return x.at[jnp.array([0, 7])].get(mode=mode, fill_value=fill)


DIFFERENT = {
    "a transposed square operand": (lambda x, y: x @ y, lambda x, y: x @ y.T, (S, S)),
    "a transposed square operand of a sum": (lambda x, y: x + y, lambda x, y: x + y.T, (S, S)),
    "a transposed result": (lambda x, y: jnp.tanh(x - y), lambda x, y: jnp.tanh(x - y).T, (S, S)),
    "the operands of a product of matrices swapped": (lambda x, y: x @ y, lambda x, y: y @ x, (S, S)),
    "a square of a matrix and with its transpose": (lambda x: x @ x, lambda x: x @ x.T, (S,)),
    "a gram matrix of rows or columns": (lambda x: x @ x.T, lambda x: x.T @ x, (S,)),
    "a product with itself transposed": (lambda x: x @ x, lambda x: (x @ x).T, (S,)),
    "batch dimensions swapped": (
        lambda x, y: jnp.einsum("bij,bjk->bik", x, y),
        lambda x, y: jnp.einsum("ibj,bjk->bik", x, y),
        ((3, 3, 3), (3, 3, 3)),
    ),
    "a batch of products and its result permuted": (
        lambda x, y: jnp.einsum("bij,bjk->bik", x, y),
        lambda x, y: jnp.einsum("bij,bjk->ibk", x, y),
        ((3, 3, 3), (3, 3, 3)),
    ),
    "the other axis of a square summed": (lambda x: x.sum(0), lambda x: x.sum(1), (S,)),
    "one axis of a cube": (lambda x: x.sum((0, 1)), lambda x: x.sum((0, 2)), ((3, 3, 3),)),
    "sum and max": (lambda x: x.sum(0), lambda x: x.max(0), (S,)),
    "max and min": (lambda x: x.max(0), lambda x: x.min(0), (S,)),
    "argmax of the other axis": (lambda x: x.argmax(0), lambda x: x.argmax(1), (S,)),
    "a sum with its transpose and twice": (lambda x: x + x.T, lambda x: 2 * x, (S,)),
    "a product with its transpose and a square": (lambda x: x * x.T, lambda x: x * x, (S,)),
    "a difference with its transpose turned": (lambda x: x - x.T, lambda x: x.T - x, (S,)),
    "a difference with its operands swapped": (lambda x, y: x - y, lambda x, y: y - x, (S, S)),
    "a quotient with its operands swapped": (lambda x, y: x / y, lambda x, y: y / x, (S, S)),
    "two operands of equal shape": (lambda x, y: jnp.tanh(x), lambda x, y: jnp.tanh(y), (S, S)),
    "branches of where swapped": (lambda x, y: jnp.where(x > 0, x, y), lambda x, y: jnp.where(x > 0, y, x), (S, S)),
    "gt and ge": (lambda x, y: jnp.where(x > y, x, 1.0), lambda x, y: jnp.where(x >= y, x, 1.0), (S, S)),
    "branches of cond swapped": (
        lambda x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x),
        lambda x: lax.cond(x[0, 0] > 0, jnp.cos, jnp.sin, x),
        (S,),
    ),
    "another choice of cond": (
        lambda x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x),
        lambda x: lax.cond(x[0, 1] > 0, jnp.sin, jnp.cos, x),
        (S,),
    ),
    "branches of switch in another order": (
        lambda x: lax.switch(x[0].astype(int), [jnp.sin, jnp.cos, jnp.tan], x),
        lambda x: lax.switch(x[0].astype(int), [jnp.sin, jnp.tan, jnp.cos], x),
        (V,),
    ),
    "a literal that differs by one ulp in float32": (
        lambda x: x + ulp_apart("float32", 0),
        lambda x: x + ulp_apart("float32", 1),
        (S,),
    ),
    "one element of a constant array": (
        lambda x: x * np.array([1, 2, 3], "float32"),
        lambda x: x * np.array([1, 2, 4], "float32"),
        (S,),
    ),
    "a constant array along the other axis": (
        lambda x: x * np.array([1, 2, 3], "float32"),
        lambda x: x * np.array([[1], [2], [3]], "float32"),
        (S,),
    ),
    "zero and minus zero": (lambda x: x * 0 + jnp.float32(0.0), lambda x: jnp.copysign(x, jnp.float32(-0.0)), (S,)),
    "another whole power": (lambda x: x**2, lambda x: x**3, (S,)),
    "another real power": (lambda x: x**1.5, lambda x: x**2.5, (S,)),
    "the direction of cumsum": (lambda x: lax.cumsum(x), lambda x: lax.cumsum(x, reverse=True), (S,)),
    "the axis of cumsum": (lambda x: lax.cumsum(x, 0), lambda x: lax.cumsum(x, 1), (S,)),
    "a reshape and a transpose": (lambda x: x.reshape(3, 2), lambda x: x.T, ((2, 3),)),
    "a reshape of the transpose": (lambda x: x.reshape(9), lambda x: x.T.reshape(9), (S,)),
    "a reshape there and elsewhere": (
        lambda x: x.reshape(2, 6).T.reshape(4, 3),
        lambda x: x.reshape(4, 3),
        ((3, 4),),
    ),
    "a vector spread along the other axis": (
        lambda x, v: x + v[None],
        lambda x, v: x + v[:, None],
        (S, V),
    ),
    "a vector spread alone": (
        lambda v: jnp.broadcast_to(v[None], S),
        lambda v: jnp.broadcast_to(v[:, None], S),
        (V,),
    ),
    "a reduction over a repeated axis": (
        lambda v: jnp.broadcast_to(v[None], S).sum(0),
        lambda v: jnp.broadcast_to(v[None], S).sum(1),
        (V,),
    ),
    "a sum over a repeated axis and none": (lambda v: jnp.broadcast_to(v[None], S).sum(0), lambda v: v, (V,)),
    "a slice that starts one later": (lambda x: x[0:2], lambda x: x[1:3], (S,)),
    "a slice of the other axis": (lambda x: x[:, :2].sum(), lambda x: x[:2].sum(), (S,)),
    "another stride": (lambda x: x[0:3:2], lambda x: x[0:2], (S,)),
    "a dynamic slice elsewhere": (
        lambda x, i: lax.dynamic_slice(x, (i, 0), (1, 3)),
        lambda x, i: lax.dynamic_slice(x, (0, i), (1, 3)),
        (S, ((), "int32")),
    ),
    "scatter that adds and that sets": (lambda x: x.at[0].add(x[1]), lambda x: x.at[0].set(x[1]), (S,)),
    "concatenation in another order": (
        lambda x, y: jnp.concatenate([x, y]),
        lambda x, y: jnp.concatenate([y, x]),
        (S, S),
    ),
    "concatenation along the other axis": (
        lambda x, y: jnp.concatenate([x, y], 0).sum(0),
        lambda x, y: jnp.concatenate([x, y], 1).sum(1),
        (S, S),
    ),
    "padding on the other side": (lambda x: jnp.pad(x, (1, 0)), lambda x: jnp.pad(x, (0, 1)), (V,)),
    "a sort of the other axis": (lambda x: jnp.sort(x, 0), lambda x: jnp.sort(x, 1), (S,)),
    "iota along the other axis": (
        lambda x: x * lax.broadcasted_iota("float32", S, 0),
        lambda x: x * lax.broadcasted_iota("float32", S, 1),
        (S,),
    ),
    "a cast to a narrower type and back": (
        lambda x: x.astype("bfloat16").astype("float32"),
        lambda x: x.astype("float32"),
        (S,),
    ),
    "casts through different types": (
        lambda x: x.astype("bfloat16").astype("float32"),
        lambda x: x.astype("float16").astype("float32"),
        (S,),
    ),
    "the precision of a product": (
        lambda x, y: jnp.matmul(x, y, precision="highest"),
        lambda x, y: jnp.matmul(x, y),
        (S, S),
    ),
    "bytes spread along rows or columns": (
        lambda x: jnp.broadcast_to(lax.bitcast_convert_type(x, jnp.uint8)[None], (4, 4)),
        lambda x: jnp.broadcast_to(lax.bitcast_convert_type(x, jnp.uint8)[:, None], (4, 4)),
        ((),),
    ),
    "the order of rows and bytes": (
        lambda x: lax.bitcast_convert_type(x, jnp.float32),
        lambda x: lax.bitcast_convert_type(x.T, jnp.float32),
        (((4, 4), "uint8"),),
    ),
    "a convolution and its transposed kernel": (
        lambda x, k: lax.conv(x, k, (1, 1), "SAME"),
        lambda x, k: lax.conv(x, k.swapaxes(2, 3), (1, 1), "SAME"),
        ((1, 3, 5, 5), (3, 3, 3, 3)),
    ),
    "a loop run backwards": (lambda x: scan_sum(x)[0], lambda x: scan_sum(x, reverse=True)[0], (S,)),
    "what a loop run backwards stacks": (lambda x: scan_sum(x)[1], lambda x: scan_sum(x, reverse=True)[1], (S,)),
    "a loop over the flipped array": (lambda x: scan_sum(x)[0], lambda x: scan_sum(x[::-1])[0], (S,)),
    "a loop over the flipped array, backwards": (
        lambda x: scan_sum(x)[1],
        lambda x: scan_sum(x[::-1], reverse=True)[1],
        (S,),
    ),
    "a loop over the other axis": (lambda x: scan_sum(x)[0], lambda x: scan_sum(x.T)[0], (S,)),
    "a loop of another length": (lambda x: scan_sum(x)[0], lambda x: scan_sum(x[:2])[0], (S,)),
    "a loop and its last carry": (lambda x: scan_sum(x)[0], lambda x: scan_sum(x)[1][-1], (S,)),
    "carries of equal start and other updates": (
        partial(swapped_update, swap=0),
        partial(swapped_update, swap=1),
        (S,),
    ),
    "the other of two carries": (partial(last_of_two, first=1), partial(last_of_two, first=0), (S,)),
    "carries that change places": (partial(crossing, cross=1), partial(crossing, cross=0), (S,)),
    "carries that differ only late": (partial(delayed, late=1), partial(delayed, late=0), (S,)),
    "rows of the outer and of the inner loop": (partial(twice, inner=1), partial(twice, inner=0), (S,)),
    "an inner carry that starts again in every turn": (
        partial(kept_outside, starts_anew=1),
        partial(kept_outside, starts_anew=0),
        (S,),
    ),
    "stacked values sliced elsewhere": (partial(resliced, shift=0), partial(resliced, shift=1), (S,)),
    "stacked values of an inner loop transposed": (partial(nested_stack, flat=0), partial(nested_stack, flat=1), (S,)),
    "another test of while": (partial(counted, body=1, test=3), partial(counted, body=1, test=4), (V,)),
    "another turn of while": (partial(counted, body=1, test=3), partial(counted, body=2, test=3), (V,)),
    "the weights of a scan and of its neighbour": (
        lambda x, y: lax.scan(lambda c, r: (c * y[0] + r, None), jnp.ones(N), x)[0],
        lambda x, y: lax.scan(lambda c, r: (c * y[1] + r, None), jnp.ones(N), x)[0],
        (S, S),
    ),
    "a custom function and its neighbour": (jax.nn.silu, jax.nn.sigmoid, (S,)),
    "relu and leaky relu": (jax.nn.relu, partial(jax.nn.leaky_relu, negative_slope=0.01), (S,)),
    "exact and approximate gelu": (partial(jax.nn.gelu, approximate=0), partial(jax.nn.gelu, approximate=1), (S,)),
}


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("pair", DIFFERENT)
def test_what_is_not_the_same_has_another_name(pair, rules):
    one, other, inputs = DIFFERENT[pair]
    assert names(one, *inputs, rules=RULES[rules]) != names(other, *inputs, rules=RULES[rules])


@pytest.mark.parametrize("other", [partial(gathered, mode="clip"), partial(gathered, mode="fill", fill=1.0)])
def test_modes_of_a_lookup_differ_unless_indices_are_in_range(other):
    one = partial(gathered, mode="fill", fill=0.0)
    for rules in (frozenset(), ALL - {IN_RANGE}):
        assert names(one, S, rules=rules) != names(other, S, rules=rules)
    assert names(one, S, rules=ALL) == names(other, S, rules=ALL)


@pytest.mark.parametrize("rules", RULES)
def test_a_float64_literal_one_ulp_away_has_another_name(rules):
    with jax.enable_x64(True):
        pair = [
            names(lambda x, step=step: jnp.tanh(x) + ulp_apart("float64", step), (S, "float64"), rules=frozenset())
            for step in (0, 1)
        ]
    assert pair[0] != pair[1]
