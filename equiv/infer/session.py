"""From two builders to a layer table: what `equiv map`, `check` and `new` do before they run the case."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from equiv.backends.base import Port, PortSpec
from equiv.backends.build import build_unmapped, port_spec
from equiv.backends.leaf_table import map_port
from equiv.backends.registry import load_library
from equiv.core.batch_spec import BatchTree
from equiv.core.case import Case
from equiv.core.leaves import LeafTable, NativeKey
from equiv.core.method_call import LABELS, Methods
from equiv.errors import CaseError, PortError
from equiv.infer.builders import LocatedBuilder, port_names
from equiv.infer.matching.proposal import Proposal, UnpairedLeaf
from equiv.infer.matching.propose import propose
from equiv.infer.table.case_writer import CaseDraft
from equiv.infer.table.lone_rows import lone_rows
from equiv.infer.table.moving_averages import average_differences
from equiv.infer.table.rows import InferredRow, infer_rows
from equiv.programs.probes import make_probe
from equiv.programs.table_bounds import bound_by_tables

INFERENCE_SEED = 7
"""Seed of the batch on which ties are decided; different from the seeds of a run."""


@dataclass(frozen=True)
class InferredLayers:
    """The layer table of two ports, as far as it could be inferred.

    Attributes:
        proposal: pairs of leaves.
        rows: the layer table.
        problems: pairs that no row of a layer table can express, and why.
        unpaired: leaves without a counterpart, except those that a layer has in one library only.
        covered: whether the layer table covers every leaf of both ports, so that the case can be run.
        draft: the case file.
        seconds: duration of the inference, tracing included.
    """

    proposal: Proposal
    rows: tuple[InferredRow, ...]
    problems: tuple[str, ...]
    unpaired: tuple[UnpairedLeaf, ...]
    covered: bool
    draft: CaseDraft
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every leaf of both ports has its counterpart in the layer table."""
        return not self.unpaired and not self.problems


def infer_layers(
    builders: tuple[LocatedBuilder, LocatedBuilder],
    batch: Mapping[str, BatchTree],
    methods: Methods | None = None,
    names: tuple[str, str] | None = None,
) -> InferredLayers:
    """Infer the layer table of two builders.

    Args:
        builders: of the reference and of the candidate.
        batch: as `equiv.backends.batches.resolve_batch` returns it.
        methods: see `equiv.core.case.Case`.
        names: of the ports; None: see `equiv.infer.builders.port_names`.

    Raises:
        CaseError: the builders, the batch or the methods cannot be used.
        NotRun: a library is missing.
        PortError: a port cannot be built or traced.
    """
    began = time.perf_counter()
    left, right = builders
    names = names or port_names(builders)
    models = {name: one.builder for name, one in zip(names, builders, strict=True) if one.elsewhere is None}
    case = bound_by_tables(Case(guide="", models=models, batch=batch, layers=(), methods=methods))
    request, entries = port_spec(case)
    # The probe machinery draws what a batch entry allows (bounds of integers, dtypes), without any leaves.
    probe = make_probe("inference", INFERENCE_SEED, LeafTable(names[0], ()), entries, 1)
    try:
        ports = _build_port(names[0], left, case, request), _build_port(names[1], right, case, request)
        proposal = propose(ports, request, {name: array[0] for name, array in probe.batches.items()})
    except PortError as error:
        fix = "Set the batch with --input or --batch, and each method's arguments with --method."
        why = f"{error.problem} It was called as {_describe_calls(request)}."
        fix = " ".join(filter(None, (error.fix, fix, _labels_left_out(request))))
        raise PortError(why, fix=fix, port=error.port, leaf=error.leaf) from error
    found, problems = infer_rows(proposal)
    problems = (*problems, *_uncovered_parts(ports, found, proposal))
    # Dead leaves that a row holds, as Haiku's counter of a batch norm, are part of their
    # layer. Others are named in the file, and the case cannot be run without a row for them.
    held = [frozenset[NativeKey]().union(*(row.keys[side] for row in found)) for side in (0, 1)]
    outside = tuple(one for one in proposal.unpaired if one.key not in held[one.side])
    alone = tuple(one for one in proposal.unpaired if not one.dead or one in outside)
    lone = lone_rows(proposal, found, outside, problems)
    found = (*found, *lone)
    averaging = [port for port in ports if load_library(port.library).running_averages]
    draft = CaseDraft(
        lesson=f"{right.import_path.attribute} ({right.library}) is {left.import_path.attribute} ({left.library}).",
        names=names,
        builders=builders,
        batch=case.inputs,
        methods=methods,
        rows=found,
        known_differences=average_differences(averaging[0], request, found) if len(averaging) == 1 else (),
        missing=(*problems, *(f"{names[one.side]} {one.key}: {one.reason}" for one in alone)),
    )
    covered = not problems and (bool(lone) or not outside)
    return InferredLayers(proposal, found, problems, alone, covered, draft, time.perf_counter() - began)


def _uncovered_parts(ports: tuple[Port, Port], rows: Sequence[InferredRow], proposal: Proposal) -> Iterator[str]:
    """Yield what keeps a table from being used: it covers a leaf in part or twice, or gives it two shapes."""
    alone = {(one.side, one.key) for one in proposal.unpaired}
    held = [frozenset[NativeKey]().union(*(row.keys[side] for row in rows)) for side in (0, 1)]
    tables = []
    for side, port in enumerate(ports):
        # A leaf that no row has is listed by itself.
        kept = {key: leaf for key, leaf in port.leaves.items() if key in held[side] or (side, key) not in alone}
        try:
            layers = tuple(row.layer for row in rows)
            tables.append(map_port(layers, replace(port, leaves=kept), load_library(port.library)))
        except CaseError as error:
            yield str(error.problem).removesuffix(".")
    if len(tables) == len(ports):
        shapes = {leaf.name: leaf for leaf in tables[0].leaves}
        for leaf in tables[1].leaves:
            other = shapes.get(leaf.name, leaf)
            if other.spec.shape != leaf.spec.shape:
                both = f"{ports[0].name} {other.key} as {other.spec}, {ports[1].name} {leaf.key} as {leaf.spec}"
                yield f"the inferred row gives {leaf.name} two shapes: {both}"


def _describe_calls(request: PortSpec) -> str:
    """The calls that were traced: an error in a builder may be caused by the batch."""
    calls = [f"{method}({', '.join(call.texts)})" for method, call in request.methods.items()]
    inputs = [name for call in request.methods.values() for name in call.inputs]
    given = [f"{name} {one.dtype}{list(one.shape)}" for name, one in request.batch.items() if name in inputs]
    return f"{' and '.join(calls)} with {', '.join(given)}"


def _labels_left_out(request: PortSpec) -> str:
    """What to do if the model takes an input that is left out of its calls for its name."""
    passed = {name for call in request.methods.values() for name in call.inputs}
    left = [name for name in request.batch if name in LABELS and name not in passed]
    if not left:
        return ""
    which, are, them = ("labels", "are", "them") if len(left) > 1 else ("a label", "is", "it")
    call = f"--method '__call__({', '.join(request.batch)})'"
    return f"{' and '.join(left)} {are} taken for {which} and not passed; if the model takes {them}: {call}."


def _build_port(name: str, located: LocatedBuilder, case: Case, request: PortSpec) -> Port:
    if located.elsewhere is not None:
        return located.elsewhere(name, case)
    return build_unmapped(name, located.builder, located.library, request)
