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
    order = merged([list(one) for one in blocks])
    heights = {name: max(len(one[name]) for one in blocks if name in one) for name in order}
    made = []
    for one, text, first, marked in zip(blocks, texts, firsts, marks, strict=True):
        highlighted, column = _highlighted(text), list[CodeLine]()
        for name in order:
            lines = one.get(name, range(0))
            column += [CodeLine(first + at, highlighted[at], *marked.get(first + at, ())) for at in lines]
            column += [CodeLine(0, Markup(""))] * (heights[name] - len(lines))
        made.append(tuple(column))
    return tuple(made)


def _blocks(text: str) -> dict[str, range]:
    """Qualified name of each class, function and step of a builder to its lines, counted from 0; nothing left out."""
    length = len(text.splitlines())
    try:
        body = ast.parse(text).body
    except SyntaxError:  # a lambda in the middle of an expression
        return {"": range(length)}
    starts: dict[str, int] = {"": 0}
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


def merged(orders: Sequence[Sequence[str]]) -> list[str]:
    """One order that keeps as much of each as can be."""
    result: list[str] = []
    for order in orders:
        together: list[str] = []
        for _, start, end, from_, to in SequenceMatcher(None, result, order, autojunk=False).get_opcodes():
            together += [name for name in result[start:end] if name not in together]
            together += [name for name in order[from_:to] if name not in together]
        result = together
    return result


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
