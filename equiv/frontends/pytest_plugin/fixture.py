"""The fixture: two builders of one model, compared inside any test."""

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from equiv import backends
from equiv.backends.build import guarded
from equiv.compare.pipeline import conclude, run_case
from equiv.core.case import Builder, Case, KnownDifference, Layer
from equiv.core.case_files import FIELDS, LoadedCase
from equiv.core.grades import EQUAL, Verdict
from equiv.core.headline import severity
from equiv.core.results import CHECKS, CaseResult, CheckResult, RunResult
from equiv.core.verdict import verdict_of
from equiv.errors import CaseError, EquivError, NotRun
from equiv.frontends.pytest_plugin.failures import Mismatch, NotCompared, Unequal, failure
from equiv.frontends.pytest_plugin.run_case import surroundings
from equiv.frontends.pytest_plugin.session import Session
from equiv.frontends.pytest_plugin.worker_results import alone
from equiv.report.cells import shown

MARKED = ("require", "checks")


@dataclass(frozen=True, repr=False)
class Checked(CaseResult):
    """The result of `equiv.check`: every check of the candidate, in a form that begins with the verdict."""

    def __repr__(self) -> str:
        grades = ", ".join(f"{check.check} {check.grade}" for check in self.checks)
        if (error := _failure(alone(self, {}), ())) is not None:
            return f"<{verdict_of(self.checks)}: {error}; {grades}>"
        every = [finding for check in self.checks for finding in check.findings if finding.ratio]
        closest = max(every, key=severity, default=None)
        place = f"closest to its budget {closest.place} {shown(closest.ratio or 0)} x; " if closest else ""
        return f"<{verdict_of(self.checks)}: {place}{grades}>"


class Checker:
    """What the fixture `equiv` is.

    Attributes:
        Mismatch: raised where the ports differ.
        NotCompared: raised where nothing can be said.
    """

    Mismatch = Mismatch
    NotCompared = NotCompared

    def __init__(self, test: pytest.Item, session: Session) -> None:
        self._test, self._session, self._count = test, session, 0
        self._marked: dict[str, Any] = {}
        for mark in reversed(list(test.iter_markers("equiv"))):
            if mark.args or not set(mark.kwargs) <= set(MARKED):
                wanted = " and ".join(MARKED)
                pytest.fail(f"{test.nodeid}: @pytest.mark.equiv takes {wanted}, by name. Mend the mark.", pytrace=False)
            self._marked |= mark.kwargs

    def check(
        self,
        left: Builder,
        right: Builder,
        *,
        batch: Mapping[str, str],
        layers: Sequence[Layer],
        loss: Callable[[Any, Mapping[str, Any]], Any] | None = None,
        methods: Mapping[str, tuple[str, ...]] | None = None,
        optimizer: Callable[[], Any] | None = None,
        known_differences: Sequence[KnownDifference] = (),
        steps: int = 5,
        budget_factor: float = 1.0,
        names: tuple[str, str] | None = None,
        checks: Sequence[str] | None = None,
    ) -> Checked:
        """Compare two builders of one model, as a case of two libraries.

        Args:
            left: builder of the reference: returns `model`, `(model, train_step)` or `(model, train_step, create)`.
            right: builder of the candidate; an NNX builder takes `rngs`.
            batch: see `equiv.core.case.Case`; so are `layers`, `loss`, `methods`, `optimizer`, `known_differences`, `steps`
                and `budget_factor`.
            layers: one row per layer, one keyword per library.
            loss: `(outputs, batch)` to a scalar.
            methods: public method to batch entries.
            optimizer: returns an optax transformation.
            known_differences: formulas for what differs by design.
            steps: how many train steps are compared.
            budget_factor: a factor on every derived budget, shown with every number.
            names: backends of `left` and `right`; None: by what the builders return.
            checks: the checks that decide; None: those of the test's mark, else all that apply.

        Raises:
            Mismatch: they differ.
            NotCompared: nothing can be said, with the reason.
            CaseError: what is given cannot be used.
        """
        __tracebackhide__ = True
        try:
            wanted = _checks(self._marked.get("checks") if checks is None else checks)
            reference, candidate = names or (_backend("left", left), _backend("right", right))
            if reference == candidate:
                raise CaseError(
                    f"left and right are both {reference}: a comparison is of two libraries. Give another one."
                )
            case = Case(
                guide=self._test.nodeid,
                models={reference: left, candidate: right},
                batch=batch,
                layers=tuple(layers),
                methods=methods,
                loss=loss,
                optimizer=optimizer,
                known_differences=tuple(known_differences),
                steps=steps,
                budget_factor=budget_factor,
            )
            run = self._judge(case)
        except EquivError as error:
            raise error.with_traceback(None) from None  # its text says where; the way through our code does not help
        if (refusal := _failure(run, wanted)) is not None:
            refusal.key = self._key()
            raise refusal
        self._session.keep(self._key(), run)
        return Checked(**vars(run.cases[0]))

    def _judge(self, case: Case) -> RunResult:
        for field, fits, wanted in FIELDS:
            if not fits(given := getattr(case, field)):
                raise CaseError(f"equiv.check: {field} is {type(given).__name__}, wanted {wanted}. Mend {field}.")
        _, problem = surroundings(self._marked.get("require") or self._session.require)
        if problem:
            raise NotRun(problem)
        self._count += 1
        name = self._test.name if self._count == 1 else f"{self._test.name}-{self._count}"
        lesson = (inspect.getdoc(getattr(self._test, "obj", None)) or "").partition("\n")[0]
        started, clock = datetime.now(UTC), time.perf_counter()
        result = Checked(**vars(run_case(LoadedCase(name, lesson, case))))
        seconds = round(time.perf_counter() - clock, 3)
        return conclude([replace(result, seconds=seconds)], started, seconds)

    def _key(self) -> str:
        return self._test.nodeid if self._count == 1 else f"{self._test.nodeid}-{self._count}"


def _checks(given: Sequence[str] | None) -> tuple[str, ...]:
    if given is None:
        return ()
    unknown = [name for name in given if name not in CHECKS]
    if isinstance(given, str) or unknown or not given:
        raise CaseError(f"checks is {given!r}, wanted some of: {', '.join(CHECKS)}. Mend checks.")
    return tuple(given)


def _backend(side: str, builder: Builder) -> str:
    """Which library a builder is written in: the one that its model's class comes from.

    Raises:
        CaseError: none that there is a backend for.
    """
    if not callable(builder):
        raise CaseError(f"{side} is {type(builder).__name__}, wanted a builder: a function that returns the model.")
    parameters = inspect.signature(builder).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(item.default is item.empty and item.kind in positional for item in parameters):
        return "nnx"  # it takes rngs; builders of the other libraries take nothing
    returned = guarded(side, "building the model", partial(builder))
    named = hasattr(returned, "_fields")
    model = returned[0] if isinstance(returned, tuple) and returned and not named else returned
    modules = [base.__module__.split(".") for base in type(model).__mro__]
    known = [name for name in backends.names() if any(name in module for module in modules)]
    if len(known) != 1:
        raise CaseError(
            f"{side} returns {type(model).__name__}, of no library that is known here: {', '.join(backends.names())}. "
            'Return the model of one of them, or give names=("haiku", "nnx").'
        )
    return known[0]


def _failure(run: RunResult, wanted: tuple[str, ...]) -> Unequal | None:
    """What the checks that decide call for; errors first, then differences, as in the verdict of a run."""
    (result,) = run.cases
    (candidate,) = result.candidates
    known = {check.check: check for check in result.checks}
    asked: dict[str, CheckResult | None] = {name: known.get(name) for name in wanted or known}
    ranks: tuple[Verdict, ...] = ("error", "different", "inconclusive")
    for verdict in ranks:
        for name, check in asked.items():
            if check is None and verdict == "inconclusive":
                return failure(run, None, f" ({name}, {candidate})")
            if check is not None and check.grade not in EQUAL and verdict_of((check,)) == verdict:
                return failure(run, check, f" ({name}, {candidate})")
    return None
