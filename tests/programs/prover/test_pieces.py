"""Slices, concatenations and loops that are written out: what is one array has one name, and nothing else has it."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from named import make_program

from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.conditions import CONDITIONS
from equiv.programs.prover.pieces import Pieces
from equiv.programs.prover.value_numbering import Numbering, number_program

NONE, ALL = frozenset[str](), frozenset(CONDITIONS)
X, K, B = (3, 4), (4, 4), (4,)
join = jnp.concatenate


def names(function, shapes, rules=NONE, unrolled=frozenset()):
    """Names of a function's results, its loops of three turns written out if asked."""
    closed = jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(shape, "float32") for shape in shapes))
    outputs = [f"output/{index}" for index in range(len(closed.jaxpr.outvars))]
    program = make_program("program", closed, [f"input {i}" for i in range(len(shapes))], outputs)
    return [value.name for value in number_program(program, Numbering(Algebra(rules), unrolled=unrolled)).values()]


def heads(kernel):
    """Query, key and value of two heads of size two, from one kernel."""

    def function(x, *kernels):
        made = (x @ kernel(*kernels)).reshape(3, 3, 2, 2)
        return made[:, 0], made[:, 1], made[:, 2]

    return function


def fused(order):
    """The gradients of three products with one kernel."""

    def loss(x, *kernels):
        one, two, three = jnp.split(x @ join([kernels[at] for at in order], 1), 3, 1)
        return jnp.sum(jnp.tanh(one) * two * jnp.sin(three))

    return jax.grad(loss, (0, 1, 2, 3))


def residual(drop, scales):
    """The first row of what is put together, after a branch whose result is masked, and scaled in some steps."""

    def function(x, y, k, z):
        value, mask = join([x, y]), z > 0.5
        branch = jnp.tanh(value) @ k
        for scale in scales:
            branch = branch * scale
        return jnp.tanh(value + drop(mask, branch))[:1]

    return function


DROPPED = residual(lambda mask, x: jnp.where(mask, x / 0.5, 0), (2.0,))


def padded(place):
    """The sum of three arrays, each in its place and zero elsewhere."""
    return lambda *parts: sum(
        jnp.pad(one, ((4 * at, 8 - 4 * at), (0, 0))) for at, one in zip(place, parts, strict=True)
    )


EQUAL = {
    "a piece of two": (lambda x, y: join([x, y])[:3], lambda x, y: x, (X, X)),
    "a slice across two pieces": (lambda x, y: join([x, y])[2:5], lambda x, y: join([x[2:], y[:2]]), (X, X)),
    "a slice of a slice": (lambda x: x[1:][:, 1:][:1, :2], lambda x: x[1:2, 1:3], (X,)),
    "all rows": (lambda x: jnp.stack([x[0], x[1], x[2]]), lambda x: x, (X,)),
    "all columns as rows": (lambda x: jnp.stack([x[..., i] for i in range(4)]), lambda x: x.T, (X,)),
    "halves put together": (lambda x: join([half.T for half in jnp.split(x, 2, 1)]), lambda x: x.T, (X,)),
    "blocks put together": (
        lambda x: join([join([x[:1, :2], x[:1, 2:]], 1), x[1:]]),
        lambda x: x,
        (X,),
    ),
    "joined flat or nested": (lambda x, y: join([join([x, y]), x]), lambda x, y: join([x, join([y, x])]), (X, X)),
    "joined turned or turned joined": (lambda x, y: join([x, y]).T, lambda x, y: join([x.T, y.T], 1), (X, X)),
    "stacked of other shapes": (
        lambda x, y: jnp.stack([x, y]).reshape(2, 4, 4)[1],
        lambda x, y: y.reshape(4, 4),
        ((2, 8), (2, 8)),
    ),
    "joined after a reshape": (
        lambda x, y: jnp.stack([x.reshape(4, 2, 2), y.reshape(4, 2, 2)]),
        lambda x, y: jnp.stack([x, y]).reshape(2, 4, 2, 2),
        (K, K),
    ),
    "one kernel of three": (lambda x, *k: jnp.split(x @ join(k, 1), 3, 1)[1], lambda x, *k: x @ k[1], (X, K, K, K)),
    "heads of one kernel": (
        heads(lambda *k: join(k, 1)),
        lambda x, *k: tuple((x @ one).reshape(3, 2, 2) for one in k),
        (X, K, K, K),
    ),
    "computed on pieces": (
        lambda x, y: jnp.tanh(join([x, y]))[3:] * 2,
        lambda x, y: jnp.tanh(y) * 2,
        (X, X),
    ),
    "updated in place": (
        lambda x, y: lax.dynamic_update_slice(x, y[:1, :2], (1, 9)),
        lambda x, y: join([x[:1], join([x[1:2, :2], y[:1, :2]], 1), x[2:]]),
        (X, X),
    ),
    "padded": (lambda x: jnp.pad(x, ((1, 0), (0, 0)))[1:], lambda x: x, (X,)),
    "padded by a negative number": (lambda x: lax.pad(x, 0.0, ((-1, 1, 0), (0, 0, 0)))[:2], lambda x: x[1:], (X,)),
    "every second column": (lambda x: x[:, 1::2], lambda x: x.reshape(3, 2, 2)[..., 1], (X,)),
    "every second of some": (lambda x: x[1:3, ::2], lambda x: x.reshape(3, 2, 2)[1:3, :, 0], (X,)),
    "columns in turn": (lambda x: jnp.stack([x[:, ::2], x[:, 1::2]], 2).reshape(3, 4), lambda x: x, (X,)),
    "a derivative of every second column": (
        jax.grad(lambda x: jnp.sin(x[:, 1::2]).sum()),
        jax.grad(lambda x: jnp.sin(x.reshape(3, 2, 2)[..., 1]).sum()),
        (X,),
    ),
    "a derivative of a row": (
        jax.grad(lambda x: x[1].sum()),
        lambda x: join([jnp.zeros((1, 4)), jnp.ones((1, 4)), jnp.zeros((1, 4))]),
        (X,),
    ),
}

UNDER_REWRITES = {
    "gradients of one kernel": (fused((0, 1, 2)), jax.grad(
        lambda x, *k: jnp.sum(jnp.tanh(x @ k[0]) * (x @ k[1]) * jnp.sin(x @ k[2])), (0, 1, 2, 3)), (X, K, K, K)),
    "padded and added": (padded((0, 1, 2)), lambda *parts: join(parts), (K, K, K)),
    "a product of two inputs": (
        lambda x, y, k, v: join([x, y], 1) @ join([k, v]),
        lambda x, y, k, v: x @ k + y @ v,
        (X, X, K, K),
    ),
    "a mask that multiplies and many scales": (
        DROPPED,
        residual(lambda mask, x: mask * x / 0.5, (2.0,) * 31 + (0.5,) * 30),
        (X, X, K, (6, 4)),
    ),
    "an input without weight": (
        lambda x, y, k, v: join([x, jnp.zeros_like(y)], 1) @ join([k, v]),
        lambda x, y, k, v: x @ k,
        (X, X, K, K),
    ),
}  # fmt: skip

DIFFERENT = {
    "the other piece": (lambda x, y: join([x, y])[:3], lambda x, y: y, (X, X)),
    "one row later": (lambda x, y: join([x, y])[1:4], lambda x, y: x, (X, X)),
    "rows in another order": (lambda x: jnp.stack([x[1], x[0], x[2]]), lambda x: x, (X,)),
    "a row twice": (lambda x: jnp.stack([x[0], x[0], x[2]]), lambda x: x, (X,)),
    "rows as columns": (lambda x: jnp.stack([x[0], x[1], x[2], x[3]], 1), lambda x: x, (K,)),
    "halves turned round": (lambda x: join(jnp.split(x, 2, 1)[::-1], 1), lambda x: x, (X,)),
    "a gap": (lambda x: join([x[:1], x[2:]]), lambda x: x[:2], (X,)),
    "rows of another half": (
        lambda x: join([x[:2, :2], x[2:, 2:]]),
        lambda x: x[:, :2],
        (K,),
    ),
    "joined the other way": (lambda x, y: join([x, y]), lambda x, y: join([x, y], 1), (K, K)),
    "joined in turn": (lambda x, y: join([x, y]), lambda x, y: join([y, x]), (X, X)),
    "diagonal blocks": (
        lambda x, y: join([join([x, y], 1), join([x, y], 1)]),
        lambda x, y: join([join([x, x], 1), join([y, y], 1)]),
        (K, K),
    ),
    "other heads": (
        heads(lambda *k: join(k, 1)),
        lambda x, *k: tuple((x @ k[at]).reshape(3, 2, 2) for at in (0, 2, 1)),
        (X, K, K, K),
    ),
    "heads before kernels": (
        lambda x, *k: (x @ join(k, 1)).reshape(3, 2, 3, 2)[:, :, 1],
        lambda x, *k: (x @ k[1]).reshape(3, 2, 2),
        (X, K, K, K),
    ),
    "a product with the other input": (
        lambda x, y, k, v: join([x, y], 1) @ join([k, v]),
        lambda x, y, k, v: x @ v + y @ k,
        (X, X, K, K),
    ),
    "a mask that keeps the others": (DROPPED, residual(lambda m, x: ~m * x / 0.5, (2.0,)), (X, X, K, (6, 4))),
    "a mask of the other rows": (DROPPED, residual(lambda m, x: m[::-1] * x / 0.5, (2.0,)), (X, X, K, (6, 4))),
    "gradients of kernels in another order": (fused((0, 1, 2)), fused((0, 2, 1)), (X, K, K, K)),
    "padded and added elsewhere": (padded((0, 2, 1)), lambda *parts: join(parts), (K, K, K)),
    "padded with one": (lambda x: jnp.pad(x, 1, constant_values=1), lambda x: jnp.pad(x, 1), (X,)),
    "the other columns": (lambda x: x[:, ::2], lambda x: x[:, 1::2], (X,)),
    "a half for every second column": (lambda x: x[:, ::2], lambda x: x[:, :2], (X,)),
    "pairs of halves": (
        lambda x: jnp.stack([x[:, ::2], x[:, 1::2]], 2),
        lambda x: jnp.stack([x[:, :2], x[:, 2:]], 2),
        (X,),
    ),
    "spread from the second place on": (
        lambda x: lax.pad(x, 0.0, ((0, 0, 0), (0, 1, 1))),
        lambda x: lax.pad(x, 0.0, ((0, 0, 0), (1, 0, 1))),
        (X,),
    ),
    "spread with ones": (
        lambda x: lax.pad(x, 0.0, ((0, 0, 0), (0, 1, 1))),
        lambda x: lax.pad(x, 1.0, ((0, 0, 0), (0, 1, 1))),
        (X,),
    ),
    "every second row": (lambda x: x[::2], lambda x: x[:2], (X,)),
    "updated beside": (
        lambda x, y: lax.dynamic_update_slice(x, y[:1], (1, 0)),
        lambda x, y: lax.dynamic_update_slice(x, y[:1], (2, 0)),
        (X, X),
    ),
    "a maximum of parts is no sum": (lambda x, y: join([x, y]).max(0), lambda x, y: x.max(0) + y.max(0), (X, X)),
    "a whole number cut off": (
        lambda x, y: lax.dynamic_slice(x, (jnp.int32(2), jnp.int32(0)), (2, 4)),
        lambda x, y: x[2:],
        (X, X),
    ),
}  # fmt: skip


@pytest.mark.parametrize("pair", EQUAL)
def test_pieces_of_one_array_have_its_name(pair):
    one, other, shapes = EQUAL[pair]
    assert names(one, shapes) == names(other, shapes)


@pytest.mark.parametrize("pair", UNDER_REWRITES)
def test_sums_of_parts_are_one_sum_under_rewrites(pair):
    one, other, shapes = UNDER_REWRITES[pair]
    assert names(one, shapes, ALL) == names(other, shapes, ALL)
    assert names(one, shapes) != names(other, shapes)


@pytest.mark.parametrize("rules", [NONE, ALL], ids=["no_rewrites", "all_rewrites"])
@pytest.mark.parametrize("pair", DIFFERENT)
def test_other_pieces_have_other_names(pair, rules):
    one, other, shapes = DIFFERENT[pair]
    assert names(one, shapes, rules) != names(other, shapes, rules)


def turn(x, w, b):
    return jnp.tanh(x @ w + b)


def scanned(x, w, b, reverse=False):
    """Three layers as a loop: the result, and what each of them is given."""
    return lax.scan(lambda x, one: (turn(x, *one), x), x, (w, b), reverse=reverse)


def written_out(x, w, b, order=(0, 1, 2), seen=(0, 1, 2)):
    """The same layer by layer, in some order."""
    given = {}
    for at in order:
        given[at], x = x, turn(x, w[at], b[at])
    return x, jnp.stack([given[at] for at in seen])


def derived(function, **given):
    def loss(*inputs):
        last, seen = function(*inputs, **given)
        return jnp.sum(last * last) + jnp.sum(jnp.sin(seen))

    return jax.grad(loss, (0, 1, 2))


def stacked(function):
    """Of layers that are leaves of their own; so are the results."""

    def separate(x, *leaves):
        found = derived(function)(x, jnp.stack(leaves[:3]), jnp.stack(leaves[3:]))
        return [found[0], *(one[at] for one in found[1:] for at in range(3))]

    return separate


LAYERS = (X, (3, 4, 4), (3, 4))


@pytest.mark.parametrize("backwards", [False, True])
def test_a_loop_is_its_turns_one_by_one(backwards):
    order = (2, 1, 0) if backwards else (0, 1, 2)
    loop = names(lambda *given: scanned(*given, reverse=backwards), LAYERS, unrolled=frozenset((3,)))
    assert loop == names(lambda *given: written_out(*given, order=order), LAYERS)
    assert loop[0] != names(lambda *given: written_out(*given, order=order[::-1]), LAYERS)[0]
    assert loop[1] != names(lambda *given: written_out(*given, order=order, seen=(0, 2, 1)), LAYERS)[1]
    assert loop != names(lambda *given: scanned(*given, reverse=backwards), LAYERS)


def test_so_are_its_derivatives():
    loop = names(derived(scanned), LAYERS, ALL, frozenset((3,)))
    assert loop == names(derived(written_out), LAYERS, ALL)
    assert all(one not in loop for one in names(derived(written_out, order=(0, 2, 1)), LAYERS, ALL))
    leaves = (X, *[K] * 3, *[B] * 3)
    assert names(stacked(scanned), leaves, ALL, frozenset((3,))) == names(stacked(written_out), leaves, ALL)


def cell(rows, start, kernel, bias):
    """A cell whose two gates are columns of one kernel, for the input above that for the state."""

    def turn(state, row):
        one, gate = jnp.split(join([row, state]) @ kernel + bias, 2)
        state = jnp.tanh(one) * gate
        return state, state

    return lax.scan(turn, start, rows)[1]


def cell_of_one(rows, start, *kernels, order=(0, 1, 2, 3)):
    above, below = (join([kernels[at] for at in pair], 1) for pair in (order[:2], order[2:]))
    return cell(rows, start, join([above, below]), join(kernels[4:]))


def cell_of_many(rows, start, *kernels):
    """The same with a kernel for each."""

    def turn(state, row):
        one, gate = (row @ kernels[at] + state @ kernels[2 + at] + kernels[4 + at] for at in range(2))
        state = jnp.tanh(one) * gate
        return state, state

    return lax.scan(turn, start, rows)[1]


def trained(function, **given):
    """The parameters after a step, and the gradient of the state."""

    def step(rows, start, *params):
        def loss(*inputs):
            return jnp.sum(jnp.square(function(rows, *inputs, **given)))

        found = jax.grad(loss, range(7))(start, *params)
        return [found[0], *(one - 0.1 * change for one, change in zip(params, found[1:], strict=True))]

    return step


CELL = ((5, 3), B, *[(3, 4)] * 2, *[K] * 2, B, B)


def test_a_cell_of_one_kernel_is_one_of_many():
    many = names(trained(cell_of_many), CELL, ALL)
    assert names(trained(cell_of_one), CELL, ALL) == many
    other = names(trained(cell_of_one, order=(0, 1, 3, 2)), CELL, ALL)
    assert all(one != new for one, new in zip(other, many, strict=True))


def repeated(also):
    """A loop that carries its state twice, and what `also` makes of both and of itself."""

    def function(x, kernels):
        def turn(carry, kernel):
            one, other, third = carry
            return (jnp.tanh(kernel @ one), jnp.tanh(kernel @ other), also(one, third)), other

        (last, _, third), seen = lax.scan(turn, (x, x, x), kernels)
        return last, seen, third

    return function


def test_carries_that_nothing_reads_do_not_count():
    def single(x, kernels):
        return lax.scan(lambda x, kernel: (jnp.tanh(kernel @ x), x), x, kernels)

    shapes = (B, (3, 4, 4))
    found = {name: names(repeated(also), shapes) for name, also in CARRIED.items()}
    assert all(one[:2] == names(single, shapes) for one in found.values())
    assert len({one[2] for one in found.values()}) == len(CARRIED)


CARRIED = {
    "a counter": lambda one, third: third + 1,
    "the state": lambda one, third: one,
    "the state before": lambda one, third: jnp.sin(one),
    "a sum of states": lambda one, third: third + one,
}


def test_a_wrong_slice_is_noticed(monkeypatch):
    """A slice of a concatenation that counts from its end would make its pieces equal in another order."""
    right = Pieces.slice
    monkeypatch.setattr(
        Pieces,
        "slice",
        lambda self, value, axis, start, stop: right(
            self, value, axis, value.shape[axis] - stop, value.shape[axis] - start
        ),
    )
    one, other, shapes = DIFFERENT["the other piece"]
    assert names(one, shapes) == names(other, shapes)
