"""Plant a fault in the source of a model, and say which lines are then the right ones."""

import re
from pathlib import Path

from locate.faults import SourceFault

FOLDER = Path(__file__).parent


def read_model(model: str) -> str:
    """The source of a model without a fault."""
    return (FOLDER / f"{model}.py").read_text()


def plant_faults(model: str, faults: tuple[SourceFault, ...]) -> str:
    """The source of a model with faults, all in one builder."""
    source = read_model(model)
    for fault in faults:
        start, end = find_builder(source, fault.port)
        builder = source[start:end]
        changed = _change_copy(builder, fault) if fault.kind else _replace_once(builder, fault)
        source = source[:start] + changed + source[end:]
    return source


def find_builder(source: str, port: str) -> tuple[int, int]:
    """Where a builder begins and ends."""
    start = source.index(f"\ndef {port}(") + 1
    end = re.compile(r"^\S", re.MULTILINE).search(source, source.index("\n", start))
    return start, len(source) if end is None else end.start()


def _replace_once(text: str, fault: SourceFault) -> str:
    if fault.old not in text:
        raise ValueError(f"{fault.name}: {fault.old!r} is not in the builder")
    return text.replace(fault.old, fault.new, 1)


def _change_copy(builder: str, fault: SourceFault) -> str:
    """The builder with a changed copy of a class in place of the class that is faulty."""
    own, faulty = (_find_class(builder, name) for name in (fault.kind, _faulty_name(fault.kind)))
    placeholder = builder[slice(*faulty)]
    # A second fault changes the copy that the first one made.
    copy = placeholder if fault.old in placeholder else builder[slice(*own)]
    extra = placeholder.partition("\n")[2] if "kind = " in placeholder and copy is not placeholder else ""
    copy = copy.replace(f"class {fault.kind}(", f"class {_faulty_name(fault.kind)}(", 1)
    if extra:
        copy = re.sub(r" +kind = \w+\n", extra, copy, count=1)
    return builder[: faulty[0]] + _replace_once(copy, fault) + builder[faulty[1] :]


def _faulty_name(kind: str) -> str:
    return "Faulty" if kind == "Block" else f"Faulty{kind}"


def _find_class(builder: str, name: str) -> tuple[int, int]:
    start = builder.index(f"    class {name}(")
    end = re.compile(r"^    \S", re.MULTILINE).search(builder, builder.index("\n", start))
    return start, len(builder) if end is None else end.start()


def right_lines(source: str, fault: SourceFault, ours: bool) -> set[int]:
    """The numbers of the lines that are right to name.

    Args:
        source: with the fault.
        fault: which one.
        ours: of the other builder, and what both share, rather than of the faulty one.
    """
    start, end = find_builder(source, fault.port)
    if ours:
        wanted = fault.twin.split("|") if fault.twin else _lines(fault.old)
        return {number for number in _matching(source, wanted) if not _is_within(source, number, start, end)}
    wanted = fault.line.split("|") if fault.line else _lines(fault.new)
    if fault.kind:
        inner = _find_class(source[start:end], _faulty_name(fault.kind))
        found = {
            number
            for number in _matching(source, wanted)
            if _is_within(source, number, start + inner[0], start + inner[1])
        }
        if found:
            return found
    return {number for number in _matching(source, wanted) if _is_within(source, number, start, end)}


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


def _matching(source: str, wanted: list[str]) -> set[int]:
    return {number for number, line in enumerate(source.splitlines(), 1) if any(one in line for one in wanted)}


def _is_within(source: str, line: int, start: int, end: int) -> bool:
    first, last = source[:start].count("\n") + 1, source[:end].count("\n")
    return first <= line <= last
