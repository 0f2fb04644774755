"""Named rewrites: each proves what it says, alone or with what it needs, and is named."""

import jax
import jax.numpy as jnp
import pytest
from programs.prover.rewritten import (
    ALL,
    BIT,
    INDEX,
    S,
    V,
    causal,
    mask,
    masked,
    norm,
    one_pass,
    proof,
    softmax,
    two_pass,
    under,
)

from equiv.core.grades import CONSTANT_MASK, IN_RANGE, MASKED
from equiv.programs.prover.conditions import (
    CONDITIONS,
    FINITE,
    LINEAR,
    MASKS,
    ONE_HOT,
    PARTS,
    POSITIVE,
    REORDERED_PRODUCTS,
    REORDERED_SUMS,
    TWO_PASS,
)
from equiv.programs.prover.proof import Proof

ATTENTION = {MASKED, MASKS, REORDERED_PRODUCTS, REORDERED_SUMS}
CAUSAL = ATTENTION - {MASKED} | {CONSTANT_MASK}

PROVED = {
    "three factors": ({REORDERED_PRODUCTS}, lambda x, y: (x * y) * (x * 2), lambda x, y: 2 * ((x * x) * y), (S, S)),
    "a root divides or a reciprocal root multiplies": (
        {REORDERED_PRODUCTS},
        lambda x, y: x / jnp.sqrt(y),
        lambda x, y: x * jax.lax.rsqrt(y),
        (S, S),
    ),
    "a constant divides": ({REORDERED_PRODUCTS}, lambda x: x / 4, lambda x: x * 0.25, (S,)),
    "a sign": ({REORDERED_PRODUCTS}, lambda x, y: -x * y, lambda x, y: x * -y, (S, S)),
    "a factor that cancels": ({REORDERED_PRODUCTS}, lambda x, y: x * y / y, lambda x, y: x, (S, S)),
    "a quotient of quotients": ({REORDERED_PRODUCTS}, lambda x, y: x / (y / x), lambda x, y: x**2 / y, (S, S)),
    "three terms": ({REORDERED_SUMS}, lambda x, y: (x + y) + 1, lambda x, y: x + (y + 1), (S, S)),
    "a difference": ({REORDERED_SUMS}, lambda x, y: x - (y - x), lambda x, y: (x + x) - y, (S, S)),
    "a term that cancels": ({REORDERED_SUMS}, lambda x, y: (x + y) - y, lambda x, y: x, (S, S)),
    "a negated term": ({REORDERED_SUMS, REORDERED_PRODUCTS}, lambda x, y: x - y, lambda x, y: x + -y, (S, S)),
    "a scaled sum": (
        {REORDERED_SUMS, REORDERED_PRODUCTS},
        lambda x, y: 2 * (x + y),
        lambda x, y: 2 * x + 2 * y,
        (S, S),
    ),
    "a scale before or after a sum": (
        {LINEAR, REORDERED_PRODUCTS},
        lambda x: (3 * x).sum(0),
        lambda x: 3 * x.sum(0),
        (S,),
    ),
    "a factor that is the same along the axis": (
        {LINEAR, REORDERED_PRODUCTS},
        lambda x, v: (x * v).sum(0),
        lambda x, v: x.sum(0) * v,
        (S, V),
    ),
    "a scale before or after a product of matrices": (
        {LINEAR, REORDERED_PRODUCTS},
        lambda x, y: (x * 3) @ y,
        lambda x, y: 3 * (x @ y),
        (S, S),
    ),
    "a mask that multiplies or selects": (
        {MASKS, REORDERED_PRODUCTS},
        mask,
        lambda x, m: x * m,
        (S, BIT),
    ),
    "a mask of dropout": (
        {MASKS, REORDERED_PRODUCTS},
        lambda x, m: jnp.where(m, x / 0.5, 0.0),
        lambda x, m: x * m * 2,
        (S, BIT),
    ),
    "a mask that selects zero": (
        {MASKS, REORDERED_PRODUCTS},
        lambda x, m: jnp.where(m, 0.0, x),
        lambda x, m: x * ~m,
        (S, BIT),
    ),
    "a variance in one or two passes": ({TWO_PASS, REORDERED_PRODUCTS, REORDERED_SUMS}, two_pass, one_pass, (S,)),
    "a variance over the other axis": (
        {TWO_PASS, REORDERED_PRODUCTS, REORDERED_SUMS},
        lambda x: two_pass(x, 0),
        lambda x: one_pass(x.T, 1),
        (S,),
    ),
    "a variance that is cut at zero": (
        {POSITIVE, REORDERED_PRODUCTS, REORDERED_SUMS},
        lambda x: jnp.maximum(0.0, one_pass(x)),
        one_pass,
        (S,),
    ),
    "a variance compared with zero": (
        {POSITIVE, REORDERED_PRODUCTS, REORDERED_SUMS},
        lambda x: jnp.where(one_pass(x) > 0, x, 0.0),
        lambda x: x,
        (S,),
    ),
    "a scale of a sum before or after a product of matrices": (
        {LINEAR, REORDERED_PRODUCTS, REORDERED_SUMS},
        lambda x, y: (x / 3 + y / 3) @ y,
        lambda x, y: ((x + y) @ y) / 3,
        (S, S),
    ),
    "a sum of what is repeated": (
        {LINEAR, REORDERED_PRODUCTS},
        lambda v: jnp.broadcast_to(v, (5, 3)).sum(0),
        lambda v: 5 * v,
        (V,),
    ),
    "a sum of sums": (
        {LINEAR, REORDERED_PRODUCTS},
        lambda x, v: (v * x.sum(0)).sum(),
        lambda x, v: (x * v).sum(),
        (S, V),
    ),
    "a sum of what is centred": (
        {TWO_PASS, LINEAR, REORDERED_PRODUCTS, REORDERED_SUMS},
        lambda x, v: x + (v[:, None] * (x - x.mean(1, keepdims=True))).sum(1),
        lambda x, v: x,
        (S, V),
    ),
    "a norm of one or two passes, derived": (
        {TWO_PASS, LINEAR, REORDERED_PRODUCTS, REORDERED_SUMS},
        norm(two_pass),
        norm(one_pass),
        (S, V),
    ),
    "a sum of two parts": (
        {PARTS, REORDERED_SUMS},
        lambda x, y: jnp.concatenate([x, y]).sum(0),
        lambda x, y: x.sum(0) + y.sum(0),
        (S, S),
    ),
    "a product in two parts": (
        {PARTS, REORDERED_SUMS},
        lambda x, y: jnp.concatenate([x, x.T], 1) @ jnp.concatenate([y, y.T]),
        lambda x, y: x @ y + x.T @ y.T,
        (S, S),
    ),
    "derivatives of columns": (
        {PARTS, REORDERED_SUMS},
        jax.grad(lambda x, y: jnp.sum(jnp.square((x @ jnp.concatenate([y, y.T], 1))[:, 3:]))),
        jax.grad(lambda x, y: jnp.sum(jnp.square(x @ y.T))),
        (S, S),
    ),
    "a lookup in another mode": (
        {IN_RANGE},
        lambda x, i: x[i],
        lambda x, i: jnp.take(x, i, axis=0, mode="clip"),
        (S, INDEX),
    ),
    "a lookup with another dtype of the index": (
        {IN_RANGE},
        lambda x, i: x.at[i.astype("uint32")].get(mode="promise_in_bounds"),
        lambda x, i: x[i],
        (S, INDEX),
    ),
    "rows changed by index": (
        {IN_RANGE},
        lambda x, i: x.at[i].add(1.0, mode="drop"),
        lambda x, i: x.at[i].add(1.0, mode="clip"),
        (S, INDEX),
    ),
    "a product with one-hot rows": (
        {ONE_HOT, MASKS, REORDERED_PRODUCTS, REORDERED_SUMS, IN_RANGE},
        lambda x, i: x[i],
        lambda x, i: jax.nn.one_hot(i, 3) @ x,
        (S, INDEX),
    ),
    "a log of summed exponentials": (
        {FINITE},
        lambda x: jax.nn.logsumexp(x, 1),
        lambda x: jnp.log(jnp.exp(x - x.max(1)[:, None]).sum(1)) + x.max(1),
        (S,),
    ),
    "masked logits of another size": (ATTENTION, masked(-1e30), masked(jnp.finfo("float32").min), (S, BIT)),
    "masked logits of minus infinity": (ATTENTION, masked(-1e9), masked(-jnp.inf), (S, BIT)),
    "a causal mask": (CAUSAL, causal(-1e30), causal(jnp.finfo("float32").min), (S,)),
    "a causal mask and its opposite": (
        CAUSAL,
        causal(-jnp.inf),
        lambda x: softmax(jnp.where(~jnp.tril(jnp.ones((3, 3), bool)), -1e30, x)),
        (S,),
    ),
    "a causal mask by adding": (
        CAUSAL,
        causal(-1e30),
        lambda x: softmax(x + jnp.where(jnp.tril(jnp.ones((3, 3), bool)), 0, -2e30)),
        (S,),
    ),
    "a causal mask by numbers that logits may reach": (ATTENTION, causal(-1e9), causal(-2e9), (S,)),
    "a constant mask that leaves a row empty": (ATTENTION, causal(-1e30, -1), causal(-2e30, -1), (S,)),
    "a causal mask and one of the input": (
        ATTENTION,
        lambda x, m: masked(-1e30)(x, m & jnp.tri(3, dtype=bool)),
        lambda x, m: masked(-2e30)(x, m & jnp.tri(3, dtype=bool)),
        (S, BIT),
    ),
    "logits masked by adding": (ATTENTION, masked(-1e9), lambda x, m: softmax(x + jnp.where(m, 0, -1e9)), (S, BIT)),
    "logits masked by adding a multiple": (
        ATTENTION,
        masked(-1e9),
        lambda x, m: softmax(x + (1 - m.astype("float32")) * -1e9),
        (S, BIT),
    ),
    "logits masked by the opposite": (
        ATTENTION,
        masked(-1e9),
        lambda x, m: softmax(jnp.where(~m, -1e30, x)),
        (S, BIT),
    ),
}


@pytest.mark.parametrize("pair", PROVED)
def test_a_rewrite_proves_what_it_says_and_is_named(pair):
    rules, one, other, inputs = PROVED[pair]
    found = proof(one, other, *inputs)
    assert found == Proof("proved modulo", tuple(sorted(rules)))
    assert proof(other, one, *inputs) == found


@pytest.mark.parametrize("rule", sorted(CONDITIONS))
def test_every_rewrite_has_a_pair_not_proved_without_it(rule):
    pairs = [(one, other, inputs) for rules, one, other, inputs in PROVED.values() if rule in rules]
    assert pairs
    for one, other, inputs in pairs:
        assert under(one, inputs, ALL - {rule}) != under(other, inputs, ALL - {rule})


def test_what_needs_no_rewrite_names_none():
    assert proof(lambda x, y: x + y, lambda x, y: y + x, S, S) == Proof("proved")


def test_every_rewrite_says_under_which_condition_it_holds():
    assert all(":" in condition for condition in CONDITIONS.values())
