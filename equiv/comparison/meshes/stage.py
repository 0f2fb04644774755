"""The stage that compares what ports say of their sharding, and runs them on the meshes of the case."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import jax

from equiv.backends.build import call_user_code
from equiv.comparison.checks import CHECKS
from equiv.comparison.meshes.run import ShardedPort, count_devices, find_differing, run_on_mesh
from equiv.comparison.numeric.run_port import CompiledPort
from equiv.comparison.observation import FRESH_STATE, LARGE_INPUTS, Comparison, RoundingNoise
from equiv.comparison.sharding.annotations import unexplained_names
from equiv.comparison.sharding.observed import (
    MeshComparison,
    MeshRun,
    PortSharding,
    ShardedLeaf,
    ShardingComparison,
)
from equiv.comparison.stages import describe_side
from equiv.comparison.state import CaseState, failed_checks
from equiv.core.annotation import mesh_name, rules_for
from equiv.core.leaves import LeafTable
from equiv.core.output_name import ProgramName
from equiv.core.scope import MeshTried
from equiv.errors import EquivError
from equiv.programs.placement import CarriedLeaf, read_carry
from equiv.programs.traced_port import TracedPort

SHARDING = "sharding"
"""The check of it."""

Carries = Mapping[str, Sequence[CarriedLeaf]]
"""Port to what says how its carry of training is sharded."""


def compare_sharding(state: CaseState) -> CaseState:
    """Compare annotations, and run every port on every mesh that has enough devices."""
    case = state.built_case.case
    if SHARDING not in state.wanted or not (case.meshes or _annotates(state)):
        return state
    state.progress("comparing sharding")
    checks, says, carries = state.checks, dict[str, PortSharding](), dict[str, Sequence[CarriedLeaf]]()
    for name in _names(state):
        try:
            carries[name] = _read_carry(state.traced.get(name))
            says[name] = _describe(state, name, carries[name])
        except EquivError as error:
            checks += tuple(one for one in failed_checks(name, error) if one.check == SHARDING)
    axes = tuple(dict.fromkeys(axis for sizes in case.meshes for axis in sizes)) or None
    tried, runs = _run_on_meshes(state, says, carries)
    unexplained = frozenset[str]()
    for candidate in state.candidates:
        if candidate not in says or state.reference not in says:
            continue
        both = ShardingComparison(says[state.reference], says[candidate], axes)
        unexplained |= unexplained_names(both)
        both = replace(both, meshes=tuple(_pair(state, runs, candidate)))
        sides = (describe_side(state, state.reference), describe_side(state, candidate))
        result = CHECKS[SHARDING].run(Comparison(case, *sides, RoundingNoise({}, {}, {}), sharding=both))
        checks += () if result is None else (result,)
    frozen = {name: f"frozen {name}" for name in says if name not in state.built_case.built}
    annotated = {frozen.get(name, name): one.annotated for name, one in says.items()}
    return replace(state, checks=checks, annotated=annotated, unexplained=unexplained, meshes=tried)


def _annotates(state: CaseState) -> bool:
    """Whether any port has names of axes."""
    return any(one.port.annotations for one in state.built_case.built.values())


def _names(state: CaseState) -> tuple[str, ...]:
    return (state.reference, *state.candidates)


def _read_carry(traced: TracedPort | None) -> Sequence[CarriedLeaf]:
    if traced is None or traced.programs.step is None:
        return ()
    return call_user_code(traced.port.name, "beginning to train", partial(read_carry, traced.tracer))


def _describe(state: CaseState, name: str, carry: Sequence[CarriedLeaf]) -> PortSharding:
    """What a port says of its leaves, and of what its optimizer keeps for them; a frozen one says nothing."""
    built = state.built_case.built.get(name)
    if built is None:
        return PortSharding(name, (), {}, 0)
    table: LeafTable = built.table
    own = built.port.annotations
    leaves = {leaf.name: ShardedLeaf(leaf, leaf.annotation) for leaf in table.leaves}
    for one in carry:
        says = one.follows(own)
        for part in one.parts:
            if part.name.kind == "optimizer":
                follows = says == own.get(part.mapped.key)
                leaves[part.mapped.name] = ShardedLeaf(part.mapped, says, follows)
    rules = rules_for(state.built_case.case.rules, name, built.port.library)
    return PortSharding(name, rules, leaves, len(own))


def _run_on_meshes(
    state: CaseState, says: Mapping[str, PortSharding], carries: Carries
) -> tuple[tuple[MeshTried, ...], dict[str, dict[str, ShardedPort]]]:
    """Run every port on every mesh.

    Returns:
        What was tried, and mesh to port to what it gave.
    """
    tried: list[MeshTried] = []
    found: dict[str, dict[str, ShardedPort]] = {}
    available = len(jax.devices())
    compiled = dict(_compiled_ports(state, says))
    for sizes in state.built_case.case.meshes:
        mesh, devices = mesh_name(sizes), count_devices(sizes)
        tried_here = MeshTried(mesh, devices, available)
        if not state.compiling:
            tried_here = replace(tried_here, why_not="nothing is run with --prove-only")
        elif devices <= available:
            state.progress(f"running on the mesh {mesh}")
            found[mesh] = {
                name: _run(state, port, sizes, says[name], carries[name])
                for name, port in compiled.items()
                if says[name].annotated or state.built_case.case.batch_axes or devices == 1
            }
            tried_here = replace(tried_here, sharded={name: one.run.sharded for name, one in found[mesh].items()})
        tried.append(tried_here)
    return tuple(tried), found


def _compiled_ports(state: CaseState, says: Mapping[str, PortSharding]) -> Iterator[tuple[str, CompiledPort]]:
    for name in says if state.built_case.case.meshes else ():
        try:
            if name == state.reference and state.compiled_reference is not None:
                yield name, state.compiled_reference
            elif name in state.compiling:
                yield name, state.compiling[name]()
        except EquivError:
            continue  # its checks say why it cannot be run


def _run(
    state: CaseState,
    compiled: CompiledPort,
    sizes: Mapping[str, int],
    says: PortSharding,
    carry: Sequence[CarriedLeaf],
) -> ShardedPort:
    reference = state.observed
    assert reference is not None, "the reference has run"
    probes = state.probes.get(compiled.traced.port.name, reference.probes)
    probe = next(one for one in probes if one.name not in (FRESH_STATE, LARGE_INPUTS))
    return run_on_mesh(state.built_case.case, reference.noise, probe, compiled, sizes, says, carry)


def _pair(state: CaseState, runs: Mapping[str, Mapping[str, ShardedPort]], candidate: str) -> Iterator[MeshComparison]:
    """Yield the reference and a candidate on each mesh."""
    case = state.built_case.case
    for sizes in case.meshes:
        ran = runs.get(mesh_name(sizes), {})
        sides = [ran[name] for name in (state.reference, candidate) if name in ran]
        both: tuple[MeshRun, ...] = tuple(one.run for one in sides)
        differing = find_differing(case, sides[0], sides[1]) if len(sides) == 2 else frozenset[ProgramName]()
        if both:
            yield MeshComparison(mesh_name(sizes), count_devices(sizes), both, differing)
