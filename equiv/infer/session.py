"""From two builders to a layer table: everything that `equiv map`, `check` and `new` do before anything is run."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from equiv import backends
from equiv.backends.base import Port, Request
from equiv.backends.build import guarded, request_of
from equiv.core.case import Case
from equiv.core.leaves import LeafTable, NativeKey
from equiv.errors import CaseError, PortError
from equiv.infer.builders import Located
from equiv.infer.matching.proposal import Left, Proposal
from equiv.infer.matching.propose import propose
from equiv.infer.table.case_writer import Draft
from equiv.infer.table.moving_averages import decays
from equiv.infer.table.rows import Row, rows
from equiv.programs.probes import make_probe

SEED = 7
"""Of the batch on which ties are decided; those of a run are others."""


@dataclass(frozen=True)
class Inferred:
    """A map between two ports, as far as it could be inferred.

    Attributes:
        proposal: leaf by leaf.
        rows: the layer table.
        problems: pairs that no row of a layer table can say, and why.
        left: leaves without a counterpart, but for those that only one library keeps of a layer.
        covered: whether the layer table has every leaf of both ports, so that the case can be run.
        draft: the case file.
        seconds: what inference took, tracing included.
    """

    proposal: Proposal
    rows: tuple[Row, ...]
    problems: tuple[str, ...]
    left: tuple[Left, ...]
    covered: bool
    draft: Draft
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every leaf of both ports has its counterpart in the layer table."""
        return not self.left and not self.problems


def infer(
    builders: tuple[Located, Located],
    batch: Mapping[str, str],
    methods: Mapping[str, tuple[str, ...]] | None = None,
) -> Inferred:
    """Infer the layer table of two builders.

    Args:
        builders: the reference's and the candidate's.
        batch: entry to `"dtype[shape]"`.
        methods: public method to batch entries; None: `__call__` with every entry but labels.

    Raises:
        CaseError: the builders, the batch or the methods cannot be used.
        NotRun: a library is missing.
        PortError: a port cannot be built or traced.
    """
    began = time.perf_counter()
    left, right = builders
    if left.backend == right.backend:
        raise CaseError(
            f"{left.place} and {right.place} are both {left.backend}: a case has one model per library. "
            "Give models of two libraries."
        )
    models = {one.backend: one.builder for one in builders}
    request, entries = request_of(Case(guide="", models=models, batch=batch, layers=(), methods=methods))
    probe = make_probe("inference", SEED, LeafTable(left.backend, ()), entries, 1)
    try:
        ports = _built(left, request), _built(right, request)
        proposal = propose(ports, request, {name: array[0] for name, array in probe.batches.items()})
    except PortError as error:
        raise PortError(f"{error} {_called(request)}") from error
    found, problems = rows(proposal)
    held = [frozenset[NativeKey]().union(*(row.keys[side] for row in found)) for side in (0, 1)]
    outside = {(one.side, one.key) for one in proposal.left if one.key not in held[one.side]}
    alone = tuple(one for one in proposal.left if not one.dead or (one.side, one.key) in outside)
    haiku = [port for port in ports if port.backend == "haiku"]
    draft = Draft(
        lesson=f"{right.place.attribute} ({right.backend}) is {left.place.attribute} ({left.backend}).",
        builders=builders,
        batch=batch,
        methods=methods,
        rows=found,
        decays=decays(haiku[0], request, found) if haiku else {},
        missing=(*problems, *(f"{ports[one.side].backend} {one.key}: {one.reason}" for one in alone)),
    )
    covered = not (problems or outside)
    return Inferred(proposal, found, problems, alone, covered, draft, time.perf_counter() - began)


def _called(request: Request) -> str:
    """What the ports were called with: an error of a builder may well be one of the batch."""
    calls = []
    for method, names in request.methods.items():
        given = [f"{name} {one.dtype}{list(one.shape)}" for name, one in request.batch.items() if name in names]
        calls.append(f"{method}({', '.join(given)})")
    return f"It was called as {' and '.join(calls)}; --input or --batch give what is passed, --method which to which."


def _built(located: Located, request: Request) -> Port:
    module = backends.load(located.backend)
    return guarded(located.backend, "building the model", partial(module.build, located.builder, request))
