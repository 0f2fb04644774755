"""Case files, found by their place and loaded one by one: one that is broken does not keep the others from running."""

import ast
import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from equiv.case import Case
from equiv.errors import CaseError, EquivError

WORDS = (ast.Expression, ast.BoolOp, ast.boolop, ast.UnaryOp, ast.Not, ast.Constant)
"""What a `-k` expression is made of, once its words are True or False."""


@dataclass(frozen=True)
class CaseFile:
    """A case file that has been found but not yet loaded: its name is its path below the folder asked for."""

    name: str
    path: Path


@dataclass(frozen=True)
class LoadedCase:
    """A case with the name of its file and its lesson, the first line of the file's docstring."""

    name: str
    lesson: str
    case: Case


def find(paths: tuple[Path, ...], expression: str = "") -> list[CaseFile]:
    """The case files under files and folders, in order of name.

    Args:
        paths: case files, or folders that are searched for them (names that begin with `_` are left out).
        expression: words with `and`, `or`, `not` and parentheses; a word holds for the names that contain it.

    Raises:
        EquivError: a path that does not exist, a folder without cases, an expression that cannot be read.
    """
    found: list[CaseFile] = []
    for path in paths:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*.py") if not file.name.startswith(("_", "test_", "conftest")))
            if not files:
                raise EquivError(f"{path}: no case files (*.py) in this folder. Give a folder or file with a CASE.")
            found += [CaseFile(file.relative_to(path).with_suffix("").as_posix(), file) for file in files]
        elif path.is_file():
            found.append(CaseFile(path.stem, path))
        else:
            raise EquivError(f"{path}: no such file or folder. Give a case file, or a folder of them.")
    return [file for file in found if matches(expression, file.name)]


def matches(expression: str, name: str) -> bool:
    """Whether a case name fits a `-k` expression, read as pytest reads it.

    Raises:
        EquivError: the expression cannot be read.
    """
    if not expression.strip():
        return True
    tokens = re.findall(r"[()]|[^\s()]+", expression)
    words = [token if token in ("and", "or", "not", "(", ")") else str(token in name) for token in tokens]
    try:
        tree = ast.parse(" ".join(words), mode="eval")
    except SyntaxError:
        tree = None
    # `a (b)` and `()` are Python, but no expression of words.
    if tree is None or not all(isinstance(node, WORDS) for node in ast.walk(tree)):
        raise EquivError(f'-k {expression!r}: cannot be read. Write words with and, or, not: "dropout or rnn".')
    return bool(eval(compile(tree, "-k", "eval"), {"__builtins__": {}}))


def load(file: CaseFile) -> LoadedCase:
    """Load one case file.

    Raises:
        CaseError: it cannot be imported, or has no `CASE`.
    """
    name = "equiv_case_" + re.sub(r"\W", "_", file.path.resolve().as_posix())
    spec = importlib.util.spec_from_file_location(name, file.path)
    if spec is None or spec.loader is None:
        raise CaseError(f"{file.path}: not a Python file. Give a .py file with a CASE.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise CaseError(f"{file.path}: importing it raised {type(error).__name__}: {error}. Mend the file.") from error
    case = getattr(module, "CASE", None)
    if not isinstance(case, Case):
        got = "has no CASE" if case is None else f"has a CASE that is a {type(case).__name__}"
        raise CaseError(f"{file.path}: {got}. End the file with CASE = Case(...), from equiv.case.")
    if len(case.models) < 2:
        raise CaseError(
            f"{file.path}: the case has {len(case.models)} model. Give it two: a reference and a candidate."
        )
    return LoadedCase(file.name, (module.__doc__ or "").strip().partition("\n")[0], case)
