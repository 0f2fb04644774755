"""The results of a run, as they are written to results.json. Neither JAX nor a model library is imported here."""

from dataclasses import dataclass, field
from typing import Literal

from equiv.core.divergence import Divergence
from equiv.core.first_difference import FirstDifference, SourceLine
from equiv.core.grades import Grade, Verdict
from equiv.core.output_name import OutputName
from equiv.core.scope import Scope
from equiv.core.selfcheck_results import FaultMatrix
from equiv.core.timings import CaseCosts


@dataclass(frozen=True)
class InitialValues:
    """How the distributions of one leaf's initial values compare in the reference and in one candidate.

    Attributes:
        leaf: canonical name.
        candidate: the port that is compared with the reference.
        same: whether both can be samples of one distribution, at the significance level of
            `equiv.comparison.initial_values` over all leaves.
        p_value: of the two-sample Kolmogorov-Smirnov test; for two constants 1.0 if they are equal, else 0.0.
        reference: family, mean and standard deviation, e.g. `truncated normal, mean 0, sd 0.0313`.
        candidate_values: the same of the candidate.
        ratio: standard deviation of the candidate / that of the reference; None if the latter is 0.
        hint: the initialiser that gives the candidate the reference's distribution; empty if they are the same.
    """

    leaf: str
    candidate: str
    same: bool
    p_value: float
    reference: str
    candidate_values: str
    ratio: float | None = None
    hint: str = ""


ULP_BINS = (0, 1, 2, 4, 8, 16, 64, 256, 1024, 4096, 65536, 1048576)
"""Upper edges of the histogram bins of differences, in ulps; one more bin is open-ended."""

SHADES = "0123456789"
"""Levels of a heat map of differences: 0 is no difference, 9 the largest; one level is a third of a decade."""


@dataclass(frozen=True)
class Spread:
    """How a difference is distributed over the elements of an array.

    Attributes:
        ratios: error / budget after each train step; empty outside of training. -1 for a step without a budget.
        ulps: number of elements of the native runs per bin of the difference in ulps of the reference's value; bins as
            in `ULP_BINS`, the last one open-ended.
        shades: the worst step as a heat map: the largest difference of every block as one of `SHADES`.
        shape: of the matrix that the heat map shows.
        rounded: the rounding error of the native run of the reference and of the candidate, each against its own
            float64 run, in ulps of the largest value; empty if there is no float64 run.
        relation: a simple relation of the candidate's values to the reference's that holds within the budget, if there
            is one: `all zero`, `2 times`, `the same values in another order`, `unchanged by every step`.
    """

    ratios: tuple[float, ...] = ()
    ulps: tuple[int, ...] = ()
    shades: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    rounded: tuple[float, ...] = ()
    relation: str = ""


@dataclass(frozen=True)
class BuilderSource:
    """The source code of a builder.

    Attributes:
        file: as the user gave it, never an absolute path.
        line: number of its first line there.
        text: the code, dedented.
    """

    file: str
    line: int
    text: str


@dataclass(frozen=True)
class Intermediate:
    """One intermediate value that the reference computes, and the nearest one of the candidate.

    Attributes:
        primitive: the operation that computes it.
        ratio: error / budget of the candidate's nearest value; None if it has no value of that size.
        floor: the same ratio for the reference with its inputs changed by one ulp: the effect of rounding alone.
        lost: whether the candidate has neither this value nor any that the reference computes from it; a value over its
            budget that is not lost is only computed differently.
        module_path: where the reference computes it, by modules; empty if unknown.
        backward: whether only the gradients use it.
        location: the line of the user's own code in the reference; None if there is none.
    """

    primitive: str
    ratio: float | None
    floor: float
    lost: bool = False
    module_path: str = ""
    backward: bool = False
    location: SourceLine | None = None

    @property
    def name(self) -> str:
        """The primitive, its pass if that is the backward pass, and its module."""
        backward = " in the backward pass" if self.backward else ""
        return f"{self.primitive}{backward}{f' in {self.module_path}' if self.module_path else ''}"


@dataclass(frozen=True)
class Miscompilation:
    """A program that is right, and that the compiler makes a wrong one of.

    Attributes:
        port: name of the port.
        program: which of its programs, in words.
        compiler: release of jax and device, `jax 0.10.2 on cpu`.
        passes: passes of the compiler without which it is right; empty: none that can be left out is to blame.
    """

    port: str
    program: str
    compiler: str
    passes: tuple[str, ...] = ()

    @property
    def fix(self) -> str:
        """What a user can do, in words; empty where nothing is known to help."""
        names = ",".join(self.passes)
        option = f'compiler_options={{"{DISABLE_PASSES}": "{names}"}}'
        return f"Right is jax.jit(f, {option}), or XLA_FLAGS=--{DISABLE_PASSES}={names}" if names else ""


DISABLE_PASSES = "xla_disable_hlo_passes"
"""The option of XLA that leaves passes out."""

RESULTS_SCHEMA_VERSION = 2
"""Raised with every change that other code would misread; `equiv.core.results_v1` reads version 1."""


@dataclass(frozen=True)
class Finding:
    """One compared leaf, output or property.

    Attributes:
        place: program and leaf, e.g. `train __call__: state block.norm/mean`.
        grade: how equality is established, or why it is not.
        error: absolute difference at the worst element, the one with the largest error / budget; of the float64 runs if
            `precision` is `float64`.
        budget: the largest difference that rounding can explain there.
        ratio: error / budget; 1 is the limit.
        precision: the run that was compared, `native` or `float64`.
        reference: the reference's value at the worst element.
        candidate: the candidate's value there.
        index: its index; for train programs the first is the step.
        probe: which probe: `0`, `1` or `cold` (training from the library's own initial state).
        nonfinite: number of NaN and infinite values in the reference and in the candidate.
        note: a remark, in a sentence.
        response: how far elements of that size change when each input changes by one ulp.
        depth: length of the longest chain of rounded operations.
        factor: the case's `budget_factor`, by which its derived budgets are multiplied.
        rewrites: those that the proof needs; of a refuted native run, those modulo which both are the same function.
        first_differences: if there is no proof, the first different equation of each port that has one; of a refuted
            finding the operations where the values part, as far as these are known.
        spread: how the difference is distributed over the elements; for the worst few findings of a check.
        output: the output that `place` names; None for a leaf, a path or a property.
        structure: canonical name of the leaf whose shape, dtype and collection are compared; empty for all else.
        miscompiled: where the compiler is wrong and not the port.
        divergences: of the worst refuted finding of a check: where values part, and which causes were tried.
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
    rewrites: tuple[str, ...] = ()
    first_differences: tuple[FirstDifference, ...] = ()
    spread: Spread | None = None
    output: OutputName | None = None
    structure: str = ""
    miscompiled: Miscompilation | None = None
    divergences: tuple[Divergence, ...] = ()

    @property
    def leaf(self) -> str:
        """Canonical name of the leaf whose value, gradient or structure is compared; empty where there is none."""
        if self.output is None:
            return self.structure
        return self.output.leaf if self.output.kind in ("state", "gradient", "leaf") else ""


TrialKind = Literal["moved", "swapped", "mutated proof", "longer batch", "environment"]


@dataclass(frozen=True)
class ProbeTrial:
    """One trial of whether probes and proofs would show a mistake, or one condition of the run that they depend on.

    Attributes:
        kind: `moved`, `swapped`: leaves of the reference were changed; `mutated proof`: an equation of a proved program
            was; `longer batch`: the probes have a longer batch than the case's own; `environment`: the reference was
            frozen before.
        subject: the leaf moved; the leaves of which two are swapped; candidate and program; the entries of the longer
            batch; or empty.
        detected: whether it changes an output by more than its budget, or breaks the proof.
        ratio: largest change / budget of a moved leaf, in the first kind of program that shows it, from calls to
            training; or of the swap that shows least of those that were run. None where the budget is 0, or where
            none was run.
        note: what shows it or why nothing does; what changed, in a sentence.
        pairs: how many pairs of the leaves are judged; in other trials 1.
        unrun: how many of them no run was made for: they are read from gradients, from what a call returns, or from
            what training makes of fresh state.
    """

    kind: TrialKind
    subject: tuple[str, ...] = ()
    detected: bool = True
    ratio: float | None = None
    note: str = ""
    pairs: int = 1
    unrun: int = 0

    @property
    def title(self) -> str:
        """The trial in a few words, such as `swapped a and b`."""
        if self.kind == "swapped" and len(self.subject) > 2:
            return f"swapped any two of {', '.join(self.subject)}"
        return f"{self.kind} {(', ' if self.kind in LISTED_KINDS else ' and ').join(self.subject)}".strip()


LISTED_KINDS: tuple[TrialKind, ...] = ("mutated proof", "longer batch")
"""Kinds of trial whose subject is written with commas."""


@dataclass(frozen=True)
class CheckResult:
    """One check of one candidate against the reference.

    Attributes:
        check: its name, one of `equiv.core.checks.CHECK_NAMES`.
        candidate: name of the port that is compared with the reference.
        grade: of the whole check; see `equiv.core.verdict.check_grade`.
        summary: number of findings per grade, in words.
        findings: one per compared leaf, output or property.
        intermediates: intermediate values of both programs, if the check is not proved.
        remarks: what the check as a whole rests on or leaves out, one sentence each without a full stop.
    """

    check: str
    candidate: str
    grade: Grade
    summary: str
    findings: tuple[Finding, ...] = ()
    intermediates: tuple[Intermediate, ...] = ()
    remarks: tuple[str, ...] = ()


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
    """One canonical leaf; where each port stores it, in which shape, and in which layout if that differs."""

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
        trials: whether the probes detect a change of every leaf and a swap of equal-shaped leaves, and whether proofs
            break when an equation is changed.
        unmapped_leaves: number of native leaves of the built ports that the layer table does not cover.
        faults: the result of the selfcheck; None if no faults were planted.
        costs: the costs of each port; None if nothing was timed.
        initial_values: comparison of every parameter's initial values; empty if not requested.
        path: the case file, relative to the working directory.
        sources: backend to its builder.
        source_digest: a hash of the case file and of the user's own modules that it imports.
        scope: what the verdicts hold for; None: nothing was compared, or the results are of an older equiv.
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
    trials: tuple[ProbeTrial, ...] = ()
    unmapped_leaves: int = 0
    faults: FaultMatrix | None = None
    costs: CaseCosts | None = None
    initial_values: tuple[InitialValues, ...] = ()
    path: str = ""
    sources: dict[str, BuilderSource] = field(default_factory=dict)
    source_digest: str = ""
    seconds: float = 0.0
    scope: Scope | None = None


@dataclass(frozen=True)
class RunResult:
    """One run: its cases, environment and verdict.

    Attributes:
        rewrites: those of the prover, each with its condition.
        known_miscompilations: those that this release of jax has on this device, in words.
    """

    verdict: Verdict
    headline: str
    environment: dict[str, str]
    cases: tuple[CaseResult, ...]
    started: str
    seconds: float
    schema: int = RESULTS_SCHEMA_VERSION
    problems: tuple[str, ...] = field(default_factory=tuple)
    rewrites: dict[str, str] = field(default_factory=dict)
    known_miscompilations: tuple[str, ...] = ()
