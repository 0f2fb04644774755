"""Write a case file from an inferred layer table."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from textwrap import wrap
from typing import Any

from equiv.core.layouts import Chain
from equiv.infer.builders import LocatedBuilder
from equiv.infer.table.rows import InferredRow

LINE_LENGTH = 120


@dataclass(frozen=True)
class CaseDraft:
    """The content of a case file.

    Attributes:
        lesson: first line of the file.
        builders: reference first.
        batch: entry to text.
        methods: public method to batch entries; None: `__call__` with all.
        rows: the layer table.
        decays: path of a batch norm row to the decay of its averages.
        missing: pairs and leaves that no row expresses, written as comments for the reader to fix.
    """

    lesson: str
    builders: tuple[LocatedBuilder, LocatedBuilder]
    batch: Mapping[str, str]
    methods: Mapping[str, tuple[str, ...]] | None = None
    rows: tuple[InferredRow, ...] = ()
    decays: Mapping[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def case_text(draft: CaseDraft, folder: Path) -> str:
    """Source text of the case file.

    Args:
        draft: its content.
        folder: where it will be written; imports are resolved relative to it.
    """
    names = _builder_names(draft.builders)
    # The file has to work wherever it is run from, so that paths are relative to it and imports follow them.
    searched = _import_folders(draft.builders, folder.resolve())
    builders = _builder_imports(draft.builders, names, "  # noqa: E402" if searched else "")
    lines = [f'"""{draft.lesson}"""', ""]
    lines += ["import sys", "from pathlib import Path", ""] if searched else []
    lines += [*_imports(draft), ""]
    lines += [*(f'sys.path.append(str(Path(__file__).parent / "{one}"))' for one in searched), ""] if searched else []
    return "\n".join([*lines, *builders, "", *_case_lines(draft, names), ""])


def _builder_names(builders: Sequence[LocatedBuilder]) -> list[str]:
    """Names of the builders in the file: their own, or prefixed with the library where both are equal."""
    tops = [one.import_path.attribute.partition(".")[0] for one in builders]
    # From one module they are attributes of one import, even if both begin with the same class.
    if len(set(tops)) == len(tops) or builders[0].import_path.module == builders[1].import_path.module:
        return tops
    return [f"{one.backend}_{top}" for one, top in zip(builders, tops, strict=True)]


def _import_folders(builders: Sequence[LocatedBuilder], folder: Path) -> list[str]:
    """Folders that builders are imported from, relative to the file's own folder, which is on the path anyway."""
    found = [one.import_path.folder for one in builders if one.import_path.folder is not None]
    return list(dict.fromkeys(os.path.relpath(one, folder) for one in found if one.resolve() != folder))


def _imports(draft: CaseDraft) -> list[str]:
    ours = {"equiv.case": {"Case"}, "equiv.layers": {row.function for row in draft.rows}}
    for row in draft.rows:
        for layout in _row_layouts(row):
            ours.setdefault("equiv.layouts", set()).add(type(layout).__name__)
    if draft.decays:
        ours["equiv.case"].add("zero_debias")
    return [f"from {module} import {', '.join(sorted(some))}" for module, some in sorted(ours.items()) if some]


def _builder_imports(builders: Sequence[LocatedBuilder], names: Sequence[str], remark: str) -> list[str]:
    found: dict[str, list[str]] = {}
    for one, name in zip(builders, names, strict=True):
        top = one.import_path.attribute.partition(".")[0]
        found.setdefault(one.import_path.module, []).append(top if top == name else f"{top} as {name}")
    return [f"from {module} import {', '.join(sorted(set(some)))}{remark}" for module, some in sorted(found.items())]


def _row_layouts(row: InferredRow) -> Iterator[Any]:
    for own in dict(row.arguments).get("layouts", {}).values():
        for layout in own.values():
            yield layout
            if isinstance(layout, Chain):
                yield from layout.layouts


def _case_lines(draft: CaseDraft, names: Sequence[str]) -> list[str]:
    models = []
    for one, name in zip(draft.builders, names, strict=True):
        rest = one.import_path.attribute.partition(".")[2]
        models.append(f'"{one.backend}": {one.code.format(name=f"{name}.{rest}" if rest else name)}')
    lines = ["CASE = Case(", '    guide="my own port",', *_dict_lines("models", models, 1)]
    lines += _dict_lines("batch", [f'"{name}": {_quote_text(spec)}' for name, spec in draft.batch.items()], 1)
    if draft.methods:
        lines += _dict_lines("methods", [f'"{name}": {_tuple_source(some)}' for name, some in draft.methods.items()], 1)
    lines.append("    layers=(" if draft.rows or draft.missing else "    layers=(),")
    for row in draft.rows:
        lines += _row_lines(row)
    for line in draft.missing:
        lines += wrap(line, LINE_LENGTH, initial_indent="        # ", subsequent_indent="        #   ")
    lines += ["    ),"] if draft.rows or draft.missing else []
    if draft.decays:
        debiased = [f'*zero_debias("{path}", decay={decay})' for path, decay in draft.decays.items()]
        lines += ["    known_differences=(", *(f"        {one}," for one in debiased), "    ),"]
    return [*lines, ")"]


def _dict_lines(name: str, items: Sequence[str], depth: int) -> list[str]:
    """A dictionary argument, on one line where it fits."""
    short = f"{' ' * 4 * depth}{name}={{{', '.join(items)}}},"
    if len(short) <= LINE_LENGTH:
        return [short]
    indent = " " * 4 * depth
    return [f"{indent}{name}={{", *(f"{indent}    {item}," for item in items), f"{indent}}},"]


def _row_lines(row: InferredRow) -> list[str]:
    scopes = [f"{backend}={_quote_text(scope)}" for backend, scope in row.layer.scopes.items()]
    items = [
        *map(_quote_text, (row.layer.path, *row.layer.leaves)),
        *(f"{name}={_source_of(value)}" for name, value in row.arguments),
        *scopes,
    ]
    short = f"        {row.function}({', '.join(items)}),"
    if len(short) <= LINE_LENGTH:
        return [short]
    inside = f"            {', '.join(items)}"
    if len(inside) <= LINE_LENGTH:
        return [f"        {row.function}(", inside, "        ),"]
    return [f"        {row.function}(", *(f"            {item}," for item in items), "        ),"]


def _source_of(value: Any) -> str:
    """Source text of a value."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_quote_text(name)}: {_source_of(item)}" for name, item in value.items()) + "}"
    if isinstance(value, tuple):
        return _tuple_source(value)
    if isinstance(value, str):
        return _quote_text(value)
    if hasattr(value, "__dataclass_fields__"):
        given = [
            _source_of(getattr(value, one.name)) for one in fields(value) if getattr(value, one.name) != one.default
        ]
        return f"{type(value).__name__}({', '.join(given)})"
    return repr(value)


def _tuple_source(items: Sequence[Any]) -> str:
    return f"({', '.join(map(_source_of, items))}{',' if len(items) == 1 else ''})"


def _quote_text(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
