"""Jaxpr."""

import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jax.extend.source_info_util import summarize

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


def equations(jaxpr: Any) -> int:
    """How many equations a program has, calls and loop bodies included."""
    return sum(1 + sum(map(equations, inner(eqn))) for eqn in opened(jaxpr)[0].eqns)


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
