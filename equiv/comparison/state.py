"""A case on its way to its verdict, and how stages take it further."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from equiv.comparison.numeric.constant_readings import ReadAgain
from equiv.comparison.numeric.probe_set import PROBE_SEEDS
from equiv.comparison.numeric.run_port import CompiledPort
from equiv.comparison.observation import PortOutputs, ReferenceEdges, RoundingNoise
from equiv.comparison.proofs import ProverSide
from equiv.core.checks import CHECK_NAMES, INVARIANCE, STRUCTURE, left_out_checks
from equiv.core.output_name import ProgramName
from equiv.core.results import CheckResult, Finding, ProbeTrial
from equiv.core.scope import MeshTried, OtherSizes, RangeTried
from equiv.errors import EquivError
from equiv.programs.built_case import BuiltCase
from equiv.programs.exercise import Observed
from equiv.programs.probes import Probe
from equiv.programs.prover.proof import Proofs
from equiv.programs.traced_port import TracedPort
from equiv.programs.user_calls import CompiledCalls

LATER_CHECKS = tuple(name for name in CHECK_NAMES if name != STRUCTURE)
"""The check that runs nothing, and those that need its leaves to agree."""

ReportStage = Callable[[str], None]
"""Called with a text for every stage of the work."""


@dataclass(frozen=True)
class Reference:
    """The outputs of the reference and the response of its rounding; shared by all candidates.

    Attributes:
        observed: outputs on every probe.
        probes: those probes.
        noise: from which budgets are computed.
    """

    observed: PortOutputs
    probes: tuple[Probe, ...]
    noise: RoundingNoise


@dataclass(frozen=True)
class CaseState:
    """A case on its way to its verdict; every stage returns it with more filled in.

    A caller may fill in what it has already, such as a frozen reference: stages leave that out.

    Attributes:
        built_case: the case, its ports built.
        reference: name of the reference.
        candidates: names of the candidates that are still compared.
        progress: called with a text for every stage.
        checks: those that are complete.
        trials: of the probes and proofs.
        zero_gradients: leaves whose gradient is zero in theory: what is left of it is rounding.
        traced: port to its programs.
        prover_side: what candidates are proved against.
        candidate_sides: candidate to what was proved of it, with the names that proofs have given.
        proofs: candidate to its proofs.
        in_float64: port to the programs that are also run in float64; a port that is missing runs all.
        compiling: port to a function that waits for its compilation.
        compiled_reference: the reference, compiled.
        probes: port to its own probes; a port that is missing runs on those of the reference.
        seeds: name to seed of the probes that are made.
        observed: what the reference gave.
        exercised: port to what all of its probes exercised.
        ranges: over which ranges of narrow dtypes candidates were compared.
        user_calls: port to a function that waits for its programs, compiled as its user does.
        not_as_users: why none is, where that has another reason than that it is not asked for.
        other_sizes: what each port is with other sizes of its batch.
        frozen_edges: the edge probes of a frozen reference, which cannot be run on others.
        frozen_thresholds: what a frozen reference compares values with; None: it is none.
        edges: the probes beyond ordinary values that candidates were tried on.
        edge_ports: the ports that were run on these.
        edges_refused: why the reference could not be run on any.
        readings: candidate to how constants of both ports are read in float64, where it takes that to be equal.
        annotated: port to how many of its leaves have names of axes.
        unexplained: names of axes of which nothing says what they are on a mesh, so that they are not compared.
        meshes: what was run on the meshes of the case.
        before: the same case with another rate of the default train step, while it goes through its stages again: what
            does not depend on the step is taken from it.
    """

    built_case: BuiltCase
    reference: str
    candidates: tuple[str, ...]
    progress: ReportStage = lambda _: None
    checks: tuple[CheckResult, ...] = ()
    trials: tuple[ProbeTrial, ...] = ()
    zero_gradients: frozenset[str] = frozenset()
    traced: Mapping[str, TracedPort] = field(default_factory=dict)
    prover_side: ProverSide | None = None
    candidate_sides: Mapping[str, ProverSide] = field(default_factory=dict)
    proofs: Mapping[str, Proofs] = field(default_factory=dict)
    in_float64: Mapping[str, frozenset[ProgramName]] = field(default_factory=dict)
    compiling: Mapping[str, Callable[[], CompiledPort]] = field(default_factory=dict)
    compiled_reference: CompiledPort | None = None
    probes: Mapping[str, Sequence[Probe]] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=lambda: PROBE_SEEDS)
    observed: Reference | None = None
    exercised: Mapping[str, Observed] = field(default_factory=dict)
    ranges: tuple[RangeTried, ...] = ()
    user_calls: Mapping[str, Callable[[], CompiledCalls]] = field(default_factory=dict)
    not_as_users: str = ""
    other_sizes: tuple[OtherSizes, ...] = ()
    frozen_edges: ReferenceEdges | None = None
    frozen_thresholds: frozenset[float] | None = None
    edges: tuple[Probe, ...] = ()
    edge_ports: tuple[str, ...] = ()
    edges_refused: str = ""
    readings: Mapping[str, ReadAgain] = field(default_factory=dict)
    annotated: Mapping[str, int] = field(default_factory=dict)
    unexplained: frozenset[str] = frozenset()
    meshes: tuple[MeshTried, ...] = ()
    before: "CaseState | None" = None

    @property
    def wanted(self) -> tuple[str, ...]:
        """The names of the checks after structure."""
        left_out = left_out_checks(self.built_case.case.checks)
        if not self.built_case.case.invariances:
            left_out = (*left_out, INVARIANCE)
        return tuple(name for name in LATER_CHECKS if name not in left_out)

    @property
    def proved(self) -> bool:
        """Whether every output of every candidate is proved, so that numbers only double-check."""
        return self.in_float64.get(self.reference) == frozenset()


Stage = Callable[[CaseState], CaseState]
"""One step towards the verdict."""


def advance(state: CaseState, stages: Sequence[Stage]) -> CaseState:
    """Take a case through stages, in order."""
    for stage in stages:
        state = stage(state)
    return state


def failed_checks(candidate: str, error: EquivError) -> tuple[CheckResult, ...]:
    """Give every check after structure as an error, for a candidate that cannot be traced, compiled or run."""
    finding = Finding(candidate, "error", note=str(error))
    return tuple(CheckResult(name, candidate, "error", str(error), (finding,)) for name in LATER_CHECKS)
