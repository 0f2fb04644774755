"""Loops and choices: what is carried round a loop comes before what it is used for, in the next turn."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from equiv.infer.dataflow.blocks import NOWHERE, Scene, Value, collapsed, joined, parts, single, sliced, viewed
from equiv.infer.dataflow.leaf_uses import other
from equiv.infer.dataflow.primitives import unknown
from equiv.infer.dataflow.strided_views import turn
from equiv.programs.jaxpr import opened, scan_parts

Walk = Callable[..., list[Value]]
"""`(jaxpr, constants, inputs, path)` to outputs."""


def cond(scene: Scene, eqn: Any, ins: list[Value], walk: Walk, path: Any) -> list[Value]:
    """A choice of branches: all of them count."""
    ways = [walk(*opened(branch), ins[1:], (path, number)) for number, branch in enumerate(eqn.params["branches"])]
    shapes = [tuple(var.aval.shape) for var in eqn.outvars]
    return [
        unknown(scene, [ins[0], *values], [shape])[0]
        for shape, values in zip(shapes, zip(*ways, strict=True), strict=True)
    ]


def scan(scene: Scene, eqn: Any, ins: list[Value], walk: Walk, path: Any) -> list[Value]:
    """A loop of known length; over stacked leaves that the other port has one by one, turn by turn."""
    body, consts = opened(eqn.params["jaxpr"])
    fixed, carried = scan_parts(eqn)
    length, stacked = eqn.params["length"], ins[carried:]
    if any(len(value.cuts[0]) == length - 1 > 0 and _has_leaves(value) for value in stacked):
        return _unrolled(scene, eqn, ins, walk, path)
    slices = []
    for value in stacked:
        scene.turned |= {leaf: length for leaf, axis, unit, _ in value.origins[0] if (axis, unit) == (0, 1)}
        value = collapsed(scene, value, [0])
        cells = viewed(value.cells, turn)[0]
        slices.append(Value(value.shape[1:], cells, value.cuts[1:], value.origins[1:]))

    def once(carry: list[Value]) -> list[Value]:
        return walk(body, consts, [*ins[:fixed], *carry, *slices], path)

    still = [body.outvars[at] is body.invars[fixed + at] for at in range(carried - fixed)]
    carry, outs = _settled(scene, ins[fixed:carried], still, once)
    return [*carry, *(_stacked(value, length) for value in outs[carried - fixed :])]


def _has_leaves(value: Value) -> bool:
    return any(atom.leaves for atom in parts(value))


def _settled(scene: Scene, start: list[Value], still: list[bool], once: Any) -> tuple[list[Value], list[Value]]:
    """What a loop carries in the end, and what a turn gives. What no turn changes stays what it is."""
    carry = [value if rest else _carry(scene, [value]) for value, rest in zip(start, still, strict=True)]
    outs = once(carry)
    pairs = zip(start, still, outs, strict=False)
    carry = [value if rest else _carry(scene, [value, out]) for value, rest, out in pairs]
    again, scene.uses.again = scene.uses.again, True
    outs = once(carry)
    scene.uses.again = again
    return [value if rest else out for value, rest, out in zip(start, still, outs, strict=False)], outs


def _carry(scene: Scene, values: list[Value]) -> Value:
    """A carried value: it moves even where it starts from zeros."""
    atom = other(scene.uses, [atom for value in values for atom in parts(value)])
    return single(values[0].shape, replace(atom, moving=True, leaves=()) if not atom.moving else atom)


def _stacked(value: Value, length: int) -> Value:
    cells = viewed(value.cells[None], lambda view: None)
    return Value((length, *value.shape), cells, ((), *value.cuts), (NOWHERE, *value.origins))


def _unrolled(scene: Scene, eqn: Any, ins: list[Value], walk: Walk, path: Any) -> list[Value]:
    body, consts = opened(eqn.params["jaxpr"])
    fixed, carried = scan_parts(eqn)
    carry, outs = ins[fixed:carried], []
    turns = range(eqn.params["length"])
    for number in reversed(turns) if eqn.params["reverse"] else turns:
        slices = [_slice(scene, value, number) for value in ins[carried:]]
        results = walk(body, consts, [*ins[:fixed], *carry, *slices], (path, number))
        carry = results[: carried - fixed]
        outs.append(results[carried - fixed :])
    if eqn.params["reverse"]:
        outs.reverse()
    return [*carry, *(joined(scene, [_stacked(value, 1) for value in values], 0) for values in zip(*outs, strict=True))]


def _slice(scene: Scene, value: Value, number: int) -> Value:
    value = sliced(scene, value, 0, number, number + 1)
    cells = viewed(value.cells, lambda view: replace(view, axes=view.axes[1:]))[0]
    return Value(value.shape[1:], cells, value.cuts[1:], value.origins[1:])


def while_loop(scene: Scene, eqn: Any, ins: list[Value], walk: Walk, path: Any) -> list[Value]:
    """A loop of unknown length."""
    params = eqn.params
    for_test, for_body = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    body, consts = opened(params["body_jaxpr"])

    def once(carry: list[Value]) -> list[Value]:
        return walk(body, consts, [*ins[for_test:for_body], *carry], path)

    still = [out is given for out, given in zip(body.outvars, body.invars[for_body - for_test :], strict=True)]
    return _settled(scene, ins[for_body:], still, once)[0]


RULES: dict[str, Callable[..., list[Value]]] = {"scan": scan, "while": while_loop, "cond": cond}
