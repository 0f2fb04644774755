"""The random draws of a program, found in its jaxpr: which there are, and which of them use the same key."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jax.extend import core

from equiv.errors import PortError
from equiv.programs.jaxpr import CALLS, inner, opened, scan_parts, where
from equiv.programs.program import Draw


def count(jaxpr: Any) -> int:
    """How many equations draw random bits, calls and loops included (each loop body once)."""
    return sum((eqn.primitive.name == "random_bits") + sum(map(count, inner(eqn))) for eqn in opened(jaxpr)[0].eqns)


def find(closed: Any) -> tuple[list[Draw], list[int]]:
    """The distinct draws of a program, and for every drawing equation in program order the index of its draw.

    Equations that use the same key draw the same bits (`jax.checkpoint` computes a draw again in the backward
    pass): they share one entry.

    Raises:
        PortError: a draw inside a `while` loop, whose number no one can know beforehand.
    """
    if not count(closed):
        return [], []
    jaxpr, consts = opened(closed)
    arguments = [_hash("input", index) for index in range(len(jaxpr.invars))]
    found = list(_walk(jaxpr, consts, arguments)[1])
    order = list(dict.fromkeys(ident for ident, _ in found))
    first = dict(reversed(found))
    return [first[ident] for ident in order], [order.index(ident) for ident, _ in found]


Found = list[tuple[str, Draw]]


def _walk(jaxpr: Any, consts: Sequence[Any], arguments: Sequence[str]) -> tuple[list[str], Found]:
    names: dict[Any, str] = dict(zip(jaxpr.constvars, (_hash("const", _content(c)) for c in consts), strict=True))
    names.update(zip(jaxpr.invars, arguments, strict=True))
    found: Found = []
    for eqn in jaxpr.eqns:
        ins = [_hash("literal", repr(v.val)) if isinstance(v, core.Literal) else names[v] for v in eqn.invars]
        outs, inside = _equation(eqn, ins)
        found += inside
        names.update(zip(eqn.outvars, outs, strict=True))
    return [_hash("literal", repr(v.val)) if isinstance(v, core.Literal) else names[v] for v in jaxpr.outvars], found


def _equation(eqn: Any, ins: list[str]) -> tuple[list[str], Found]:
    name, params = eqn.primitive.name, eqn.params
    if name in CALLS:
        body, consts = opened(params[CALLS[name]])
        outs, found = _walk(body, consts, ins[len(ins) - len(body.invars) :])
        # What jax.random compiles for itself knows only its own lines: there the call says where the draw stands.
        return outs, [(ident, draw if draw.where else replace(draw, where=where(eqn))) for ident, draw in found]
    if name == "scan":
        return _scan(eqn, ins)
    if name == "cond":
        walked = [_branch(branch, ins[1:]) for branch in params["branches"]]
        outs = [_hash("cond", ins[0], ways) for ways in zip(*(outs for outs, _ in walked), strict=True)]
        return outs, [item for _, found in walked for item in found]
    plain = sorted((key, str(value)) for key, value in params.items())
    outs = [_hash(name, plain, ins, index) for index in range(len(eqn.outvars))]
    if name == "random_bits":
        draw = Draw(tuple(eqn.outvars[0].aval.shape), params["bit_width"], where(eqn))
        return outs, [(outs[0], draw)]
    if not any(map(count, inner(eqn))):
        return outs, []
    raise PortError(
        f"a random draw inside {name} at {where(eqn)} cannot be replayed: how often it runs is not known "
        "beforehand. Draw outside the loop, or use jax.lax.scan."
    )


def _branch(branch: Any, ins: list[str]) -> tuple[list[str], Found]:
    body, consts = opened(branch)
    return _walk(body, consts, ins)


STACK = "stack of "


def _scan(eqn: Any, ins: list[str]) -> tuple[list[str], Found]:
    """A scan's outputs and draws.

    Values of a turn are known by what they are made of, whichever way the scan runs: a backward scan that takes a
    slice of what the forward scan stacked (a key, under `jax.checkpoint`) has the forward scan's own value.
    """
    params = eqn.params
    body, consts = opened(params["jaxpr"])
    length, (fixed, carried) = params["length"], scan_parts(eqn)
    loop = _hash(str(body), ins, params["reverse"])
    inside = [
        *ins[:fixed],
        *(_hash("carry", index, loop) for index in range(carried - fixed)),
        *(name.removeprefix(STACK) if name.startswith(STACK) else _hash("slice", name) for name in ins[carried:]),
    ]
    outs, drawn = _walk(body, consts, inside)
    found = [
        (_hash(name, length), Draw((length, *draw.shape), draw.bit_width, draw.where, loop)) for name, draw in drawn
    ]
    last = [_hash("last", index, length, loop) for index in range(carried - fixed)]
    return [*last, *(f"{STACK}{name}" for name in outs[carried - fixed :])], found


def _content(const: Any) -> Any:
    return const.tobytes() if isinstance(const, np.ndarray) else id(const)


def _hash(*parts: Any) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()


def bits(draw: Draw, seed: Sequence[int]) -> np.ndarray:
    """Bits for a draw: the same uniform number in every bit width.

    16 random bits and a half: far enough from every short decimal (rates such as 0.1 or 0.9) that a comparison
    comes out alike in float32 and float64.
    """
    coarse = np.random.default_rng(seed).integers(0, 2**16, size=draw.shape, dtype=np.uint64)
    full = (coarse << np.uint64(48)) | np.uint64(1 << 47)
    return (full >> np.uint64(64 - draw.bit_width)).astype(f"uint{draw.bit_width}")
