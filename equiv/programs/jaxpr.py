"""The walk over a jaxpr, and access to the parts of equations that differ between jax versions."""

import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from jax.extend import core
from jax.extend.source_info_util import summarize

from equiv.core.first_difference import SourceLine
from equiv.programs.primitives import CALLS, is_jax_primitive

Value = TypeVar("Value")
"""What stands for an array in an interpretation."""


class Interpreter(Generic[Value]):
    """An interpretation of jaxprs: a value for each array, computed from the operands' values equation by equation.

    A subclass says what stands for a literal and a constant (`literal`, `constant`), and what an equation makes of its
    operands' values (`equation`). Calls are opened (`call`); loops are equations like any other unless `scan`,
    `while_loop` or `cond` is overridden, which calls `run` for the loop's bodies as often as its meaning needs.

    Attributes:
        path: the current equation: its index in its jaxpr, after the path that was given to `run`.
        calls: the enclosing calls of the current equation, outermost first.
    """

    path: tuple[int, ...] = ()
    calls: tuple[Any, ...] = ()

    def literal(self, atom: Any) -> Value:
        """The value of a literal."""
        raise NotImplementedError

    def constant(self, array: Any) -> Value:
        """The value of a constant of a closed jaxpr."""
        raise NotImplementedError

    def equation(self, eqn: Any, ins: list[Value]) -> Sequence[Value]:
        """The values of an equation's results."""
        raise NotImplementedError

    def run(self, closed: Any, inputs: Sequence[Value], path: tuple[int, ...] = ()) -> list[Value]:
        """Interpret a jaxpr: the values of its outputs.

        Args:
            closed: the jaxpr, closed or open.
            inputs: a value for each of its inputs.
            path: prefix of the paths of its equations.
        """
        jaxpr, consts = open_jaxpr(closed)
        values: dict[Any, Value] = dict(zip(jaxpr.constvars, map(self.constant, consts), strict=True))
        values.update(zip(jaxpr.invars, inputs, strict=True))
        outer, literal, step, known = self.path, self.literal, self.step, core.Literal
        dead = self.dead_values(jaxpr)
        for index, eqn in enumerate(jaxpr.eqns):
            self.path = (*path, index)
            ins = [literal(atom) if isinstance(atom, known) else values[atom] for atom in eqn.invars]
            values.update(zip(eqn.outvars, step(eqn, ins), strict=True))
            for var in dead[index] if dead else ():
                del values[var]
        self.path = outer
        return [literal(atom) if isinstance(atom, core.Literal) else values[atom] for atom in jaxpr.outvars]

    def dead_values(self, jaxpr: Any) -> Sequence[Sequence[Any]]:
        """For each equation the variables whose values are dropped after it; empty: all are kept."""
        return ()

    def step(self, eqn: Any, ins: list[Value]) -> Sequence[Value]:
        """Interpret one equation of any kind, by the method for it."""
        hook = HOOKS.get(eqn.primitive.name) if is_jax_primitive(eqn.primitive) else None
        return self.equation(eqn, ins) if hook is None else getattr(self, hook)(eqn, ins)

    def call(self, eqn: Any, ins: list[Value]) -> Sequence[Value]:
        """A call: its body with the call's operands."""
        body = called_jaxpr(eqn)
        outer, self.calls = self.calls, (*self.calls, eqn)
        # The body's inputs are the last operands: a call's own, where it has any, come first.
        outs = self.run(body, ins[len(ins) - len(open_jaxpr(body)[0].invars) :], self.path)
        self.calls = outer
        return outs

    def scan(self, eqn: Any, ins: list[Value]) -> Sequence[Value]:
        """A `scan`; its parts are in `read_scan(eqn)`."""
        return self.equation(eqn, ins)

    def while_loop(self, eqn: Any, ins: list[Value]) -> Sequence[Value]:
        """A `while_loop`; its parts are in `read_while(eqn)`."""
        return self.equation(eqn, ins)

    def cond(self, eqn: Any, ins: list[Value]) -> Sequence[Value]:
        """A `cond` or `switch`: the first operand is the index of one of `eqn.params["branches"]`."""
        return self.equation(eqn, ins)


HOOKS = {**dict.fromkeys(CALLS, "call"), "scan": "scan", "while": "while_loop", "cond": "cond"}
"""Primitive to the method of `Interpreter` for it; the others are equations."""


_DEAD: WeakKeyDictionary[Any, list[list[Any]]] = WeakKeyDictionary()
"""Open jaxpr to its `find_dead_values`: a body of a loop is run often."""


def find_dead_values(jaxpr: Any) -> Sequence[Sequence[Any]]:
    """For each equation of an open jaxpr, the variables that nothing after it reads."""
    if jaxpr not in _DEAD:
        _DEAD[jaxpr] = _last_reads(jaxpr, {atom for atom in jaxpr.outvars if not isinstance(atom, core.Literal)})
    return _DEAD[jaxpr]


def find_last_reads(jaxpr: Any) -> Sequence[Sequence[Any]]:
    """For each equation of an open jaxpr, the variables that no equation after it reads, outputs among them."""
    return _last_reads(jaxpr, set())


def _last_reads(jaxpr: Any, kept: set[Any]) -> list[list[Any]]:
    seen, found = set(kept), list[list[Any]]()
    for eqn in reversed(jaxpr.eqns):
        atoms = dict.fromkeys(atom for atom in (*eqn.invars, *eqn.outvars) if not isinstance(atom, core.Literal))
        found.append([atom for atom in atoms if atom not in seen])
        seen.update(atoms)
    return found[::-1]


def visit_equations(jaxpr: Any, enclosing: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Visit every equation, those in calls and loops included (each body once): the equations around it, and itself."""
    for eqn in open_jaxpr(jaxpr)[0].eqns:
        yield enclosing, eqn
        for body in inner_jaxprs(eqn):
            yield from visit_equations(body, (*enclosing, eqn))


def count_equations(jaxpr: Any) -> int:
    """Count the equations of a program, those of calls and loop bodies included."""
    return sum(1 for _ in visit_equations(jaxpr))


def open_jaxpr(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """Return an open jaxpr and its constants, given a closed or an open one (jax 0.11 has one class for both)."""
    return getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())


def called_jaxpr(eqn: Any) -> Any:
    """The jaxpr that a call (one of `CALLS`) calls."""
    return eqn.params[CALLS[eqn.primitive.name]]


def is_axis_effect(effect: Any) -> bool:
    """Whether an effect only says that an axis of a mesh is read, as `psum` does (jax 0.10.2: `NamedAxisEffect`)."""
    kind = type(effect)
    return kind.__name__ == "NamedAxisEffect" and kind.__module__.partition(".")[0] == "jax"


def inner_jaxprs(eqn: Any) -> list[Any]:
    """Return every jaxpr in an equation's parameters: loop bodies, branches, called functions."""
    values = [item for value in eqn.params.values() for item in (value if isinstance(value, tuple) else (value,))]
    return [value for value in values if hasattr(value, "eqns") or hasattr(value, "jaxpr")]


@dataclass(frozen=True)
class ScanLoop:
    """The parts of a `scan` equation. Its operands are constants, initial carries and scanned arrays, in this order.

    Attributes:
        body: the loop body: constants, carries and slices to carries and what is stacked.
        constants: number of operands that every iteration gets whole.
        carries: number of carries.
        length: number of iterations.
        reverse: whether the last slice comes first.
    """

    body: Any
    constants: int
    carries: int
    length: int
    reverse: bool

    @property
    def first_scanned(self) -> int:
        """Index of the first scanned operand."""
        return self.constants + self.carries

    def split(self, operands: list[Value]) -> tuple[list[Value], list[Value], list[Value]]:
        """Split operands, or the body's inputs, into constants, carries and scanned ones."""
        fixed, scanned = self.constants, self.first_scanned
        return operands[:fixed], operands[fixed:scanned], operands[scanned:]

    @property
    def iterations(self) -> Sequence[int]:
        """Indices of the slices in the order in which they are taken."""
        return range(self.length)[:: -1 if self.reverse else 1]


def read_scan(eqn: Any) -> ScanLoop:
    """Read a `scan` equation.

    jax 0.10 counts the operands in parameters of their own, jax 0.11 keeps their tree (`loops.py`, `ft_in`).
    """
    params = eqn.params
    if "num_consts" in params:
        constants, carries = params["num_consts"], params["num_carry"]
    else:
        constants, carries, _ = (len(list(part)) for part in params["ft_in"].update(eqn.invars).unpack())
    return ScanLoop(params["jaxpr"], constants, carries, params["length"], params["reverse"])


@dataclass(frozen=True)
class WhileLoop:
    """The parts of a `while` equation. Its operands are the test's constants, the body's, and the initial carries.

    Attributes:
        test: constants and carries to whether the loop goes on.
        body: constants and carries to carries.
        test_constants: number of the test's constants.
        body_constants: number of the body's.
    """

    test: Any
    body: Any
    test_constants: int
    body_constants: int

    def split(self, operands: list[Value]) -> tuple[list[Value], list[Value], list[Value]]:
        """Split operands into the test's constants, the body's constants and the carries."""
        first, second = self.test_constants, self.test_constants + self.body_constants
        return operands[:first], operands[first:second], operands[second:]


def read_while(eqn: Any) -> WhileLoop:
    """Read a `while` equation."""
    params = eqn.params
    return WhileLoop(params["cond_jaxpr"], params["body_jaxpr"], params["cond_nconsts"], params["body_nconsts"])


def source_line(eqn: Any) -> str:
    """Source line of an equation, with the module path (name stack) where the library sets one."""
    stack = str(eqn.source_info.name_stack)
    place = _shorten_paths(summarize(eqn.source_info))
    return f"{place}{f' in {stack}' if stack else ''}"


def locate_equation(path: Sequence[Any]) -> tuple[SourceLine | None, SourceLine | None, str]:
    """Return where an equation comes from: its line, the user's own line, and the name stack.

    Args:
        path: the equation, after the calls and loops that it is in, outermost first. An equation without a line, as
            inside a function that jax itself jits, has that of the innermost call with one.
    """
    lines = ((SourceLine.parse(_shorten_paths(summarize(eqn.source_info))), eqn) for eqn in reversed(path))
    line, eqn = next((pair for pair in lines if pair[0]), (None, None))
    user_line = next(filter(None, map(_user_line, reversed(path))), None)
    return line, user_line, str(eqn.source_info.name_stack) if eqn is not None else ""


def _user_line(eqn: Any) -> SourceLine | None:
    """The innermost line of the user's code that an equation comes from, or was called from; None if there is none."""
    own = _user_frames(eqn)
    return SourceLine.parse(_shorten_paths(own[-1])) if own else None


def has_user_line(eqn: Any) -> bool:
    """Whether an equation comes from a line of the user's code, or was called from one."""
    return bool(_user_frames(eqn))


def _user_frames(eqn: Any) -> tuple[str, ...]:
    """The frames of the user's code, the innermost last."""
    traceback = eqn.source_info.traceback
    if traceback is None:
        return ()
    if traceback not in _FRAMES:
        frames = summarize(eqn.source_info, num_frames=100).splitlines()
        if len(_FRAMES) >= MOST_FRAMES:
            _FRAMES.clear()
        _FRAMES[traceback] = tuple(frame for frame in frames if not frame.startswith(LIBRARY_PATHS))
    return _FRAMES[traceback]


_FRAMES: dict[Any, tuple[str, ...]] = {}

MOST_FRAMES = 10_000
"""Number of tracebacks whose frames are kept: equations of one line share one."""


def is_own_equation(eqn: Any) -> bool:
    """Whether an equation was written by equiv itself, as the layout of a leaf is."""
    return summarize(eqn.source_info, num_frames=1).startswith(OWN_PATH)


OWN_PATH = f"{Path(__file__).parent.parent}/"

INSTALL_PATHS = sysconfig.get_paths()

LIBRARY_PATHS = (
    INSTALL_PATHS["stdlib"],
    INSTALL_PATHS["purelib"],
    INSTALL_PATHS["platlib"],
    OWN_PATH,
    "<",
    "unknown",
)
"""Prefixes of files that are no user's code: the standard library, installed packages, equiv itself."""


def _shorten_paths(place: str) -> str:
    """Make paths relative to the working folder or to site-packages, since results are read on other machines."""
    for folder in (INSTALL_PATHS["purelib"], INSTALL_PATHS["platlib"], Path.cwd()):
        place = place.replace(f"{folder}/", "")
    return place
