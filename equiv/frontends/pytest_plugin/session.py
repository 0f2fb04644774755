"""One pytest process and its cases: results kept once each, merged over workers, written at the end."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from equiv.core.case_files import LoadedCase
from equiv.core.results import RunResult
from equiv.frontends.pytest_plugin.failures import Unequal, table
from equiv.frontends.pytest_plugin.worker_results import Line, append, conclude, read_parts

NAME = "equiv-session"


def open_session(config: pytest.Config) -> "Session":
    """The session of this process; made when first asked for."""
    session = config.pluginmanager.get_plugin(NAME)
    if session is None:
        session = Session(config)
        config.pluginmanager.register(session, NAME)
    return session


class Session:
    """What one pytest process knows, and its hooks.

    Attributes:
        config: pytest's.
        require: the platform that must be there; empty: any.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.require: str = config.option.equiv_require or config.getini("equiv_require")
        self._started, self._clock = datetime.now(UTC), time.perf_counter()
        self._lines: list[Line] = []
        self._runs: dict[str, RunResult] = {}
        self._died: list[str] = []
        self._folder: TemporaryDirectory[str] | None = None
        self._concluded: RunResult | None = None
        self._said: list[str] = []
        given: dict[str, str] = getattr(config, "workerinput", {})
        self._worker = given.get("workerid", "")
        self._part = Path(given["equiv_parts"], f"{self._worker}.jsonl") if "equiv_parts" in given else None
        if self._worker:
            from equiv.frontends.pytest_plugin.run_case import gpus_here, share_devices

            os.environ.update(share_devices(self._worker, os.environ, gpus_here()))

    def parts(self) -> str:
        """The folder for the workers' parts, made when first asked for."""
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="equiv-")
            self.config.add_cleanup(self._folder.cleanup)
        return self._folder.name

    def judged(self, key: str, loaded: LoadedCase) -> RunResult:
        """A case as a run of its own; it is judged once in a process."""
        if key not in self._runs:
            from equiv.frontends.pytest_plugin.run_case import judge

            self._add("begun", key, loaded.name)
            self.keep(key, judge(loaded, self.require))
        return self._runs[key]

    def keep(self, key: str, run: RunResult) -> None:
        """File the run of one case under its key."""
        self._runs[key] = run
        self._add("judged", key, run.cases[0].name, run)

    def _add(self, event: Any, key: str, name: str, run: RunResult | None = None) -> None:
        line = Line(event, key, name, self._worker, run)
        if self._part is None:
            self._lines.append(line)
        else:
            append(self._part, line)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """File what is going to be judged: what has no result in the end is missed."""
        from equiv.frontends.pytest_plugin.items import CaseItem, file_of

        cases = {file_of(item): item.case_name for item in session.items if isinstance(item, CaseItem)}
        for key, name in cases.items():
            self._add("collected", key, name)

    def pytest_report_collectionfinish(self, items: list[pytest.Item]) -> str | None:
        """Device and versions, where cases are going to be judged; the device is not known before."""
        from equiv.frontends.pytest_plugin.items import CheckItem

        if self.config.option.collectonly or not any(isinstance(item, CheckItem) for item in items):
            return None
        from equiv.frontends.pytest_plugin.summary import environment_line

        return environment_line()

    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        """A difference that ends a test is filed and shown; one that the test expects, in `pytest.raises`, is not."""
        error = call.excinfo.value if call.excinfo else None
        if isinstance(error, Unequal) and error.key:
            self.keep(error.key, error.run)
            item.add_report_section(call.when, "equiv", table(error.run, self.config))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """pytest-xdist: a worker that died."""
        if error:
            self._died.append(node.gateway.id)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Merge and write; what cannot be written turns the exit status."""
        if self._worker or self.config.option.collectonly:
            return
        lines = self._lines + (read_parts(Path(self._folder.name)) if self._folder else [])
        options = self.config.option
        if not (lines or options.equiv_json or options.equiv_html):
            return
        seconds = time.perf_counter() - self._clock
        self._concluded = conclude(lines, self._died, self._started.isoformat(), seconds)
        from equiv.frontends.pytest_plugin.summary import write_outputs

        self._said, written = write_outputs(self._concluded, self.config)
        if not written:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Verdict first, then where the results are."""
        if self._concluded is not None:
            from equiv.frontends.pytest_plugin.summary import summary

            summary(self._concluded, self._said, terminalreporter)
