"""More operations for the random programs: indices, sorting, convolutions, whole numbers, branches, rules, draws.

As in `soundness_programs`, each function makes one random operation on values of `pool`, and a twin of it differs in
one choice. What is no float64 inside is one again at the end; the values in between are compared, too.
"""

import itertools

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

SIZE = 3
DTYPES = ("int8", "uint8", "int32", "bool", "float16", "bfloat16", "float32", "float64")


def pick(rng, items):
    """A random item."""
    return items[rng.integers(len(items))]


def of_rank(pool, *ranks):
    """The values of some ranks."""
    return [value for value in pool if value.ndim in ranks and value.size > 1]


def indices(rng, pool, shape, spread=2):
    """Indices made of a value or constant, some of them out of range."""
    source = pick(rng, of_rank(pool, 1, 2, 3))
    if rng.integers(2):
        return jnp.asarray(np.random.default_rng(rng.integers(20)).integers(-1, SIZE + 1, size=shape))
    return jnp.int32(jnp.floor(jnp.resize(source, shape) * spread))


def gathered(rng, pool):
    one, mode = pick(rng, of_rank(pool, 1, 2, 3)), pick(rng, ("clip", "wrap", "fill"))
    axis, kind = rng.integers(one.ndim), rng.integers(4)
    if kind == 0:
        return jnp.take(one, indices(rng, pool, (SIZE,)), axis=axis, mode=mode)
    if kind == 1:
        return jnp.take_along_axis(
            one, indices(rng, pool, one.shape), axis=axis, mode="clip" if mode == "wrap" else mode
        )
    if kind == 2:
        start = [rng.integers(2) for _ in one.shape]
        cut = lax.dynamic_slice(one, start, [size - 1 if size > 1 else 1 for size in one.shape])
        return lax.pad(
            cut, jnp.float64(0), [(0, size - now, 0) for size, now in zip(one.shape, cut.shape, strict=True)]
        )
    place = indices(rng, pool, ())
    return lax.dynamic_index_in_dim(one, place, axis, keepdims=False)


def looked_up(rng, pool):
    """Rows read or changed by indices that are in range, in several modes."""
    one = pick(rng, of_rank(pool, 1, 2))
    rows = lax.convert_element_type(lax.clamp(0.0, lax.floor(pick(rng, of_rank(pool, 1)) * 2), 2.0), "int32")
    mode = pick(rng, ("clip", "fill", "promise_in_bounds"))
    new = pick(rng, [value for value in pool if value.shape == one.shape])
    ways = (
        lambda: one.at[rows].get(mode=mode),
        lambda: jnp.take(one, rows, axis=one.ndim - 1, mode=pick(rng, ("clip", "fill"))),
        lambda: one.at[rows].add(new, mode=mode),
        lambda: one.at[rows.astype("uint32")].get(mode=mode),
        lambda: jnp.where(rows < 1, rows + 2, rows).astype("float64"),
        lambda: lax.dynamic_index_in_dim(one, jnp.max(rows), pick(rng, (0, one.ndim - 1)), keepdims=False),
        lambda: one[jnp.where(rows < pick(rng, (0, 1)), 2 - rows, rows)],
    )
    return pick(rng, ways)()


def attended(rng, pool):
    """Weights of masked logits; every row and column keeps one."""
    square = [value for value in pool if value.shape == (SIZE, SIZE)]
    x = lax.clamp(-9.0, pick(rng, square), 9.0)
    kept, large = (pick(rng, square) > 0.25) | jnp.eye(SIZE, dtype=bool), pick(rng, (-1e9, -1e30, -1e5, -np.inf))
    axis = rng.integers(2)
    ways = (
        lambda: jnp.where(kept, x, large),
        lambda: jnp.where(~kept, large, x),
        lambda: jnp.where(kept.T, x, large),
        lambda: x + jnp.where(kept, 0.0, -1e9),
        lambda: x + (1 - kept.astype("float64")) * -1e9,
        lambda: x + (pick(rng, (1, 2)) - kept.astype("float64")) * -1e9,
        lambda: jnp.where(kept, x, -1e3),
    )
    logits = pick(rng, ways)()
    top = pick(rng, (logits, logits, pick(rng, ways)(), x)).max(pick(rng, (axis, axis, 0)), keepdims=True)
    weights = jnp.exp(logits - top)
    return weights / weights.sum(axis, keepdims=True) if rng.integers(2) else weights


def merged(rng, pool):
    """Something done while axes are merged, split or tiled."""
    one = pick(rng, of_rank(pool, 1, 2, 3))
    alike = [value for value in pool if value.shape == one.shape]
    if one.ndim == 1:
        other = jnp.tile(one, (SIZE,)) if rng.integers(2) else jnp.repeat(one, SIZE)
        square = pick(rng, [value for value in pool if value.shape == (SIZE, SIZE)])
        other = other * square.reshape(-1)
        return other.reshape(SIZE, SIZE).sum(rng.integers(2)) if rng.integers(2) else other.reshape(SIZE, SIZE)
    shape = pick(rng, ((-1,), (SIZE, -1), (-1, SIZE)))
    left, right = (value.transpose(pick(rng, list(itertools.permutations(range(one.ndim))))) for value in (one, one))
    flat = [value.reshape(shape) for value in (left, right, pick(rng, alike))]
    made = pick(rng, (lax.add, lax.mul))(pick(rng, flat), pick(rng, flat))
    if made.ndim == 2 and rng.integers(2):
        contracted = lax.dot_general(made, pick(rng, flat), (((1,), (1,)), ((), ())))
        return contracted if rng.integers(2) else made.sum(rng.integers(2)).reshape(-1, SIZE)[0]
    return made.reshape(one.shape)


def sliced(rng, pool):
    """Cut, put together in another or in the same order, turned round, padded."""
    one = pick(rng, of_rank(pool, 1, 2, 3))
    axis, kind = rng.integers(one.ndim), rng.integers(5)
    if kind == 0:
        parts = [lax.slice_in_dim(one, at, at + 1, axis=axis) for at in range(one.shape[axis])]
        order = pick(rng, list(itertools.permutations(range(len(parts)))))
        return lax.concatenate([parts[at] for at in order], axis)
    if kind == 1:
        return lax.rev(one, (axis,))
    if kind == 2:
        other = pick(rng, [value for value in pool if value.shape == one.shape])
        both = lax.concatenate([one, other], axis)
        at = pick(rng, (0, one.shape[axis], 1))
        return lax.slice_in_dim(both, at, at + one.shape[axis], axis=axis)
    if kind == 3:
        wide = lax.pad(
            one, jnp.float64(rng.integers(2)), [(1, 1, 0) if at == axis else (0, 0, 0) for at in range(one.ndim)]
        )
        at = rng.integers(3)
        return lax.slice_in_dim(wide, at, at + one.shape[axis], axis=axis)
    return jnp.roll(one, rng.integers(SIZE), axis)


def scattered(rng, pool):
    one = pick(rng, of_rank(pool, 1, 2))
    rows = indices(rng, pool, (2,), 1)
    new = pick(rng, [value for value in pool if value.shape == one.shape])[:2]
    place = one.at[rows]
    ways = (place.set, place.add, place.multiply, place.min, place.max)
    return pick(rng, ways)(new, mode=pick(rng, ("drop", "clip")))


def ordered(rng, pool):
    one = pick(rng, of_rank(pool, 1, 2, 3))
    axis, kind = rng.integers(one.ndim), rng.integers(6)
    if kind == 0:
        return lax.sort(one, dimension=axis)
    if kind == 1:
        return lax.top_k(one, SIZE)[0] if one.shape[-1] == SIZE else one
    if kind == 2:
        return lax.top_k(one, 1)[1].astype("float64")[..., 0] if one.ndim > 1 else one
    if kind == 3:
        return pick(rng, (jnp.argmax, jnp.argmin))(one, axis).astype("float64")
    if kind == 4:
        other = pick(rng, [value for value in pool if value.shape == one.shape])
        return lax.sort((one, other), dimension=axis, num_keys=1)[1]
    return jnp.argsort(one, axis).astype("float64")


def cumulated(rng, pool):
    one = pick(rng, of_rank(pool, 1, 2, 3))
    ways = (lax.cumsum, lax.cumprod, lax.cummax, lax.cummin, lax.cumlogsumexp)
    return pick(rng, ways)(one, axis=rng.integers(one.ndim), reverse=bool(rng.integers(2)))


def convolved(rng, pool):
    square = [value for value in pool if value.shape == (SIZE, SIZE)]
    one, kernel = pick(rng, square), pick(rng, square)
    if rng.integers(3) == 0:  # pooling
        init, combine = pick(rng, ((0.0, lax.add), (-np.inf, lax.max)))
        return lax.reduce_window(one, init, combine, (2, 1), (1, 1), pick(rng, ("SAME", ((1, 0), (0, 0)))))
    padding = pick(rng, ("SAME", ((2, 0),)))
    flip = kernel[::-1] if rng.integers(3) == 0 else kernel
    spec = pick(rng, (("NWC", "WIO", "NWC"), ("NCW", "OIW", "NCW")))
    one, kernel = one[None], flip[:, :, None] if spec[0] == "NWC" else flip[None]
    one = one if kernel.shape[1] == one.shape[{"NWC": 2, "NCW": 1}[spec[0]]] else one.transpose(0, 2, 1)
    made = lax.conv_general_dilated(
        one, kernel, (1,), padding, rhs_dilation=(1 + rng.integers(2),), dimension_numbers=spec
    )
    return lax.reshape(made, (SIZE,)) if made.size == SIZE else one[0]


def batched(rng, pool):
    """A product with a batch dimension."""
    cubes = [value for value in pool if value.shape == (SIZE,) * 3]
    one, other = pick(rng, cubes), pick(rng, cubes)
    axes = [pick(rng, list(itertools.permutations(range(3)))) for _ in range(2)]
    (batch, summed, _), (their_batch, their_summed, _) = axes
    return lax.dot_general(one, other, (((summed,), (their_summed,)), ((batch,), (their_batch,))))


def whole_numbers(rng, pool):
    """Whole numbers that wrap, divide with a remainder, are shifted."""
    one = pick(rng, pool)
    alike = [value for value in pool if value.shape == one.shape]
    dtype = pick(rng, ("int8", "uint8", "int32"))
    bounded = (lax.floor(lax.clamp(-7.0, value, 7.0) * 9) for value in (one, pick(rng, alike)))
    left, right = (value.astype("int32").astype(dtype) for value in bounded)
    ways = (
        lambda: left + right,
        lambda: left * right,
        lambda: left - right,
        lambda: lax.div(left, jnp.where(right == 0, jnp.ones_like(right), right)),
        lambda: lax.rem(left, jnp.where(right == 0, jnp.ones_like(right), right)),
        lambda: left * left * left,
        lambda: lax.integer_pow(left, 2),
        lambda: (left + right) - right,
        lambda: left // 2 * 2,
        lambda: lax.shift_left(left, jnp.ones_like(left)),
        lambda: left & right,
        lambda: lax.max(left, right),
        lambda: jnp.sum(left, dtype=dtype) + left,
    )
    return pick(rng, ways)().astype("float64")


def cast(rng, pool):
    one = pick(rng, pool)
    dtype, way = pick(rng, DTYPES), rng.integers(4)
    if way == 0:
        return lax.reduce_precision(one, 8, pick(rng, (7, 10, 23)))
    there = lax.convert_element_type(lax.clamp(-100.0, one, 100.0), dtype)
    if way == 1 and dtype in ("float16", "bfloat16", "float32"):
        there = there * there
    if way == 2:
        there = lax.convert_element_type(there, pick(rng, ("float32", "int32")))
    return lax.convert_element_type(there, "float64")


def rounded(rng, pool):
    one = pick(rng, pool)
    half = lax.full_like(one, 0.5)
    ways = (
        lambda a: lax.floor(a),
        lambda a: lax.ceil(a),
        # Of halves, which the two ways round apart.
        lambda a: lax.round(lax.floor(a) + half, lax.RoundingMethod.TO_NEAREST_EVEN),
        lambda a: lax.round(lax.floor(a) + half, lax.RoundingMethod.AWAY_FROM_ZERO),
        lambda a: lax.sign(a),
        lambda a: a - lax.floor(a),
        lambda a: lax.floor(a + half),
        lambda a: lax.rem(a, half),
        lambda a: lax.sign(a) * lax.abs(a),
        lambda a: lax.nextafter(a, half),
    )
    return pick(rng, ways)(one)


def branched(rng, pool):
    one = pick(rng, pool)
    other = pick(rng, [value for value in pool if value.shape == one.shape])
    ways = [lambda a, b: a + b, lambda a, b: b + a, lambda a, b: a * b, lambda a, b: a - b, lambda a, b: a]
    chosen = [pick(rng, ways) for _ in range(2 + rng.integers(2))]
    decides = jnp.sum(pick(rng, pool))
    if len(chosen) == 2:
        return lax.cond(decides > 0, *chosen, one, other)
    return lax.switch(lax.convert_element_type(lax.clamp(-1.0, decides, 4.0), "int32"), chosen, one, other)


def until(rng, pool):
    """A while loop whose turns depend on values, or on a bound."""
    start, other = pick(rng, of_rank(pool, 0, 1)), pick(rng, of_rank(pool, 1) or pool)
    bound, factor = 2 + rng.integers(3), pick(rng, (0.5, 0.25, -0.5))
    add = pick(rng, (0.0, 1.0))

    def test(state):
        return (state[0] < bound) & (jnp.max(lax.abs(state[1])) > 0.1)

    def turn(state):
        return state[0] + 1, state[1] * factor + add * jnp.sum(other)

    last = lax.while_loop(test, turn, (0, start))
    return last[1] if rng.integers(2) else last[1] + last[0]


def customised(rng, pool):
    """A function with rules of its own, its value or its derivative."""
    one = pick(rng, pool)
    factor, kind = pick(rng, (1.0, 2.0, 1.001)), rng.integers(3)
    function = lax.sin if rng.integers(2) else lax.tanh
    forward = jax.custom_vjp(function)
    forward.defvjp(lambda a: (function(a), a), lambda a, g: (factor * g * lax.cos(a),))
    tangent = jax.custom_jvp(function)
    tangent.defjvp(lambda a, t: (function(*a), factor * t[0] * lax.cos(a[0])))
    if kind == 0:
        return pick(rng, (forward, tangent, function))(one)
    return jax.grad(lambda a: jnp.sum(pick(rng, (forward, tangent, function))(a) * one))(one)


def drawn(rng, pool):
    """Draws from fixed keys and from what is made of them."""
    one = pick(rng, pool)
    key = jax.random.key(rng.integers(3))
    kind = rng.integers(4)
    if kind == 1:
        key = jax.random.fold_in(key, rng.integers(3))
    if kind == 2:
        key = jax.random.split(key, 2)[rng.integers(2)]
    if kind == 3:
        key = jax.random.fold_in(key, jnp.int32(lax.floor(jnp.sum(lax.sign(one)))))
    ways = (jax.random.normal, jax.random.uniform, lambda key, shape: jax.random.bernoulli(key, 0.5, shape))
    return lax.convert_element_type(pick(rng, ways)(key, one.shape), "float64") * one


MORE = (
    *(
        gathered,
        sliced,
        scattered,
        ordered,
        cumulated,
        convolved,
        batched,
        whole_numbers,
        cast,
        rounded,
        branched,
        until,
    ),
    *(customised, drawn, looked_up, attended, merged),
)
