"""Two small ports by hand that compute the same in different ways: every rule of the checker is needed once."""

from functools import cache

import jax
import jax.numpy as jnp
from jax import lax
from named import make_program
from tampering.certificates import certify_ports

from equiv.core.layouts import Identity
from equiv.core.leaves import LeafSpec, LeafTable, MappedLeaf, NativeKey
from equiv.programs.keep_casts import has_casts, keep_casts
from equiv.programs.program import Programs
from equiv.programs.prover.numbered_port import NumberedPort, all_programs
from equiv.programs.prover.prove import prove
from equiv.programs.transform import make_draws_inputs

SHAPES = {"a": (3,), "b": (3,), "w": (3, 3), "d": (), "batch/x": (4, 3)}
LEAVES = ("a", "b", "w", "d")
STATE = ("d",)


def leaf(name):
    spec = LeafSpec(SHAPES[name], "float32", "state" if name in STATE else "params")
    return MappedLeaf(name, NativeKey(spec.collection, name), Identity(), spec, SHAPES[name])


TABLE = LeafTable("small", tuple(map(leaf, LEAVES)))


def two_passes(x):
    """Normalised, by the variance in two passes."""
    mean = x.mean(0)
    return (x - mean) / jnp.sqrt(jnp.square(x - mean).mean(0) + 1e-5)


def one_pass(x):
    """The same in one pass."""
    mean = x.mean(0)
    var = jnp.maximum(0, (x * x).mean(0) - mean * mean)
    return (x - mean) * lax.rsqrt(var + 1e-5)


def recurrent(a, b, w, x):
    """A loop whose carries are in one order."""

    def turn(carry, row):
        one, other = carry
        one, other = jnp.tanh(one @ w + row), other + one
        return (one, other), one * b

    (one, other), rows = lax.scan(turn, (a, a * b), x)
    return jnp.sin(lax.scan(lambda total, row: (total + row, row * 2), one, rows, reverse=True)[1]), other


def recurrent_swapped(a, b, w, x):
    """The same with the carries in the other order, and one that stays as it is."""

    def turn(carry, row):
        other, factor, one = carry
        new = jnp.tanh((w.T @ one[:, None])[:, 0] + row)
        return (one + other, factor, new), new * factor

    (other, _, one), rows = lax.scan(turn, (b * a, b, a), x)
    return jnp.sin(lax.scan(lambda total, row: (row + total, 2 * row), one, rows, reverse=True)[1]), other


def until(a, d):
    """As often as it takes, and then one of two."""
    last = lax.while_loop(lambda now: now[1] < 5, lambda now: (now[0] * 2 + a, now[1] + 1), (a, d))
    return lax.cond(d > 0, jnp.sin, jnp.cos, last[0])


def forward(a, b, w, d, x):
    row, total = recurrent(a, b, w, x)
    return (
        two_passes(x) * a,
        jnp.where(x > 0, x, 0.0) * a,
        (3 * x * a).sum(0),
        (2 * x) @ w,
        (x @ w).T.reshape(6, 2),
        row,
        total,
        until(a, d),
        x * (1 - 0.9),
        lax.sort(x[::-1], dimension=0) * 1.0 + lax.sqrt(jnp.asarray(4.0, x.dtype)),
    )


def forward_otherwise(a, b, w, d, x):
    row, total = recurrent_swapped(a, b, w, x)
    return (
        a * one_pass(x),
        a * x * (x > 0),
        3 * a * x.sum(0),
        2 * (x @ w),
        (w.T @ x.T).reshape(12).reshape(6, 2),
        row,
        total,
        until(a, d),
        x - 0.9 * x,
        2.0 + lax.sort(x[::-1], dimension=0),
    )


def step(a, b, w, d, x):
    """`b` learns from `a`, `w` from nobody, `d` counts."""
    return a - x.sum(0), b - a * x[0], w * 0.5, d + 1, jnp.sin(a)


def step_otherwise(a, b, w, d, x):
    return a - x.sum(0), b - x[0] * a, 0.5 * w, 1 + d, jnp.sin(a)


def program(name, function, inputs, outputs, dtype):
    specs = [jax.ShapeDtypeStruct(SHAPES[name], dtype) for name in inputs]
    return make_program(name, jax.make_jaxpr(function)(*specs), inputs, outputs)


def programs(functions, dtype):
    run, train = functions
    outputs = [f"output/{index}" for index in range(10)]
    parts = (program("eval __call__", run, (*LEAVES, "batch/x"), outputs, dtype),)
    begin = program("begin", lambda *leaves: leaves, LEAVES, LEAVES, dtype)
    trained = program("step", train, (*LEAVES, "batch/x"), (*LEAVES, "loss"), dtype)
    return Programs("small", dtype == "float64", parts, begin, trained)


def port(run, train):
    own = programs((run, train), "float32")
    with jax.enable_x64(True):
        traced = all_programs(programs((run, train), "float64"))
        wide = {part.name: make_draws_inputs(part, True) for part in traced}
        kept = {part.name: keep_casts(part, wide[part.name]) for part in all_programs(own) if has_casts(part)}
    return NumberedPort(own, TABLE, wide.get, kept.get)


def narrow(a, b, w, d, x):
    """A product in bfloat16, times a number that float32 rounds."""
    product = (x.astype("bfloat16") @ w.astype("bfloat16")).astype(x.dtype)
    return (jnp.tanh(product) * (1 - 0.9), *(x,) * 9)


def narrow_otherwise(a, b, w, d, x):
    product = (x.astype("bfloat16") @ w.astype("bfloat16")).astype(x.dtype)
    return (jnp.tanh(product) - 0.9 * jnp.tanh(product), *(x,) * 9)


@cache
def small():
    """The certificate of the two ports."""
    left, right = port(forward, step), port(forward_otherwise, step_otherwise)
    return certify_ports(left, right, prove(left, right, frozenset(("d",))), [{"d": "the same"}] * 2)
