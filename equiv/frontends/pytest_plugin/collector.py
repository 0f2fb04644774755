"""Case files to items: one for every case, candidate and check."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from equiv.core.case_files import CaseFile, find, load
from equiv.core.results import CHECKS
from equiv.errors import EquivError
from equiv.frontends.pytest_plugin.items import BrokenItem, CheckItem
from equiv.frontends.pytest_plugin.session import open_session

KNOWN = pytest.StashKey[dict[Path, dict[Path, CaseFile]]]()
"""Folder to its case files."""


def collect(
    folder: Path, path: Path, parent: pytest.Collector, found: list[pytest.Collector]
) -> list[pytest.Collector]:
    """What pytest shall collect from a file below a folder of cases.

    Args:
        folder: the folder of cases.
        path: the file.
        parent: the collector of the folder that the file is in.
        found: what other plugins collect from it.
    """
    known = parent.config.stash.setdefault(KNOWN, {})
    if folder not in known:
        known[folder] = _case_files(folder)
    file = known[folder].get(path)
    if file is None:
        return found
    names = _names(path)
    if names is not None and not names & {"CASE", "*"}:
        return found
    open_session(parent.config)
    # Asked for by name, pytest would import a case as a test module too, with its folder first on sys.path.
    has_tests = names is not None and any(name.startswith(("test", "Test")) for name in names)
    others = [one for one in found if has_tests or type(one) is not pytest.Module]
    return [*others, CaseCollector.from_parent(parent, path=path, file=file)]


def _case_files(folder: Path) -> dict[Path, CaseFile]:
    """The files that `equiv run` would take for cases."""
    try:
        return {file.path: file for file in find((folder,))}
    except EquivError:  # a folder without any
        return {}


def _names(path: Path) -> set[str] | None:
    """What a file defines or imports, `*` for what cannot be known; None where it is not Python."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return None
    names: set[str] = set()
    for node in (inner for statement in body for inner in _outside_of_functions(statement)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
    return names


def _outside_of_functions(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from _outside_of_functions(child)


class CaseCollector(pytest.File):
    """One case file."""

    def __init__(self, *, file: CaseFile, **given: object) -> None:
        super().__init__(**given)  # pyright: ignore[reportArgumentType] - pytest's own, passed on
        self.file = file

    def collect(self) -> Iterator[pytest.Item]:
        """One item for every candidate and check; of a file that cannot be loaded, one that says so."""
        stem = self.path.stem
        try:
            loaded = load(self.file)
        except EquivError as error:
            yield BrokenItem.from_parent(self, name=f"{stem}-load", case=self.file.name, problem=str(error))
            return
        _, *candidates = loaded.case.models
        for candidate in candidates:
            for check in CHECKS:
                name = f"{stem}-{candidate}-{check}"
                yield CheckItem.from_parent(self, name=name, loaded=loaded, candidate=candidate, check=check)
