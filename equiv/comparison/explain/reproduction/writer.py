"""Operations as lines of a function: calls are opened, loops are functions of their own within it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from equiv.comparison.explain.reproduction.expressions import Result, WrittenValue, fill, write_expression
from equiv.errors import EquivError
from equiv.programs.content import is_key
from equiv.programs.jaxpr import Interpreter, read_scan
from equiv.programs.primitives import IDENTITIES

MOST_CONSTANT = 8
"""Elements of a constant inside a loop that are written out; larger ones are arrays of the file beside the code."""


class CodeWriter(Interpreter[WrittenValue]):
    """Writes operations as lines of Python.

    Attributes:
        lines: what is written, indented.
        keep: gives the name of an array that has to be kept beside the code.
    """

    def __init__(self, keep: Callable[[np.ndarray], str]) -> None:
        self.lines: list[str] = []
        self.keep = keep
        self._indent = "    "
        self._names = 0
        self._functions = 0

    def given(self, name: str, shape: tuple[int, ...], dtype: str) -> WrittenValue:
        """What the code is given by a name."""
        return WrittenValue(name, shape, dtype)

    def literal(self, atom: Any) -> WrittenValue:
        """A literal as a number."""
        return self.constant(np.asarray(atom.val, atom.aval.dtype))

    def constant(self, array: Any) -> WrittenValue:
        """A constant as a number where one fills it; else as an array that is kept."""
        if is_key(array):
            raise EquivError("a key of jax.random cannot be kept beside the code.", fix="Call equiv locate.")
        array = np.asarray(array)
        shape, dtype = array.shape, str(array.dtype)
        if array.size and (array == array.flat[0]).all():
            return fill(array.flat[0], shape, dtype)
        if array.ndim == 1 and array.size <= MOST_CONSTANT:
            return WrittenValue(f'jnp.asarray({array.tolist()}, "{dtype}")', shape, dtype)
        return WrittenValue(self.keep(array), shape, dtype)

    def equation(self, eqn: Any, ins: list[WrittenValue]) -> Sequence[WrittenValue]:
        """An operation as one line."""
        outs = [Result(tuple(var.aval.shape), str(var.aval.dtype)) for var in eqn.outvars]
        return self.write(eqn.primitive.name, eqn.params, ins, outs)

    def write(
        self, primitive: str, params: Any, ins: Sequence[WrittenValue], outs: Sequence[Result], comment: str = ""
    ) -> list[WrittenValue]:
        """Write an operation with its results in shapes that may be smaller than those of the program."""
        if primitive in IDENTITIES:
            return list(ins)
        return self.assign(write_expression(primitive, params, ins, outs), outs, comment)

    def assign(self, expression: str, outs: Sequence[Result], comment: str = "") -> list[WrittenValue]:
        """Give the results of an expression names."""
        made = []
        for out in outs:
            self._names += 1
            made.append(WrittenValue(f"v{self._names}", out.shape, out.dtype))
        names = ", ".join(one.text for one in made)
        self.say(f"{names} = {expression}", comment)
        return made

    def say(self, line: str, comment: str = "") -> None:
        """Add a line."""
        self.lines.append(f"{self._indent}{line}{f'  # {comment}' if comment else ''}")

    def scan(self, eqn: Any, ins: list[WrittenValue]) -> Sequence[WrittenValue]:
        """A `scan`, its body as a function."""
        loop = read_scan(eqn)
        fixed, carry, scanned = loop.split(ins)
        self._functions += 1
        name = f"step{self._functions}"
        body_ins = loop.body.jaxpr.invars[loop.constants :] if hasattr(loop.body, "jaxpr") else loop.body.invars
        names = [
            f"{letter}{self._functions}_{n}"
            for letter, group in (("h", carry), ("s", scanned))
            for n in range(len(group))
        ]
        inner = [
            WrittenValue(text, tuple(var.aval.shape), str(var.aval.dtype))
            for text, var in zip(names, body_ins, strict=True)
        ]
        carried, sliced = names[: loop.carries], names[loop.carries :]
        self.say(f"def {name}(carry, slices):")
        with self._deeper():
            if carried:
                self.say(f"{_tuple(carried)} = carry")
            if sliced:
                self.say(f"{_tuple(sliced)} = slices")
            outs = self.run(loop.body, [*fixed, *inner])
            texts = [one.text for one in outs]
            self.say(f"return {_tuple(texts[: loop.carries])}, {_tuple(texts[loop.carries :])}")
        given = f"{_tuple([one.text for one in carry])}, {_tuple([one.text for one in scanned])}"
        reverse = ", reverse=True" if loop.reverse else ""
        results = [Result(tuple(var.aval.shape), str(var.aval.dtype)) for var in eqn.outvars]
        self._names += 1
        pair = f"v{self._names}"
        self.say(f"{pair} = lax.scan({name}, {given}, length={loop.length}{reverse})")
        places = [(0, n) for n in range(loop.carries)] + [(1, n) for n in range(len(results) - loop.carries)]
        return [
            WrittenValue(f"{pair}[{part}][{n}]", out.shape, out.dtype)
            for (part, n), out in zip(places, results, strict=True)
        ]

    def while_loop(self, eqn: Any, ins: list[WrittenValue]) -> Sequence[WrittenValue]:
        """Refuse a `while_loop`."""
        raise EquivError("a while loop as a whole is not written as code.", fix="Call equiv locate for its place.")

    def cond(self, eqn: Any, ins: list[WrittenValue]) -> Sequence[WrittenValue]:
        """Refuse a `cond` inside of a loop; elsewhere the branch that was taken is written."""
        raise EquivError("a branch inside of a loop is not written as code.", fix="Call equiv locate for its place.")

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        before, self._indent = self._indent, f"{self._indent}    "
        yield
        self._indent = before


def _tuple(texts: Sequence[str]) -> str:
    """Texts as a tuple."""
    return f"({', '.join(texts)},)" if len(texts) == 1 else f"({', '.join(texts)})"
