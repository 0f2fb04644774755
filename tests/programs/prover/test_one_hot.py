"""Lookups by an index, by a one-hot mask, in any of the ways that people write: one value, under named rewrites."""

import jax
import jax.numpy as jnp
import optax
import pytest
from named import make_program

from equiv.core.grades import IN_RANGE
from equiv.core.output_name import ProgramName, batch_input, leaf_input
from equiv.programs.program import Program
from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.conditions import CONDITIONS, FINITE, ONE_HOT
from equiv.programs.prover.value_numbering import Numbering, number_program

ALL = frozenset(CONDITIONS)
ROWS = 7
TABLE, WORDS, LOGITS, LABELS = ((ROWS, 3), "float32"), ((2, 4), "int32"), ((4, ROWS), "float32"), ((4,), "int32")


def names(function, shapes, rules=ALL, bound=ROWS):
    """Names of what a function gives of arrays and indices that are below a bound, and the rewrites that applied."""
    jaxpr = jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(*one) for one in shapes))
    inputs = tuple(
        batch_input("words") if dtype == "int32" else leaf_input(str(n)) for n, (_, dtype) in enumerate(shapes)
    )
    outputs = make_program("call", jaxpr, ["x"], [f"output/{n}" for n in range(len(jaxpr.out_avals))]).outputs
    algebra = Algebra(rules)
    program = Program(ProgramName("call", "__call__"), jaxpr, inputs, outputs)
    values = number_program(program, Numbering(algebra), bounds={"words": bound})
    return [one.name for one in values.values()], algebra.applied


def gradient(function):
    return jax.grad(lambda x, i: jnp.sum(jnp.sin(function(x, i))))


def one_hot(words, size=ROWS):
    return jax.nn.one_hot(words, size)


def log_softmax(z):
    return jax.nn.log_softmax(z)


EMBEDDINGS = {
    "indexed": lambda t, i: t[i],
    "taken": lambda t, i: jnp.take(t, i, axis=0),
    "of a flat list": lambda t, i: t[i.reshape(-1)].reshape(*i.shape, -1),
    "one-hot product": lambda t, i: one_hot(i) @ t,
    "one-hot einsum": lambda t, i: jnp.einsum("btv,vd->btd", one_hot(i), t),
}

LOSSES = {
    "optax": lambda z, y: optax.softmax_cross_entropy_with_integer_labels(z, y),
    "optax one-hot": lambda z, y: optax.softmax_cross_entropy(z, one_hot(y)),
    "taken along": lambda z, y: -jnp.take_along_axis(log_softmax(z), y[:, None], -1)[:, 0],
    "indexed": lambda z, y: -log_softmax(z)[jnp.arange(4), y],
    "one-hot sum": lambda z, y: -jnp.sum(one_hot(y) * log_softmax(z), -1),
    "logsumexp": lambda z, y: jax.nn.logsumexp(z, -1) - jnp.take_along_axis(z, y[:, None], -1)[:, 0],
    "one-hot einsum": lambda z, y: jax.nn.logsumexp(z, -1) - jnp.einsum("bv,bv->b", z, one_hot(y)),
}


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_an_embedding_is_a_product_with_one_hot_rows(name):
    for change in (lambda one: one, gradient):
        one, used = names(change(EMBEDDINGS[name]), (TABLE, WORDS))
        assert one == names(change(EMBEDDINGS["indexed"]), (TABLE, WORDS))[0]
        assert IN_RANGE not in used


@pytest.mark.parametrize("name", LOSSES)
def test_a_cross_entropy_is_one_however_it_is_written(name):
    for change in (lambda one: one, gradient):
        one, used = names(change(LOSSES[name]), (LOGITS, LABELS))
        assert one == names(change(LOSSES["one-hot sum"]), (LOGITS, LABELS))[0]
        assert IN_RANGE not in used


def test_rows_that_a_comparison_selects_are_looked_up():
    def compared(t, i):
        return jnp.where(i[..., None, None] == jnp.arange(ROWS)[:, None], t, 0.0).sum(2)

    assert names(compared, (TABLE, WORDS))[0] == names(EMBEDDINGS["indexed"], (TABLE, WORDS))[0]


def test_an_index_beyond_the_rows_needs_its_rewrite():
    """One-hot rows are zero there, and a lookup clips or fills."""
    for first, other, shapes in (
        (EMBEDDINGS["indexed"], EMBEDDINGS["one-hot product"], (TABLE, WORDS)),
        (LOSSES["one-hot sum"], LOSSES["taken along"], (LOGITS, LABELS)),
    ):
        one, used = names(first, shapes, bound=ROWS + 1)
        assert one == names(other, shapes, bound=ROWS + 1)[0]
        assert IN_RANGE in used
        rules = ALL - {IN_RANGE}
        assert names(first, shapes, rules, ROWS + 1)[0] != names(other, shapes, rules, ROWS + 1)[0]


@pytest.mark.parametrize("rule", [ONE_HOT, FINITE])
def test_each_rewrite_has_losses_not_proved_without_it(rule):
    one, other = (names(LOSSES[name], (LOGITS, LABELS), ALL - {rule})[0] for name in ("optax", "taken along"))
    assert one != other


NEARLY = {
    "one row more": (EMBEDDINGS["indexed"], lambda t, i: one_hot(i + 1) @ t, (TABLE, WORDS)),
    "fewer classes": (EMBEDDINGS["indexed"], lambda t, i: one_hot(i, ROWS - 1) @ t[:-1], (TABLE, WORDS)),
    "from the end": (EMBEDDINGS["indexed"], lambda t, i: one_hot(ROWS - 1 - i) @ t, (TABLE, WORDS)),
    "rows reversed": (EMBEDDINGS["indexed"], lambda t, i: one_hot(i) @ t[::-1], (TABLE, WORDS)),
    "up to the row": (
        EMBEDDINGS["indexed"],
        lambda t, i: (i[..., None] >= jnp.arange(ROWS)).astype("float32") @ t,
        (TABLE, WORDS),
    ),
    "another sequence": (EMBEDDINGS["indexed"], lambda t, i: one_hot(i[::-1]) @ t, (TABLE, WORDS)),
    "smoothed": (LOSSES["indexed"], lambda z, y: -jnp.sum((0.9 * one_hot(y) + 0.1 / ROWS) * log_softmax(z), -1), 0),
    "another weight": (LOSSES["indexed"], lambda z, y: -jnp.sum(0.9 * one_hot(y) * log_softmax(z), -1), 0),
    "the wrong axis": (LOSSES["indexed"], lambda z, y: LOSSES["indexed"](jnp.sin(z), y), 0),
    "softmax along the batch": (
        LOSSES["indexed"],
        lambda z, y: -jnp.sum(one_hot(y) * jax.nn.log_softmax(z, 0), -1),
        0,
    ),
    "twice the loss": (LOSSES["indexed"], lambda z, y: -2 * jnp.sum(one_hot(y) * log_softmax(z), -1), 0),
    "not normed": (LOSSES["indexed"], lambda z, y: -jnp.sum(one_hot(y) * z, -1), 0),
    "another label": (LOSSES["indexed"], lambda z, y: -log_softmax(z)[jnp.arange(4), y[::-1]], 0),
    "rows against labels": (
        lambda z, y: z[jnp.arange(4), y],
        lambda z, y: z[y, jnp.arange(4)],
        (((ROWS, ROWS), "float32"), LABELS),
    ),
    "an update for a sum": (
        lambda z, y: z.at[y].add(jnp.ones((4, ROWS))),
        lambda z, y: z.at[y].set(jnp.ones((4, ROWS))),
        (((ROWS, ROWS), "float32"), LABELS),
    ),
    "once for each": (
        lambda z, y: jnp.zeros(ROWS).at[y].add(z[:, 0]),
        lambda z, y: one_hot(y).max(0) * z[:, 0].sum(),
        0,
    ),
}


@pytest.mark.parametrize("pair", NEARLY)
def test_what_looks_up_something_else_is_not_proved(pair):
    one, other, shapes = NEARLY[pair]
    given = shapes or (LOGITS, LABELS)
    assert names(one, given)[0] != names(other, given)[0]
    if pair != "an update for a sum":
        assert names(gradient(one), given)[0] != names(gradient(other), given)[0]


def test_whether_anything_but_a_maximum_is_finite_counts():
    """A port that skips steps whose gradients are not finite is another one."""
    shapes = (LOGITS,)
    kept = names(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), shapes)[0]
    assert kept != names(lambda g: g, shapes)[0]
    skipped = names(lambda g: jnp.where(jnp.isfinite(jnp.max(g)), g, 0.0), shapes)[0]
    assert skipped != names(lambda g: g, shapes)[0]


POSITIONS = {
    "counted rows": (lambda t: t[jnp.arange(3)], lambda t: t[:3]),
    "a column": (lambda t: jnp.take(t, 1, axis=1), lambda t: t[:, 1]),
    "a row again and again": (lambda t: t[jnp.array([2, 2])], lambda t: jnp.stack([t[2], t[2]])),
}


@pytest.mark.parametrize("pair", POSITIONS)
def test_known_rows_are_slices_without_a_rewrite(pair):
    one, other = (names(function, (TABLE,), frozenset()) for function in POSITIONS[pair])
    assert one[0] == other[0]
    assert not one[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda t: t[jnp.arange(3)], lambda t: t[1:4]),
        (lambda t: t[jnp.arange(3) + 1], lambda t: t[:3]),
        (lambda t: t[jnp.arange(3), jnp.arange(3)], lambda t: t[:3, 0]),
        (lambda t: jnp.take(t, 9, axis=0, mode="clip"), lambda t: jnp.take(t, 9, axis=0, mode="fill")),
    ],
    ids=["later rows", "moved", "a diagonal", "beyond the end"],
)
def test_other_known_rows_are_others(one, other):
    rules = ALL - {IN_RANGE}
    assert names(one, (TABLE,), rules)[0] != names(other, (TABLE,), rules)[0]


def test_an_index_too_narrow_for_the_rows_is_looked_up():
    """Positions in the index's own dtype, which the one-hot mask would compare it with, are not all of them."""
    shapes = (((300, 3), "float32"), ((4,), "uint8"))
    clipped, filled = (lambda t, i, mode=mode: jnp.take(t, i, axis=0, mode=mode) for mode in ("clip", "fill"))
    assert names(clipped, shapes)[0] == names(filled, shapes)[0]
    assert names(clipped, shapes)[0] != names(lambda t, i: clipped(t, i[::-1]), shapes)[0]


def mean_loss(z, y):
    """A cross-entropy over all axes before the last."""
    return -jnp.take_along_axis(log_softmax(z), y[..., None], -1).mean()


RESHAPED = {
    "flat, optax": lambda z, y: optax.softmax_cross_entropy_with_integer_labels(
        z.reshape(-1, ROWS), y.reshape(-1)
    ).mean(),
    "flat one-hot": lambda z, y: -(one_hot(y.reshape(-1)) * log_softmax(z.reshape(-1, ROWS))).sum(-1).mean(),
    "turned": lambda z, y: mean_loss(jnp.swapaxes(z, 0, 1), y.T),
}
"""Ways to write a cross-entropy of sequences."""


@pytest.mark.parametrize("way", RESHAPED)
def test_a_cross_entropy_of_reshaped_logits_is_the_same(way):
    shapes = ((2, 4, ROWS), "float32"), WORDS
    assert names(RESHAPED[way], shapes)[0] == names(mean_loss, shapes)[0]
    assert names(jax.grad(RESHAPED[way]), shapes)[0] == names(jax.grad(mean_loss), shapes)[0]


def test_two_ways_to_index_flat_logits_have_one_gradient():
    """It was a crash: what is scattered has the digits of the reshape."""

    def taken(z, y):
        return mean_loss(z.reshape(-1, ROWS), y.reshape(-1))

    def indexed(z, y):
        return -log_softmax(z.reshape(-1, ROWS))[jnp.arange(8), y.reshape(-1)].mean()

    shapes = ((2, 4, ROWS), "float32"), WORDS
    assert names(jax.grad(taken), shapes)[0] == names(jax.grad(indexed), shapes)[0]
