"""Access to the parts of a jaxpr that differ between jax versions, and the source lines of equations."""

import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jax.extend.source_info_util import summarize

CALL_PRIMITIVES = {
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
"""Primitives that only call a jaxpr, to the parameter that holds it (jax 0.10 and 0.11)."""


def open_jaxpr(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """Return an open jaxpr and its constants, given a closed or an open one (jax 0.11 has one class for both)."""
    return getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())


def scan_operand_bounds(eqn: Any) -> tuple[int, int]:
    """Return where a `scan` equation's carries and its scanned operands begin; constants come before them.

    jax 0.10 counts them in parameters of their own, jax 0.11 keeps their tree (`loops.py`, `ft_in`).
    """
    params = eqn.params
    if "num_consts" in params:
        return params["num_consts"], params["num_consts"] + params["num_carry"]
    fixed, carried, _ = (len(list(part)) for part in params["ft_in"].update(eqn.invars).unpack())
    return fixed, fixed + carried


def inner_jaxprs(eqn: Any) -> list[Any]:
    """Return every jaxpr in an equation's parameters: loop bodies, branches, called functions."""
    values = [item for value in eqn.params.values() for item in (value if isinstance(value, tuple) else (value,))]
    return [value for value in values if hasattr(value, "eqns") or hasattr(value, "jaxpr")]


def count_equations(jaxpr: Any) -> int:
    """Count the equations of a program, those of calls and loop bodies included."""
    return sum(1 + sum(map(count_equations, inner_jaxprs(eqn))) for eqn in open_jaxpr(jaxpr)[0].eqns)


def source_line(eqn: Any) -> str:
    """Source line of an equation, with the module path (name stack) where the library sets one."""
    stack = str(eqn.source_info.name_stack)
    place = _shorten_paths(summarize(eqn.source_info))
    return f"{place}{f' in {stack}' if stack else ''}"


def user_source_line(eqn: Any) -> str:
    """`FILE:LINE` in the user's code from which an equation's library code was called; empty if there is none."""
    frames = summarize(eqn.source_info, num_frames=100).splitlines()
    own = [frame for frame in frames if not frame.startswith(LIBRARY_PATHS)]
    return ":".join(_shorten_paths(own[-1]).split(":")[:2]) if own else ""


INSTALL_PATHS = sysconfig.get_paths()

LIBRARY_PATHS = (
    INSTALL_PATHS["stdlib"],
    INSTALL_PATHS["purelib"],
    INSTALL_PATHS["platlib"],
    str(Path(__file__).parent.parent),
    "<",
    "unknown",
)
"""Prefixes of files that are no user's code: the standard library, installed packages, equiv itself."""


def _shorten_paths(place: str) -> str:
    """Make paths relative to the working folder or to site-packages, since results are read on other machines."""
    for folder in (INSTALL_PATHS["purelib"], INSTALL_PATHS["platlib"], Path.cwd()):
        place = place.replace(f"{folder}/", "")
    return place
