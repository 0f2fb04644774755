"""Evaluate a program as a certificate describes it, operation by operation."""

import jax
import numpy as np

from equiv.certificates.checker.terms import to_text


def evaluate(known, jaxpr, arrays):
    """Evaluate a program as a certificate describes it.

    Raises:
        KeyError: it has an operation that no original has.
    """

    def read(atom, values):
        if not isinstance(atom, list):
            return values[atom]
        kind, text, shape, dtype = atom
        if kind != "number":
            return known[to_text(atom)]
        return (
            np.broadcast_to(np.frombuffer(bytes.fromhex(text), dtype), shape)
            if shape
            else np.frombuffer(bytes.fromhex(text), dtype)[0]
        )

    values = [read(one, []) for one in jaxpr["constants"]] + list(arrays)
    for eqn in jaxpr["equations"]:
        ins = [read(atom, values) for atom in eqn["in"]]
        values += _results(known, eqn, ins)
    return [read(atom, values) for atom in jaxpr["outputs"]]


class Endless(Exception):
    """A loop does not end within `MOST_TURNS`."""


NEVER = object()
"""The value of what such a loop would give: other outputs of its program do not depend on it."""


def _results(known, eqn, ins):
    """The results of one equation as arrays, or `NEVER`."""
    never = [NEVER] * len(eqn["out"])
    if any(one is NEVER for one in ins):
        return never
    try:
        found = apply(known, eqn, ins)
    except Endless:
        return never
    return [np.asarray(one) if not jax.dtypes.issubdtype(one.dtype, jax.dtypes.extended) else one for one in found]


def _ended(outs):
    """Results of a body, all of which have values."""
    if any(one is NEVER for one in outs):
        raise Endless
    return outs


def apply(known, eqn, ins):
    """The results of one equation."""
    kind, op, data, bodies = eqn["kind"], eqn["op"], eqn["data"], eqn["bodies"]
    if kind == "cond":
        return _ended(evaluate(known, bodies[int(ins[0])], ins[1:]))
    if kind == "while":
        first, second = data["test"], data["test"] + data["body"]
        carry, turns = ins[second:], 0
        while _ended(evaluate(known, bodies[0], [*ins[:first], *carry]))[0]:
            turns += 1
            if turns > MOST_TURNS:
                raise Endless
            carry = _ended(evaluate(known, bodies[1], [*ins[first:second], *carry]))
        return carry
    if kind == "scan":
        first, second = data["constants"], data["constants"] + data["carries"]
        carry, stacked = ins[first:second], []
        for index in range(data["length"])[:: -1 if data["reverse"] else 1]:
            outs = _ended(evaluate(known, bodies[0], [*ins[:first], *carry, *(one[index] for one in ins[second:])]))
            carry, stacked = outs[: len(carry)], [*stacked, outs[len(carry) :]]
        ordered = stacked[:: -1 if data["reverse"] else 1]
        return [*carry, *(np.stack(one) for one in zip(*ordered, strict=True))]
    if kind == "view":
        return [look(ins[number], data[number], shape) for number, (shape, _) in enumerate(eqn["out"])]
    if op == "convert_element_type":
        return [jax.lax.convert_element_type(ins[0], eqn["out"][0][1])]
    if kind == "meeting":
        return [meet(op, data[2], ins, eqn["out"][0])]
    original = known.get(to_text([op, data]))
    if original is None and kind == "elementwise" and data == "{}" and op in SIBLINGS:
        return [getattr(jax.lax, {"div": "div", "neg": "neg"}.get(op, op))(*np.broadcast_arrays(*ins))]
    if original is None:
        raise KeyError(op)
    if kind == "elementwise":
        ins = [np.broadcast_to(one, eqn["out"][0][0]) for one in ins]
    outs = original.primitive.bind(*ins, **original.primitive.get_bind_params(original.params))
    return outs if original.primitive.multiple_results else [outs]


def look(array, view, shape):
    """An array through a view: each axis of it at a number made from the axes of the result."""
    places, sizes = np.indices(shape), [1] * len(view)
    indices = [np.zeros(shape, int) for _ in view]
    for axis, digits in enumerate(view):
        for place, divisor, size in digits:
            indices[axis] = indices[axis] * size + places[place] // divisor % size
            sizes[axis] *= size
    array = np.asarray(array)
    if tuple(sizes) != array.shape:
        raise ValueError("a view of another shape")
    return np.broadcast_to(array[tuple(indices)], shape)


def meet(op, labels, ins, out):
    """A reduction or contraction by the names of the axes."""
    letters = ["".join(chr(97 + label) for label in one) for one in labels]
    result = "".join(chr(97 + axis) for axis in range(len(out[0])))
    if op == "dot_general":
        return np.asarray(np.einsum(f"{','.join(letters)}->{result}", *map(np.asarray, ins)), out[1])
    order = [*map(letters[0].index, result), *(n for n, one in enumerate(letters[0]) if one not in result)]
    rows = np.transpose(np.asarray(ins[0]), order)
    over = tuple(range(len(result), rows.ndim))
    return getattr(jax.lax, f"{op}_p").bind(rows, axes=over, **({"out_sharding": None} if op == "reduce_sum" else {}))


MOST_TURNS = 1000
"""Turns of a `while`; those of the programs that are tampered with have fewer than ten."""

SIBLINGS = ("add", "sub", "mul", "div", "max", "min", "tanh", "sin", "exp", "log", "sqrt", "rsqrt", "square", "neg")
