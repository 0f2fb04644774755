"""Write a case file from an inferred layer table."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from textwrap import wrap
from typing import Any

from equiv.core.batch_spec import BatchEntry, BatchTree, KeptValues, flatten_batch
from equiv.core.layer_kinds import ONLY
from equiv.core.layouts import Chain
from equiv.core.method_call import Methods
from equiv.infer.builders import LocatedBuilder
from equiv.infer.import_path import ImportPath, parse_import_path
from equiv.infer.table.rows import InferredRow

LINE_LENGTH = 120


@dataclass(frozen=True)
class CaseDraft:
    """The content of a case file.

    Attributes:
        lesson: first line of the file.
        names: of the ports, reference first.
        builders: likewise.
        batch: entry to text.
        methods: see `equiv.core.case.Case`.
        rows: the layer table.
        known_differences: for each layer that has one: function of `equiv.case`, path of the row, and decay.
        missing: pairs and leaves that no row expresses, written as comments for the reader to fix.
    """

    lesson: str
    names: tuple[str, str]
    builders: tuple[LocatedBuilder, LocatedBuilder]
    batch: Mapping[str, BatchTree]
    methods: Methods | None = None
    rows: tuple[InferredRow, ...] = ()
    known_differences: tuple[tuple[str, str, float], ...] = ()
    missing: tuple[str, ...] = ()


def case_text(draft: CaseDraft, folder: Path) -> str:
    """Source text of the case file.

    Each model is imported inside its builder, so that one port can be run where the other's library is missing.

    Args:
        draft: its content.
        folder: where it will be written; imports are resolved relative to it.
    """
    # The file has to work wherever it is run from, so that paths are relative to it and imports follow them.
    source = _batch_source(draft)
    places = [*(one.import_path for one in draft.builders), *([source] if source else [])]
    searched = _import_folders(places, folder.resolve())
    lines = [f'"""{draft.lesson}"""', ""]
    lines += ["import sys", "from pathlib import Path", ""] if searched else []
    lines += [*_imports(draft), ""]
    lines += [*(f'sys.path.append(str(Path(__file__).parent / "{one}"))' for one in searched), ""] if searched else []
    for name, located in zip(draft.names, draft.builders, strict=True):
        lines += ["", *_builder_lines(name, located), ""]
    lines += ["", *_batch_lines(draft), ""] if _kept_names(draft) else []
    return "\n".join([*lines, "", *_case_lines(draft), ""])


def _kept_names(draft: CaseDraft) -> tuple[str, ...]:
    """The batch entries whose values are kept."""
    return tuple(name for name, one in flatten_batch(draft.batch).items() if isinstance(one, KeptValues))


def _batch_source(draft: CaseDraft) -> ImportPath | None:
    """The function that gives the whole batch, where values of it are kept."""
    found = (one.source for one in flatten_batch(draft.batch).values() if isinstance(one, KeptValues))
    return next(map(parse_import_path, found), None)


def _batch_lines(draft: CaseDraft) -> list[str]:
    source = _batch_source(draft)
    assert source is not None, "only a function gives values"
    return [
        "def batch():",
        f"    from {source.module} import {source.attribute.partition('.')[0]} as given",
        "",
        f"    return {'.'.join(['given', *source.attribute.split('.')[1:]])}()",
    ]


def _builder_lines(name: str, located: LocatedBuilder) -> list[str]:
    attribute = located.import_path.attribute
    return [
        f"def {name}({located.argument}):",
        f"    from {located.import_path.module} import {attribute.partition('.')[0]}",
        "",
        f"    return {located.code.format(name=attribute)}",
    ]


def _import_folders(places: Sequence[ImportPath], folder: Path) -> list[str]:
    """Folders that functions are imported from, relative to the file's own folder, which is on the path anyway."""
    found = [one.folder for one in places if one.folder is not None]
    return list(dict.fromkeys(os.path.relpath(one, folder) for one in found if one.resolve() != folder))


def _imports(draft: CaseDraft) -> list[str]:
    ours = {"equiv.case": {"Case"}, "equiv.layers": {row.function for row in draft.rows}}
    for row in draft.rows:
        for layout in _row_layouts(row):
            ours.setdefault("equiv.layouts", set()).add(type(layout).__name__)
    ours["equiv.case"].update(function for function, _, _ in draft.known_differences)
    return [f"from {module} import {', '.join(sorted(some))}" for module, some in sorted(ours.items()) if some]


def _row_layouts(row: InferredRow) -> Iterator[Any]:
    for own in dict(row.arguments).get("layouts", {}).values():
        for layout in own.values():
            yield layout
            if isinstance(layout, Chain):
                yield from layout.layouts


def _case_lines(draft: CaseDraft) -> list[str]:
    models = [f'"{name}": {name}' for name in draft.names]
    lines = ["CASE = Case(", '    guide="my own port",', *_dict_lines("models", models, 1)]
    if kept := _kept_names(draft):
        lines += ["    batch=batch,", f"    keep={_tuple_source(kept)},"]
    else:
        lines += _dict_lines("batch", [f'"{name}": {_source_of(spec)}' for name, spec in draft.batch.items()], 1)
    if draft.methods:
        lines += _methods_lines(draft.methods)
    lines.append("    layers=(" if draft.rows or draft.missing else "    layers=(),")
    for row in draft.rows:
        lines += _row_lines(row)
    for line in draft.missing:
        lines += wrap(line, LINE_LENGTH, initial_indent="        # ", subsequent_indent="        #   ")
    lines += ["    ),"] if draft.rows or draft.missing else []
    if draft.known_differences:
        debiased = [f'*{function}("{path}", decay={decay})' for function, path, decay in draft.known_differences]
        lines += ["    known_differences=(", *(f"        {one}," for one in debiased), "    ),"]
    return [*lines, ")"]


def _methods_lines(methods: Methods) -> list[str]:
    if isinstance(methods, Mapping):
        return _dict_lines("methods", [f'"{name}": {_tuple_source(some)}' for name, some in methods.items()], 1)
    return [f"    methods={_tuple_source(tuple(methods))},"]


def _dict_lines(name: str, items: Sequence[str], depth: int) -> list[str]:
    """A dictionary argument, on one line where it fits."""
    short = f"{' ' * 4 * depth}{name}={{{', '.join(items)}}},"
    if len(short) <= LINE_LENGTH:
        return [short]
    indent = " " * 4 * depth
    return [f"{indent}{name}={{", *(f"{indent}    {item}," for item in items), f"{indent}}},"]


def _row_lines(row: InferredRow) -> list[str]:
    scopes = [f"{name}={_quote_text(scope)}" for name, scope in row.layer.scopes.items()]
    if row.function == ONLY:
        return [f"        only({_quote_text(next(iter(row.layer.scopes)))}, {_quote_text(row.layer.path)}),"]
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
    if isinstance(value, BatchEntry):
        return _quote_text(str(value))
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
