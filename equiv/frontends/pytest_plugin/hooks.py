"""The module that pytest loads: options, hooks and the fixture. All else is imported when it is first needed.

Every pytest run where equiv is installed imports this file: it imports only pytest and the standard library.
"""

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from equiv.frontends.pytest_plugin.fixture import Checker


FOLDERS = pytest.StashKey[tuple[Path, ...]]()
"""The folders in which cases are collected."""

MARKER = (
    "equiv(require=None, checks=None): a comparison of ports. Every case has this mark; on a test with the fixture "
    "`equiv` it sets the required platform, and the checks that must pass"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options and ini options."""
    group = parser.getgroup("equiv", "compare ports of one model")
    group.addoption("--equiv-json", metavar="PATH", help="write the results, as `equiv run` writes them")
    group.addoption("--equiv-html", metavar="PATH", help="write the results as one HTML page")
    group.addoption(
        "--equiv-require", metavar="PLATFORM", help="fail unless JAX runs on this platform: cpu, cuda, rocm, tpu"
    )
    parser.addini("equiv_cases", "folders of case files (default: cases)", type="paths", default=None)
    parser.addini("equiv_require", "as --equiv-require", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Find the folders of cases; without one, no file is looked at.

    Raises:
        pytest.UsageError: a folder of `equiv_cases` does not exist.
    """
    config.addinivalue_line("markers", MARKER)
    given = config.getini("equiv_cases")
    for folder in given or ():
        if not folder.is_dir():
            raise pytest.UsageError(f"equiv_cases: {folder}: no such folder. Fix equiv_cases in {config.inipath}.")
    usual = dict.fromkeys((config.rootpath / "cases", config.invocation_params.dir / "cases"))
    config.stash[FOLDERS] = tuple(folder for folder in (usual if given is None else given) if folder.is_dir())
    if config.option.equiv_json or config.option.equiv_html:
        _open(config)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(
    file_path: Path, parent: pytest.Collector
) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Collect case files."""
    found = yield
    folder = next((one for one in parent.config.stash[FOLDERS] if one in file_path.parents), None)
    if folder is None or file_path.suffix != ".py":
        return found
    from equiv.frontends.pytest_plugin.collector import collect_file

    return collect_file(folder, file_path, parent, found)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that use the fixture, for `-m equiv`."""
    for item in items:
        if "equiv" in getattr(item, "fixturenames", ()):
            item.add_marker("equiv")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist: pass the folder for partial results to a worker."""
    node.workerinput["equiv_parts"] = _open(node.config).parts()


@pytest.fixture
def equiv(request: pytest.FixtureRequest) -> "Checker":
    """Compare two builders of one model: `equiv.check(left, right, batch=..., layers=...)`."""
    from equiv.frontends.pytest_plugin.fixture import Checker

    return Checker(request.node, _open(request.config))


def _open(config: pytest.Config) -> Any:
    from equiv.frontends.pytest_plugin.session import open_session

    return open_session(config)
