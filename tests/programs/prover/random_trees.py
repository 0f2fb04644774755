"""Programs at random: a tree with a meaning (numpy, float64) and several spellings (jax.numpy)."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jax import lax
from programs.prover.numbered import N

MATRICES, VECTORS = ("A", "B"), ("u", "w")
BINARY = ("add", "sub", "mul", "max", "div")
UNARY = ("neg", "tanh", "square", "abs", "sqrt")


def _vectors(matrix, vector):
    return st.one_of(
        st.sampled_from([(name,) for name in VECTORS]),
        st.tuples(st.sampled_from(("sum", "maxi")), st.integers(0, 1), matrix),
        st.tuples(st.sampled_from(("var", "mean")), st.integers(0, 1), matrix),
        st.tuples(st.just("matvec"), st.integers(0, 1), matrix, vector),
        st.tuples(st.sampled_from(("add", "sub", "mul")), vector, vector),
        st.tuples(st.just("last"), st.booleans(), st.integers(0, 1), matrix, vector),
        st.tuples(st.just("until"), st.integers(1, 2), vector, vector),
    )


def _matrices(matrix, vector):
    return st.one_of(
        st.sampled_from([(name,) for name in MATRICES]),
        st.tuples(st.sampled_from(BINARY), matrix, matrix),
        st.tuples(st.sampled_from(UNARY), matrix),
        st.tuples(st.just("T"), matrix),
        st.tuples(st.just("flip"), st.integers(0, 1), matrix),
        st.tuples(st.just("spread"), st.integers(0, 1), vector),
        st.tuples(st.just("dot"), st.integers(0, 1), st.integers(0, 1), matrix, matrix),
        st.tuples(st.just("stack"), st.booleans(), st.integers(0, 1), matrix, vector),
        st.tuples(st.just("where"), matrix, matrix, matrix),
        st.tuples(st.just("branch"), vector, matrix, matrix),
        st.tuples(st.just("scale"), st.sampled_from((2.0, 0.5, 3.0, -1.0)), matrix),
        st.tuples(st.just("nested"), st.integers(0, 2), matrix),
    )


def grow(depth):
    matrix, vector = st.sampled_from([(name,) for name in MATRICES]), st.sampled_from([(name,) for name in VECTORS])
    for _ in range(depth):
        matrix, vector = _matrices(matrix, vector), _vectors(matrix, vector)
    return matrix


TWINS = {"add": "sub", "sub": "add", "mul": "add", "max": "mul", "div": "mul", "neg": "abs", "abs": "neg"}
TWINS |= {"square": "abs", "tanh": "square", "sqrt": "abs", "sum": "maxi", "maxi": "sum", "var": "mean", "mean": "sum"}


def parts(tree, path=()):
    """Paths of all subtrees."""
    yield path
    for index, child in enumerate(tree):
        if isinstance(child, tuple):
            yield from parts(child, (*path, index))


def replaced(tree, path, change):
    """A tree with one subtree changed."""
    if not path:
        return change(tree)
    index, *rest = path
    return (*tree[:index], replaced(tree[index], rest, change), *tree[index + 1 :])


def twist(tree, choice):
    """One node changed a little: another operation, axis, direction, or its operands swapped."""
    head, *rest = tree
    options = []
    if head in TWINS:
        options.append((TWINS[head], *rest))
    for index, item in enumerate(rest):
        if isinstance(item, bool):
            options.append((head, *rest[:index], not item, *rest[index + 1 :]))
        elif isinstance(item, int):
            options.append((head, *rest[:index], (item + 1) % 2, *rest[index + 1 :]))
        elif isinstance(item, float):
            options.append(
                (head, *rest[:index], float(np.nextafter(np.float32(item), np.float32(9))), *rest[index + 1 :])
            )
    if (
        len(rest) >= 2
        and all(isinstance(item, tuple) for item in rest[-2:])
        and head not in ("matvec", "last", "stack")
    ):
        options.append((head, *rest[:-2], rest[-1], rest[-2]))
    if head in MATRICES:
        options += [("T", tree), (MATRICES[1 - MATRICES.index(head)],)]
    if head in VECTORS:
        options.append((VECTORS[1 - VECTORS.index(head)],))
    if head == "T":
        options.append(rest[0])
    return options[choice % len(options)] if options else tree


def meaning(tree, given):
    """What a tree is, in float64."""
    head, *rest = tree
    if head in given:
        return given[head]
    args = [meaning(item, given) if isinstance(item, tuple) else item for item in rest]
    simple = {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "max": np.maximum, "div": np.divide,
        "neg": np.negative, "tanh": np.tanh, "square": np.square, "abs": np.abs, "sqrt": np.sqrt, "T": np.transpose,
    }  # fmt: skip
    if head in simple:
        return simple[head](*args)
    if head in ("sum", "maxi", "mean", "var", "flip"):
        axis, array = args
        return {"sum": np.sum, "maxi": np.max, "mean": np.mean, "var": np.var, "flip": np.flip}[head](array, axis=axis)
    if head == "spread":
        return np.broadcast_to(np.expand_dims(args[1], args[0]), (N, N))
    if head == "matvec":
        return np.tensordot(args[1], args[2], (args[0], 0))
    if head == "dot":
        return np.tensordot(args[2], args[3], (args[0], args[1]))
    if head == "where":
        return np.where(args[0] > args[1], args[1], args[2])
    if head == "branch":
        return args[1] if args[0][0] > 0 else args[2]
    if head == "scale":
        return np.float64(np.float32(args[0])) * args[1]
    if head == "nested":
        kind, array = args
        picked = {0: lambda i, j: array[i] * array[j], 1: lambda i, j: array[j] * array[j], 2: lambda i, j: array[i]}
        return np.stack([sum(picked[kind](i, j) for j in range(N)) for i in range(N)])
    if head == "until":
        times, carry, step = args
        for _ in range(times):
            carry = carry * step + 1
        return carry
    reverse, axis, array, carry = args
    rows, kept = list(np.moveaxis(array, axis, 0)), {}
    for index in reversed(range(N)) if reverse else range(N):
        kept[index] = carry - rows[index]
        carry = np.tanh(carry * rows[index])
    return carry if head == "last" else np.stack([kept[index] for index in range(N)])


def spelled(tree, given, style):
    """The same in jax.numpy; `style` gives a whole number below what it is asked for each choice of spelling."""
    head, *rest = tree
    if head in given:
        array = given[head]
        return [lambda: array, lambda: array[None].reshape(array.shape), lambda: jax.jit(lambda x: x)(array)][
            style(3)
        ]()
    args = [spelled(item, given, style) if isinstance(item, tuple) else item for item in rest]
    value = WRITTEN[head](style, *args)
    if style(4) == 0:
        value = jax.checkpoint(lambda x: lax.squeeze(x[:, None].astype("float32"), (1,)))(value)
    return value


def _commuting(operation):
    return lambda style, a, b: [lambda: operation(a, b), lambda: operation(b, a), lambda: operation(a.T, b.T).T][
        style(3)
    ]()


def _transposed(_, a):
    return a.T


def _reduced(operation):
    return lambda style, axis, a: operation(a, axis) if style(2) else operation(a.T, 1 - axis)


def _spread(style, axis, v):
    if style(2):
        return jnp.broadcast_to(jnp.expand_dims(v, axis), (N, N))
    return lax.broadcast_in_dim(v, (N, N), (1 - axis,))


def _dot(style, one, other, a, b):
    left, right = "ki" if one == 0 else "ik", "kj" if other == 0 else "jk"
    ways = [
        lambda: jnp.einsum(f"{left},{right}->ij", a, b),
        lambda: (a.T if one == 0 else a) @ (b if other == 0 else b.T),
        lambda: jnp.einsum(f"{right},{left}->ji", b, a).T,
        lambda: lax.dot_general(a, b, (((one,), (other,)), ((), ()))),
    ]
    return ways[style(4)]()


def _loop(style, reverse, axis, array, carry):
    rows = jnp.moveaxis(array, axis, 0) if style(2) else jnp.swapaxes(array, 0, axis)
    if style(2):
        return lax.scan(lambda c, row: (jnp.tanh(c * row), c - row), carry, rows, reverse=reverse)
    # The same with a carry that nobody asks for, and the others the other way round.
    body = lambda c, row: ((c[0] + row, jnp.tanh(row * c[1])), (c[1] - row, c[0]))  # noqa: E731
    (_, last), (kept, _) = lax.scan(body, (jnp.zeros(N), carry), rows, reverse=reverse)
    return last, kept


def _nested(_, kind, array):
    def outer(total, one):
        def inner(row, other):
            return row + [one * other, other * other, one][kind], None

        return total, lax.scan(inner, jnp.zeros(N), array)[0]

    return lax.scan(outer, 0.0, array)[1]


def _until(style, times, carry, step):
    if style(2):
        return lax.while_loop(lambda s: s[0] < times, lambda s: (s[0] + 1, s[1] * step + 1), (0, carry))[1]
    return lax.while_loop(lambda s: s[1] < times, lambda s: (step * s[0] + 1, s[1] + 1), (carry, 0))[0]


WRITTEN = {
    "add": _commuting(jnp.add),
    "mul": _commuting(jnp.multiply),
    "max": _commuting(jnp.maximum),
    "sub": lambda style, a, b: a - b if style(2) else (a.T - b.T).T,
    "div": lambda _, a, b: a / b,
    "neg": lambda _, a: -a,
    "tanh": lambda _, a: jnp.tanh(a),
    "abs": lambda _, a: jnp.abs(a),
    "sqrt": lambda _, a: jnp.sqrt(a),
    "square": lambda style, a: [lambda: jnp.square(a), lambda: a * a, lambda: a**2][style(3)](),
    "T": _transposed,
    "flip": lambda _, axis, a: jnp.flip(a, axis),
    "spread": _spread,
    "dot": _dot,
    "stack": lambda *given: _loop(*given)[1],
    "last": lambda *given: _loop(*given)[0],
    "where": lambda style, a, b, c: jnp.where(a > b, b, c) if style(2) else jnp.where((a.T > b.T).T, b, c),
    "branch": lambda _, v, a, b: lax.cond(v[0] > 0, lambda: a, lambda: b),
    "scale": lambda style, c, a: a * c if style(2) else c * a,
    "nested": _nested,
    "sum": _reduced(jnp.sum),
    "maxi": _reduced(jnp.max),
    "mean": _reduced(jnp.mean),
    "var": _reduced(jnp.var),
    "matvec": lambda style, axis, a, v: jnp.tensordot(a, v, (axis, 0)) if style(2) else v @ (a if axis == 0 else a.T),
    "until": _until,
}


def seeded(seed):
    """A choice of spellings."""
    numbers = np.random.default_rng(seed)
    return lambda below: int(numbers.integers(below))


def sample_inputs(seed):
    """Inputs of both signs."""
    numbers = np.random.default_rng(seed)
    return {name: numbers.normal(size=(N, N) if name in MATRICES else (N,)) for name in (*MATRICES, *VECTORS)}
