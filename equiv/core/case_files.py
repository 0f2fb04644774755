"""Find case files and load them one by one, so that a broken one does not stop the others."""

import ast
import importlib.util
import inspect
import math
import os
import re
import sys
import textwrap
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equiv.core.batch_spec import BatchEntry, KeptValues
from equiv.core.case import (
    BatchInvariance,
    CallSequence,
    Case,
    Depths,
    Deviation,
    KnownDifference,
    Layer,
    Padding,
)
from equiv.core.checks import CHECK_NAMES
from equiv.core.results import BuilderSource
from equiv.core.source_digest import digest_sources
from equiv.errors import CaseError, EquivError, error_summary, user_code_location

EXPRESSION_NODES = (ast.Expression, ast.BoolOp, ast.boolop, ast.UnaryOp, ast.Not, ast.Constant)
"""The syntax nodes that a `-k` expression may contain after each word is replaced by True or False."""

ON_REQUEST = ".on-request"
"""Marker file: a folder that contains it is searched only if it is given itself, not as part of another folder."""


CASES_AHEAD = 2
"""Number of cases that a process starts before the first of them is finished: while one compiles, others are traced."""


@dataclass(frozen=True)
class CaseFile:
    """A case file that is found but not loaded yet; its name is its path below the given folder."""

    name: str
    path: Path


@dataclass(frozen=True)
class LoadedCase:
    """A case with the name of its file and its lesson, which is the first line of the file's docstring.

    Attributes:
        name: see `CaseFile`.
        lesson: what the case shows, in one sentence.
        case: the value of `CASE` in the file.
        path: the file, relative to the working directory.
        sources: backend to the source code of its builder, if Python can find it.
        source_digest: `equiv.core.source_digest.digest_sources` of the file.
        changes: what the import of the file changed of jax and of the environment, in words.
        within: enters a context in which that is in force; the case is built and run in it.
    """

    name: str
    lesson: str
    case: Case
    path: str = ""
    sources: Mapping[str, BuilderSource] = field(default_factory=dict)
    source_digest: str = ""
    changes: tuple[str, ...] = ()
    within: Callable[[], AbstractContextManager[None]] = nullcontext


def find_case_files(paths: tuple[Path, ...], expression: str = "") -> list[CaseFile]:
    """Find the case files in files and folders, in order of name.

    Args:
        paths: case files, or folders to search. Skipped are names that begin with `_`, `test_` or `.`, and subfolders
            that contain a file `.on-request`, which must be given by name.
        expression: words with `and`, `or`, `not` and parentheses; a word is true for the names that contain it.

    Raises:
        EquivError: a path does not exist, a folder has no cases, or the expression cannot be parsed.
    """
    found: list[CaseFile] = []
    for path in paths:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*.py") if _is_case(file.relative_to(path)))
            on_request = {mark.parent for mark in path.rglob(ON_REQUEST)} - {path}
            files = [file for file in files if on_request.isdisjoint(file.parents)]
            if not files:
                raise EquivError(
                    f"{path}: no case files (*.py) in this folder.", fix="Give a folder or file with a CASE."
                )
            found += [CaseFile(file.relative_to(path).with_suffix("").as_posix(), file) for file in files]
        elif path.is_file():
            found.append(CaseFile(path.stem, path))
        else:
            raise EquivError(f"{path}: no such file or folder.", fix="Give a case file, or a folder of them.")
    unique = {file.path.resolve(): file for file in found}
    return [file for file in unique.values() if matches_expression(expression, file.name)]


def _is_case(file: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.parts)
    return not hidden and not file.name.startswith(("_", "test_", "conftest", "noxfile", "setup."))


def matches_expression(expression: str, name: str) -> bool:
    """Whether a case name matches a `-k` expression, with the same meaning as in pytest.

    Raises:
        EquivError: the expression cannot be parsed.
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
    # `a (b)` and `()` are valid Python, but not boolean expressions of words.
    if tree is None or not all(isinstance(node, EXPRESSION_NODES) for node in ast.walk(tree)):
        raise EquivError(
            f"-k {expression!r}: cannot be parsed.", fix='Write words with and, or, not: "dropout or rnn".'
        )
    return bool(eval(compile(tree, "-k", "eval"), {"__builtins__": {}}))


def load_case(file: CaseFile, least_models: int = 2) -> LoadedCase:
    """Load one case file.

    Args:
        file: the case file.
        least_models: how many models the case needs: one where it is frozen, or compared with a frozen reference.

    Raises:
        CaseError: the file cannot be imported, has no `CASE`, or its case has too few models.
    """
    name = "equiv_case_" + re.sub(r"\W", "_", file.path.resolve().as_posix())
    spec = importlib.util.spec_from_file_location(name, file.path)
    if spec is None or spec.loader is None:
        raise CaseError(f"{file.path}: not a Python file.", fix="Give a .py file with a CASE.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    if (folder := str(file.path.parent.resolve())) not in sys.path:
        sys.path.append(folder)  # a case may import modules of its folder; last, so that they shadow no library
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        fix = f"Fix {user_code_location(error, 'the file')}."
        if isinstance(error, ModuleNotFoundError) and error.name:
            fix = f"{_describe_search(error.name, file.path)} {fix}"
        raise CaseError(f"{file.path}: importing it raised {error_summary(error)}.", fix=fix) from error
    case = getattr(module, "CASE", None)
    if not isinstance(case, Case):
        got = "has no CASE" if case is None else f"has a CASE that is {_describe_value(case)}"
        raise CaseError(f"{file.path}: {got}.", fix="End the file with CASE = Case(...), from equiv.core.case.")
    check_fields(f"{file.path}: the case's", case, " in the file")
    if len(case.models) < least_models:
        wanted = "two: a reference and a candidate" if least_models > 1 else "one"
        raise CaseError(f"{file.path}: the case has {len(case.models)} model.", fix=f"Give it {wanted}.")
    lesson = (module.__doc__ or "").strip().partition("\n")[0]
    return LoadedCase(
        file.name, lesson, case, _relative_to_cwd(file.path), builder_sources(case.models), digest_sources(file.path)
    )


def _describe_search(module: str, case: Path) -> str:
    """Where a module of a case is looked for, and how it is found if it is elsewhere."""
    top, here = module.partition(".")[0], Path.cwd()
    folders = [here, here / "src", *here.parents[:2]]
    found = [one for one in folders if (one / f"{top}.py").is_file() or (one / top / "__init__.py").is_file()]
    place = os.path.relpath(found[0], here) if found else "FOLDER"
    return (
        f"{top} is looked for beside {case.name} and among installed packages: install it, move it there, or set "
        f"PYTHONPATH={place}."
    )


def builder_sources(models: Mapping[str, Any]) -> dict[str, BuilderSource]:
    """The source code of each builder; one without source (a partial, a class written in C) is left out."""
    found = {}
    for backend, builder in models.items():
        try:
            lines, first = inspect.getsourcelines(builder)
            file = inspect.getsourcefile(builder) or ""
        except (OSError, TypeError):
            continue
        found[backend] = BuilderSource(
            _relative_to_cwd(Path(file)), first, textwrap.dedent("".join(lines)).rstrip("\n")
        )
    return found


def _relative_to_cwd(path: Path) -> str:
    """The path relative to the working directory; the name alone if outside, as other machines read the results."""
    full, here = path.resolve(), Path.cwd().resolve()
    return full.relative_to(here).as_posix() if full.is_relative_to(here) else path.name


def _is_sequence_of(kind: Any, value: Any) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(item, kind) for item in value)


def _is_mapping_of(value: Any, accepts: Callable[[Any], bool]) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) and accepts(item) for key, item in value.items())


def _is_batch_tree(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_batch_tree, value.values()))
    if isinstance(value, tuple | list):
        return all(map(_is_batch_tree, value))
    return (
        value is None or isinstance(value, str | KeptValues | BatchEntry) or callable(value) or hasattr(value, "dtype")
    )


CASE_FIELDS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("guide", lambda value: isinstance(value, str), "text"),
    ("models", lambda value: _is_mapping_of(value, callable), 'names of ports to builders: {"old": ..., "new": ...}'),
    (
        "batch",
        lambda value: callable(value) or _is_mapping_of(value, _is_batch_tree),
        'names to text: {"x": "float32[8,784]"}, or to arrays, functions, None, dicts and tuples, or a function',
    ),
    ("keep", lambda value: _is_sequence_of(str, value), 'a tuple of inputs: ("mask",), with the comma'),
    (
        "checks",
        lambda value: value is None or (_is_sequence_of(str, value) and bool(value) and set(value) <= set(CHECK_NAMES)),
        f"a tuple of some of {', '.join(CHECK_NAMES)}",
    ),
    ("layers", lambda value: _is_sequence_of(Layer, value), "a tuple of rows: (linear(...),), with the comma"),
    (
        "methods",
        lambda value: (
            value is None or _is_sequence_of(str, value) or _is_mapping_of(value, lambda one: _is_sequence_of(str, one))
        ),
        'calls: ("encode(x, scale=2)",), or method names to tuples of inputs: {"__call__": ("x",)}, with the comma',
    ),
    (
        "sequences",
        lambda value: _is_mapping_of(value, lambda one: isinstance(one, CallSequence)),
        'names to CallSequence(("prefill(x)", "decode(y)"))',
    ),
    (
        "invariances",
        lambda value: _is_sequence_of(BatchInvariance | Padding, value),
        'a tuple: (BatchInvariance(), Padding("mask")), with the comma',
    ),
    ("initial", lambda value: isinstance(value, str), 'one call: "__call__(tokens)"'),
    (
        "printed",
        lambda value: _is_mapping_of(value, lambda paths: isinstance(paths, Mapping)),
        "names of ports to paths and shapes",
    ),
    ("known_differences", lambda value: _is_sequence_of(KnownDifference, value), "a tuple of KnownDifference"),
    ("deviations", lambda value: _is_sequence_of(Deviation, value), "a tuple of Deviation"),
    (
        "depths",
        lambda value: value is None or isinstance(value, Depths),
        "Depths(unrolled={...}, scanned={...}), each of names of ports to builders with num_layers",
    ),
    (
        "meshes",
        lambda value: _is_sequence_of(Mapping, value) and all(map(_is_mesh, value)),
        'meshes: ({"data": 8}, {"data": 2, "model": 4}), each of names to sizes from 1 on',
    ),
    (
        "rules",
        lambda value: isinstance(value, Mapping | tuple | list),
        'logical axes to axes of the meshes: {"embed": None, "mlp": "model"}; or ports to their own',
    ),
    (
        "batch_axes",
        lambda value: _is_mapping_of(value, lambda one: isinstance(one, tuple | list)),
        'inputs to the names of their axes: {"x": ("data",)}, with the comma',
    ),
    ("steps", lambda value: type(value) is int and value > 0, "a whole number from 1 on"),
    ("loss", lambda value: value is None or callable(value), "a function of outputs and batch"),
    ("optimizer", lambda value: value is None or callable(value), "a function that returns an optax transformation"),
    (
        "budget_factor",
        lambda value: isinstance(value, int | float) and 0 < value < math.inf,
        "a number above 0 that is not infinite",
    ),
)
"""Field of `Case`, whether a value is valid, and the description of a valid value: cases are written by hand."""


def _is_mesh(sizes: Mapping[Any, Any]) -> bool:
    """Whether names of axes have whole numbers from 1 on."""
    return bool(sizes) and all(isinstance(name, str) and type(size) is int and size > 0 for name, size in sizes.items())


def check_fields(where: str, case: Case, place: str = "") -> None:
    """Check that every field of a case is of the right kind.

    Args:
        where: what the message begins with.
        case: the case.
        place: what the fix ends with.

    Raises:
        CaseError: one is not.
    """
    for name, is_valid, wanted in CASE_FIELDS:
        if not is_valid(value := getattr(case, name)):
            raise CaseError(f"{where} {name} is {_describe_value(value)}, wanted {wanted}.", fix=f"Fix {name}{place}.")


def _describe_value(value: Any) -> str:
    """The value itself if it is short, else its type."""
    shown = repr(value)
    return shown if len(shown) < 60 else f"a {type(value).__name__}"
