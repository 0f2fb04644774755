"""The fixture: compare two builders of one model inside any test."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from equiv.backends.batches import resolve_batch
from equiv.core.batch_spec import Batch
from equiv.core.case import Builder, Case, KnownDifference, Layer
from equiv.core.case_files import LoadedCase, check_fields
from equiv.core.checks import CHECK_NAMES
from equiv.core.grades import EQUAL_GRADES, Verdict
from equiv.core.headline import severity
from equiv.core.join_runs import single_case_run
from equiv.core.method_call import Methods
from equiv.core.results import CaseResult, CheckResult, RunResult
from equiv.core.verdict import verdict_of
from equiv.errors import CaseError, EquivError, NotRun
from equiv.frontends.functions import compare_through, compare_with_layers, infer_layers
from equiv.frontends.pytest_plugin.failures import Mismatch, NotCompared, Unequal, make_failure
from equiv.frontends.pytest_plugin.run_case import check_platform
from equiv.frontends.pytest_plugin.session import Session
from equiv.report.cells import format_ratio

MARK_ARGUMENTS = ("require", "checks")


@dataclass(frozen=True, repr=False)
class CheckedResult(CaseResult):
    """The result of `equiv.check`: every check of the candidate, with a repr that begins with the verdict."""

    def __repr__(self) -> str:
        grades = ", ".join(f"{check.check} {check.grade}" for check in self.checks)
        if (error := _deciding_failure(single_case_run(self, {}), ())) is not None:
            return f"<{verdict_of(self.checks)}: {error}; {grades}>"
        every = [finding for check in self.checks for finding in check.findings if finding.ratio]
        closest = max(every, key=severity, default=None)
        place = f"closest to its budget {closest.place} {format_ratio(closest.ratio or 0)} x; " if closest else ""
        return f"<{verdict_of(self.checks)}: {place}{grades}>"


def checked_result(run: RunResult) -> CheckedResult:
    """The result of the one case of a run."""
    return CheckedResult(**vars(run.cases[0]))


class Checker:
    """The value of the fixture `equiv`.

    Attributes:
        Mismatch: raised where the ports differ.
        NotCompared: raised where the comparison gives no verdict.
    """

    Mismatch = Mismatch
    NotCompared = NotCompared

    def __init__(self, test: pytest.Item, session: Session) -> None:
        self._test, self._session, self._count = test, session, 0
        self._marked: dict[str, Any] = {}
        for mark in reversed(list(test.iter_markers("equiv"))):
            if mark.args or not set(mark.kwargs) <= set(MARK_ARGUMENTS):
                wanted = " and ".join(MARK_ARGUMENTS)
                pytest.fail(
                    f"{test.nodeid}: @pytest.mark.equiv takes {wanted} as keywords. Fix the mark.", pytrace=False
                )
            self._marked |= mark.kwargs

    def check(
        self,
        left: Builder,
        right: Builder,
        *,
        batch: Batch,
        layers: Sequence[Layer] | None = None,
        loss: Callable[[Any, Mapping[str, Any]], Any] | None = None,
        methods: Methods | None = None,
        optimizer: Callable[[], Any] | None = None,
        known_differences: Sequence[KnownDifference] = (),
        steps: int = 5,
        budget_factor: float = 1.0,
        keep: Sequence[str] = (),
        names: tuple[str, str] | None = None,
        checks: Sequence[str] | None = None,
    ) -> CheckedResult:
        """Compare two builders of one model, as `equiv.compare` does.

        Args:
            left: builder of the reference: returns `model`, `(model, train_step)` or `(model, train_step, create)`.
            right: builder of the candidate.
            batch: see `equiv.core.case.Case`, as for `layers`, `loss`, `methods`, `optimizer`, `known_differences`,
                `steps` and `budget_factor`.
            layers: one row per layer, one keyword per port; None: they are inferred.
            loss: `(outputs, batch)` to a scalar.
            methods: calls of public methods.
            optimizer: returns an optax transformation.
            known_differences: formulas for leaves that differ by design.
            steps: number of train steps.
            budget_factor, keep: a factor on every derived budget; inputs whose values are kept.
            names: of the two ports, as in `layers`; None: their libraries, or `left` and `right` if both are of one.
            checks: names of the checks that must pass; None: those of the test's mark, else all that apply.

        Raises:
            Mismatch: they differ.
            NotCompared: there is no verdict, with the reason.
            CaseError: an argument cannot be used.
        """
        __tracebackhide__ = True
        try:
            wanted = _wanted_checks(self._marked.get("checks") if checks is None else checks)
            case = Case(
                guide=self._test.nodeid,
                models={},
                batch=batch,
                layers=() if layers is None else layers,  # pyright: ignore[reportArgumentType] - checked before use
                methods=methods,
                loss=loss,
                optimizer=optimizer,
                known_differences=known_differences,  # pyright: ignore[reportArgumentType] - likewise
                steps=steps,
                budget_factor=budget_factor,
                keep=keep,  # pyright: ignore[reportArgumentType] - likewise
            )
            run = self._run(left, right, case, names, inferred=layers is None)
        except EquivError as error:
            error.__traceback__ = None  # the message says where; a traceback through equiv does not help
            raise error from None
        return self._judge(run, wanted)

    def _judge(self, run: RunResult, wanted: tuple[str, ...]) -> CheckedResult:
        __tracebackhide__ = True
        if (refusal := _deciding_failure(run, wanted)) is not None:
            refusal.key = self._key()
            raise refusal
        self._session.keep(self._key(), run)
        return checked_result(run)

    def _run(
        self, left: Builder, right: Builder, case: Case, names: tuple[str, str] | None, inferred: bool
    ) -> RunResult:
        _, problem = check_platform(self._marked.get("require") or self._session.require)
        if problem:
            raise NotRun(problem)
        self._count += 1
        name = self._test.name if self._count == 1 else f"{self._test.name}-{self._count}"
        lesson = (inspect.getdoc(getattr(self._test, "obj", None)) or "").partition("\n")[0]
        loaded = LoadedCase(name, lesson, case)
        if inferred:
            check_fields(f"{name}:", case)
            loaded = replace(loaded, case=resolve_batch(case))
            found = infer_layers(left, right, batch=loaded.case.batch, methods=case.methods, names=names)
            run = compare_through(found, loaded)
        else:
            run = compare_with_layers(left, right, loaded, names)
        return replace(run, cases=(checked_result(run),))

    def _key(self) -> str:
        return self._test.nodeid if self._count == 1 else f"{self._test.nodeid}-{self._count}"


def _wanted_checks(given: Sequence[str] | None) -> tuple[str, ...]:
    if given is None:
        return ()
    unknown = [name for name in given if name not in CHECK_NAMES]
    if isinstance(given, str) or unknown or not given:
        raise CaseError(f"checks is {given!r}, wanted some of: {', '.join(CHECK_NAMES)}.", fix="Fix checks.")
    return tuple(given)


def _deciding_failure(run: RunResult, wanted: tuple[str, ...]) -> Unequal | None:
    """Make the exception of the first failing check; errors first, then differences, as in the verdict of a run."""
    (result,) = run.cases
    (candidate,) = result.candidates
    known = {check.check: check for check in result.checks}
    asked: dict[str, CheckResult | None] = {name: known.get(name) for name in wanted or known}
    ranks: tuple[Verdict, ...] = ("error", "different", "inconclusive")
    for verdict in ranks:
        for name, check in asked.items():
            if check is None and verdict == "inconclusive":
                return make_failure(run, None, f" ({name}, {candidate})")
            if check is not None and check.grade not in EQUAL_GRADES and verdict_of((check,)) == verdict:
                return make_failure(run, check, f" ({name}, {candidate})")
    return None
