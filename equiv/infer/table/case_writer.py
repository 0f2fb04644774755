"""A case file, written as a person would write it."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from textwrap import wrap
from typing import Any

from equiv.core.layouts import Chain
from equiv.infer.builders import Located
from equiv.infer.table.rows import Row

WIDTH = 120


@dataclass(frozen=True)
class Draft:
    """What a case file is made of.

    Attributes:
        lesson: first line of the file.
        builders: reference first.
        batch: entry to text.
        methods: public method to batch entries; None: `__call__` with all.
        rows: the layer table.
        decays: path of a batch norm row to the decay of its averages.
        missing: what no row says, for the reader to mend.
    """

    lesson: str
    builders: tuple[Located, Located]
    batch: Mapping[str, str]
    methods: Mapping[str, tuple[str, ...]] | None = None
    rows: tuple[Row, ...] = ()
    decays: Mapping[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def text(draft: Draft, folder: Path) -> str:
    """The file.

    Args:
        draft: its content.
        folder: where it will lie: what it imports is found from there.
    """
    names = _names(draft.builders)
    searched = _folders(draft.builders, folder.resolve())
    builders = _builders(draft.builders, names, "  # noqa: E402" if searched else "")
    lines = [f'"""{draft.lesson}"""', ""]
    lines += ["import sys", "from pathlib import Path", ""] if searched else []
    lines += [*_imports(draft), ""]
    lines += [*(f'sys.path.append(str(Path(__file__).parent / "{one}"))' for one in searched), ""] if searched else []
    return "\n".join([*lines, *builders, "", *_case(draft, names), ""])


def _names(builders: Sequence[Located]) -> list[str]:
    """What the builders are called in the file: as they are; with the library where both are called alike."""
    tops = [one.place.attribute.partition(".")[0] for one in builders]
    if len(set(tops)) == len(tops) or builders[0].place.module == builders[1].place.module:
        return tops
    return [f"{one.backend}_{top}" for one, top in zip(builders, tops, strict=True)]


def _folders(builders: Sequence[Located], folder: Path) -> list[str]:
    """Folders that builders are imported from, seen from the file's own, which is searched anyway."""
    found = [one.place.folder for one in builders if one.place.folder is not None]
    return list(dict.fromkeys(os.path.relpath(one, folder) for one in found if one.resolve() != folder))


def _imports(draft: Draft) -> list[str]:
    ours = {"equiv.case": {"Case"}, "equiv.layers": {row.function for row in draft.rows}}
    for row in draft.rows:
        for layout in _layouts(row):
            home = ".".join(type(layout).__module__.split(".")[:2])
            ours.setdefault(home, set()).add(type(layout).__name__)
    if draft.decays:
        ours["equiv.case"].add("zero_debias")
    return [f"from {module} import {', '.join(sorted(some))}" for module, some in sorted(ours.items()) if some]


def _builders(builders: Sequence[Located], names: Sequence[str], remark: str) -> list[str]:
    found: dict[str, list[str]] = {}
    for one, name in zip(builders, names, strict=True):
        top = one.place.attribute.partition(".")[0]
        found.setdefault(one.place.module, []).append(top if top == name else f"{top} as {name}")
    return [f"from {module} import {', '.join(sorted(set(some)))}{remark}" for module, some in sorted(found.items())]


def _layouts(row: Row) -> Iterator[Any]:
    for own in dict(row.arguments).get("layouts", {}).values():
        for layout in own.values():
            yield layout
            if isinstance(layout, Chain):
                yield from layout.layouts


def _case(draft: Draft, names: Sequence[str]) -> list[str]:
    models = []
    for one, name in zip(draft.builders, names, strict=True):
        rest = one.place.attribute.partition(".")[2]
        models.append(f'"{one.backend}": {one.code.format(name=f"{name}.{rest}" if rest else name)}')
    lines = ["CASE = Case(", '    guide="my own port",', *_braced("models", models, 1)]
    lines += _braced("batch", [f'"{name}": {_quoted(spec)}' for name, spec in draft.batch.items()], 1)
    if draft.methods:
        lines += _braced("methods", [f'"{name}": {_tuple(some)}' for name, some in draft.methods.items()], 1)
    lines.append("    layers=(" if draft.rows or draft.missing else "    layers=(),")
    for row in draft.rows:
        lines += _row(row)
    for line in draft.missing:
        lines += wrap(line, WIDTH, initial_indent="        # ", subsequent_indent="        #   ")
    lines += ["    ),"] if draft.rows or draft.missing else []
    if draft.decays:
        debiased = [f'*zero_debias("{path}", decay={decay})' for path, decay in draft.decays.items()]
        lines += ["    known_differences=(", *(f"        {one}," for one in debiased), "    ),"]
    return [*lines, ")"]


def _braced(name: str, items: Sequence[str], depth: int) -> list[str]:
    """A dictionary as an argument, on one line where it fits."""
    short = f"{' ' * 4 * depth}{name}={{{', '.join(items)}}},"
    if len(short) <= WIDTH:
        return [short]
    indent = " " * 4 * depth
    return [f"{indent}{name}={{", *(f"{indent}    {item}," for item in items), f"{indent}}},"]


def _row(row: Row) -> list[str]:
    scopes = [f"{backend}={_quoted(scope)}" for backend, scope in row.layer.scopes.items()]
    items = [
        *map(_quoted, (row.layer.path, *row.layer.leaves)),
        *(f"{name}={_code(value)}" for name, value in row.arguments),
        *scopes,
    ]
    short = f"        {row.function}({', '.join(items)}),"
    if len(short) <= WIDTH:
        return [short]
    inside = f"            {', '.join(items)}"
    if len(inside) <= WIDTH:
        return [f"        {row.function}(", inside, "        ),"]
    return [f"        {row.function}(", *(f"            {item}," for item in items), "        ),"]


def _code(value: Any) -> str:
    """A value as source."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_quoted(name)}: {_code(item)}" for name, item in value.items()) + "}"
    if isinstance(value, tuple):
        return _tuple(value)
    if isinstance(value, str):
        return _quoted(value)
    if hasattr(value, "__dataclass_fields__"):
        given = [_code(getattr(value, one.name)) for one in fields(value) if getattr(value, one.name) != one.default]
        return f"{type(value).__name__}({', '.join(given)})"
    return repr(value)


def _tuple(items: Sequence[Any]) -> str:
    return f"({', '.join(map(_code, items))}{',' if len(items) == 1 else ''})"


def _quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
