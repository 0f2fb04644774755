"""The journal of a run: the result of every case as a file of its own, written when it is found.

A file is named after its case and a digest of everything that its result follows from, and holds what `results.json` of
a run of this case alone does. So an interrupted run can go on, and nothing is taken over that has changed since.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from equiv.core.files import write_file
from equiv.core.printable import file_name
from equiv.core.results import RunResult
from equiv.core.results_json import encode_results, read_results
from equiv.core.source_digest import digest_sources
from equiv.errors import EquivError
from equiv.running.installation import digest_installation
from equiv.running.task import CaseTask

FOLDER = "journal"
"""Below the folder of the reports."""

DIGEST_LENGTH = 16


class Journal:
    """The journal in a folder; without a folder nothing is kept.

    Attributes:
        problems: why a result could not be written.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.problems: list[str] = []

    def read(self, task: CaseTask) -> RunResult | None:
        """The result of a case, if it has a verdict and nothing has changed since; else None.

        A case that could not be used, or was stopped, is run again: what was in its way may be gone.
        """
        if self._folder is None:
            return None
        try:
            run = read_results(self._path(task))
        except EquivError:
            return None
        usable = len(run.cases) == 1 and run.cases[0].name == task.name and not run.problems
        return run if usable and not run.cases[0].problem else None

    def write(self, task: CaseTask, run: RunResult) -> None:
        """Keep the result of a case. Where that fails the run goes on, and says so at its end."""
        if self._folder is None:
            return
        try:
            path = self._path(task)
            write_file(path, encode_results(run), "Run it again with another folder: --reports.")
            self._remove(task, path)
        except EquivError as error:
            self.problems.append(str(error))

    def begin(self, task: CaseTask) -> None:
        """Remove what is kept of a case that is run now; its sources are those of now, whatever becomes of them."""
        if self._folder is not None:
            _digest_task(task)
        self._remove(task, None)

    def _remove(self, task: CaseTask, but: Path | None) -> None:
        if self._folder is None:
            return
        pattern = f"{file_name(task.name)}-{'[0-9a-f]' * DIGEST_LENGTH}.json"
        with suppress(OSError):
            for path in list(self._folder.glob(pattern)):
                if path != but:
                    path.unlink(missing_ok=True)

    def _path(self, task: CaseTask) -> Path:
        assert self._folder is not None
        return self._folder / f"{file_name(task.name)}-{_digest_task(task)}.json"


@cache
def _digest_task(task: CaseTask) -> str:
    """A digest of all that the result of a case follows from, but the device."""
    path, given = task.file.path, task.options
    with _with_folder(path.parent.resolve()):  # as where the case is loaded
        try:
            sources = digest_sources(path)
        except OSError:
            sources = ""
    options = [
        given.prove_only,
        given.selfcheck,
        given.initial,
        str(given.certificates),
        given.checks,
        _digest_file(given.against),
    ]
    described = [task.name, str(path), sources, options, digest_installation()]
    return hashlib.sha256(json.dumps(described).encode(errors="surrogateescape")).hexdigest()[:DIGEST_LENGTH]


def _digest_file(path: Path | None) -> str:
    try:
        return "" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


@contextmanager
def _with_folder(folder: Path) -> Iterator[None]:
    before = list(sys.path)
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path[:] = before
