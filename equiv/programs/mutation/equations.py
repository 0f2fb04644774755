"""The equations of a program one by one, each with its context: constants, and dependence on draws and inputs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jax.extend import core

from equiv.programs.jaxpr import inner_jaxprs, open_jaxpr, scan_operand_bounds
from equiv.programs.program import Program

FIXED, DRAWN, GIVEN = 0, 1, 2
"""What a value depends on: constants alone, random draws too, or inputs too."""


@dataclass(frozen=True, eq=False)
class EquationContext:
    """One equation of a program and its context.

    Attributes:
        program: the whole program.
        path: index of the equation; in a loop or call first the index of its equation and the number of its body.
        jaxpr: the open jaxpr that contains the equation.
        eqn: the equation.
        made: variable to the equation that makes it, in this jaxpr.
        levels: variable to what it depends on (`FIXED`, `DRAWN`, `GIVEN`).
    """

    program: Program
    path: tuple[int, ...]
    jaxpr: Any
    eqn: Any
    made: Mapping[Any, Any] = field(repr=False)
    levels: Mapping[Any, int] = field(repr=False)

    @property
    def name(self) -> str:
        """The primitive."""
        return self.eqn.primitive.name

    def constant(self, index: int) -> float | None:
        """The value of an operand if it is a constant number."""
        return constant_value(self.eqn.invars[index], self.made)

    def level(self) -> int:
        """What the equation's operands depend on."""
        return max((atom_level(atom, self.levels) for atom in self.eqn.invars), default=FIXED)


def constant_value(atom: Any, made: Mapping[Any, Any]) -> float | None:
    """The number that an atom is: a literal, or a broadcast or converted literal."""
    if isinstance(atom, core.Literal):
        return float(atom.val) if getattr(atom.aval, "shape", None) == () and _is_number(atom.aval) else None
    eqn = made.get(atom)
    if eqn is not None and eqn.primitive.name in ("broadcast_in_dim", "convert_element_type", "reshape"):
        return constant_value(eqn.invars[0], made)
    return None


def _is_number(aval: Any) -> bool:
    return any(kind in str(aval.dtype) for kind in ("float", "int"))


def atom_level(atom: Any, levels: Mapping[Any, int]) -> int:
    """What an atom depends on."""
    return FIXED if isinstance(atom, core.Literal) else levels.get(atom, FIXED)


def iterate_equations(program: Program) -> Iterator[EquationContext]:
    """Iterate over all live equations, those in loops and calls included, in program order."""
    jaxpr, _ = open_jaxpr(program.jaxpr)
    given = [DRAWN if name.kind == "draw" else GIVEN for name in program.inputs]
    yield from _iterate_jaxpr(program, (), jaxpr, given)


def _iterate_jaxpr(
    program: Program, path: tuple[int, ...], jaxpr: Any, given: Sequence[int]
) -> Iterator[EquationContext]:
    levels: dict[Any, int] = dict(zip(jaxpr.invars, given, strict=True))
    made: dict[Any, Any] = {}
    for eqn in jaxpr.eqns:
        level = max((atom_level(atom, levels) for atom in eqn.invars), default=FIXED)
        levels.update(dict.fromkeys(eqn.outvars, level))
        made.update(dict.fromkeys(eqn.outvars, eqn))
    live = _live_equations(jaxpr)
    for index, eqn in enumerate(jaxpr.eqns):
        if index not in live:
            continue
        yield EquationContext(program, (*path, index), jaxpr, eqn, made, levels)
        for number, closed in enumerate(inner_jaxprs(eqn)):
            body, _ = open_jaxpr(closed)
            yield from _iterate_jaxpr(program, (*path, index, number), body, _levels_inside(eqn, body, levels))


def _live_equations(jaxpr: Any) -> set[int]:
    wanted, live = {atom for atom in jaxpr.outvars if isinstance(atom, core.Var)}, set()
    for index in reversed(range(len(jaxpr.eqns))):
        eqn = jaxpr.eqns[index]
        if wanted.intersection(eqn.outvars) or eqn.effects:
            live.add(index)
            wanted.update(atom for atom in eqn.invars if isinstance(atom, core.Var))
    return live


def _levels_inside(eqn: Any, body: Any, levels: Mapping[Any, int]) -> list[int]:
    """What the inputs of a body depend on; carries count as inputs."""
    given = [atom_level(atom, levels) for atom in eqn.invars[len(eqn.invars) - len(body.invars) :]]
    if eqn.primitive.name == "scan":
        fixed, carried = scan_operand_bounds(eqn)
        return [GIVEN if fixed <= index < carried else level for index, level in enumerate(given)]
    return given if len(given) == len(body.invars) and eqn.primitive.name != "while" else [GIVEN] * len(body.invars)
