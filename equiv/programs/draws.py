"""The random draws of a program, found in its jaxpr, and which of them use the same key."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jax.extend import core

from equiv.errors import PortError
from equiv.programs.jaxpr import CALL_PRIMITIVES, inner_jaxprs, open_jaxpr, scan_operand_bounds, source_line
from equiv.programs.program import Draw


def count_draws(jaxpr: Any) -> int:
    """Count the equations that draw random bits, in calls and loops too (each loop body once)."""
    return sum(
        (eqn.primitive.name == "random_bits") + sum(map(count_draws, inner_jaxprs(eqn)))
        for eqn in open_jaxpr(jaxpr)[0].eqns
    )


def find_draws(closed: Any) -> tuple[list[Draw], list[int]]:
    """Find the distinct draws of a program, and for every `random_bits` equation, in order, the index of its draw.

    Equations that use the same key draw the same bits (`jax.checkpoint` recomputes a draw in the backward pass):
    they share one entry.

    Raises:
        PortError: a draw inside a `while` loop, whose number of iterations is not known beforehand.
    """
    if not count_draws(closed):
        return [], []
    jaxpr, consts = open_jaxpr(closed)
    arguments = [_hash_parts("input", index) for index in range(len(jaxpr.invars))]
    found = list(_draws_of_jaxpr(jaxpr, consts, arguments)[1])
    order = list(dict.fromkeys(ident for ident, _ in found))
    first = dict(reversed(found))
    return [first[ident] for ident in order], [order.index(ident) for ident, _ in found]


FoundDraws = list[tuple[str, Draw]]


def _draws_of_jaxpr(jaxpr: Any, consts: Sequence[Any], arguments: Sequence[str]) -> tuple[list[str], FoundDraws]:
    names: dict[Any, str] = dict(
        zip(jaxpr.constvars, (_hash_parts("const", _constant_content(c)) for c in consts), strict=True)
    )
    names.update(zip(jaxpr.invars, arguments, strict=True))
    found: FoundDraws = []
    for eqn in jaxpr.eqns:
        ins = [_hash_parts("literal", repr(v.val)) if isinstance(v, core.Literal) else names[v] for v in eqn.invars]
        outs, inside = _draws_of_equation(eqn, ins)
        found += inside
        names.update(zip(eqn.outvars, outs, strict=True))
    return [
        _hash_parts("literal", repr(v.val)) if isinstance(v, core.Literal) else names[v] for v in jaxpr.outvars
    ], found


def _draws_of_equation(eqn: Any, ins: list[str]) -> tuple[list[str], FoundDraws]:
    name, params = eqn.primitive.name, eqn.params
    if name in CALL_PRIMITIVES:
        body, consts = open_jaxpr(params[CALL_PRIMITIVES[name]])
        outs, found = _draws_of_jaxpr(body, consts, ins[len(ins) - len(body.invars) :])
        # Inside a function that jax.random jits, equations have only jax's own lines: use the line of the call.
        return outs, [(ident, draw if draw.where else replace(draw, where=source_line(eqn))) for ident, draw in found]
    if name == "scan":
        return _draws_of_scan(eqn, ins)
    if name == "cond":
        walked = [_draws_of_branch(branch, ins[1:]) for branch in params["branches"]]
        outs = [_hash_parts("cond", ins[0], ways) for ways in zip(*(outs for outs, _ in walked), strict=True)]
        return outs, [item for _, found in walked for item in found]
    plain = sorted((key, str(value)) for key, value in params.items())
    outs = [_hash_parts(name, plain, ins, index) for index in range(len(eqn.outvars))]
    if name == "random_bits":
        draw = Draw(tuple(eqn.outvars[0].aval.shape), params["bit_width"], source_line(eqn))
        return outs, [(outs[0], draw)]
    if not any(map(count_draws, inner_jaxprs(eqn))):
        return outs, []
    raise PortError(
        f"a random draw inside {name} at {source_line(eqn)} cannot be replayed: how often it runs is not known "
        "beforehand. Draw outside the loop, or use jax.lax.scan."
    )


def _draws_of_branch(branch: Any, ins: list[str]) -> tuple[list[str], FoundDraws]:
    body, consts = open_jaxpr(branch)
    return _draws_of_jaxpr(body, consts, ins)


STACK_PREFIX = "stack of "


def _draws_of_scan(eqn: Any, ins: list[str]) -> tuple[list[str], FoundDraws]:
    """Names of a scan's outputs, and its draws.

    A value inside the body is named by how it is computed, whatever the direction of the scan: a backward scan that
    slices what the forward scan stacked (a key, under `jax.checkpoint`) gets the forward scan's own name.
    """
    params = eqn.params
    body, consts = open_jaxpr(params["jaxpr"])
    length, (fixed, carried) = params["length"], scan_operand_bounds(eqn)
    loop = _hash_parts(str(body), ins, params["reverse"])
    inside = [
        *ins[:fixed],
        *(_hash_parts("carry", index, loop) for index in range(carried - fixed)),
        *(
            name.removeprefix(STACK_PREFIX) if name.startswith(STACK_PREFIX) else _hash_parts("slice", name)
            for name in ins[carried:]
        ),
    ]
    outs, drawn = _draws_of_jaxpr(body, consts, inside)
    found = [
        (_hash_parts(name, length), Draw((length, *draw.shape), draw.bit_width, draw.where, loop))
        for name, draw in drawn
    ]
    last = [_hash_parts("last", index, length, loop) for index in range(carried - fixed)]
    return [*last, *(f"{STACK_PREFIX}{name}" for name in outs[carried - fixed :])], found


def _constant_content(const: Any) -> Any:
    return const.tobytes() if isinstance(const, np.ndarray) else id(const)


def _hash_parts(*parts: Any) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()


def draw_bits(draw: Draw, seed: Sequence[int]) -> np.ndarray:
    """Generate the bits of a draw: the same uniform number in every bit width.

    16 random bits and a half: far enough from every short decimal (rates such as 0.1 or 0.9) that a comparison
    gives the same result in float32 and float64.
    """
    coarse = np.random.default_rng(seed).integers(0, 2**16, size=draw.shape, dtype=np.uint64)
    full = (coarse << np.uint64(48)) | np.uint64(1 << 47)
    return (full >> np.uint64(64 - draw.bit_width)).astype(f"uint{draw.bit_width}")
