"""Items: one check of one candidate, or a case file that cannot be loaded."""

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from equiv.core.case_files import LoadedCase
from equiv.core.grades import EQUAL_GRADES
from equiv.core.join_runs import single_case_run
from equiv.core.results import CaseResult, CheckResult
from equiv.core.verdict import verdict_of
from equiv.frontends.pytest_plugin.failures import Unequal, make_failure, render_table, select_candidate, worst_of
from equiv.frontends.pytest_plugin.session import open_session


class CaseItem(pytest.Item):
    """Base class of the items of a case file."""

    def __init__(self, *, case: str, **given: Any) -> None:
        super().__init__(**given)
        self.case_name = case
        self.add_marker("equiv")
        if self.config.pluginmanager.hasplugin("xdist"):
            # With `--dist loadgroup` a case then runs in one worker only.
            self.add_marker(pytest.mark.xdist_group(f"equiv-{case}"))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show verdicts without a traceback, at the line of the case's builder."""
        if not isinstance(excinfo.value, Unequal):
            return super().repr_failure(excinfo, style)
        shown = excinfo.getrepr(style="value")
        if shown.reprcrash is not None:
            shown.reprcrash.path, shown.reprcrash.lineno = str(self.path), self.line()
        return shown

    def reportinfo(self) -> tuple[Path, int, str]:
        """File, line from 0 and name."""
        return self.path, self.line() - 1, self.name

    def line(self) -> int:
        """The line of the case file that this item is about."""
        return 1


class BrokenItem(CaseItem):
    """A case file that cannot be loaded: an error in setup."""

    def __init__(self, *, problem: str, **given: Any) -> None:
        super().__init__(**given)
        self.problem = problem

    def setup(self) -> None:
        """Raise.

        Raises:
            NotCompared: always, with the reason.
        """
        result = CaseResult(self.case_name, "", "", "", (), {}, (), problem=self.problem)
        open_session(self.config).keep(file_of(self), single_case_run(result, {}))
        self.add_report_section("setup", "equiv", self.problem)
        # The name of the test contains the file already.
        raise make_failure(single_case_run(replace(result, problem=self.problem.removeprefix(f"{self.path}: ")), {}))

    def runtest(self) -> None:
        """Never reached."""


class CheckItem(CaseItem):
    """One check of one candidate. The first item of a case runs all of its checks."""

    def __init__(self, *, loaded: LoadedCase, candidate: str, check: str, **given: Any) -> None:
        super().__init__(case=loaded.name, **given)
        self.loaded, self.candidate, self.check = loaded, candidate, check

    def runtest(self) -> None:
        """Run the case if it has not been run yet, and raise if this check failed.

        Raises:
            Mismatch: the ports differ.
            NotCompared: there is no verdict, with the reason.
        """
        run = open_session(self.config).run_of(file_of(self), self.loaded)
        (result,) = run.cases
        checks = [item for item in result.checks if (item.candidate, item.check) == (self.candidate, self.check)]
        if not checks and not result.problem:
            pytest.skip("does not apply")
        check = checks[0] if checks else None
        self._record(check)
        if check is None or check.grade not in EQUAL_GRADES:
            shown = select_candidate(run, self.candidate)
            self.add_report_section("call", "equiv", render_table(shown, self.config, check))
            raise make_failure(run, check)

    def _record(self, check: CheckResult | None) -> None:
        self.user_properties.append(("equiv.verdict", verdict_of((check,)) if check else "error"))
        if check is None:
            return
        self.user_properties.append(("equiv.grade", check.grade))
        if (worst := worst_of(check)) is not None:
            self.user_properties.append(("equiv.place", worst.place))
            if worst.ratio is not None:
                self.user_properties.append(("equiv.ratio", worst.ratio))

    def line(self) -> int:
        """The line of the candidate's builder, where it is in the case file."""
        code = getattr(inspect.unwrap(self.loaded.case.models[self.candidate]), "__code__", None)
        return code.co_firstlineno if code is not None and code.co_filename == str(self.path) else 1


def file_of(item: pytest.Item) -> str:
    """Return the key under which the results of an item's file are stored."""
    return item.parent.nodeid if item.parent is not None else item.nodeid
