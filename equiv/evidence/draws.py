"""The random draws of a program, found in its jaxpr: which there are, and which of them use the same key."""

import hashlib
import sysconfig
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jax.extend import core
from jax.extend.source_info_util import summarize

from equiv.errors import PortError
from equiv.program import Draw

CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "eval_jaxpr": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}
"""Primitives that only call a jaxpr, and the parameter that holds it (jax 0.10 and 0.11)."""


def opened(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """A jaxpr and its constants, whether it comes closed or open (jax 0.11 has one class for both)."""
    return getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())


def scan_parts(eqn: Any) -> tuple[int, int]:
    """How many operands of a scan are constant, and how many are constant or carried; the rest are sliced.

    jax 0.10 counts them in parameters of their own, jax 0.11 keeps their tree (`loops.py`, `ft_in`).
    """
    params = eqn.params
    if "num_consts" in params:
        return params["num_consts"], params["num_consts"] + params["num_carry"]
    fixed, carried, _ = (len(list(part)) for part in params["ft_in"].update(eqn.invars).unpack())
    return fixed, fixed + carried


def inner(eqn: Any) -> list[Any]:
    """Every jaxpr in an equation's parameters."""
    values = [item for value in eqn.params.values() for item in (value if isinstance(value, tuple) else (value,))]
    return [value for value in values if hasattr(value, "eqns") or hasattr(value, "jaxpr")]


def count(jaxpr: Any) -> int:
    """How many equations draw random bits, calls and loops included (each loop body once)."""
    return sum((eqn.primitive.name == "random_bits") + sum(map(count, inner(eqn))) for eqn in opened(jaxpr)[0].eqns)


def equations(jaxpr: Any) -> int:
    """How many equations a program has, calls and loop bodies included."""
    return sum(1 + sum(map(equations, inner(eqn))) for eqn in opened(jaxpr)[0].eqns)


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


def where(eqn: Any) -> str:
    """Source line of an equation in the user's file, with the module path where the library leaves one."""
    stack = str(eqn.source_info.name_stack)
    place = _from_here(summarize(eqn.source_info))
    return f"{place}{f' in {stack}' if stack else ''}"


def caller(eqn: Any) -> str:
    """`FILE:LINE` in the user's own code from which an equation's library code was called; empty where it is none's."""
    frames = summarize(eqn.source_info, num_frames=100).splitlines()
    own = [frame for frame in frames if not frame.startswith(OTHERS)]
    return ":".join(_from_here(own[-1]).split(":")[:2]) if own else ""


PATHS = sysconfig.get_paths()
OTHERS = (PATHS["stdlib"], PATHS["purelib"], PATHS["platlib"], str(Path(__file__).parent.parent), "<", "unknown")
"""Where code of nobody's port lies."""


def _from_here(place: str) -> str:
    """A place below the working folder or below the installed libraries; a result is read on other machines."""
    for folder in (PATHS["purelib"], PATHS["platlib"], Path.cwd()):
        place = place.replace(f"{folder}/", "")
    return place


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
