"""The data types of a traced port: a program is a jaxpr whose inputs and outputs have canonical names."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from equiv.core.output_name import InputName, OutputName, ProgramName


@dataclass(frozen=True)
class Draw:
    """One random draw of a program; it becomes an input of the program.

    Attributes:
        shape: shape of the bits; inside a scan with the scan's length on axis 0.
        bit_width: 8, 16, 32 or 64.
        where: source line and module path of the draw.
        loop: identifier of the outermost scan around it; empty outside of loops.
    """

    shape: tuple[int, ...]
    bit_width: int
    where: str
    loop: str = ""


def iteration_numbers(draws: Sequence[Draw]) -> list[tuple[int, ...]]:
    """For every draw the numbers of its iterations, in the order in which the unrolled loop would draw.

    A scan over five layers that draws twice has the numbers 0, 2, 4, 6, 8 and 1, 3, 5, 7, 9.
    """
    numbers: list[tuple[int, ...]] = []
    done = 0
    for loop, group in groupby(draws, key=lambda draw: draw.loop):
        together = list(group)
        length, width = (together[0].shape[0], len(together)) if loop else (len(together), 1)
        if loop:
            numbers += [
                tuple(done + iteration * width + place for iteration in range(length)) for place in range(width)
            ]
        else:
            numbers += [(done + place,) for place in range(length)]
        done += length * width
    return numbers


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


@dataclass(frozen=True)
class Programs:
    """All programs of one port, in one precision.

    Attributes:
        port: name of the port.
        float64: whether every float is a float64.
        parts: forward and gradient programs, by name.
        begin: variables to the initial carry of training.
        step: carry, batch and draws to the next carry.
    """

    port: str
    float64: bool
    parts: tuple[Program, ...]
    begin: Program | None
    step: Program | None
