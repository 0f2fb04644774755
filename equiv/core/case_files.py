"""Case files, found by their place and loaded one by one: one that is broken does not keep the others from running."""

import ast
import importlib.util
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equiv.core.case import Case, Depths, Deviation, KnownDifference, Layer
from equiv.core.results import Source
from equiv.core.source_digest import digest
from equiv.errors import CaseError, EquivError, place, told

WORDS = (ast.Expression, ast.BoolOp, ast.boolop, ast.UnaryOp, ast.Not, ast.Constant)
"""What a `-k` expression is made of, once its words are True or False."""


ON_REQUEST = ".on-request"
"""A folder that holds a file of this name is searched when it is given itself, not as part of another."""


@dataclass(frozen=True)
class CaseFile:
    """A case file that has been found but not yet loaded: its name is its path below the folder asked for."""

    name: str
    path: Path


@dataclass(frozen=True)
class LoadedCase:
    """A case with the name of its file and its lesson, the first line of the file's docstring.

    Attributes:
        name: see `CaseFile`.
        lesson: in a sentence.
        case: as the file ends with.
        path: the file, from the working folder on.
        sources: backend to its builder, where that is a function with a source.
        text: `equiv.core.source_digest.digest` of the file.
    """

    name: str
    lesson: str
    case: Case
    path: str = ""
    sources: Mapping[str, Source] = field(default_factory=dict)
    text: str = ""


def find(paths: tuple[Path, ...], expression: str = "") -> list[CaseFile]:
    """The case files under files and folders, in order of name.

    Args:
        paths: case files, or folders that are searched for them (not for names that begin with `_`, `test_` or `.`;
            not in folders below that hold a file `.on-request`: those are given by name).
        expression: words with `and`, `or`, `not` and parentheses; a word holds for the names that contain it.

    Raises:
        EquivError: a path that does not exist, a folder without cases, an expression that cannot be read.
    """
    found: list[CaseFile] = []
    for path in paths:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*.py") if _is_case(file.relative_to(path)))
            asked = {mark.parent for mark in path.rglob(ON_REQUEST)} - {path}
            files = [file for file in files if asked.isdisjoint(file.parents)]
            if not files:
                raise EquivError(f"{path}: no case files (*.py) in this folder. Give a folder or file with a CASE.")
            found += [CaseFile(file.relative_to(path).with_suffix("").as_posix(), file) for file in files]
        elif path.is_file():
            found.append(CaseFile(path.stem, path))
        else:
            raise EquivError(f"{path}: no such file or folder. Give a case file, or a folder of them.")
    once = {file.path.resolve(): file for file in found}
    return [file for file in once.values() if matches(expression, file.name)]


def _is_case(file: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.parts)
    return not hidden and not file.name.startswith(("_", "test_", "conftest", "noxfile", "setup."))


def matches(expression: str, name: str) -> bool:
    """Whether a case name fits a `-k` expression, read as pytest reads it.

    Raises:
        EquivError: the expression cannot be read.
    """
    if not expression.strip():
        return True
    tokens = re.findall(r"[()]|[^\s()]+", expression)
    words = [
        token if token in ("and", "or", "not", "(", ")") else str(token.lower() in name.lower()) for token in tokens
    ]
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
    if (folder := str(file.path.parent.resolve())) not in sys.path:
        sys.path.append(folder)  # a case may import its neighbours; at the end, where it hides no library
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        where = place(error, "the file")
        raise CaseError(f"{file.path}: importing it raised {told(error)}. Mend {where}.") from error
    case = getattr(module, "CASE", None)
    if not isinstance(case, Case):
        got = "has no CASE" if case is None else f"has a CASE that is {_kind(case)}"
        raise CaseError(f"{file.path}: {got}. End the file with CASE = Case(...), from equiv.core.case.")
    _check_fields(file.path, case)
    if len(case.models) < 2:
        raise CaseError(
            f"{file.path}: the case has {len(case.models)} model. Give it two: a reference and a candidate."
        )
    lesson = (module.__doc__ or "").strip().partition("\n")[0]
    return LoadedCase(file.name, lesson, case, _from_here(file.path), _sources(case), digest(file.path))


def _sources(case: Case) -> dict[str, Source]:
    """The builders as they are written; one without a source (a partial, a class of C) is left out."""
    found = {}
    for backend, builder in case.models.items():
        try:
            lines, first = inspect.getsourcelines(builder)
            file = inspect.getsourcefile(builder) or ""
        except (OSError, TypeError):
            continue
        found[backend] = Source(_from_here(Path(file)), first, textwrap.dedent("".join(lines)).rstrip("\n"))
    return found


def _from_here(path: Path) -> str:
    """A path below the working folder; elsewhere the name alone, for a result is read on other machines."""
    full, here = path.resolve(), Path.cwd().resolve()
    return full.relative_to(here).as_posix() if full.is_relative_to(here) else path.name


def _all(kind: type, given: Any) -> bool:
    return isinstance(given, tuple | list) and all(isinstance(item, kind) for item in given)


def _named(given: Any, wanted: Callable[[Any], bool]) -> bool:
    return isinstance(given, Mapping) and all(isinstance(key, str) and wanted(item) for key, item in given.items())


FIELDS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("guide", lambda given: isinstance(given, str), "text"),
    ("models", lambda given: _named(given, callable), 'backend names to builders: {"haiku": ..., "nnx": ...}'),
    (
        "batch",
        lambda given: _named(given, lambda text: isinstance(text, str)),
        'names to text: {"x": "float32[8,784]"}',
    ),
    ("layers", lambda given: _all(Layer, given), "a tuple of rows: (linear(...),), with the comma"),
    (
        "methods",
        lambda given: given is None or _named(given, lambda names: _all(str, names)),
        'method names to tuples of batch entries: {"__call__": ("x",)}, with the comma',
    ),
    (
        "printed",
        lambda given: _named(given, lambda paths: isinstance(paths, Mapping)),
        "backend names to paths and shapes",
    ),
    ("known_differences", lambda given: _all(KnownDifference, given), "a tuple of KnownDifference"),
    ("deviations", lambda given: _all(Deviation, given), "a tuple of Deviation"),
    (
        "depths",
        lambda given: given is None or isinstance(given, Depths),
        "Depths(unrolled={...}, scanned={...}), each of backend names to builders with num_layers",
    ),
    ("steps", lambda given: type(given) is int and given > 0, "a whole number from 1 on"),
)
"""What each field of a case has to be, and how to say it: a case is written by hand."""


def _check_fields(path: Path, case: Case) -> None:
    for name, fits, wanted in FIELDS:
        if not fits(given := getattr(case, name)):
            raise CaseError(f"{path}: the case's {name} is {_kind(given)}, wanted {wanted}. Mend {name} in the file.")


def _kind(given: Any) -> str:
    """What something is, in a few words: its value where that is short."""
    shown = repr(given)
    return shown if len(shown) < 60 else f"a {type(given).__name__}"
