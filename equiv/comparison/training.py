"""What the training of two ports has in common, and what one of them keeps for itself."""

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import or_

from equiv.backends.build import DEFAULT_RATE, DefaultSgd
from equiv.comparison.observation import TrainStepKind
from equiv.comparison.proofs import prover_side
from equiv.comparison.state import CaseState
from equiv.core.case import Case
from equiv.core.layout_trial import changes_values
from equiv.core.leaves import LeafTable
from equiv.core.output_name import TRAINING, InputName, OutputName
from equiv.core.results import Finding
from equiv.programs.prover.dependencies import Dependencies
from equiv.programs.prover.numbered_port import NumberedPort

TrainStepKinds = tuple[TrainStepKind, TrainStepKind]
"""Whose train step the reference and the candidate are trained with."""


def is_training_shared(kinds: TrainStepKinds) -> bool:
    """Whether both ports are trained with steps of their own, or both with the default one."""
    return (kinds[0] == "own") == (kinds[1] == "own")


def lone_step_findings(ports: tuple[str, str], kinds: TrainStepKinds) -> tuple[Finding, ...]:
    """Say that training is not compared, where only one port has a train step of its own; else nothing.

    Args:
        ports: names of the reference and of the candidate.
        kinds: whose train steps they are trained with.
    """
    having = [port for port, kind in zip(ports, kinds, strict=True) if kind != "default"]
    if len(having) != 1:
        return ()
    other = ports[ports[0] == having[0]]
    note = f"training is not compared: only {having[0]} has a train step of its own. Give {other} one, too."
    return (Finding("train step", "not run", note=note),)


def describe_train_step(case: Case, kinds: TrainStepKinds) -> tuple[str, ...]:
    """Say what the default train step is, where both ports are trained with it; else nothing."""
    if "own" in kinds:
        return ()
    loss = "the mean square of the outputs" if case.loss is None else "the case's loss"
    optimizer = case.optimizer or DefaultSgd()
    name = str(optimizer) if isinstance(optimizer, DefaultSgd) else "the case's optimizer"
    lowered = isinstance(optimizer, DefaultSgd) and optimizer.rate < DEFAULT_RATE
    why = f"; its rate is lowered from {DEFAULT_RATE:g}, with which training blows up" if lowered else ""
    return (f"both ports are trained with the default step, {name} on {loss}{why}",)


def find_idle_slots(state: CaseState, candidate: str) -> dict[OutputName, str]:
    """Find the idle slots of a traced candidate and its reference; see `idle_slots`."""
    if state.prover_side is None:
        return {}
    side = state.candidate_sides.get(candidate) or prover_side(state.traced[candidate])
    return idle_slots(state.prover_side.numbered, side.numbered)


def idle_slots(left: NumberedPort, right: NumberedPort) -> dict[OutputName, str]:
    """Find what only one port carries through training, and on which nothing depends that both have.

    An average of the parameters is such a slot: it follows training and does not change it. A momentum that the other
    port lacks is none, as its parameters depend on it.

    Args:
        left: the reference.
        right: the candidate.

    Returns:
        Slot to the port that has it.
    """
    sides = [(port, step) for port in (left, right) if (step := port.programs.step) is not None]
    carried = [{name for name in step.outputs if name.kind in ("optimizer", "bookkeeping")} for _, step in sides]
    if len(sides) < 2 or carried[0] == carried[1]:
        return {}
    idle: dict[OutputName, str] = {}
    for (port, step), mine, theirs in zip(sides, carried, reversed(carried), strict=True):
        alone = mine - theirs
        if alone:
            needs = port.dependencies(step)
            used = _used_inputs(needs, alone)
            kept = (name for name in step.outputs if name in alone and name.as_input not in used)
            idle |= {name.of(TRAINING): port.programs.port for name in kept}
    return idle


def _used_inputs(needs: Dependencies, alone: Iterable[OutputName]) -> frozenset[InputName]:
    """The inputs that outputs of both ports depend on, after any number of steps."""
    left_over = set(alone)
    used = reduce(or_, (mask for name, mask in needs.masks.items() if name not in left_over), 0)
    while found := {name for name in left_over if needs.mask((name.as_input,)) & used}:
        left_over -= found
        used = reduce(or_, (needs.masks[name] for name in found), used)
    return needs.names(used)


def describe_idle_slots(ports: tuple[str, str], kept: Mapping[OutputName, str]) -> tuple[str, ...]:
    """Say what each port alone keeps, one remark a port.

    Args:
        ports: names of the reference and of the candidate.
        kept: slot to port.
    """
    remarks = []
    for port, other in (ports, ports[::-1]):
        paths = [name.path.strip("/") for name, owner in kept.items() if owner == port]
        if paths:
            listed = ", ".join(f"{path} ({paths.count(path)})" for path in dict.fromkeys(paths))
            remarks.append(
                f"only {port} keeps {listed}, on which nothing depends that {other} has too: it is not compared"
            )
    return tuple(remarks)


def describe_value_layouts(tables: tuple[LeafTable, LeafTable]) -> tuple[str, ...]:
    """Say which parameters the ports store with other values, on which training depends, one remark a port.

    Args:
        tables: of the reference and of the candidate.
    """
    remarks = []
    for table in tables:
        scaled = [
            leaf
            for leaf in table.leaves
            if leaf.spec.collection == "params" and changes_values(leaf.layout, leaf.block_shape)
        ]
        if scaled:
            others = f" and {len(scaled) - 1} more" if len(scaled) > 1 else ""
            remarks.append(
                f"{table.port} stores {scaled[0].name} in another scale ({scaled[0].layout}){others}: no optimizer "
                "takes the same steps there, whatever else the ports do; Case(checks=...) asks for the rest alone"
            )
    return tuple(remarks)
