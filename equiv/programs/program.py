"""The data types of a traced port: a program is a jaxpr whose inputs and outputs have canonical names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from equiv.core.no_gradient import NoGradient
from equiv.core.output_name import InputName, OutputName, ProgramName


@dataclass(frozen=True)
class Draw:
    """One random draw of a program; it becomes an input of the program.

    Attributes:
        shape: shape of the bits; inside a scan that changes the key with the scan's length on axis 0.
        bit_width: 8, 16, 32 or 64.
        where: source line and module path of the draw.
        loop: identifier of the outermost scan whose iterations draw other bits; empty where none does.
        inside: identifier of the outermost loop around it; empty outside of loops.
    """

    shape: tuple[int, ...]
    bit_width: int
    where: str
    loop: str = ""
    inside: str = ""


def iteration_numbers(draws: Sequence[Draw]) -> list[tuple[int, ...]]:
    """For every draw the numbers of its iterations, in the order in which the unrolled loop would draw.

    A scan over five layers that draws twice has the numbers 0, 2, 4, 6, 8 and 1, 3, 5, 7, 9. A draw that all iterations
    share is made in the first one.
    """
    numbers: list[list[int]] = [[] for _ in draws]
    done = 0
    for around, group in groupby(range(len(draws)), key=lambda index: draws[index].inside):
        members = list(group)
        changing = [index for index in members if around and draws[index].loop == around]
        length = draws[changing[0]].shape[0] if changing else 1
        for index in (*_first_iteration(draws, members, around), *changing * (length - 1)):
            numbers[index].append(done)
            done += 1
    return list(map(tuple, numbers))


def _first_iteration(draws: Sequence[Draw], members: Sequence[int], around: str) -> Iterator[int]:
    """Indices of the draws in the first iteration of a loop; a loop inside it whose draws all share is unrolled."""
    for loop, group in groupby(members, key=lambda index: draws[index].loop):
        together = list(group)
        yield from together * (draws[together[0]].shape[0] if loop and loop != around else 1)


DrawPlace = tuple[int, int]
"""Number of the step and of the draw in it: the same in a scan over layers and in an unrolled loop."""


@dataclass(frozen=True)
class KeyReuse:
    """Two draws of one program that use one key.

    Attributes:
        program: the program.
        first: the earlier draw.
        second: the later one; the same as `first` where an array of keys holds a key twice.
        text: both, for people.
    """

    program: ProgramName
    first: DrawPlace
    second: DrawPlace
    text: str

    @property
    def places(self) -> tuple[ProgramName, DrawPlace, DrawPlace]:
        """What it has in common with the same reuse in another port."""
        return self.program, self.first, self.second


@dataclass(frozen=True)
class Program:
    """A traced port, or a part of it.

    Attributes:
        name: `train __call__`, `gradient encode`, `step`, ...
        jaxpr: a `jax.extend.core.ClosedJaxpr` over flat inputs.
        inputs: one name per input.
        outputs: one name per output.
        draws: what the inputs `draw/0`, `draw/1`, ... are.
        free: inputs on which no output may depend once the draws are inputs (keys and random state).
    """

    name: ProgramName
    jaxpr: Any
    inputs: tuple[InputName, ...]
    outputs: tuple[OutputName, ...]
    draws: tuple[Draw, ...] = ()

    def renamed(self, name: ProgramName) -> "Program":
        """The same program by another name."""
        return replace(self, name=name, outputs=tuple(output.of(name) for output in self.outputs))


@dataclass(frozen=True)
class Programs:
    """All programs of one port, in one precision.

    Attributes:
        port: name of the port.
        float64: whether every float is a float64.
        parts: forward and gradient programs, by name.
        begin: variables to the initial carry of training; None: nothing is trained.
        step: carry, batch and draws to the next carry; None likewise.
        no_gradients: the gradients that the port does not have, and why.
    """

    port: str
    float64: bool
    parts: tuple[Program, ...]
    begin: Program | None
    step: Program | None
    no_gradients: tuple[NoGradient, ...] = ()

    def same_in_train_mode(self, name: ProgramName) -> ProgramName | None:
        """The gradient in train mode of which an `eval gradient` is the very jaxpr; None: it has one of its own."""
        if name.kind != "eval gradient":
            return None
        jaxprs = {part.name: part.jaxpr for part in self.parts}
        other = ProgramName("gradient", name.method)
        own = jaxprs.get(name)
        return other if own is not None and own is jaxprs.get(other) else None
