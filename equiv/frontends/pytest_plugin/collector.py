"""Collect case files: one item for every case, candidate and check."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from equiv.core.case_files import CaseFile, find_case_files, load_case
from equiv.core.checks import CHECK_NAMES
from equiv.errors import EquivError
from equiv.frontends.pytest_plugin.items import BrokenItem, CheckItem
from equiv.frontends.pytest_plugin.session import open_session

CASE_FILES_KEY = pytest.StashKey[dict[Path, dict[Path, CaseFile]]]()
"""Folder to its case files."""


def collect_file(
    folder: Path, path: Path, parent: pytest.Collector, found: list[pytest.Collector]
) -> list[pytest.Collector]:
    """Give the collectors for a file in a folder of cases.

    Args:
        folder: the folder of cases.
        path: the file.
        parent: the collector of the folder that the file is in.
        found: collectors of other plugins.
    """
    known = parent.config.stash.setdefault(CASE_FILES_KEY, {})
    if folder not in known:
        known[folder] = _case_files(folder)
    file = known[folder].get(path)
    if file is None:
        return found
    names = _defined_names(path)
    if names is not None and not names & {"CASE", "*"}:
        return found
    open_session(parent.config)
    # Named on the command line, a case would be imported as a test module too, with its folder first on sys.path.
    has_tests = names is not None and any(name.startswith(("test", "Test")) for name in names)
    others = [one for one in found if has_tests or type(one) is not pytest.Module]
    return [*others, CaseCollector.from_parent(parent, path=path, file=file)]


def _case_files(folder: Path) -> dict[Path, CaseFile]:
    """Find the files that `equiv run` takes for cases."""
    try:
        return {file.path: file for file in find_case_files((folder,))}
    except EquivError:  # a folder without any
        return {}


def _defined_names(path: Path) -> set[str] | None:
    """List the names that a file defines or imports, with `*` for a star import; None where it is not Python."""
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
        """One item for every candidate and check; for a file that cannot be loaded, one that fails with the reason."""
        stem = self.path.stem
        try:
            loaded = load_case(self.file)
        except EquivError as error:
            yield BrokenItem.from_parent(self, name=f"{stem}-load", case=self.file.name, problem=str(error))
            return
        _, *candidates = loaded.case.models
        for candidate in candidates:
            for check in CHECK_NAMES:
                name = f"{stem}-{candidate}-{check}"
                yield CheckItem.from_parent(self, name=name, loaded=loaded, candidate=candidate, check=check)
