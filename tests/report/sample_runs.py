"""Runs of every verdict, as the tests of the reports show them."""

import io
from dataclasses import replace

from named import output_named
from rich.console import Console

from equiv.core.checks import CHECK_NAMES
from equiv.core.grades import Verdict
from equiv.core.headline import summarise_run
from equiv.core.results import CaseResult, CheckResult, DeviationResult, Finding, LeafResult, RunResult
from equiv.core.verdict import verdict_of
from equiv.report.terminal.run import print_run

ENVIRONMENT = {"platform": "cpu", "device": "cpu", "jax": "1.2.3", "flax": "4.5.6"}

OFF = Finding(
    "call __call__: output",
    "refuted",
    error=0.25,
    budget=0.001,
    ratio=250.0,
    precision="float64",
    reference="1.5",
    candidate="1.75",
    index=(0, 3),
    probe="1",
    note="no rounding explains this difference",
    response=0.0001,
    depth=16,
    output=output_named("call __call__: output"),
)
ENCODED, TRAINED = output_named("eval encode: output"), output_named("train: a/kernel")
WORSE = replace(OFF, place=str(ENCODED), output=ENCODED, ratio=4000.0, reference="2", candidate="6", error=4.0)
NEAR = replace(
    OFF, place=str(TRAINED), output=TRAINED, grade="float64", ratio=0.5, error=0.0005, index=(2, 0, 1), note=""
)
MISSING = "linen: building the model needs abacus, which is not installed here. Install it."


def case(name: str, *checks: CheckResult, **fields: object) -> CaseResult:
    """A case with two candidates: what is not said of them is exact."""
    said = {(check.candidate, check.check): check for check in checks}
    every = tuple(
        said.get((who, check), CheckResult(check, who, "exact", "1 exact", (Finding(f"{check} place", "exact"),)))
        for who in ("linen", "nnx")
        for check in CHECK_NAMES
    )
    verdicts = {who: verdict_of(tuple(one for one in every if one.candidate == who)) for who in ("linen", "nnx")}
    whole = CaseResult(name, f"The lesson of {name}.", "a guide", "haiku", ("linen", "nnx"), verdicts, every)
    return replace(whole, **fields)


def check(name: str, *findings: Finding, candidate: str = "linen") -> CheckResult:
    """A check with the grade of its first finding."""
    return CheckResult(name, candidate, findings[0].grade, findings[0].note or "a summary", findings)


def broken(name: str, problem: str) -> CaseResult:
    """A case that could not be used."""
    return CaseResult(name, "", "", "", (), {}, (), problem=problem)


def result(*cases: CaseResult) -> RunResult:
    """A run over cases."""
    verdict, headline = summarise_run(cases)
    return RunResult(verdict, headline, ENVIRONMENT, cases, "2026-01-01T00:00:00", 1.25)


RUNS: dict[Verdict, RunResult] = {
    "same": result(case("alike", check("train", NEAR))),
    "different": result(case("apart", check("outputs", OFF, WORSE), check("train", OFF))),
    "inconclusive": result(case("missing", check("structure", Finding("linen", "not run", note=MISSING)))),
    "error": result(
        case("raises", check("train", Finding("linen", "error", note="linen: tracing raised KeyError. Fix a.py:3."))),
        broken("empty", "empty.py: has no CASE. End the file with CASE = Case(...), from equiv.core.case."),
    ),
}


def shown(run: RunResult, width: int = 160, terminal: bool = False) -> str:
    """The terminal view as text."""
    file = io.StringIO()
    print_run(run, Console(file=file, width=width, force_terminal=terminal, highlight=False))
    return file.getvalue()


def section(text: str, heading: str) -> str:
    """One section of a Markdown document, without its heading."""
    return text.split(f"\n## {heading}")[1].split("\n## ")[0]


DEVIATION = DeviationResult("nnx", "`self.a.value | 1`", "raises <Error>", "`self.a[...]`", "flax 0.12.8", "guide 3")
LEAF = LeafResult("a/kernel", (2, 3), "float32", {"haiku": "~/a/~/w (params)", "nnx": "a.kernel (params)"})
