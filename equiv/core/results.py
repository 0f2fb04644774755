"""Nouns of what a run found, and their JSON. Neither jax nor a framework is imported here."""

import math
from dataclasses import dataclass, field

from equiv.core.grades import Grade, Verdict
from equiv.core.selfcheck_results import FaultMatrix
from equiv.core.timings import CaseCosts


@dataclass(frozen=True)
class Start:
    """The initial values of one leaf in the reference and in one candidate.

    Attributes:
        leaf: canonical name.
        candidate: whose values are compared with the reference's.
        same: whether both can be draws of one distribution, at the level of `equiv.compare.initial_values.LEVEL` over all leaves.
        p: of the two-sample Kolmogorov-Smirnov test; 1.0 and 0.0 where both are constants, alike and not.
        reference: family, mean and standard deviation, `truncated normal, mean 0, sd 0.0313`.
        candidate_values: the candidate's, likewise.
        ratio: standard deviation of the candidate over the reference's; None where the reference's is 0.
        hint: which initialiser makes the candidate start as the reference does; empty where they are alike.
    """

    leaf: str
    candidate: str
    same: bool
    p: float
    reference: str
    candidate_values: str
    ratio: float | None = None
    hint: str = ""


ULPS = (0, 1, 2, 4, 8, 16, 64, 256, 1024, 4096, 65536, 1048576)
"""Upper ends of the bins of a distribution of differences, in units in the last place; one more bin is open."""


SHADES = "0123456789"
"""Shades of a map of differences: 0 is no difference at all, 9 the largest, a third of a decade apart."""


BACK = "on the way back"
"""What is said in the name of a value that only a gradient needs."""


@dataclass(frozen=True)
class Spread:
    """How a difference is spread over the elements of an array.

    Attributes:
        ratios: error / budget after each train step; empty outside of training. A step without a budget is left at -1.
        ulps: how many elements of the native runs differ by up to so many ulps of the reference's value; bins as in
            `ULPS`, the last open.
        shades: the worst step as a matrix, the largest difference of every block as one of `SHADES`.
        shape: of the matrix that the shades stand for.
        rounded: how far the native run of the reference and of the candidate is from its own float64 run, in ulps of
            the largest value; empty where there is no float64 run.
        relation: what the candidate's values are of the reference's, where that is simple, within the budget: `all
            zero`, `2 times`, `the same values in another order`, `unchanged by every step`.
    """

    ratios: tuple[float, ...] = ()
    ulps: tuple[int, ...] = ()
    shades: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    rounded: tuple[float, ...] = ()
    relation: str = ""


@dataclass(frozen=True)
class Source:
    """A builder as it is written.

    Attributes:
        file: as the user gave it, never a place on the machine.
        line: number of its first line there.
        text: its lines, dedented.
    """

    file: str
    line: int
    text: str


@dataclass(frozen=True)
class Waypoint:
    """One value that the reference computes on the way to its outputs, and the nearest one of the candidate.

    Attributes:
        name: the primitive, and the module that the trace names.
        where: `file:line` of the user's own code in the reference.
        ratio: error / budget of the candidate's nearest value; None where it has none of that size.
        floor: the same of a reference whose inputs have moved by one ulp: what rounding alone does.
        lost: whether the candidate has neither it nor anything that the reference makes of it; a value over its budget
            that is not lost is only another way to the same.
    """

    name: str
    where: str
    ratio: float | None
    floor: float
    lost: bool = False


SCHEMA_VERSION = 1


CHECKS = ("structure", "randomness", "outputs", "gradients", "state", "train")
"""The checks in the order of the report: what breaks first explains what breaks after it."""


RISK = 1e-9
"""How often chance alone may exceed a budget."""


LEVEL = math.sqrt(2 * math.log(2 / RISK))
"""The factor of a budget at that risk (Higham and Mary 2019, theorem 2.4)."""


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
    """A row of the guides' errata; see `equiv.core.case.Deviation`."""

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
