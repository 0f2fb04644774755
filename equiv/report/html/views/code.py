"""The builders of a case side by side: highlighted, aligned on classes and functions, with marked lines."""

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

TOKEN_CLASSES: tuple[tuple[_TokenType, str], ...] = (
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
"""Pygments token type to its class in the style sheet; the first match applies."""


@dataclass(frozen=True)
class CodeLine:
    """One line of a column.

    Attributes:
        number: line number in its file; 0 for a line that only pads the column.
        code: highlighted.
        mark: `differs`, `note` or empty.
        why: explanation of the mark.
    """

    number: int
    code: Markup
    mark: str = ""
    why: str = ""


Marks = Mapping[int, tuple[str, str]]
"""Line number in the file to its mark and explanation."""


def align_builders(
    texts: Sequence[str], firsts: Sequence[int], marks: Sequence[Marks]
) -> tuple[tuple[CodeLine, ...], ...]:
    """Arrange builders in columns of equal length, with blocks of the same name at the same height.

    Args:
        texts: source of each builder.
        firsts: number of the first line of each in its file.
        marks: marked lines of each.
    """
    blocks = [_code_blocks(text) for text in texts]
    made: list[list[CodeLine]] = [[] for _ in texts]
    highlighted = [_highlight(text) for text in texts]
    for row in align_names([list(one) for one in blocks]):
        parts = [one[name] if name is not None else range(0) for one, name in zip(blocks, row, strict=True)]
        height = max(map(len, parts))
        for column, part, lines, first, marked in zip(made, parts, highlighted, firsts, marks, strict=True):
            column += [CodeLine(first + at, lines[at], *marked.get(first + at, ())) for at in part]
            column += [CodeLine(0, Markup(""))] * (height - len(part))
    return tuple(map(tuple, made))


def _code_blocks(text: str) -> dict[str, range]:
    """Map each class, function and statement of a builder to its lines, counted from 0; together they cover all."""
    length = len(text.split("\n"))
    try:
        body = ast.parse(text).body
    except SyntaxError:  # a lambda in the middle of an expression
        return {"builder": range(length)}
    starts: dict[str, int] = {"builder": 0}
    inner = body[0].body if len(body) == 1 and isinstance(body[0], ast.FunctionDef) else body
    for name, start in _builder_block_starts(inner, ""):
        starts.setdefault(name, start)
    names = sorted(starts, key=starts.__getitem__)
    ends = [*(starts[name] for name in names[1:]), length]
    return {name: range(starts[name], end) for name, end in zip(names, ends, strict=True)}


SAME_METHODS = {"setup": "__init__"}
"""Linen's `setup` corresponds to `__init__` in the other libraries."""


def _builder_block_starts(body: Sequence[ast.stmt], scope: str) -> Iterator[tuple[str, int]]:
    inside = ""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            inside = f"{scope}{SAME_METHODS.get(node.name, node.name)}"
            if node.decorator_list:
                yield f"{inside} @", node.decorator_list[0].lineno - 1
            yield inside, node.lineno - 1
            yield from _builder_block_starts(node.body, f"{inside}.")
            continue
        if inside and scope:
            yield f"{inside} after", node.lineno - 1
            inside = ""
        if isinstance(node, ast.Assign) and not scope and isinstance(node.targets[0], ast.Name):
            yield f"{node.targets[0].id} =", node.lineno - 1
        elif isinstance(node, ast.Return) and not scope:
            yield "return", node.lineno - 1


def align_names(orders: Sequence[Sequence[str]]) -> list[tuple[str | None, ...]]:
    """Align sequences of names: rows with one name or None per sequence, in order, with as many matches as possible."""
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


def _highlight(text: str) -> list[Markup]:
    """Highlight line by line; four spaces of indentation become a tab, whose width the style sheet sets."""
    text = re.sub(r"^( {4})+", lambda spaces: "\t" * (len(spaces[0]) // 4), text, flags=re.MULTILINE)
    lines: list[list[Markup]] = [[]]
    for kind, piece in lex(text, PythonLexer(stripnl=False, ensurenl=False)):
        style = next((name for family, name in TOKEN_CLASSES if kind in family), "")
        for index, part in enumerate(piece.split("\n")):
            if index:
                lines.append([])
            if part:
                plain = escape(part, quote=False)
                lines[-1].append(Markup(f"<i class={style}>{plain}</i>" if style and part.strip() else plain))
    return [Markup("").join(parts) for parts in lines]
