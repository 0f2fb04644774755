"""Whether two optimised programs are the same up to names and order.

A program becomes one flat graph: fusions and calls are inlined, loops are edges from the end of their body back to its
start, and names, metadata, the order of parameters, outputs and loop variables are left out. Two graphs are the same
program if refining the colours of their nodes by what they read and who reads them (Weisfeiler and Leman, 1968) never
distinguishes them. Parameters of the same shape may be swapped: that changes values, but not the work of the device.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from typing import Any

from equiv.bench.hlo import HloModule, Instruction, parse_hlo

CALLED = re.compile(r"[\w.\-]+")

CALLING = ("to_apply", "calls", "called_computations", "branch_computations", "true_computation", "false_computation")

NOISE = {"metadata", "frontend_attributes", "sharding", "origin", *CALLING}

COMMUTATIVE_OPCODES = {"add", "multiply", "maximum", "minimum", "and", "or", "xor"}

OPENED = {"fusion": "calls", "call": "to_apply"}

ELIDED = "{...}"

UNKNOWN = count()


@dataclass(eq=False)
class HloNode:
    """One operation of the flat graph: its label, and the nodes that it reads."""

    label: tuple[str, ...]
    reads: "list[HloNode]" = field(default_factory=list)


class HloGraph:
    """The flat graph of an HLO module."""

    def __init__(self, module: HloModule) -> None:
        self.module = module
        self.nodes: list[HloNode] = []
        root = self._open(module.entry, None)
        outputs = [self._node(("output",), [node]) for node in _flat_nodes(root)]
        self.nodes = _reached(outputs)

    def _node(self, label: tuple[str, ...], reads: list[HloNode]) -> HloNode:
        node = HloNode(label, reads)
        self.nodes.append(node)
        return node

    def _open(self, name: str, arguments: list[Any] | None) -> Any:
        """The value of a computation's root; without arguments its parameters are nodes."""
        values: dict[str, Any] = {}
        root = None
        for item in self.module.computations[name]:
            if item.opcode == "parameter":
                value = self._parameter(item) if arguments is None else arguments[int(item.literal)]
            else:
                value = self._value(item, [values[operand] for operand in item.operands])
            values[item.name] = value
            root = value if item.root else root
        return root

    def _parameter(self, item: Instruction) -> HloNode:
        # Axes of length one are free: Haiku keeps a batch norm's scale as (1, 256), Flax as (256,).
        sizes = re.sub(r"\{.*?\}", "", item.shape)
        return self._node(("parameter", re.sub(r"(?<=[\[,])1(?=[,\]]),?", "", sizes).replace(",]", "]")), [])

    def _value(self, item: Instruction, operands: list[Any]) -> Any:
        if item.opcode == "tuple":
            return operands
        if item.opcode == "bitcast":
            return operands[0]
        if item.opcode == "get-tuple-element" and isinstance(operands[0], list):
            return operands[0][int(item.attributes["index"])]
        if item.opcode == "while":
            return self._loop(item, operands[0])
        if item.opcode in OPENED:
            inside = self._open(_called_computations(item.attributes[OPENED[item.opcode]])[0], operands)
            if item.opcode == "call":
                return inside
            label = "fusion", item.attributes.get("kind", ""), item.attributes.get("backend_config", "")
            return _map_nodes(lambda node: self._node(label, [node]), inside)
        label = (item.opcode, item.shape, *self._attributes(item), *self._literal(item))
        return self._node(label, _flat_nodes(operands))

    def _loop(self, item: Instruction, start: Any) -> Any:
        """A node for each loop variable, which reads its initial value and the value that the body returns for it."""
        carried = _map_nodes(lambda node: self._node(("loop",), [node]), start)
        condition = self._open(_called_computations(item.attributes["condition"])[0], [carried])
        after = self._open(_called_computations(item.attributes["body"])[0], [carried])
        for node, made in zip(_flat_nodes(carried), _flat_nodes(after), strict=True):
            node.reads.append(made)
        ended = self._node(("ended",), _flat_nodes(condition))
        return _map_nodes(lambda node: self._node(("after loop",), [node, ended]), carried)

    def _attributes(self, item: Instruction) -> tuple[str, ...]:
        kept = [f"{name}={value}" for name, value in sorted(item.attributes.items()) if name not in NOISE]
        inner = [
            name for key in CALLING if key in item.attributes for name in _called_computations(item.attributes[key])
        ]
        return (*kept, *(self._inner(name) for name in inner))

    def _inner(self, name: str) -> str:
        """A computation that is applied to elements (of a reduce, a sort, a scatter): its text without names."""
        numbers = {item.name: str(number) for number, item in enumerate(self.module.computations[name])}
        lines = [
            " ".join(
                (
                    item.opcode,
                    item.shape,
                    *(numbers[name] for name in item.operands),
                    item.literal,
                    *self._attributes(item),
                )
            )
            for item in self.module.computations[name]
        ]
        return sha256("\n".join(lines).encode()).hexdigest()

    def _literal(self, item: Instruction) -> tuple[str, ...]:
        # A constant that is not printed whole may have any value: it equals no other.
        return (f"{item.literal} {next(UNKNOWN)}",) if ELIDED in item.literal else (item.literal,)


def _called_computations(value: str) -> list[str]:
    return CALLED.findall(value)


def _flat_nodes(value: Any) -> list[HloNode]:
    return [node for part in value for node in _flat_nodes(part)] if isinstance(value, list) else [value]


def _map_nodes(function: Callable[[HloNode], HloNode], value: Any) -> Any:
    return [_map_nodes(function, part) for part in value] if isinstance(value, list) else function(value)


def _reached(outputs: list[HloNode]) -> list[HloNode]:
    """The nodes that the outputs depend on; an unused parameter is no part of the program."""
    seen: dict[int, HloNode] = {}
    stack = list(outputs)
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen[id(node)] = node
            stack += node.reads
    return list(seen.values())


def difference(one: str, other: str) -> str:
    """The operations that the other program has more or fewer of, e.g. `copy +4, add -1`; empty for the same program.

    Args:
        one: text of an optimised module, as returned by `compiled.as_text()`.
        other: likewise.
    """
    sides = [HloGraph(parse_hlo(text)).nodes for text in (one, other)]
    if _same_graph(*sides):
        return ""
    before, after = (Counter(node.label[0] for node in side) for side in sides)
    changed = {kind: after[kind] - before[kind] for kind in sorted({*before, *after}) if after[kind] != before[kind]}
    ranked = sorted(changed.items(), key=lambda entry: -abs(entry[1]))
    return ", ".join(f"{kind} {more:+d}" for kind, more in ranked) or "the same operations, connected differently"


def _same_graph(one: list[HloNode], other: list[HloNode]) -> bool:
    """Whether colour refinement of both graphs at once finds no difference."""
    nodes = [*one, *other]
    readers: dict[int, list[tuple[HloNode, int]]] = {id(node): [] for node in nodes}
    for node in nodes:
        for place, read in enumerate(node.reads):
            readers[id(read)].append((node, 0 if node.label[0] in COMMUTATIVE_OPCODES else place))
    colours: dict[int, Any] = {id(node): node.label for node in nodes}
    kinds = 0
    while True:
        numbers: dict[Any, int] = {}
        colours = {key: numbers.setdefault(colour, len(numbers)) for key, colour in colours.items()}
        left, right = (Counter(colours[id(node)] for node in side) for side in (one, other))
        if left != right:
            return False
        if len(numbers) == kinds:
            return True
        kinds = len(numbers)
        colours = {id(node): _refined(node, colours, readers[id(node)]) for node in nodes}


def _refined(node: HloNode, colours: dict[int, Any], readers: list[tuple[HloNode, int]]) -> tuple[Any, ...]:
    reads = [colours[id(read)] for read in node.reads]
    read_by = sorted((colours[id(reader)], place) for reader, place in readers)
    return colours[id(node)], tuple(sorted(reads) if node.label[0] in COMMUTATIVE_OPCODES else reads), tuple(read_by)
