"""Edits of a jaxpr at one point: replace an equation, an input or an output.

Only the inserted operations are traced: the rest of the program keeps its equations, source lines and names. Inserted
values must have the shape and dtype of what they replace, so the program still type-checks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
from jax.extend import core

from equiv.compat import enable_x64
from equiv.core.output_name import InputName, OutputName
from equiv.programs.jaxpr import inner_jaxprs, open_jaxpr
from equiv.programs.program import Program

Compute = Callable[..., Sequence[Any]]
"""A function of arrays to a list of arrays, written with `jax.lax`."""

Edit = Callable[[Any, int], Any]
"""A function of an open jaxpr and the index of an equation to the edited jaxpr."""

JAX_ERRORS = (TypeError, ValueError, IndexError, NotImplementedError, AssertionError, KeyError)


class NotApplicableError(Exception):
    """An edit does not apply: a shape or dtype does not match, or jax raises an error."""


def apply_edit(program: Program, path: Sequence[int], edit: Edit) -> Program:
    """Apply an edit to the equation at a path.

    Raises:
        NotApplicableError: the edit does not apply there.
    """
    return replace(program, jaxpr=_edit_at_path(program.jaxpr, path, edit))


def _edit_at_path(closed: Any, path: Sequence[int], edit: Edit) -> Any:
    jaxpr, _ = open_jaxpr(closed)
    index, *deeper = path
    if not deeper:
        return close_like(closed, edit(jaxpr, index))
    number, *rest = deeper
    eqn = jaxpr.eqns[index]
    return close_like(
        closed,
        insert_equations(jaxpr, index, replace_body(eqn, number, _edit_at_path(inner_jaxprs(eqn)[number], rest, edit))),
    )


def close_like(closed: Any, jaxpr: Any) -> Any:
    """Close an open jaxpr with the constants of another (jax 0.11 has one class for open and closed)."""
    return jaxpr if open_jaxpr(closed)[0] is closed else closed.replace(jaxpr=jaxpr)


def insert_equations(jaxpr: Any, index: int, *eqns: Any) -> Any:
    """Replace one equation by several; they must define the same variables."""
    return jaxpr.replace(eqns=[*jaxpr.eqns[:index], *eqns, *jaxpr.eqns[index + 1 :]])


def replace_body(eqn: Any, number: int, body: Any) -> Any:
    """Replace the jaxpr with a given number in an equation's parameters (numbered as in `inner_jaxprs`)."""
    params, left = dict(eqn.params), number
    for key, value in params.items():
        items = list(value) if isinstance(value, tuple) else [value]
        for place, item in enumerate(items):
            if hasattr(item, "eqns") or hasattr(item, "jaxpr"):
                if left == 0:
                    items[place] = body
                    params[key] = tuple(items) if isinstance(value, tuple) else body
                    return eqn.replace(params=params)
                left -= 1
    raise IndexError(number)


def replace_equation(atoms: Sequence[Any], compute: Compute) -> Edit:
    """Replace an equation by `compute` applied to atoms in scope."""

    def edit(jaxpr: Any, index: int) -> Any:
        eqn = jaxpr.eqns[index]
        eqns, outs = trace_operations(atoms, compute, [var.aval for var in eqn.outvars], eqn.source_info)
        replacements = dict(zip(eqn.outvars, outs, strict=True))
        later = [_substitute_operands(other, replacements) for other in jaxpr.eqns[index + 1 :]]
        outvars = [_substitute(atom, replacements) for atom in jaxpr.outvars]
        return jaxpr.replace(eqns=[*jaxpr.eqns[:index], *eqns, *later], outvars=outvars)

    return edit


def replace_operand(operand: int, atoms: Sequence[Any], compute: Compute) -> Edit:
    """Replace one operand of an equation by `compute` applied to atoms in scope."""

    def edit(jaxpr: Any, index: int) -> Any:
        eqn = jaxpr.eqns[index]
        eqns, (out,) = trace_operations(atoms, compute, [eqn.invars[operand].aval], eqn.source_info)
        invars = [out if place == operand else atom for place, atom in enumerate(eqn.invars)]
        return insert_equations(jaxpr, index, *eqns, eqn.replace(invars=invars))

    return edit


def trace_operations(
    atoms: Sequence[Any], compute: Compute, wanted: Sequence[Any], source: Any = None
) -> tuple[list[Any], list[Any]]:
    """Trace `compute` applied to atoms: its equations, and the atoms of its results.

    Raises:
        NotApplicableError: jax raises an error, or a result does not have the wanted shape and dtype.
    """
    structs = [jax.ShapeDtypeStruct(atom.aval.shape, atom.aval.dtype) for atom in atoms]
    try:
        with enable_x64(True):
            jaxpr, consts = open_jaxpr(jax.make_jaxpr(lambda *arrays: list(compute(*arrays)))(*structs))
    except JAX_ERRORS as error:
        raise NotApplicableError(str(error)) from error
    got = [(var.aval.shape, var.aval.dtype) for var in jaxpr.outvars]
    if len(consts) or got != [(aval.shape, aval.dtype) for aval in wanted]:
        raise NotApplicableError(f"{got} in place of {list(wanted)}")
    given = dict(zip(jaxpr.invars, atoms, strict=True))
    eqns = [_substitute_operands(eqn, given) for eqn in jaxpr.eqns]
    eqns = [eqn if source is None else eqn.replace(source_info=source) for eqn in eqns]
    return eqns, [_substitute(atom, given) for atom in jaxpr.outvars]


def _substitute(atom: Any, known: Mapping[Any, Any]) -> Any:
    return known.get(atom, atom) if isinstance(atom, core.Var) else atom


def _substitute_operands(eqn: Any, known: Mapping[Any, Any]) -> Any:
    if not any(isinstance(atom, core.Var) and atom in known for atom in eqn.invars):
        return eqn
    return eqn.replace(invars=[_substitute(atom, known) for atom in eqn.invars])


Replacement = tuple[Sequence[Any], Compute]


Replacements = Mapping[InputName, Replacement] | Mapping[OutputName, Replacement]
"""Name of an input or output to the atoms and the function that compute its new value."""


def replace_inputs(program: Program, wiring: Replacements) -> Program:
    """Replace some inputs of a program by functions of its inputs.

    Raises:
        NotApplicableError: the edit does not apply there.
    """
    jaxpr, _ = open_jaxpr(program.jaxpr)
    first, known = [], {}
    for name, (atoms, compute) in wiring.items():
        var = jaxpr.invars[program.inputs.index(name)]
        eqns, (known[var],) = trace_operations(atoms, compute, [var.aval])
        first += eqns
    eqns = [*first, *(_substitute_operands(eqn, known) for eqn in jaxpr.eqns)]
    changed = jaxpr.replace(eqns=eqns, outvars=[_substitute(atom, known) for atom in jaxpr.outvars])
    return replace(program, jaxpr=close_like(program.jaxpr, changed))


def replace_outputs(program: Program, wiring: Replacements) -> Program:
    """Replace some outputs of a program by functions of its inputs and outputs.

    Raises:
        NotApplicableError: the edit does not apply there.
    """
    jaxpr, _ = open_jaxpr(program.jaxpr)
    last, outvars = [], list(jaxpr.outvars)
    for name, (atoms, compute) in wiring.items():
        place = program.outputs.index(name)
        eqns, (outvars[place],) = trace_operations(atoms, compute, [jaxpr.outvars[place].aval])
        last += eqns
    changed = jaxpr.replace(eqns=[*jaxpr.eqns, *last], outvars=outvars)
    return replace(program, jaxpr=close_like(program.jaxpr, changed))
