"""Which inputs each output of a program can depend on."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import or_
from typing import Any

from equiv.core.output_name import InputName, OutputName
from equiv.programs.jaxpr import Interpreter, read_scan
from equiv.programs.program import Program

InputSet = frozenset[InputName]

Mask = int
"""A set of inputs as the bits of a whole number: unions of thousands of inputs, for each of thousands of equations."""


@dataclass(frozen=True, eq=False)
class Dependencies(Mapping[OutputName, InputSet]):
    """Output to the inputs that it can depend on.

    Attributes:
        inputs: the inputs that have a bit, in the order of their bits.
        masks: output to what it can depend on.
    """

    inputs: tuple[InputName, ...]
    masks: Mapping[OutputName, Mask]

    def __getitem__(self, output: OutputName) -> InputSet:
        return self.names(self.masks[output])

    def __iter__(self) -> Iterator[OutputName]:
        return iter(self.masks)

    def __len__(self) -> int:
        return len(self.masks)

    @cached_property
    def _bits(self) -> dict[InputName, Mask]:
        return {name: 1 << place for place, name in enumerate(self.inputs)}

    def names(self, mask: Mask) -> InputSet:
        """The inputs whose bits are set."""
        return frozenset(name for name, bit in zip(self.inputs, f"{mask:b}"[::-1], strict=False) if bit == "1")

    def mask(self, names: Iterable[InputName | None]) -> Mask:
        """The inputs of these names; what is none of them does not count."""
        return reduce(or_, (self._bits.get(name, 0) for name in names if name is not None), 0)


def input_dependencies(program: Program) -> Dependencies:
    """Map each output to the inputs that it can depend on; results of a `while` depend on all operands."""
    masks = _InputDependencies().run(program.jaxpr, [1 << place for place in range(len(program.inputs))])
    return Dependencies(program.inputs, dict(zip(program.outputs, masks, strict=True)))


class _InputDependencies(Interpreter[Mask]):
    """The inputs that a value can depend on."""

    def literal(self, atom: Any) -> Mask:
        return 0

    def constant(self, array: Any) -> Mask:
        return 0

    def equation(self, eqn: Any, ins: list[Mask]) -> list[Mask]:
        # Too many inputs are safe: each can only keep a proof from being made.
        return [reduce(or_, ins, 0)] * len(eqn.outvars)

    def cond(self, eqn: Any, ins: list[Mask]) -> list[Mask]:
        """A result depends on which branch is taken, and on what any of them computes it from."""
        index, *given = ins
        outs = [self.run(branch, given) for branch in eqn.params["branches"]]
        return [reduce(or_, each, index) for each in zip(*outs, strict=True)]

    def scan(self, eqn: Any, ins: list[Mask]) -> list[Mask]:
        """A carry depends on its initial value and on what any iteration adds to it."""
        loop = read_scan(eqn)
        fixed, carry, scanned = loop.split(ins)
        while True:
            outs = self.run(loop.body, [*fixed, *carry, *scanned])
            # Sets only grow and inputs are few, so that this ends.
            grown = [before | after for before, after in zip(carry, outs, strict=False)]
            if grown == carry:
                return [*carry, *outs[loop.carries :]]
            carry = grown
