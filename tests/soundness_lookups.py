"""Operations for the random programs: lookups by an index or a mask, every n-th element, shared heads.

As in `soundness_programs`, each function makes one random operation on values of `pool`, and a twin of it differs in
one choice: another axis, another way to look up, another order of repeated heads.
"""

import jax
from jax import lax
from jax import numpy as jnp
from soundness_operations import SIZE, pick


def squares(pool):
    """The square matrices."""
    return [value for value in pool if value.shape == (SIZE, SIZE)]


def cubes(pool):
    """The arrays of three axes."""
    return [value for value in pool if value.shape == (SIZE,) * 3]


def places(rng, pool):
    """An index in range: made of values, or constant."""
    if rng.integers(3) == 0:
        return jnp.asarray(pick(rng, ((0, 2, 1), (1, 1, 0), (0, 1, 2), (2, 2, 2))), pick(rng, ("int32", "int64")))
    source = pick(rng, [value for value in pool if value.shape == (SIZE,)])
    return lax.convert_element_type(lax.clamp(0.0, lax.floor(source * 2), 2.0), "int32")


def looked_up_rows(rng, pool):
    """Rows or elements read, or added to, by an index or with a one-hot mask; now and then a derivative."""
    (x, y), i = [pick(rng, squares(pool)) for _ in range(2)], places(rng, pool)
    v = pick(rng, [value for value in pool if value.shape == (SIZE,)])
    count, mode = jnp.arange(SIZE, dtype=pick(rng, ("int32", "int64"))), pick(rng, ("clip", "fill"))
    mask = pick(rng, (jax.nn.one_hot(i, SIZE, dtype="float64"), (i[:, None] == count).astype("float64")))
    centred = pick(rng, (lambda a: a, lambda a: a - v[:, None], lambda a: 2 * a * v[:, None] - a, lambda a: a * v))
    ways = (
        lambda a: jnp.take(a, i, axis=0, mode=mode),
        lambda a: mask @ a,
        lambda a: mask.T @ a,
        lambda a: jnp.zeros_like(a).at[i].add(a, mode=mode),
        lambda a: y.at[i].add(a),
        lambda a: y + mask.T @ a,
        lambda a: jnp.take(a, i, axis=1, mode=mode),
        lambda a: a @ mask.T,
        lambda a: jnp.take_along_axis(centred(a), i[:, None], 1)[:, 0],
        lambda a: centred(a)[count, i],
        lambda a: centred(a)[i, count],
        lambda a: jnp.sum(mask * centred(a), 1),
        lambda a: jnp.sum(mask * centred(a), 0),
        lambda a: jnp.sum(mask.T * centred(a), 0),
        lambda a: jnp.einsum("ij,ij->i", mask, centred(a)),
        lambda a: jnp.where(i[:, None] == count, centred(a), 0.0).sum(pick(rng, (0, 1))),
        lambda a: a.at[count, i].add(v),
        lambda a: a + mask * v[:, None],
        lambda a: a + mask * v,
        lambda a: jnp.take_along_axis(a, jnp.stack([i, i[::-1], i]), pick(rng, (0, 1))),
        lambda a: jnp.broadcast_to(jnp.sum(mask, pick(rng, (0, 1))), (SIZE,)) * v,
        lambda a: a[:, pick(rng, (0, 1))],
        lambda a: jnp.zeros_like(a).at[:, pick(rng, (0, 1))].add(v),
    )
    way = pick(rng, ways)
    return jax.grad(lambda a: jnp.sum(jnp.sin(way(a))))(x) if rng.integers(3) == 0 else way(x)


def looked_up_cubes(rng, pool):
    """The same with a batch axis, or one that is not looked up."""
    x, i = pick(rng, cubes(pool)), places(rng, pool)
    count, mask = jnp.arange(SIZE), jax.nn.one_hot(i, SIZE, dtype="float64")
    ways = (
        lambda a: a[i],
        lambda a: a[:, i],
        lambda a: a[..., i],
        lambda a: a[count, i],
        lambda a: a[count, :, i],
        lambda a: a[:, count, i],
        lambda a: jnp.einsum("bt,btd->bd", mask, a),
        lambda a: jnp.einsum("bd,btd->bt", mask, a),
        lambda a: jnp.einsum("bt,tde->bde", mask, a),
        lambda a: jnp.einsum("dt,btd->bd", mask, a),
        lambda a: jnp.take_along_axis(a, i[:, None, None], 1)[:, 0],
        lambda a: jnp.take_along_axis(a, i[None, :, None], 2)[..., 0],
    )
    way = pick(rng, ways)
    return jax.grad(lambda a: jnp.sum(jnp.sin(way(a))))(x) if rng.integers(3) == 0 else way(x)


def losses(rng, pool):
    """A cross-entropy as one of several people write it."""
    z, i = pick(rng, squares(pool)), places(rng, pool)
    axis = pick(rng, (1, 1, 0))
    logp = pick(rng, (jax.nn.log_softmax, lambda a, axis: a - jax.nn.logsumexp(a, axis, keepdims=True)))
    mask = jax.nn.one_hot(i, SIZE, dtype="float64")
    ways = (
        lambda a: -jnp.take_along_axis(logp(a, axis), i[:, None], 1)[:, 0],
        lambda a: -jnp.sum(mask * logp(a, axis), 1),
        lambda a: jax.nn.logsumexp(a, axis) - a[jnp.arange(SIZE), i],
        lambda a: jax.nn.logsumexp(a, axis) - jnp.sum(mask * a, pick(rng, (1, 0))),
        lambda a: -jnp.log(jax.nn.softmax(a, axis))[jnp.arange(SIZE), i],
    )
    way = pick(rng, ways)
    return jax.grad(lambda a: jnp.mean(way(a)))(z) if rng.integers(2) else way(z)


def flattened(rng, pool):
    """A lookup or a cross-entropy of two batch axes, as they are or flattened to one, rightly or in another order."""
    z, table, source = pick(rng, cubes(pool)), pick(rng, squares(pool)), pick(rng, squares(pool))
    i = lax.convert_element_type(lax.clamp(0.0, lax.floor(source * 2), 2.0), "int32")
    flat = pick(rng, (i, i, i.T)).reshape(-1)
    order = pick(rng, ((0, 1, 2), (0, 1, 2), (1, 0, 2), (0, 2, 1)))
    count, mask = jnp.arange(SIZE**2), jax.nn.one_hot(flat, SIZE, dtype="float64")

    def rows(a):
        return a.transpose(order).reshape(-1, SIZE)

    lookups = (
        lambda a: jnp.take(a, i, axis=0, mode="clip"),
        lambda a: jnp.take(a, flat, axis=0, mode="clip").reshape(SIZE, SIZE, SIZE),
        lambda a: (mask @ a).reshape(SIZE, SIZE, SIZE),
        lambda a: jnp.take(a, flat, axis=1, mode="clip").reshape(SIZE, SIZE, SIZE),
    )
    losses = (
        lambda a: -jnp.take_along_axis(jax.nn.log_softmax(a), i[..., None], -1)[..., 0],
        lambda a: jax.nn.logsumexp(a, -1) - jnp.sum(jax.nn.one_hot(i, SIZE) * a, -1),
        lambda a: -jnp.take_along_axis(jax.nn.log_softmax(rows(a)), flat[:, None], 1).reshape(SIZE, SIZE),
        lambda a: (jax.nn.logsumexp(rows(a), -1) - rows(a)[count, flat]).reshape(SIZE, SIZE),
        lambda a: (jax.nn.logsumexp(rows(a), -1) - jnp.sum(mask * rows(a), -1)).reshape(SIZE, SIZE),
        lambda a: -jnp.sum(mask * jax.nn.log_softmax(rows(a)), -1).reshape(SIZE, SIZE),
    )
    way, value = pick(rng, [(one, table) for one in lookups] + 2 * [(one, z) for one in losses])
    return jax.grad(lambda a: pick(rng, (jnp.mean, jnp.sum))(way(a)))(value) if rng.integers(2) else way(value)


def every_nth(rng, pool):
    """Every second or third element, by steps or by a reshape; or spread with zeros between."""
    step, first = pick(rng, (2, 3)), rng.integers(2)
    x = pick(rng, squares(pool))
    rows = [pick(rng, [value for value in pool if value.shape == (SIZE,)]) for _ in range(step)]
    flat = pick(rng, (x.reshape(-1)[: SIZE * step], jnp.concatenate(rows), jnp.stack(rows, -1).reshape(-1)))
    low = pick(rng, (first, 0, step - 1))
    ways = (
        lambda a: a[first::step],
        lambda a: a.reshape(SIZE, step)[:, first],
        lambda a: a[first : first + SIZE],
        lambda a: a[first : 2 * step + first : step],
        lambda a: a[: SIZE * step - 1 : step],
        lambda a: a[first::2][:SIZE],
    )
    spread = (
        lambda a: lax.pad(a, jnp.float64(pick(rng, (0, 0, 1))), [(low, step - 1 - low, step - 1)]),
        lambda a: jnp.zeros((SIZE, step)).at[:, low].add(a).reshape(-1),
        lambda a: lax.pad(a, jnp.float64(0), [(0, step - 1, step - 1)]),
    )
    if rng.integers(3) == 0:
        made = pick(rng, spread)(rows[0])
        return made.reshape(SIZE, SIZE) if step == SIZE else made.reshape(SIZE, step)[:, first]
    way = pick(rng, ways)
    if rng.integers(3):
        return way(flat) if way(flat).shape == (SIZE,) else way(flat).sum()
    return jax.grad(lambda a: jnp.sum(jnp.sin(way(a))))(flat)[: SIZE * 2].reshape(SIZE, 2)[:, first]


def shared_heads(rng, pool):
    """Attention whose heads share keys: repeated for each, in one of two orders, or an axis that keys do not have."""
    k, other = pick(rng, cubes(pool)), pick(rng, cubes(pool))
    q = other[:, :, None] * pick(rng, squares(pool))[None, None]
    order, wanted = rng.integers(3), rng.integers(4)

    def logits(k):
        if order == 0:
            heads = jnp.einsum("thd,shd->hts", q.reshape(SIZE, -1, SIZE), jnp.repeat(k, SIZE, 1))
        elif order == 1:
            heads = jnp.einsum("thd,shd->hts", q.reshape(SIZE, -1, SIZE), jnp.tile(k, (1, SIZE, 1)))
        else:
            heads = jnp.einsum("tngd,snd->ngts", q, k)
        return heads.reshape(SIZE, SIZE, SIZE, SIZE)

    if wanted == 0:
        return logits(k).sum(pick(rng, (0, 1)))
    if wanted == 1:
        return jnp.max(logits(k), pick(rng, (0, 1)))
    return jax.grad(lambda a: jnp.sum(jnp.sin(logits(a))))(k)


LOOKUPS = (looked_up_rows, looked_up_rows, looked_up_cubes, losses, flattened, every_nth, shared_heads)
