"""Nouns of a traced port: a program is a jaxpr whose inputs and outputs have canonical names."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Draw:
    """One place where a program draws random bits; in a program it is an input.

    Attributes:
        shape: shape of the bits; inside a scan with the length of the scan first.
        bit_width: 8, 16, 32 or 64.
        where: source line and module path of the draw.
    """

    shape: tuple[int, ...]
    bit_width: int
    where: str


@dataclass(frozen=True)
class Program:
    """A traced port, or a part of it.

    Attributes:
        name: `train __call__`, `gradient encode`, `step`, ...
        jaxpr: a `jax.extend.core.ClosedJaxpr` over flat inputs.
        inputs: one name per input: a canonical leaf, `batch/x`, `cotangent/0`, `draw/0`, `random/...`, `key`.
        outputs: one name per output: `output`, `state a/mean`, `gradient a/kernel`, `loss`, ...
        draws: what the inputs `draw/0`, `draw/1`, ... are.
        free: inputs on which no output may depend once the draws are inputs (keys and random state).
    """

    name: str
    jaxpr: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    draws: tuple[Draw, ...] = ()


@dataclass(frozen=True)
class Programs:
    """All programs of one port, in one precision.

    Attributes:
        backend: whose they are.
        lifted: whether every float is a float64.
        parts: forward and gradient programs, by name.
        begin: variables to the carry of training.
        step: carry, batch and draws to the next carry.
        problems: program name to the reason why it could not be traced.
    """

    backend: str
    lifted: bool
    parts: tuple[Program, ...]
    begin: Program | None
    step: Program | None
