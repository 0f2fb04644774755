"""Pairs of functions that are one program: one name for both, with rewrites and without."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from named import by_text, make_program
from programs.prover.numbered import RULES, N, S, V, names, scan_sum, twice

from equiv.core.output_name import leaf_input
from equiv.programs.prover.value_numbering import number_program


def cell(c, row):
    return jnp.tanh(c * row + 1), c


def batch_scan_swapped(x):
    """Time on axis 1: swapped before the loop, swapped back after it."""
    return jnp.swapaxes(lax.scan(cell, jnp.ones((2, N)), jnp.swapaxes(x, 0, 1))[1], 0, 1)


def batch_scan_moved(x):
    """The same, with `moveaxis` on both sides and the batch as a mapped axis."""
    one = lambda rows: lax.scan(cell, jnp.ones(N), rows)[1]  # noqa: E731
    return jax.vmap(one, in_axes=1, out_axes=0)(jnp.moveaxis(x, 1, 0))


def scan_loss_one(w, x):
    return jnp.sum(lax.scan(lambda c, row: (jnp.tanh(row @ w + c), c), jnp.zeros(N), x)[0] ** 2)


def scan_loss_other(w, x):
    def turn(carry, row):
        c, unused = carry
        new = jnp.tanh(c + jnp.einsum("i,ij->j", row, w))
        return (new, unused + 1), (new, c)

    state = lax.scan(jax.checkpoint(turn), (jnp.zeros(N), jnp.zeros(())), x)[0][0]
    return jnp.sum(jnp.square(state))


@jax.custom_jvp
def doubled(x):
    return 2 * x


doubled.defjvp(lambda primals, tangents: (doubled(*primals), 2 * tangents[0]))


def with_dead_code(x):
    _ = jnp.linalg.norm(x @ x)
    return jnp.tanh(x)


def with_unused_carry(x):
    turn = lambda c, row: ((c[0] + row, c[1] * row), None)  # noqa: E731
    return lax.scan(turn, (jnp.zeros(N), jnp.ones(N)), x)[0][0]


EQUAL = {
    "jit": (lambda x: jnp.tanh(x) + 1, lambda x: jax.jit(jnp.tanh)(x) + 1, (S,)),
    "remat": (lambda x: jnp.tanh(x * 2), jax.checkpoint(lambda x: jnp.tanh(x * 2)), (S,)),
    "remat of a gradient": (
        jax.grad(lambda x: jnp.sin(jnp.tanh(x)).sum()),
        jax.grad(jax.checkpoint(lambda x: jnp.sin(jnp.tanh(x)).sum())),
        (S,),
    ),
    "custom_jvp": (doubled, lambda x: x * 2, (S,)),
    "relu and maximum": (jax.nn.relu, lambda x: jnp.maximum(0.0, x), (S,)),
    "unit axes come and go": (lambda x: x[None, :, None].reshape(3, 1, 3)[:, 0], lambda x: x, (S,)),
    "a reshape and back": (lambda x: x.reshape(9).reshape(3, 3), lambda x: x, (S,)),
    "a reshape in two steps": (lambda x: x.reshape(12).reshape(2, 6), lambda x: x.reshape(2, 6), ((3, 4),)),
    "the bias as a row": (lambda x, b: x + b, lambda x, b: x + b.reshape(1, 3), (S, V)),
    "a transposed sum": (lambda x, y: (x + y).T, lambda x, y: x.T + y.T, (S, S)),
    "a transposed difference": (lambda x, v: (x - v).T, lambda x, v: x.T - v[:, None], (S, V)),
    "two transposes": (lambda x: x.T.T, lambda x: x, (S,)),
    "commutative operands": (lambda x, y: x + y * x, lambda x, y: x * y + x, (S, S)),
    "x * x, square and a power": (lambda x: (x * x, x * x), lambda x: (jnp.square(x), x**2), (S,)),
    "einsum and @": (lambda x, y: x @ y, lambda x, y: jnp.einsum("ij,jk->ik", x, y), ((2, 3), (3, 4))),
    "einsum in another order": (
        lambda x, y: jnp.einsum("bij,bjk->bik", x, y),
        lambda x, y: jnp.einsum("bjk,bij->kib", y, x).transpose(2, 1, 0),
        ((2, 3, 4), (2, 4, 5)),
    ),
    "heads split in one einsum or by a reshape's axes": (
        lambda x, w: jnp.einsum("bd,dhk->bhk", x, w),
        lambda x, w: jnp.moveaxis(jnp.tensordot(w, x, (0, 1)), 2, 0),
        ((2, 3), (3, 4, 5)),
    ),
    "a kernel stored transposed": (lambda x, w: x @ w.T, lambda x, w: jnp.einsum("bi,oi->bo", x, w), ((2, 3), (4, 3))),
    "the sum of a transpose": (lambda x: x.sum(0), lambda x: x.T.sum(-1), (S,)),
    "kept and dropped axes": (lambda x: x - x.sum(0), lambda x: x - x.sum(0, keepdims=True), (S,)),
    "mean and its division": (lambda x: x.mean(0), lambda x: x.sum(0) / 3, (S,)),
    "dead code": (jnp.tanh, with_dead_code, (S,)),
    "a cast that does nothing": (lambda x: x.astype("float32"), lambda x: x, (S,)),
    "constants folded": (lambda x: x * (1 - 0.75), lambda x: x * (jnp.float32(1) - jnp.float32(0.75)), (S,)),
    "a factor of one": (lambda x: x * 1.0, lambda x: x / 1.0, (S,)),
    "a choice that is known": (lambda x: jnp.where(True, x, 0.0), lambda x: x, (S,)),
    "swapaxes before a loop and moveaxis": (batch_scan_swapped, batch_scan_moved, ((2, 4, N),)),
    "a gradient through two loops": (jax.grad(scan_loss_one), jax.grad(scan_loss_other), (S, (4, N))),
    "an unused carry": (
        lambda x: lax.scan(lambda c, row: (c + row, None), jnp.zeros(N), x)[0],
        with_unused_carry,
        (S,),
    ),
    "an unchanged carry and a constant": (
        lambda x, y: lax.scan(lambda c, row: ((c[0] * c[1] + row, c[1]), None), (jnp.ones(N), y), x)[0][0],
        lambda x, y: lax.scan(lambda c, row: (y * c + row, None), jnp.ones(N), x)[0],
        (S, V),
    ),
    "carries in another order": (
        lambda x: lax.scan(lambda c, r: ((c[1] + r, c[0] * r), None), (jnp.ones(N), jnp.zeros(N)), x)[0],
        lambda x: lax.scan(lambda c, r: ((r * c[1], r + c[0]), None), (jnp.zeros(N), jnp.ones(N)), x)[0][::-1],
        (S,),
    ),
    "loops in loops": (
        partial(twice, inner=1),
        lambda x: lax.scan(
            lambda t, one: (one * lax.scan(lambda r, o: (o + r, 0), jnp.zeros(N), x.T.T)[0] + t, 0), jnp.zeros(N), x
        )[0],
        (S,),
    ),
    "a loop with its own unrolling": (lambda x: scan_sum(x), lambda x: scan_sum(x, unroll=1), (S,)),
    "carries of while in another order": (
        lambda x: lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * x), (0, x))[1],
        lambda x: lax.while_loop(lambda s: s[1] < 3, lambda s: (x * s[0], 1 + s[1]), (x, 0))[0],
        (V,),
    ),
    "cond through jit": (
        lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x),
        lambda x: jax.jit(lambda y: lax.cond(y[0] > 0, lambda z: jnp.sin(z[None])[0], jnp.cos, y))(x),
        (V,),
    ),
    "stop_gradient in a differentiated program": (
        jax.grad(lambda x: (x * lax.stop_gradient(jnp.tanh(x))).sum()),
        lambda x: jax.grad(lambda z: (z * jnp.tanh(x)).sum())(x),
        (S,),
    ),
    "bytes of a number": (
        lambda x: lax.bitcast_convert_type(x, jnp.uint8),
        lambda x: lax.bitcast_convert_type(x.T.T, jnp.uint8),
        (S,),
    ),
}


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("pair", EQUAL)
def test_what_the_documents_promise_has_one_name(pair, rules):
    one, other, inputs = EQUAL[pair]
    assert names(one, *inputs, rules=RULES[rules]) == names(other, *inputs, rules=RULES[rules])


def test_a_known_number_is_not_spread_in_memory():
    """A zero of this shape would take 4 TB."""
    (name,) = names(lambda x: x + (jnp.zeros((10**6, 10**6)) + 1), ())
    assert len(name) == 32


def test_an_alias_gives_an_input_the_name_of_another():
    closed = jax.make_jaxpr(lambda a, b: (a * 2, b * 2))(1.0, 1.0)
    program = make_program("program", closed, ("mean", "mean.hidden"), ("one", "other"))
    alone = by_text(number_program(program))
    together = by_text(number_program(program, aliases={leaf_input("mean.hidden"): leaf_input("mean")}))
    assert alone["one"].name != alone["other"].name
    assert together["one"].name == together["other"].name == alone["one"].name
