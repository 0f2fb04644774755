"""Operations for the random programs that cut arrays, put them together, and write loops out or do not.

As in `soundness_programs`, each function makes one random operation on values of `pool`, and a twin of it differs in
one choice: another order of pieces, another piece, another turn of a loop.
"""

import itertools

import jax
from jax import lax
from jax import numpy as jnp
from soundness_operations import SIZE, of_rank, pick

ORDERS = list(itertools.permutations(range(SIZE)))


def squares(pool):
    """The square matrices."""
    return [value for value in pool if value.shape == (SIZE, SIZE)]


def fused(rng, pool):
    """A product with kernels side by side, which is cut again; or the one product that is wanted."""
    x, kernels = pick(rng, squares(pool)), [pick(rng, squares(pool)) for _ in range(3)]
    wanted, way = rng.integers(3), rng.integers(6)
    if way == 0:
        return x @ kernels[wanted]
    if way == 5:
        return jnp.concatenate([x @ one for one in kernels], 1)[:, SIZE * wanted : SIZE * (wanted + 1)]
    made = pick(rng, (lambda a: a, jnp.tanh, lambda a: a * pick(rng, (2.0, 3.0))))(x @ jnp.concatenate(kernels, 1))
    if way == 1:
        return jnp.split(made, 3, 1)[wanted]
    if way == 2:
        return made[:, SIZE * wanted : SIZE * (wanted + 1)]
    cut = made.reshape(SIZE, 3, SIZE)
    return cut[:, wanted] if way == 3 else cut.transpose(1, 0, 2)[wanted]


def in_parts(rng, pool):
    """A product or sum over an axis along which operands are put together, whole or part by part."""
    (a, b), (v, w) = ([pick(rng, squares(pool)) for _ in range(2)] for _ in range(2))
    axis, order = rng.integers(2), rng.integers(2)
    ways = (
        lambda: jnp.concatenate([a, b], 1) @ jnp.concatenate([v, w] if order else [w, v], 0),
        lambda: a @ v + b @ w if order else b @ v + a @ w,
        lambda: jnp.concatenate([a, jnp.zeros_like(b)], 1) @ jnp.concatenate([v, w], 0),
        lambda: a @ v,
        lambda: jnp.concatenate([a, b], axis).sum(axis),
        lambda: a.sum(axis) + b.sum(axis),
        lambda: jnp.square(jnp.concatenate([a, b], order)).sum(axis)[:SIZE],
        lambda: jnp.square(a if order else b).sum(axis),
        lambda: jnp.stack([a, b]).sum(pick(rng, (0, 1)))[: SIZE - 1].sum(0),
    )
    return pick(rng, ways)()


def indexed(rng, pool):
    """Rows or columns taken out one by one and put together in some order, along some axis."""
    one = pick(rng, of_rank(pool, 2, 3))
    other = pick(rng, [value for value in pool if value.shape == one.shape])
    axis, to = rng.integers(one.ndim), rng.integers(one.ndim)
    order = pick(rng, (ORDERS[0], ORDERS[0], pick(rng, ORDERS)))
    if min(one.shape) < SIZE:
        return one
    rows = [lax.index_in_dim(one, at, axis, keepdims=False) for at in order]
    if rng.integers(4) == 0:
        rows[rng.integers(SIZE)] = lax.index_in_dim(other, rng.integers(SIZE), axis, keepdims=False)
    made = jnp.stack([pick(rng, (jnp.negative, lambda row: row))(row) for row in rows], to)
    return made + other if rng.integers(3) == 0 else made


def updated(rng, pool):
    """A part of a value replaced, by padding and adding too."""
    one = pick(rng, of_rank(pool, 2))
    new = pick(rng, [value for value in pool if value.shape == one.shape])
    axis, at = rng.integers(2), rng.integers(2)
    part = lax.slice_in_dim(new, at, min(at + 1 + rng.integers(2), new.shape[axis]), axis=axis)
    if 0 in part.shape:
        return one
    start = [at if index == axis else 0 for index in range(2)]
    low, high = start[axis], one.shape[axis] - part.shape[axis] - start[axis]
    config = [(low, high, 0) if index == axis else (0, 0, 0) for index in range(2)]
    padded = lax.pad(part, jnp.float64(pick(rng, (0, 0, 1))), config)
    ways = (
        lambda: lax.dynamic_update_slice(one, part, start),
        lambda: lax.dynamic_update_slice(one, part, [3 * index for index in start]),
        lambda: padded,
        lambda: padded + one,
        lambda: padded * one,
        lambda: jnp.concatenate(
            [
                lax.slice_in_dim(one, 0, low, axis=axis),
                part,
                lax.slice_in_dim(one, low + part.shape[axis], one.shape[axis], axis=axis),
            ],
            axis,
        ),
        lambda: lax.pad(one, jnp.float64(0), [(-low, low, 0) if index == axis else (0, 0, 0) for index in range(2)]),
    )
    return pick(rng, ways)()


def written_out(rng, pool):
    """A loop over stacked layers or the layers one by one: the result, all of them, or a derivative."""
    start = pick(rng, [value for value in pool if value.shape == (SIZE,)])
    kernels = [pick(rng, squares(pool)) for _ in range(SIZE)]
    rows = pick(rng, squares(pool))
    turn = pick(rng, (lambda x, w, r: jnp.tanh(w @ x + r), lambda x, w, r: w @ x * r, lambda x, w, r: x @ w - r))
    order = pick(rng, (ORDERS[0], ORDERS[0], ORDERS[-1], pick(rng, ORDERS)))
    scanned, every = rng.integers(2), rng.integers(2)

    def run(x, *kernels):
        if scanned:
            stacked = jnp.stack([kernels[at] for at in order])
            turns = (stacked, jnp.stack([rows[at] for at in order]))
            last, seen = lax.scan(lambda x, one: (turn(x, *one), x), x, turns, reverse=order == ORDERS[-1])
            return seen if every else last
        seen = []
        for at in reversed(range(SIZE)) if order == ORDERS[-1] else range(SIZE):
            seen.append(x)
            x = turn(x, kernels[order[at]], rows[order[at]])
        return jnp.stack(seen[::-1] if order == ORDERS[-1] else seen) if every else x

    if rng.integers(3):
        return run(start, *kernels)
    return jax.grad(lambda *given: jnp.sum(jnp.sin(run(*given))), 1 + rng.integers(SIZE))(start, *kernels)


def recurrent(rng, pool):
    """A cell with one kernel or two, whose loop carries something besides; its state, or the gradient of a kernel."""
    rows, start = pick(rng, squares(pool)), pick(rng, [value for value in pool if value.shape == (SIZE,)])
    kernels = [pick(rng, squares(pool)) for _ in range(2)]
    whole, swapped, besides, late = rng.integers(2), rng.integers(4) == 0, rng.integers(3), rng.integers(2)

    def run(left, right):
        both = jnp.concatenate([right, left] if swapped else [left, right], 1)

        def turn(carry, row):
            state, other = carry
            if whole:
                one, gate = jnp.split(row @ both, 2)
            else:
                one, gate = (row @ right, row @ left) if swapped else (row @ left, row @ right)
            new = jnp.tanh(one) * gate + state
            return (new, (other + 1, new, state if late else other)[besides]), new if late else state

        (last, other), seen = lax.scan(turn, (start, start), rows)
        return pick(rng, (last, seen, last, other))

    if rng.integers(3) == 0:
        return run(*kernels)
    return jax.grad(lambda *given: jnp.sum(jnp.sin(run(*given))), rng.integers(2))(*kernels)


PIECES = (recurrent, fused, in_parts, indexed, updated, written_out)
