"""Do both ports say the same of how each leaf is sharded, and compute on every mesh what they compute on one device?"""

from collections.abc import Iterator
from dataclasses import replace

from equiv.comparison.checks.coverage import CheckAnswer
from equiv.comparison.observation import Comparison
from equiv.comparison.sharding.annotations import compare_annotations, unruled
from equiv.comparison.sharding.observed import MeshComparison, MeshRun, ShardingComparison
from equiv.core.output_name import ProgramName
from equiv.core.results import Finding


def check(comparison: Comparison) -> CheckAnswer | None:
    """Compare annotations leaf by leaf, and judge both ports on each mesh; None where there is nothing of either."""
    both = comparison.sharding
    if both is None:
        return None
    findings = [*compare_annotations(both), *(one for mesh in both.meshes for one in _judge_mesh(mesh))]
    return CheckAnswer(tuple(findings), remarks=tuple(_remarks(both))) if findings else None


def _judge_mesh(mesh: MeshComparison) -> Iterator[Finding]:
    for run in mesh.runs:
        place = f"{run.port} on the mesh {mesh.mesh}"
        if run.problem:
            yield Finding(place, "error", note=run.problem)
        elif not run.sharded and mesh.devices > 1:
            note = "every device has all of every array, so that the run says nothing of sharding"
            fix = f"Name an axis of the mesh in the annotations of {run.port}, in rules or in batch_axes"
            yield Finding(place, "not run", note=f"{note}. {fix}.")
        else:
            yield from (_judge_program(mesh, run, program) for program in run.worst)


def _judge_program(mesh: MeshComparison, run: MeshRun, program: ProgramName) -> Finding:
    """Judge what one program of a port computes on a mesh, whose two sides are the port itself.

    Where the other port is off there too, and by the same, the ports may well be one model: both are at fault.
    """
    found = run.worst[program]
    named = replace(found, place=f"{run.port} on the mesh {mesh.mesh}: {found.output}", output=None)
    if found.grade != "refuted":
        return replace(named, reference="", candidate="", note="")
    others = [one for one in mesh.runs if one.port != run.port and program in one.worst]
    both = bool(others) and all(one.worst[program].grade == "refuted" for one in others)
    at = f" at {list(found.index)}" if found.index else ""
    note = f"on one device it computes {found.reference}, on the mesh {found.candidate}{at}"
    if both and program not in mesh.differing:
        note += f"; {others[0].port} does the same: what both shard is no longer the function that it is on one device"
        return replace(named, grade="error", reference="", candidate="", note=note)
    return replace(named, reference="", candidate="", note=f"{note}. {_FIX}")


_FIX = "Look for a sum over devices that is missing in a shard_map, such as jax.lax.psum"


def _remarks(both: ShardingComparison) -> Iterator[str]:
    axes = tuple(both.mesh_axes or ())
    for port in (both.reference, both.candidate):
        if axes and (names := unruled(port, axes)):
            listed = ", ".join(map(repr, names))
            yield f"{port.port}: no rule says which axis of a mesh {listed} is, and nothing is sharded along it"
    for mesh in both.meshes:
        yield from _differing_collectives(mesh)


def _differing_collectives(mesh: MeshComparison) -> Iterator[str]:
    """Yield the programs in which devices send each other something else in the two ports."""
    if len(mesh.runs) < 2 or any(run.problem for run in mesh.runs):
        return
    one, other = mesh.runs
    for program in one.collectives:
        if program in other.collectives and one.collectives[program] != other.collectives[program]:
            yield f"on the mesh {mesh.mesh}, {program}: {_sent(one, program)}; {_sent(other, program)}"


def _sent(run: MeshRun, program: ProgramName) -> str:
    return f"{run.port} has {', '.join(one.text for one in run.collectives[program]) or 'no collective'}"
