"""The equations of a program one by one, each with its context: constants, and dependence on draws and inputs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jax.extend import core

from equiv.programs.jaxpr import Interpreter, inner_jaxprs, open_jaxpr, read_scan
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
        level: what its operands depend on (`FIXED`, `DRAWN`, `GIVEN`).
    """

    program: Program
    path: tuple[int, ...]
    jaxpr: Any
    eqn: Any
    made: Mapping[Any, Any] = field(repr=False)
    level: int

    @property
    def name(self) -> str:
        """The primitive."""
        return self.eqn.primitive.name

    def constant(self, index: int) -> float | None:
        """The value of an operand if it is a constant number."""
        return constant_value(self.eqn.invars[index], self.made)


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


def iterate_equations(program: Program) -> Iterator[EquationContext]:
    """Iterate over all live equations, those in loops and calls included, in program order."""
    found: list[EquationContext] = []
    given = [DRAWN if name.kind == "draw" else GIVEN for name in program.inputs]
    _ContextCollector(program, program.jaxpr, found).run(program.jaxpr, given)
    return iter(found)


class _ContextCollector(Interpreter[int]):
    """What each value of one jaxpr depends on; the live equations, and those of inner jaxprs, go to `found`.

    A call is an equation here, whose results depend on all of its operands: a fault is planted in its body.
    """

    def __init__(self, program: Program, closed: Any, found: list[EquationContext]) -> None:
        self.program, self.found = program, found
        self.jaxpr, _ = open_jaxpr(closed)
        self.live = _live_equations(self.jaxpr)
        self.made = {var: eqn for eqn in self.jaxpr.eqns for var in eqn.outvars}

    def literal(self, atom: Any) -> int:
        return FIXED

    def constant(self, array: Any) -> int:
        return FIXED

    def equation(self, eqn: Any, ins: list[int]) -> list[int]:
        level, path = max(ins, default=FIXED), self.path
        if path[-1] in self.live:
            self.found.append(EquationContext(self.program, path, self.jaxpr, eqn, self.made, level))
            for number, body in enumerate(inner_jaxprs(eqn)):
                inside = _ContextCollector(self.program, body, self.found)
                inside.run(body, _levels_inside(eqn, inside.jaxpr, ins), (*path, number))
        return [level] * len(eqn.outvars)

    def call(self, eqn: Any, ins: list[int]) -> list[int]:
        return self.equation(eqn, ins)


def _live_equations(jaxpr: Any) -> set[int]:
    wanted, live = {atom for atom in jaxpr.outvars if isinstance(atom, core.Var)}, set()
    for index in reversed(range(len(jaxpr.eqns))):
        eqn = jaxpr.eqns[index]
        if wanted.intersection(eqn.outvars) or eqn.effects:
            live.add(index)
            wanted.update(atom for atom in eqn.invars if isinstance(atom, core.Var))
    return live


def _levels_inside(eqn: Any, body: Any, ins: Sequence[int]) -> Sequence[int]:
    """What the inputs of a body depend on; carries count as inputs."""
    if eqn.primitive.name == "scan":
        loop = read_scan(eqn)
        fixed, _, scanned = loop.split(list(ins))
        return [*fixed, *[GIVEN] * loop.carries, *scanned]
    given = ins[len(ins) - len(body.invars) :]
    return given if len(given) == len(body.invars) and eqn.primitive.name != "while" else [GIVEN] * len(body.invars)
