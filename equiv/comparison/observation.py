"""Data between running and checking: outputs of ports on the probes, and how much rounding explains. NumPy only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from equiv.comparison.sharding.observed import ShardingComparison
from equiv.core.budget import Responses
from equiv.core.case import Case, KnownDifference
from equiv.core.leaves import LeafTable, MappedLeaf, NativeKey, one_sided_leaves
from equiv.core.no_gradient import NoGradient
from equiv.core.output_name import OutputName, ProgramName
from equiv.core.results import Finding
from equiv.programs.exercise import Observed
from equiv.programs.probes import Probe
from equiv.programs.program import Draw, KeyReuse
from equiv.programs.prover.proof import Proofs

Outputs = Mapping[OutputName, np.ndarray]

LARGE_INPUTS = "wide"
"""Name of the large-input probe."""

FRESH_STATE = "cold"
"""Name of the probe that starts training from the library's own fresh state."""


TrainStepKind = Literal["own", "default", "left out"]
"""Whose train step a port is trained with: that of its builder, or the default one; `left out`: the default one, though
its builder has one, as the other port has none."""


@dataclass(frozen=True)
class Sample:
    """The outputs of one port on one probe.

    Attributes:
        native: in the dtypes of the port.
        float64: the same programs in float64; None: there is no float64 run.
        exercised: what the native run exercised of its program.
        moves: parameter to how far each native train step moves it, over its norm in the probe, float64[steps]; only
            where training is large, so that its values are not at hand.
        scales: program, and whether in float64, to its largest gradient; filled as these are asked for.
    """

    native: Outputs
    float64: Outputs | None
    exercised: Observed = field(default_factory=dict)
    moves: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)
    scales: dict[tuple[ProgramName, bool], float] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class PortOutputs:
    """The outputs of one port on all probes, with its leaves and draws.

    Attributes:
        table: its leaf table.
        random: number of leaves of random state, which are replayed and not compared.
        samples: probe name to outputs. See `LARGE_INPUTS` and `FRESH_STATE`.
        draws: program to its random draws.
        native_paths: native path to shape, as the library prints them.
        why_no_float64: why there is no float64 run; empty where there is one.
        reused: draws of one program that use one key, without replay.
        drawn: number of keys looked at.
        train_step: see `TrainStepKind`.
        no_gradients: the gradients that the port does not have, and why.
    """

    table: LeafTable
    random: int
    samples: Mapping[str, Sample]
    draws: Mapping[ProgramName, tuple[Draw, ...]]
    native_paths: Mapping[NativeKey, tuple[int, ...]]
    why_no_float64: str = ""
    reused: tuple[KeyReuse, ...] = ()
    drawn: int = 0
    train_step: TrainStepKind = "own"
    no_gradients: tuple[NoGradient, ...] = ()

    def describe_lack(self, output: OutputName) -> str:
        """Why it lacks an output that the other port has, in words."""
        port = self.table.port
        for one in self.no_gradients:
            if one.program == output.program:
                return f"{port} has no such gradient: {one.reason}"
            if one.program.kind == "gradient" and (output.program.is_training or output.after_training):
                return f"{port} cannot be trained with the default step: {one.reason}"
        return f"{port} does not {'train' if output.program.is_training else 'return'} it"

    def table_collection(self, key: NativeKey) -> str:
        """`params` or `state`, for one of the port's native leaves."""
        return next(leaf.spec.collection for leaf in self.table.leaves if leaf.key == key)


@dataclass(frozen=True)
class RoundingNoise:
    """The response of a port to rounding.

    Attributes:
        native: probe to output to how far it moves when each input moves by one ulp of its dtype.
        float64: likewise in float64.
        depth: output to the number of rounded operations in a row.
        from_float64: probe to large output to how far its native values are from those in float64.
        few: probe, output and whether in float64, of responses that are those of few runs as they are: more runs only
            make them larger.
    """

    native: Mapping[str, Mapping[OutputName, Responses]]
    float64: Mapping[str, Mapping[OutputName, Responses]]
    depth: Mapping[OutputName, int]
    from_float64: Mapping[str, Mapping[OutputName, Responses]] = field(default_factory=dict)
    few: frozenset[tuple[str, OutputName, bool]] = frozenset()


@dataclass(frozen=True)
class EdgeProbe:
    """A probe, and what of it is compared.

    Attributes:
        probe: the probe; its name says what is special about it.
        calls: whether the outputs of calls and gradients are compared.
        training: whether the train steps are.
        exact: whether values lie exactly at ties and thresholds, where a nudge of an ulp would move them away.
        guarded: whether they may lie there by rounding: only equal numbers of ties in both ports are compared.
        overflows: whether it is made to overflow an exponential, which no float64 run does.
    """

    probe: Probe
    calls: bool = True
    training: bool = False
    exact: bool = False
    guarded: bool = False
    overflows: bool = False


@dataclass(frozen=True)
class ReferenceEdges:
    """The reference on its edge probes.

    Attributes:
        edges: the probes.
        samples: probe name to outputs.
        noise: its response to rounding on these probes.
    """

    edges: tuple[EdgeProbe, ...]
    samples: Mapping[str, Sample]
    noise: RoundingNoise


CompilerBlame = Literal["compiler", "equiv", "unstable", "unknown"]
"""Why a program computes something else when it is compiled as users do: the compiler is wrong there; it is in the
executable that equiv compares with; the program's values depend on rounding, whatever compiles it; it is not known."""


@dataclass(frozen=True)
class Blame:
    """Who is to blame for what a program computes as its user runs it.

    Attributes:
        who: see `CompilerBlame`.
        passes: without these the compiler is right; empty: without all that can be left out it is wrong, too.
        compiler: version and device, `jax 0.10.2 on cpu`.
    """

    who: CompilerBlame
    passes: tuple[str, ...] = ()
    compiler: str = ""


@dataclass(frozen=True)
class UserRun:
    """What was found of one port as its user runs it, next to what its programs mean.

    Attributes:
        port: its name.
        worst: program to the finding of its worst output: what it means is the reference's value in it.
        blame: program to who is to blame, for the programs whose outputs differ.
        problem: why it could not be compiled or run; empty: it could.
    """

    port: str
    worst: Mapping[ProgramName, Finding] = field(default_factory=dict)
    blame: Mapping[ProgramName, Blame] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class InvarianceRun:
    """What was found of one port where parts of a batch are called alone.

    Attributes:
        port: its name.
        title: what was compared, in words.
        findings: of every part: in the batch as the reference, alone as the candidate.
        problem: why it could not be compared; empty: it could.
        tried: which rows were called alone, in words.
    """

    port: str
    title: str
    findings: tuple[Finding, ...] = ()
    problem: str = ""
    tried: str = ""


def find_known_differences(case: Case, left: LeafTable, right: LeafTable) -> dict[str, KnownDifference]:
    """Canonical leaf to the known difference between two ports: one of them has it, the other has not."""
    return {
        known.leaf: known
        for known in case.known_differences
        if known.concerns(left.port, left.library) != known.concerns(right.port, right.library)
    }


@dataclass(frozen=True)
class Comparison:
    """One candidate and the reference: the input of every check.

    Attributes:
        case: the case.
        reference: what the reference gave.
        candidate: what the candidate gave.
        noise: the response of the reference to rounding.
        proofs: of outputs.
        idle: what one port alone carries through training, and on which nothing depends that both have, to the port.
        own_rounding: how far the reference and the candidate move when each of their operations rounds otherwise; None:
            not measured, since nothing needs it.
        user_runs: both ports as their users run them; empty: they were not run so.
        folded: probe and output to what was found of large outputs, part by part as they were computed.
        sharding: what was found of the sharding of both ports; None: nothing was looked for.
        invariances: what was found of both ports where parts of a batch are called alone.
    """

    case: Case
    reference: PortOutputs
    candidate: PortOutputs
    noise: RoundingNoise
    proofs: Proofs = field(default_factory=dict)
    idle: Mapping[OutputName, str] = field(default_factory=dict)
    own_rounding: tuple[RoundingNoise | None, RoundingNoise | None] = (None, None)
    user_runs: tuple[UserRun, ...] = ()
    folded: Mapping[tuple[str, OutputName], Finding] = field(default_factory=dict)
    sharding: ShardingComparison | None = None
    invariances: tuple[InvarianceRun, ...] = ()

    @property
    def names(self) -> tuple[str, str]:
        """Name of the reference and of the candidate."""
        return self.reference.table.port, self.candidate.table.port

    @property
    def known_differences(self) -> dict[str, KnownDifference]:
        """Canonical leaf to the known difference between the two ports."""
        return find_known_differences(self.case, self.reference.table, self.candidate.table)

    @property
    def one_sided_leaves(self) -> dict[str, MappedLeaf]:
        """Canonical name to leaf, of the library-only leaves that only one of the two ports has."""
        return one_sided_leaves(self.reference.table, self.candidate.table)

    @property
    def ordinary_probes(self) -> tuple[str, ...]:
        """Probes with given state and inputs of the usual size; only one where every output is proved."""
        return tuple(name for name in self.reference.samples if name not in (LARGE_INPUTS, FRESH_STATE))
