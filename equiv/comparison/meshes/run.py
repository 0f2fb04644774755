"""Run a port on a mesh, sharded as its own annotations say, next to what it computes on one device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import jax

from equiv.backends.build import call_user_code
from equiv.backends.sharding import make_mesh, within_mesh
from equiv.comparison.as_users import UserPort, differing_programs, measure_user_rounding, worst_of_programs
from equiv.comparison.numeric.difference import compare_output
from equiv.comparison.numeric.fold import fold_comparison
from equiv.comparison.numeric.rounding import output_depths
from equiv.comparison.numeric.run_port import CompiledPort, collect_outputs
from equiv.comparison.numeric.user_outputs import UserOutputs, UserRounding
from equiv.comparison.observation import Comparison, RoundingNoise, Sample
from equiv.comparison.sharding.observed import MeshRun, PortSharding
from equiv.core.case import Case
from equiv.core.output_name import OutputName, ProgramName
from equiv.core.results import Finding
from equiv.errors import EquivError, PortError
from equiv.programs.collectives import Collective, list_collectives
from equiv.programs.placement import CarriedLeaf, Placement, place_port
from equiv.programs.probes import Probe
from equiv.programs.user_calls import CompiledCalls, Runnable, UserCall, lower_user_calls


@dataclass(frozen=True)
class ShardedPort:
    """A port on a mesh, and what it gave there.

    Attributes:
        run: what was found.
        port: with its budgets; None: it could not be run.
        outputs: of its one probe.
    """

    run: MeshRun
    port: UserPort | None = None
    outputs: UserOutputs | None = None


def run_on_mesh(
    case: Case,
    noise: RoundingNoise,
    probe: Probe,
    compiled: CompiledPort,
    sizes: Mapping[str, int],
    says: PortSharding,
    carry: Sequence[CarriedLeaf],
) -> ShardedPort:
    """Run the forward passes and train steps of a port on a mesh.

    Args:
        case: the case.
        noise: the rounding of the reference.
        probe: what it is run on.
        compiled: the port as equiv compares it, for one device.
        sizes: name to size of each axis of the mesh; there are so many devices.
        says: what the port says of its sharding.
        carry: the same of the carry of training, in the order of its pytree.
    """
    name, mesh = compiled.traced.port.name, make_mesh(sizes)
    placement = place_port(compiled.traced.tracer, mesh, says.rules, case.batch_axes, carry)
    depth = output_depths(compiled.native.programs, compiled.native.steps)
    noise = RoundingNoise(noise.native, {}, {**noise.depth, **depth})
    try:
        calls, collectives = _compile_sharded(compiled, case.steps, mesh, placement)
        rounding = UserRounding(noise)
        port = UserPort(case, compiled, calls, (probe,), collect_outputs(compiled, {}), rounding)
        runs = tuple(port.run())
        found = port.compare(runs)
        if off := differing_programs(found):
            port, runs, found = measure_user_rounding(port, off)
    except EquivError as error:
        return ShardedPort(MeshRun(name, problem=str(error)))
    sharded = sum(not one.is_fully_replicated for call, _ in calls for one in call.placed)
    return ShardedPort(MeshRun(name, worst_of_programs(found), collectives, sharded), port, runs[0])


def _compile_sharded(
    compiled: CompiledPort, steps: int, mesh: jax.sharding.Mesh, placement: Placement
) -> tuple[CompiledCalls, Mapping[ProgramName, tuple[Collective, ...]]]:
    """Compile what users call, on a mesh.

    Raises:
        PortError: it cannot be traced or compiled there.
    """
    name, shape = compiled.traced.port.name, " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())

    def lower_and_compile() -> list[tuple[UserCall, Any]]:
        with within_mesh(mesh):
            lowered = lower_user_calls(compiled.traced, steps, placement)
            return [(call, call.lowered.compile()) for call in lowered]

    found = call_user_code(name, f"compiling for the mesh {shape}", lower_and_compile)
    calls = tuple((call, _placed_function(name, call, function)) for call, function in found)
    return calls, {call.name: list_collectives(function.as_text()) for call, function in found}


def _placed_function(port: str, call: UserCall, function: Any) -> Runnable:
    """What places the arrays of a call and calls it.

    Raises:
        PortError: the compiled program takes an array in other parts than was asked for.
    """
    taken = jax.tree.leaves(function.input_shardings[0])
    avals = call.jaxpr.in_avals
    for wanted, got, aval in zip(call.placed, taken, avals, strict=True):
        if not got.is_equivalent_to(wanted, len(aval.shape)):
            raise PortError(
                f"{port}: {call.name} is compiled to take {aval.str_short()} as {got}, not as {wanted}.",
                fix="Take out what shards its arguments, or shard them in the annotations.",
                port=port,
            )

    def run(*arrays: Any) -> Any:
        placed = [jax.device_put(array, wanted) for array, wanted in zip(arrays, call.placed, strict=True)]
        for array, wanted in zip(placed, call.placed, strict=True):
            assert array.sharding.is_equivalent_to(wanted, array.ndim), "device_put places as it is asked to"
        return function(*placed)

    return run


def find_differing(case: Case, left: ShardedPort, right: ShardedPort) -> frozenset[ProgramName]:
    """The programs that both ports compute otherwise on a mesh than on one device, and not by the same.

    Random draws of the two are not the same, so that a program with draws is taken to be one of them.
    """
    sides = (left, right)
    off = [{program for program, one in side.run.worst.items() if one.grade == "refuted"} for side in sides]
    shared = off[0] & off[1]
    if not shared or left.port is None or right.port is None or left.outputs is None or right.outputs is None:
        return frozenset()
    draws = {program for side in sides if side.port for program, drawn in side.port.described.draws.items() if drawn}
    ours, theirs = left.outputs.observed, right.outputs.observed
    probe = left.outputs.probe
    described = (replace(left.port.described, samples={probe: Sample(ours, None)}),)
    described += (replace(right.port.described, samples={probe: Sample(theirs, None)}),)
    own = (left.port.rounding.own, right.port.rounding.own)
    comparison = fold_comparison(Comparison(case, *described, left.port.rounding.noise, own_rounding=own))
    names = [name for name in ours if name in theirs and name.program in shared]
    found: dict[OutputName, Finding] = {name: compare_output(comparison, name) for name in names}
    return frozenset(name.program for name, one in found.items() if one.grade == "refuted") | (shared & draws)


def count_devices(sizes: Mapping[str, int]) -> int:
    """How many devices a mesh has."""
    return prod(sizes.values())
