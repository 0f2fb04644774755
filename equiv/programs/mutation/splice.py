"""Programs written anew in one place: how an equation, an input or an output is replaced.

Nothing is traced again but the few operations put in: the rest of the program keeps its equations, source lines and
names. What is put in must have the shape and dtype of what it replaces, so the program still type-checks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
from jax.extend import core

from equiv.programs.jaxpr import inner, opened
from equiv.programs.program import Program

Compute = Callable[..., Sequence[Any]]
"""Arrays to arrays, with operations of `jax.lax`."""


Edit = Callable[[Any, int], Any]
"""An open jaxpr and the index of an equation to the jaxpr with that equation written anew."""


REFUSALS = (TypeError, ValueError, IndexError, NotImplementedError, AssertionError, KeyError)


class NotApplicableError(Exception):
    """What was to be put in does not fit there: another shape or dtype, or jax refuses it."""


def rewritten(program: Program, path: Sequence[int], edit: Edit) -> Program:
    """The program with the equation at a path written anew.

    Raises:
        NotApplicableError: it does not fit there.
    """
    return replace(program, jaxpr=_descend(program.jaxpr, path, edit))


def _descend(closed: Any, path: Sequence[int], edit: Edit) -> Any:
    jaxpr, _ = opened(closed)
    index, *deeper = path
    if not deeper:
        return reclosed(closed, edit(jaxpr, index))
    number, *rest = deeper
    eqn = jaxpr.eqns[index]
    return reclosed(closed, put(jaxpr, index, with_body(eqn, number, _descend(inner(eqn)[number], rest, edit))))


def reclosed(closed: Any, jaxpr: Any) -> Any:
    """An open jaxpr with the constants of another (jax 0.11 has one class for open and closed)."""
    return jaxpr if opened(closed)[0] is closed else closed.replace(jaxpr=jaxpr)


def put(jaxpr: Any, index: int, *eqns: Any) -> Any:
    """The jaxpr with equations in place of one; they must make the same variables."""
    return jaxpr.replace(eqns=[*jaxpr.eqns[:index], *eqns, *jaxpr.eqns[index + 1 :]])


def with_body(eqn: Any, number: int, body: Any) -> Any:
    """The equation with another jaxpr in place of the numbered one of its parameters (as `inner` counts them)."""
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


def computed(atoms: Sequence[Any], compute: Compute) -> Edit:
    """In place of an equation, what `compute` makes of atoms in scope."""

    def edit(jaxpr: Any, index: int) -> Any:
        eqn = jaxpr.eqns[index]
        eqns, outs = operations(atoms, compute, [var.aval for var in eqn.outvars], eqn.source_info)
        instead = dict(zip(eqn.outvars, outs, strict=True))
        later = [_with_operands(other, instead) for other in jaxpr.eqns[index + 1 :]]
        outvars = [_read(atom, instead) for atom in jaxpr.outvars]
        return jaxpr.replace(eqns=[*jaxpr.eqns[:index], *eqns, *later], outvars=outvars)

    return edit


def fed(operand: int, atoms: Sequence[Any], compute: Compute) -> Edit:
    """The same equation with one operand replaced by what `compute` makes of atoms in scope."""

    def edit(jaxpr: Any, index: int) -> Any:
        eqn = jaxpr.eqns[index]
        eqns, (out,) = operations(atoms, compute, [eqn.invars[operand].aval], eqn.source_info)
        invars = [out if place == operand else atom for place, atom in enumerate(eqn.invars)]
        return put(jaxpr, index, *eqns, eqn.replace(invars=invars))

    return edit


def operations(
    atoms: Sequence[Any], compute: Compute, wanted: Sequence[Any], source: Any = None
) -> tuple[list[Any], list[Any]]:
    """Equations that compute something of atoms, and their results.

    Raises:
        NotApplicableError: jax refuses it, or a result has not the shape and dtype that is wanted.
    """
    structs = [jax.ShapeDtypeStruct(atom.aval.shape, atom.aval.dtype) for atom in atoms]
    try:
        with jax.enable_x64(True):
            jaxpr, consts = opened(jax.make_jaxpr(lambda *arrays: list(compute(*arrays)))(*structs))
    except REFUSALS as error:
        raise NotApplicableError(str(error)) from error
    got = [(var.aval.shape, var.aval.dtype) for var in jaxpr.outvars]
    if len(consts) or got != [(aval.shape, aval.dtype) for aval in wanted]:
        raise NotApplicableError(f"{got} in place of {list(wanted)}")
    given = dict(zip(jaxpr.invars, atoms, strict=True))
    eqns = [_with_operands(eqn, given) for eqn in jaxpr.eqns]
    eqns = [eqn if source is None else eqn.replace(source_info=source) for eqn in eqns]
    return eqns, [_read(atom, given) for atom in jaxpr.outvars]


def _read(atom: Any, known: Mapping[Any, Any]) -> Any:
    return known.get(atom, atom) if isinstance(atom, core.Var) else atom


def _with_operands(eqn: Any, known: Mapping[Any, Any]) -> Any:
    if not any(isinstance(atom, core.Var) and atom in known for atom in eqn.invars):
        return eqn
    return eqn.replace(invars=[_read(atom, known) for atom in eqn.invars])


Wiring = Mapping[str, tuple[Sequence[Any], Compute]]
"""Name of an input or output to the atoms and the function it is now made of."""


def with_inputs(program: Program, wiring: Wiring) -> Program:
    """The program that computes some of its inputs from others before it begins.

    Raises:
        NotApplicableError: it does not fit there.
    """
    jaxpr, _ = opened(program.jaxpr)
    first, known = [], {}
    for name, (atoms, compute) in wiring.items():
        var = jaxpr.invars[program.inputs.index(name)]
        eqns, (known[var],) = operations(atoms, compute, [var.aval])
        first += eqns
    eqns = [*first, *(_with_operands(eqn, known) for eqn in jaxpr.eqns)]
    changed = jaxpr.replace(eqns=eqns, outvars=[_read(atom, known) for atom in jaxpr.outvars])
    return replace(program, jaxpr=reclosed(program.jaxpr, changed))


def with_outputs(program: Program, wiring: Wiring) -> Program:
    """The program that makes some of its outputs of its inputs and outputs when it is done.

    Raises:
        NotApplicableError: it does not fit there.
    """
    jaxpr, _ = opened(program.jaxpr)
    last, outvars = [], list(jaxpr.outvars)
    for name, (atoms, compute) in wiring.items():
        place = program.outputs.index(name)
        eqns, (outvars[place],) = operations(atoms, compute, [jaxpr.outvars[place].aval])
        last += eqns
    changed = jaxpr.replace(eqns=[*jaxpr.eqns, *last], outvars=outvars)
    return replace(program, jaxpr=reclosed(program.jaxpr, changed))
