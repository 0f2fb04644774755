"""The builders of a case side by side: highlighted, aligned on classes and functions, with marks."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape

from markupsafe import Markup
from pygments import lex
from pygments.lexers.python import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String, _TokenType

CLASSES: tuple[tuple[_TokenType, str], ...] = (
    (Comment, "c"),
    (String, "s"),
    (Number, "n"),
    (Operator.Word, "k"),
    (Keyword, "k"),
    (Name.Decorator, "d"),
    (Name.Function, "f"),
    (Name.Class, "f"),
    (Name.Builtin, "b"),
)
"""Kind of token to its class in the style sheet; the first that fits."""


@dataclass(frozen=True)
class CodeLine:
    """One line of a column.

    Attributes:
        number: in its file; 0 for a line that only pads the column.
        code: highlighted.
        mark: `differs`, `note` or empty.
        why: what the mark says.
    """

    number: int
    code: Markup
    mark: str = ""
    why: str = ""


Marks = Mapping[int, tuple[str, str]]
"""Line number in the file to its mark and what that says."""


def columns(texts: Sequence[str], firsts: Sequence[int], marks: Sequence[Marks]) -> tuple[tuple[CodeLine, ...], ...]:
    """Builders as columns of equal length: what has the same name in several stands at the same height.

    Args:
        texts: of each builder.
        firsts: number of the first line of each in its file.
        marks: of each.
    """
    blocks = [_blocks(text) for text in texts]
    made: list[list[CodeLine]] = [[] for _ in texts]
    highlighted = [_highlighted(text) for text in texts]
    for row in aligned([list(one) for one in blocks]):
        parts = [one[name] if name is not None else range(0) for one, name in zip(blocks, row, strict=True)]
        height = max(map(len, parts))
        for column, part, lines, first, marked in zip(made, parts, highlighted, firsts, marks, strict=True):
            column += [CodeLine(first + at, lines[at], *marked.get(first + at, ())) for at in part]
            column += [CodeLine(0, Markup(""))] * (height - len(part))
    return tuple(map(tuple, made))


def _blocks(text: str) -> dict[str, range]:
    """Qualified name of each class, function and step of a builder to its lines, counted from 0; nothing left out."""
    length = len(text.splitlines())
    try:
        body = ast.parse(text).body
    except SyntaxError:  # a lambda in the middle of an expression
        return {"builder": range(length)}
    starts: dict[str, int] = {"builder": 0}
    inner = body[0].body if len(body) == 1 and isinstance(body[0], ast.FunctionDef) else body
    for name, start in _starts(inner, ""):
        starts.setdefault(name, start)
    names = sorted(starts, key=starts.__getitem__)
    ends = [*(starts[name] for name in names[1:]), length]
    return {name: range(starts[name], end) for name, end in zip(names, ends, strict=True)}


ALIKE = {"setup": "__init__"}
"""Linen's `setup` does what `__init__` does in the others."""


def _starts(body: Sequence[ast.stmt], scope: str) -> Iterator[tuple[str, int]]:
    inside = ""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            inside = f"{scope}{ALIKE.get(node.name, node.name)}"
            if node.decorator_list:
                yield f"{inside} @", node.decorator_list[0].lineno - 1
            yield inside, node.lineno - 1
            yield from _starts(node.body, f"{inside}.")
            continue
        if inside and scope:
            yield f"{inside} after", node.lineno - 1
            inside = ""
        if isinstance(node, ast.Assign) and not scope and isinstance(node.targets[0], ast.Name):
            yield f"{node.targets[0].id} =", node.lineno - 1
        elif isinstance(node, ast.Return) and not scope:
            yield "return", node.lineno - 1


def aligned(orders: Sequence[Sequence[str]]) -> list[tuple[str | None, ...]]:
    """Rows with one name, or none, of each order: none is moved, and as many as can be stand beside their like."""
    rows: list[tuple[str | None, ...]] = []
    for done, order in enumerate(orders):
        names = [next(filter(None, row), "") for row in rows]
        together: list[tuple[str | None, ...]] = []
        for tag, start, end, from_, to in SequenceMatcher(None, names, order, autojunk=False).get_opcodes():
            if tag == "equal":
                together += [(*row, name) for row, name in zip(rows[start:end], order[from_:to], strict=True)]
                continue
            together += [(*row, None) for row in rows[start:end]]
            together += [(*(None,) * done, name) for name in order[from_:to]]
        rows = together
    return rows


def _highlighted(text: str) -> list[Markup]:
    """Line by line; four spaces of indentation are a tab, which the style sheet shows as wide as the guides' own."""
    text = re.sub(r"^( {4})+", lambda spaces: "\t" * (len(spaces[0]) // 4), text, flags=re.MULTILINE)
    lines: list[list[Markup]] = [[]]
    for kind, piece in lex(text, PythonLexer(stripnl=False, ensurenl=False)):
        style = next((name for family, name in CLASSES if kind in family), "")
        for index, part in enumerate(piece.split("\n")):
            if index:
                lines.append([])
            if part:
                plain = escape(part, quote=False)
                lines[-1].append(Markup(f"<i class={style}>{plain}</i>" if style and part.strip() else plain))
    return [Markup("").join(parts) for parts in lines]
