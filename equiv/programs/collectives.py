"""What devices send each other in a compiled program."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
"""Instructions of HLO; each may be split in a `-start` and a `-done`."""

_INSTRUCTION = re.compile(rf"= (?P<result>\S+|\([^=]*?\)) (?P<name>{'|'.join(COLLECTIVES)})(?P<start>-start)?\(")

_ARRAY = re.compile(r"\b(?P<dtype>pred|[a-z]+(?P<bits>\d+)\w*)\[(?P<shape>[\d,]*)\]")


@dataclass(frozen=True)
class Collective:
    """All instructions of one kind in a compiled program.

    Attributes:
        name: of the instruction, `all-reduce`.
        count: how many there are in the text of the program; one in a loop counts once.
        size: bytes that they give on each device, all together.
    """

    name: str
    count: int
    size: int

    @property
    def text(self) -> str:
        """It in words."""
        return f"{self.count} {self.name} ({self.size} bytes)"


def list_collectives(text: str) -> tuple[Collective, ...]:
    """The collectives of a program.

    Args:
        text: HLO, as `jax.stages.Compiled.as_text` gives it.
    """
    counts, sizes = Counter[str](), Counter[str]()
    for found in _INSTRUCTION.finditer(text):
        arrays = list(_array_sizes(found["result"]))
        counts[found["name"]] += 1
        # What a `-start` gives repeats its operands before its results.
        sizes[found["name"]] += sum(arrays[len(arrays) // 2 :] if found["start"] and len(arrays) > 1 else arrays)
    return tuple(Collective(name, counts[name], sizes[name]) for name in COLLECTIVES if counts[name])


def _array_sizes(result: str) -> Iterator[int]:
    for array in _ARRAY.finditer(result):
        bits = 8 if array["dtype"] == "pred" else int(array["bits"])
        yield prod(int(size) for size in array["shape"].split(",") if size) * bits // 8
