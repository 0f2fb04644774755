"""Nouns of what a run found, and their JSON. Neither jax nor a framework is imported here."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from equiv.costs import CaseCosts
from equiv.details import Source, Spread, Waypoint
from equiv.errors import EquivError
from equiv.kills import FaultMatrix
from equiv.starts import Start

SCHEMA_VERSION = 1

CHECKS = ("structure", "randomness", "outputs", "gradients", "state", "train")
"""The checks in the order of the report: what breaks first explains what breaks after it."""

RISK = 1e-9
"""How often chance alone may exceed a budget."""

LEVEL = math.sqrt(2 * math.log(2 / RISK))
"""The factor of a budget at that risk (Higham and Mary 2019, theorem 2.4)."""

Grade = Literal[
    "proved",
    "proved modulo",
    "exact",
    "float64",
    "rounding",
    "expected",
    "statistical",
    "unidentifiable",
    "vacuous",
    "blocked",
    "not run",
    "error",
    "refuted",
]

EQUAL: tuple[Grade, ...] = ("proved", "proved modulo", "exact", "float64", "rounding", "expected", "statistical")
"""Grades that say equal, strongest first."""

REFUSALS: tuple[Grade, ...] = ("refuted", "error", "blocked", "not run")
"""Grades that decide for a whole check, worst first."""

DECIDING: tuple[Grade, ...] = (*REFUSALS, *reversed(EQUAL), "unidentifiable", "vacuous")
"""Which grade of its findings a check takes: any refusal first, else the weakest equality that its leaves reach."""

Verdict = Literal["same", "different", "inconclusive", "error"]


@dataclass(frozen=True)
class Finding:
    """One compared leaf, output or property.

    Attributes:
        place: program and leaf, e.g. `train __call__: state block.norm/mean`.
        grade: how equality is known, or that it is not.
        error: largest absolute difference; in float64 where `precision` says so.
        budget: how far rounding can explain a difference.
        ratio: error / budget; 1 is the limit.
        precision: the run that was the judge, `native` or `float64`.
        reference: the reference's value at the worst element.
        candidate: the candidate's value there.
        index: its index; for train programs the first is the step.
        probe: which probe: `0`, `1` or `cold` (training from the library's own fresh state).
        nonfinite: NaN and infinite values in the reference and in the candidate.
        note: what else is to be said, in a sentence.
        response: how far the reference itself moves when each of its inputs moves by one ulp.
        depth: rounded operations in a row.
        factor: what the case multiplies its derived budgets by; 1 unless its author overrides them.
        source: where there is no proof, the first different equation of each port with file and line.
        spread: how the difference is spread over the elements; of the worst few findings of a check.
    """

    place: str
    grade: Grade
    error: float | None = None
    budget: float | None = None
    ratio: float | None = None
    precision: str = ""
    reference: str = ""
    candidate: str = ""
    index: tuple[int, ...] = ()
    probe: str = ""
    nonfinite: tuple[int, int] = (0, 0)
    note: str = ""
    response: float | None = None
    depth: int | None = None
    factor: float = 1.0
    source: str = ""
    spread: Spread | None = None


@dataclass(frozen=True)
class CheckResult:
    """One check of one candidate against the reference; where it is not proved, the way through both programs."""

    check: str
    candidate: str
    grade: Grade
    summary: str
    findings: tuple[Finding, ...] = ()
    walk: tuple[Waypoint, ...] = ()


@dataclass(frozen=True)
class DeviationResult:
    """A row of the guides' errata; see `equiv.case.Deviation`."""

    backend: str
    prints: str
    happens: str
    works: str
    versions: str
    evidence: str


@dataclass(frozen=True)
class LeafResult:
    """One canonical leaf; where each port keeps it, in which shape, and in which layout where that is another."""

    leaf: str
    shape: tuple[int, ...]
    dtype: str
    places: dict[str, str]
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    layouts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CaseResult:
    """One case: every check of every candidate.

    Attributes:
        verdicts: candidate to verdict.
        leaves: the layer table as mapped.
        problem: why nothing at all could be compared.
        probes: whether the probes can tell: every leaf moved, every pair of alike leaves swapped.
        left_over: native leaves of the built ports that the layer table does not cover.
        faults: what became of planted faults; None where none were planted.
        costs: what each port costs; None where nothing was timed.
        starts: how every parameter starts in each library; empty where that was not asked.
        path: the case file, for running it again.
        sources: backend to its builder.
        text: a hash of the case file and of the user's own modules that it imports: what the verdict belongs to.
    """

    name: str
    lesson: str
    guide: str
    reference: str
    candidates: tuple[str, ...]
    verdicts: dict[str, Verdict]
    checks: tuple[CheckResult, ...]
    leaves: tuple[LeafResult, ...] = ()
    deviations: tuple[DeviationResult, ...] = ()
    problem: str = ""
    probes: tuple[Finding, ...] = ()
    left_over: int = 0
    faults: FaultMatrix | None = None
    costs: CaseCosts | None = None
    starts: tuple[Start, ...] = ()
    path: str = ""
    sources: dict[str, Source] = field(default_factory=dict)
    text: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class RunResult:
    """One run: what was compared, where, and what was found; `rewrites`: the prover's, each with its condition."""

    verdict: Verdict
    headline: str
    environment: dict[str, str]
    cases: tuple[CaseResult, ...]
    started: str
    seconds: float
    schema: int = SCHEMA_VERSION
    problems: tuple[str, ...] = field(default_factory=tuple)
    rewrites: dict[str, str] = field(default_factory=dict)


def weakest(findings: tuple[Finding, ...]) -> Grade:
    """The grade of a check: any refusal first, else the weakest equality that its leaves reach."""
    grades: list[Grade] = [finding.grade for finding in findings]
    return min(grades, key=DECIDING.index) if grades else "vacuous"


def verdict_of(checks: tuple[CheckResult, ...]) -> Verdict:
    """Same only where every check says so by name."""
    grades = {check.grade for check in checks}
    if "error" in grades:
        return "error"
    if "refuted" in grades:
        return "different"
    return "same" if grades and grades <= set(EQUAL) else "inconclusive"


@dataclass(frozen=True)
class _Version:
    """What is read first: another version need not have any other field of ours."""

    schema: int


def encode(result: RunResult) -> bytes:
    """A run as indented JSON with sorted keys."""
    return msgspec.json.format(msgspec.json.encode(result, order="sorted"), indent=1) + b"\n"


def decode(data: bytes, source: str) -> RunResult:
    """A run from JSON.

    Raises:
        EquivError: it is not a results file, or one of another schema version; names the place.
    """
    try:
        version = msgspec.json.decode(data, type=_Version).schema
        if version != SCHEMA_VERSION:
            raise EquivError(
                f"{source}: results schema {version}, this version reads {SCHEMA_VERSION}. "
                "Write it anew with equiv run."
            )
        return msgspec.json.decode(data, type=RunResult)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise EquivError(f"{source}: not a results file of equiv: {error}. Write it anew with equiv run.") from error


def read(path: Path) -> RunResult:
    """A run from a file.

    Raises:
        EquivError: it cannot be read, or is not a results file.
    """
    try:
        return decode(path.read_bytes(), str(path))
    except OSError as error:
        raise EquivError(f"{path}: cannot be read: {error.strerror}. Give the JSON that equiv run wrote.") from error
