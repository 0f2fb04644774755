"""What was found of the sharding of a port: the input of its check."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from equiv.core.annotation import Annotation, Rules
from equiv.core.leaves import MappedLeaf
from equiv.core.output_name import ProgramName
from equiv.core.results import Finding
from equiv.programs.collectives import Collective


@dataclass(frozen=True)
class ShardedLeaf:
    """A canonical leaf, or what an optimizer keeps for one.

    Attributes:
        mapped: how the port stores it.
        annotation: what says how it is sharded; None: nothing does, so that it is on every device.
        follows: whether that is what says so of the parameter that it is kept for.
    """

    mapped: MappedLeaf
    annotation: Annotation | None
    follows: bool = False


@dataclass(frozen=True)
class PortSharding:
    """What a port says of its sharding.

    Attributes:
        port: its name.
        rules: those of the case for it.
        leaves: canonical name to leaf, of the model and of the optimizer's state.
        annotated: number of native leaves of the model of which its library keeps names of axes.
    """

    port: str
    rules: Rules
    leaves: Mapping[str, ShardedLeaf]
    annotated: int


@dataclass(frozen=True)
class MeshRun:
    """A port that was run on a mesh, next to what it computes on one device.

    Attributes:
        port: its name.
        worst: program to the finding of its worst output: what it computes on one device is the reference's value.
        collectives: program to what devices send each other in it.
        sharded: number of arrays that it was given, over all programs, of which devices have different parts.
        problem: why it could not be run; empty: it could.
    """

    port: str
    worst: Mapping[ProgramName, Finding] = field(default_factory=dict)
    collectives: Mapping[ProgramName, tuple[Collective, ...]] = field(default_factory=dict)
    sharded: int = 0
    problem: str = ""


@dataclass(frozen=True)
class MeshComparison:
    """Both ports on one mesh.

    Attributes:
        mesh: in words.
        devices: how many it has.
        runs: of the reference and of the candidate, as far as they were run.
        differing: the programs in which both compute something else than on one device, and not the same.
    """

    mesh: str
    devices: int
    runs: tuple[MeshRun, ...]
    differing: frozenset[ProgramName] = frozenset()


@dataclass(frozen=True)
class ShardingComparison:
    """The sharding of two ports.

    Attributes:
        reference: what it says.
        candidate: what it says.
        mesh_axes: axes of the meshes of the case; None: it has none, and names stand for themselves.
        meshes: both ports on each mesh that was tried.
    """

    reference: PortSharding
    candidate: PortSharding
    mesh_axes: Sequence[str] | None = None
    meshes: tuple[MeshComparison, ...] = ()
