"""Put everything that was found of a case under its verdicts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from equiv.backends.build import DefaultSgd
from equiv.comparison.numeric.run_port import describe_port
from equiv.comparison.state import CaseState
from equiv.core.batch_spec import batch_texts
from equiv.core.case import Case
from equiv.core.case_files import LoadedCase
from equiv.core.checks import CHECK_NAMES, INVARIANCE, STRUCTURE, left_out_checks
from equiv.core.leaves import LeafTable, MappedLeaf
from equiv.core.no_gradient import NoGradient
from equiv.core.results import CaseResult, CheckResult, DeviationResult, LeafResult
from equiv.core.scope import Scope, Unexercised
from equiv.core.verdict import verdict_of
from equiv.programs.built_case import BuiltCase
from equiv.programs.exercise import list_unaimed, list_unexercised, list_untried_tails
from equiv.programs.keep_casts import float_dtypes
from equiv.programs.prover.numbered_port import all_programs
from equiv.programs.prover.proof import FLOAT64_CASTS
from equiv.programs.unread import list_unread


def make_case_result(loaded: LoadedCase, state: CaseState) -> CaseResult:
    """Put everything that was found of a case under its verdicts; a frozen reference is called so."""
    case, built_case, reference = loaded.case, state.built_case, state.reference
    candidates = tuple(name for name in built_case.case.models if name != reference)
    made = (STRUCTURE, *state.wanted)
    checks = sort_checks([check for check in state.checks if check.check in made], candidates)
    tables = {name: built.table for name, built in built_case.built.items()}
    if reference not in built_case.case.models:
        assert state.observed is not None, "a frozen reference has its outputs"
        reference = f"frozen {reference}"
        tables = {reference: state.observed.observed.table, **tables}
    return CaseResult(
        name=loaded.name,
        lesson=loaded.lesson,
        guide=case.guide,
        reference=reference,
        candidates=candidates,
        verdicts={who: verdict_of(tuple(item for item in checks if item.candidate == who)) for who in candidates},
        checks=checks,
        leaves=_leaf_results(tables),
        trials=state.trials,
        unmapped_leaves=sum(_count_unmapped(built_case, name) for name in built_case.built),
        deviations=tuple(_deviation_results(case, tables)),
        path=loaded.path,
        sources=dict(loaded.sources),
        source_digest=loaded.source_digest,
        scope=replace(describe_scope(state), changes=loaded.changes),
    )


def describe_scope(state: CaseState) -> Scope:
    """What the verdicts of a case hold for."""
    case, request = state.built_case.case, state.built_case.request
    rewrites = tuple(dict.fromkeys(name for check in state.checks for one in check.findings for name in one.rewrites))
    return Scope(
        batch=batch_texts(case.inputs),
        kept=tuple(name for name, entry in state.built_case.entries.items() if entry.kept is not None),
        table_bounds=tuple(name for name, entry in state.built_case.entries.items() if entry.by_table),
        left_out=tuple(name for name in left_out_checks(case.checks) if name != INVARIANCE or case.invariances),
        methods={name: call.texts for name, call in request.methods.items()},
        sequences={name: one.texts for name, one in case.sequences.items()},
        modes=("eval", "train") if state.built_case.has_modes else ("call",),
        steps=case.steps if _trains(state) else 0,
        gradient_modes=_gradient_modes(state),
        default_rate=_default_rate(state.built_case) if _trains(state) else 0.0,
        budget_factor=case.budget_factor,
        proved=state.proved,
        ran=bool(state.compiling),
        rewrites=rewrites,
        cast_dtypes=_traced_dtypes(state) if FLOAT64_CASTS in rewrites else (),
        ranges=state.ranges,
        late_steps=tuple(sorted({step for probe in state.edges for step in probe.late})),
        edges=tuple(probe.name for probe in state.edges if not probe.late),
        edges_refused=state.edges_refused,
        as_users=bool(state.user_calls),
        not_as_users=state.not_as_users,
        other_sizes=state.other_sizes,
        made={name: made for name, one in state.built_case.built.items() if (made := one.port.made())},
        no_gradients=_list_no_gradients(state),
        annotated=dict(state.annotated) if any(state.annotated.values()) else {},
        unexplained=tuple(sorted(state.unexplained)),
        meshes=state.meshes,
        held=tuple(one for built in state.built_case.built.values() for one in built.held),
        patched={name: one.port.patched for name, one in state.built_case.built.items() if one.port.patched},
        unexercised=(*_list_unread(state), *(() if state.proved else _list_unexercised(state))),
    )


def _list_unread(state: CaseState) -> Iterator[Unexercised]:
    """Yield the leaves that every call of a port reads in part: proofs hold whatever the rest of them is."""
    for port, traced in state.traced.items():
        yield from list_unread(port, [part for part in traced.programs.parts if part.name.is_forward])


def _list_no_gradients(state: CaseState) -> tuple[NoGradient, ...]:
    """The gradients that ports do not have; of a frozen reference, those that it had not."""
    frozen = state.observed.observed.no_gradients if state.observed and state.reference not in state.traced else ()
    return (*frozen, *(one for traced in state.traced.values() for one in traced.programs.no_gradients))


def _trains(state: CaseState) -> bool:
    """Whether any port is trained; True where none could be traced, of which nothing is known."""
    return not state.traced or any(traced.programs.step is not None for traced in state.traced.values())


def _gradient_modes(state: CaseState) -> tuple[str, ...]:
    """The modes in which gradients are taken, where the modes differ."""
    if not state.built_case.has_modes:
        return ()
    parts = [part.name.kind for traced in state.traced.values() for part in traced.programs.parts]
    kinds = {"eval": "eval gradient", "train": "gradient"}
    return tuple(mode for mode, kind in kinds.items() if kind in parts or not state.traced)


def _list_unexercised(state: CaseState) -> Iterator[Unexercised]:
    """Yield what no probe exercised of each port that was run."""
    for port, observed in state.exercised.items():
        yield from list_unexercised(port, observed)
        tried = port in state.edge_ports and any(probe.tails for probe in state.edges)
        if state.frozen_thresholds is not None:
            yield from list_unaimed(port, observed, state.frozen_thresholds)
        if port in state.traced:
            yield from list_untried_tails(port, list(all_programs(state.traced[port].programs)), tried)


def _traced_dtypes(state: CaseState) -> tuple[str, ...]:
    """The float dtypes in which the ports compute."""
    parts = (part for traced in state.traced.values() for part in all_programs(traced.programs))
    return tuple(sorted(frozenset[str]().union(*map(float_dtypes, parts))))


def _default_rate(built_case: BuiltCase) -> float:
    """The rate of the default optimizer, where it trains a port; 0: none."""
    optimizer = built_case.case.optimizer or DefaultSgd()
    trains = any(one.port.default_step for one in built_case.built.values())
    return optimizer.rate if trains and isinstance(optimizer, DefaultSgd) else 0.0


def sort_checks(checks: Sequence[CheckResult], candidates: Sequence[str]) -> tuple[CheckResult, ...]:
    """Sort checks by candidate, then as in `equiv.core.checks.CHECK_NAMES`."""
    return tuple(sorted(checks, key=lambda check: (candidates.index(check.candidate), CHECK_NAMES.index(check.check))))


def _deviation_results(case: Case, tables: Mapping[str, LeafTable]) -> Iterator[DeviationResult]:
    """Yield every deviation by port: one of a library holds for each port of it."""
    for one in case.deviations:
        ports = [table.port for table in tables.values() if one.backend in (table.port, table.library)]
        for port in ports or [one.backend]:  # a port that could not be built has no table
            yield DeviationResult(**{**vars(one), "backend": port})


def _leaf_results(tables: Mapping[str, LeafTable]) -> tuple[LeafResult, ...]:
    """List every canonical leaf with its path, shape and layout in each port."""
    rows: dict[str, dict[str, MappedLeaf]] = {}
    for port, table in tables.items():
        for leaf in table.leaves:
            rows.setdefault(leaf.name, {})[port] = leaf
    return tuple(_leaf_result(name, leaves) for name, leaves in rows.items())


def _leaf_result(name: str, leaves: Mapping[str, MappedLeaf]) -> LeafResult:
    spec = next(iter(leaves.values())).spec
    return LeafResult(
        name,
        spec.shape,
        spec.dtype,
        places={port: str(leaf.key) for port, leaf in leaves.items()},
        shapes={port: leaf.native_shape for port, leaf in leaves.items()},
        layouts={port: leaf.storage_description for port, leaf in leaves.items() if leaf.storage_description},
    )


def _count_unmapped(built_case: BuiltCase, port: str) -> int:
    mapped = {leaf.key for leaf in built_case.built[port].table.leaves}
    return len(set(describe_port(built_case, port).native_paths) - mapped)
