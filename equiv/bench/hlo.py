"""Optimised HLO as text: parsed into instructions, and counted."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+)\s*(\(.*\))?\s*(->.*)?\{$")

INSTRUCTION = re.compile(r"(ROOT )?%?([\w.\-]+) = ")

BRACKETS = re.compile(r'"(?:\\.|[^"\\])*"|[()\[\]{},]')


@dataclass(frozen=True)
class Instruction:
    """One line of HLO."""

    name: str
    opcode: str
    shape: str
    operands: tuple[str, ...]
    attributes: dict[str, str]
    literal: str
    root: bool


@dataclass(frozen=True)
class HloModule:
    """Computations by name, in the order of the text."""

    computations: dict[str, list[Instruction]]
    entry: str


def parse_hlo(text: str) -> HloModule:
    """A module from `compiled.as_text()`."""
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            head = HEAD.match(line)
            if head and not line.startswith("HloModule"):
                current = computations.setdefault(head[2], [])
                entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif found := INSTRUCTION.match(line.strip()):
            current.append(_instruction(found, re.sub(r"/\*.*?\*/", "", line.strip()[found.end() :])))
    return HloModule(computations, entry)


def _instruction(found: re.Match[str], rest: str) -> Instruction:
    shape_end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:shape_end], rest[shape_end:].strip()
    opcode, _, rest = rest.partition("(")
    end = _closing(f"({rest}", 0) - 1
    inside, attributes = rest[:end], {}
    for part in _split_at_commas(rest[end + 1 :]):
        name, _, value = part.partition("=")
        attributes[name] = value
    operands = () if opcode in ("constant", "parameter") else tuple(_operand_names(inside))
    return Instruction(found[2], opcode, shape, operands, attributes, "" if operands else inside, bool(found[1]))


def _operand_names(inside: str) -> Iterator[str]:
    """Names of the operands, with or without their shapes before them."""
    for part in _split_at_commas(inside):
        yield part.split()[-1].removeprefix("%")


def _closing(text: str, start: int) -> int:
    """Index where the bracket at `start` is closed."""
    depth = 0
    for sign in BRACKETS.finditer(text, start):
        depth += (sign[0] in "([{") - (sign[0] in ")]}")
        if not depth and sign[0] in ")]}":
            return sign.start()
    return len(text)


def _split_at_commas(text: str) -> list[str]:
    """Split at the commas outside of brackets."""
    parts, depth, start = [], 0, 0
    for sign in BRACKETS.finditer(text):
        depth += (sign[0] in "([{") - (sign[0] in ")]}")
        if sign[0] == "," and not depth:
            parts.append(text[start : sign.start()])
            start = sign.end()
    return [part.strip() for part in (*parts, text[start:]) if part.strip()]


def instructions(text: str) -> int:
    """Number of instructions of an optimised program, without parameters; bodies of fusions and loops counted once."""
    return sum(item.opcode != "parameter" for body in parse_hlo(text).computations.values() for item in body)
