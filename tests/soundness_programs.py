"""Small random programs on square arrays, in which a mistaken axis changes no shape; test programs for the prover.

They have few operations on few inputs, so that the same value is often computed in several ways; and many operations
have a twin that differs in one choice: another axis, another operand, the slice of another loop.

Each function from `elementwise` to `nested` makes one random operation on values of `pool`, drawn by `rng`.
"""

import itertools

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from named import make_program
from soundness_lookups import LOOKUPS
from soundness_operations import MORE
from soundness_pieces import PIECES

SIZE = 3
SHAPES = ((), (SIZE,), (1, SIZE), (SIZE, 1), (SIZE, SIZE), (SIZE, SIZE, SIZE))
INPUTS = {"x": (SIZE, SIZE), "y": (SIZE, SIZE), "v": (SIZE,), "z": (SIZE, SIZE, SIZE)}


class Choices:
    """A random generator that counts its choices; choice number `twist` differs from that of the same seed."""

    def __init__(self, seed, twist=-1):
        self.rng, self.twist, self.made = np.random.default_rng(seed), twist, 0

    def integers(self, start, stop=None):
        low, high = (0, start) if stop is None else (start, stop)
        chosen = int(self.rng.integers(low, high))
        self.made += 1
        return low + (chosen - low + 1) % (high - low) if self.made - 1 == self.twist else chosen


def pick(rng, items):
    """A random item."""
    return items[rng.integers(len(items))]


def elementwise(rng, pool):
    one = pick(rng, pool)
    other = pick(rng, [value for value in pool if value.shape == one.shape])
    ways = (lax.add, lax.mul, lax.sub, lax.max, lax.div)
    return pick(rng, ways)(one, other)


def unary(rng, pool):
    one = pick(rng, pool)
    ways = (lax.neg, lax.square, lax.abs, lambda a: lax.sqrt(lax.abs(a)), lambda a: lax.rsqrt(lax.square(a)))
    ways += (lax.tanh, lambda a: lax.integer_pow(a, -1), lambda a: lax.sqrt(a * a), lambda a: a * a * a)
    return pick(rng, ways)(one)


def scaled(rng, pool):
    one, number = pick(rng, pool), pick(rng, (0.0, 1.0, 2.0, 0.5, -1.0, 1 / SIZE, 1e-5))
    return pick(rng, (lax.mul, lax.add, lax.sub, lax.div))(one, lax.full_like(one, number or 1.0))


def moved(rng, pool):
    one = pick(rng, [value for value in pool if value.ndim > 1])
    return lax.transpose(one, pick(rng, list(itertools.permutations(range(one.ndim)))))


def reshaped(rng, pool):
    """Reshaped and back, now and then transposed in between."""
    one = pick(rng, [value for value in pool if value.ndim])
    ways = ((SIZE**2,), (1, SIZE, 1, SIZE), (SIZE**2, SIZE), (SIZE, SIZE**2), (SIZE**3,), *SHAPES)
    for _ in range(1 + rng.integers(2)):
        one = lax.reshape(one, pick(rng, [shape for shape in ways if np.prod(shape) == one.size]))
        if rng.integers(2):
            one = lax.transpose(one, pick(rng, list(itertools.permutations(range(one.ndim)))))
    return lax.reshape(one, pick(rng, [shape for shape in SHAPES if np.prod(shape) == one.size]))


def repeated(rng, pool):
    one = pick(rng, [value for value in pool if value.ndim < 3])
    rank = rng.integers(max(one.ndim, 1), 4)
    places = pick(rng, list(itertools.combinations(range(rank), one.ndim)))
    shape = [SIZE] * rank
    if rng.integers(3) == 0 and rank < 3:
        shape[rng.integers(rank)] = 1
    if any(one.shape[axis] not in (1, shape[place]) for axis, place in enumerate(places)):
        return one
    out = lax.broadcast_in_dim(one, shape, places)
    return out if out.shape in SHAPES else lax.broadcast_in_dim(one, [SIZE] * rank, places)


def reduced(rng, pool):
    one = pick(rng, [value for value in pool if value.ndim])
    axes = pick(rng, [axes for n in (1, 1, 2) for axes in itertools.combinations(range(one.ndim), n)])
    total = pick(rng, (lax.reduce_sum, lax.reduce_sum, lax.reduce_max))(one, axes)
    return total / SIZE if rng.integers(2) else total


def multiplied(rng, pool):
    square = [value for value in pool if value.shape == (SIZE, SIZE)]
    one, other = pick(rng, square), pick(rng, square)
    left, right = rng.integers(2), rng.integers(2)
    if rng.integers(4) == 0:
        return lax.dot_general(one, other, (((left,), (right,)), ((1 - left,), (1 - right,))))
    return lax.dot_general(one, other, (((left,), (right,)), ((), ())))


def centred(rng, pool):
    """`x - mean(x)`, its square's sum, or `mean(x**2) - mean(x)**2`; now and then the mean along the wrong axis."""
    one = pick(rng, [value for value in pool if value.shape == (SIZE, SIZE)])
    axis, back = rng.integers(2), rng.integers(2)
    mean = lax.reduce_sum(one, (axis,)) / SIZE
    spread = lax.broadcast_in_dim(mean, one.shape, (back,))
    kind = rng.integers(4)
    if kind == 0:
        return one - spread
    if kind == 1:
        return lax.reduce_sum(lax.square(one - spread), (axis,))
    squares = lax.reduce_sum(one * one, (axis,)) / SIZE
    if kind == 2:
        return squares - mean * mean
    other = lax.broadcast_in_dim(squares, one.shape, (rng.integers(2),)) - spread * spread
    return pick(rng, (lambda a: a, lambda a: lax.max(a, jnp.zeros_like(a))))(other)


def masked(rng, pool):
    one = pick(rng, pool)
    alike = [value for value in pool if value.shape == one.shape]
    mask, zero = lax.gt(pick(rng, alike), lax.full_like(one, 0.25)), jnp.zeros_like(one)
    ways = (
        lambda: lax.select(mask, one, zero),
        lambda: lax.select(mask, zero, one),
        lambda: lax.convert_element_type(mask, "float64") * one,
        lambda: lax.select(lax.bitwise_not(mask), zero, one),
        lambda: lax.select(mask, one, pick(rng, alike)),
    )
    return pick(rng, ways)()


def looped(rng, pool, depth=0):
    """A scan whose body mixes carry, slice and, in a loop within a loop, the outer ones; or a while loop."""
    start = pick(rng, [value for value in pool if value.shape in ((), (SIZE,))])
    rows = pick(rng, [value for value in pool if value.shape == (SIZE, *start.shape)])
    others = [value for value in pool if value.shape == start.shape][:2]

    def turn(carry, row):
        values = [carry, row, *others]
        if depth < 1 and rng.integers(2):
            values.append(lax.reshape(looped(rng, [*values, rows, row, carry], depth + 1), start.shape))
        one, other = pick(rng, values), pick(rng, values)
        new = pick(rng, (lax.add, lax.mul, lax.sub))(one, other)
        return pick(rng, (new, carry, carry + row, row)), pick(rng, (new, one * other, carry, row))

    if rng.integers(5) == 0:
        return lax.fori_loop(0, SIZE, lambda _, carry: turn(carry, others[0])[0], start)
    last, stacked = lax.scan(turn, start, rows, reverse=bool(rng.integers(2)))
    wanted = [value for value in (last, stacked) if depth == 0 or value.shape == start.shape]
    return pick(rng, wanted)


def nested(rng, pool):
    """A loop within a loop over the same rows or its own, which mixes the carries and slices of both."""
    rows = pick(rng, [value for value in pool if value.shape in ((SIZE,), (SIZE, SIZE))])
    start, kind = jnp.zeros(rows.shape[1:]), rng.integers(3)
    inside = rows if rng.integers(3) else lax.scan(lambda carry, row: (carry, lax.tanh(row)), start, rows)[1]

    def outer(carry, row):
        def inner(own, mine):
            values = (carry, row, own, mine)
            one, other = pick(rng, values), pick(rng, values)
            return own + one * other, one - other

        last, stacked = lax.scan(inner, start, inside)
        return (carry + last if kind else carry + row), (stacked if kind == 1 else last)

    last, stacked = lax.scan(outer, start, rows)
    return stacked if kind == 1 or rng.integers(2) else last


ONE = (unary, scaled, moved, reshaped, repeated, reduced)
STEPS = (elementwise, elementwise, *ONE, multiplied, centred, masked, looped, nested)
ALL_STEPS = (*STEPS, *MORE, *MORE)
PIECE_STEPS = (*STEPS, *PIECES, *PIECES, *PIECES)
LOOKUP_STEPS = (*STEPS, *LOOKUPS, *LOOKUPS, *LOOKUPS)


def random_program(seed, length=30, steps=STEPS, twists=12):
    """Trace a program of `length` random operations in `steps`; a twin has another of its first `twists` choices."""
    rng = np.random.default_rng(seed)

    def run(*arrays):
        pool = list(arrays)
        for turn in range(length):
            step, before = pick(rng, steps), tuple(pool)
            twins = [Choices((seed, turn)), Choices((seed, turn), int(rng.integers(twists)))]
            for choices in twins[: 1 + int(rng.integers(2))]:
                try:
                    made = step(choices, list(before))
                except (IndexError, ValueError, TypeError):  # nothing of that shape: another operation
                    continue
                if made.shape in SHAPES and str(made.dtype) == "float64":
                    pool.append(made)
        return pool[len(arrays) :]

    with jax.enable_x64(True):
        structs = [jax.ShapeDtypeStruct(shape, "float64") for shape in INPUTS.values()]
        jaxpr = jax.make_jaxpr(run)(*structs)
    outputs = [f"output/{index}" for index in range(len(jaxpr.out_avals))]
    return make_program(f"random {seed}", jaxpr, INPUTS, outputs)


def random_inputs(seed=0):
    """Random arrays for `INPUTS`."""
    rng = np.random.default_rng((seed, 7))
    return tuple(rng.normal(0.2, 1.0, size=shape) for shape in INPUTS.values())
