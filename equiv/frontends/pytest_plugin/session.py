"""The cases of one pytest process: run once each, merged over workers, written at the end."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from equiv.core.case_files import LoadedCase
from equiv.core.results import RunResult
from equiv.frontends.pytest_plugin.failures import Unequal, render_table
from equiv.frontends.pytest_plugin.worker_results import CaseEvent, append_event, merge_events, read_events

PLUGIN_NAME = "equiv-session"


def open_session(config: pytest.Config) -> "Session":
    """Return the session of this process, created at first use."""
    session = config.pluginmanager.get_plugin(PLUGIN_NAME)
    if session is None:
        session = Session(config)
        config.pluginmanager.register(session, PLUGIN_NAME)
    return session


class Session:
    """Results of one pytest process, and its hooks.

    Attributes:
        config: pytest's.
        require: the required platform; empty: any.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.require: str = config.option.equiv_require or config.getini("equiv_require")
        self._started, self._clock = datetime.now(UTC), time.perf_counter()
        self._lines: list[CaseEvent] = []
        self._runs: dict[str, RunResult] = {}
        self._died: list[str] = []
        self._folder: TemporaryDirectory[str] | None = None
        self._concluded: RunResult | None = None
        self._output_lines: list[str] = []
        given: dict[str, str] = getattr(config, "workerinput", {})
        self._worker = given.get("workerid", "")
        self._part = Path(given["equiv_parts"], f"{self._worker}.jsonl") if "equiv_parts" in given else None
        if self._worker:
            from equiv.running.devices import gpus_here, share_devices

            number = int("".join(filter(str.isdigit, self._worker)) or 0)  # of `gw3`
            os.environ.update(share_devices(number, os.environ, gpus_here()))

    def parts(self) -> str:
        """Return the folder for partial results of workers, created at first use."""
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="equiv-")
            self.config.add_cleanup(self._folder.cleanup)
        return self._folder.name

    def run_of(self, key: str, loaded: LoadedCase) -> RunResult:
        """Run a case, once per process."""
        if key not in self._runs:
            from equiv.frontends.pytest_plugin.run_case import run_loaded_case

            self._add("begun", key, loaded.name)
            self.keep(key, run_loaded_case(loaded, self.require))
        return self._runs[key]

    def keep(self, key: str, run: RunResult) -> None:
        """Store the run of one case under its key."""
        self._runs[key] = run
        self._add("judged", key, run.cases[0].name, run)

    def _add(self, event: Any, key: str, name: str, run: RunResult | None = None) -> None:
        line = CaseEvent(event, key, name, self._worker, run)
        if self._part is None:
            self._lines.append(line)
        else:
            append_event(self._part, line)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Record the collected cases, so that those without a result are reported at the end."""
        from equiv.frontends.pytest_plugin.items import CaseItem, file_of

        cases = {file_of(item): item.case_name for item in session.items if isinstance(item, CaseItem)}
        for key, name in cases.items():
            self._add("collected", key, name)

    def pytest_report_collectionfinish(self, items: list[pytest.Item]) -> str | None:
        """Report device and versions, where cases were collected."""
        from equiv.frontends.pytest_plugin.items import CheckItem

        if self.config.option.collectonly or not any(isinstance(item, CheckItem) for item in items):
            return None
        from equiv.frontends.pytest_plugin.summary import environment_line

        return environment_line()

    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        """Store and show a difference that fails a test, but not one that the test expects with `pytest.raises`."""
        error = call.excinfo.value if call.excinfo else None
        if isinstance(error, Unequal) and error.key:
            self.keep(error.key, error.run)
            item.add_report_section(call.when, "equiv", render_table(error.run, self.config))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """pytest-xdist: record a worker that died."""
        if error:
            self._died.append(node.gateway.id)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Merge and write results; where they cannot be written, set the exit status."""
        if self._worker or self.config.option.collectonly:
            return
        lines = self._lines + (read_events(Path(self._folder.name)) if self._folder else [])
        options = self.config.option
        if not (lines or options.equiv_json or options.equiv_html):
            return
        seconds = time.perf_counter() - self._clock
        self._concluded = merge_events(lines, self._died, self._started.isoformat(), seconds)
        from equiv.frontends.pytest_plugin.summary import write_outputs

        self._output_lines, written = write_outputs(self._concluded, self.config)
        if not written:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the verdict, then where the results are."""
        if self._concluded is not None:
            from equiv.frontends.pytest_plugin.summary import write_summary

            write_summary(self._concluded, self._output_lines, terminalreporter)
