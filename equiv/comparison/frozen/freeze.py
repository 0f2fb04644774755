"""Freeze a case's reference as a bundle, so that its library can be uninstalled."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain, combinations
from typing import get_args

from equiv.backends.build import DEFAULT_RATE, DefaultSgd, call_texts
from equiv.backends.environment import describe_environment
from equiv.backends.sharding import within_case
from equiv.comparison.default_rate import lower_default_rate
from equiv.comparison.frozen.bundle import FrozenLeaf, FrozenNames, FrozenProbe, FrozenProgram, FrozenReference
from equiv.comparison.frozen.edges import freeze_edges
from equiv.comparison.frozen.sanity import edge_problems
from equiv.comparison.observation import Sample
from equiv.comparison.proofs import prover_side
from equiv.comparison.reference_probes import measure_rounding, start_reference
from equiv.comparison.stages import (
    open_case,
    start_compiling,
    trace_ports,
    try_probes,
)
from equiv.comparison.state import CaseState, ReportStage, advance
from equiv.core.case import Builder
from equiv.core.case_files import LoadedCase
from equiv.core.leaves import MappedLeaf
from equiv.errors import CaseError
from equiv.programs.probes import Probe
from equiv.programs.program import Program
from equiv.programs.prover.numbered_port import NumberedPort, all_programs
from equiv.programs.prover.proof import Form, Precision
from equiv.programs.prover.statements import ALL_REWRITES
from equiv.programs.prover.version import fingerprint


def freeze_reference(loaded: LoadedCase, progress: ReportStage = lambda _: None, port: str = "") -> FrozenReference:
    """Trace, run and measure a model of a case, and keep all that others are compared with.

    Args:
        loaded: the case.
        progress: called with a text for every stage.
        port: the model; empty: the first, which is the reference.

    Raises:
        EquivError: the reference cannot be built, traced, compiled or run.
        CaseError: there is no such model, or a leaf of it is held at a value.
    """
    run = (trace_ports, start_compiling, start_reference)
    with within_case(loaded):
        # Whoever is compared with it may ask for any checks.
        case = replace(loaded.case, checks=None, models=_put_first(loaded, port))
        opened = open_case(case, lambda stage: progress(f"{loaded.name}: {stage}"), own_steps=True)
        _refuse_held(opened)
        state = replace(opened, candidates=())
        state = advance(state, (*run, partial(lower_default_rate, stages=run), measure_rounding, try_probes))
        state.progress("naming")
        frozen = _make_bundle(loaded.name, state)
    # A probe on which the reference itself moves by more than its size says nothing.
    edges = tuple(edge for edge in frozen.edges if not any(edge_problems(frozen, edge)))
    return replace(frozen, edges=edges)


def _put_first(loaded: LoadedCase, port: str) -> dict[str, Builder]:
    """The models of a case with one of them as the reference."""
    models = dict(loaded.case.models)
    if port and port not in models:
        raise CaseError(f"{loaded.name}: there is no model {port!r}.", fix=f"Give one of {', '.join(models)}.")
    return {port: models[port], **models} if port else models


def _refuse_held(opened: CaseState) -> None:
    """Refuse a reference with a leaf held at a value, which is a condition that a bundle does not tell."""
    for one in opened.built_case.built[opened.reference].held:
        raise CaseError(
            f"{one.port}: {one.leaf} is held at {one.value} by a row of the layer table, and is not frozen so.",
            fix=f"Freeze a case without the row only({one.port!r}, {one.leaf!r}), or compare with the model itself.",
            port=one.port,
            leaf=one.leaf,
        )


def _make_bundle(name: str, state: CaseState) -> FrozenReference:
    traced, reference, built = state.traced[state.reference], state.observed, state.built_case
    assert reference is not None, "it was run"
    observed, noise = reference.observed, reference.noise
    begin, step = traced.programs.begin, traced.programs.step
    edges = freeze_edges(state)
    side = prover_side(traced).numbered
    return FrozenReference(
        case=name,
        port=traced.port.name,
        library=traced.port.library,
        environment=describe_environment(),
        prover=fingerprint(),
        has_modes=built.has_modes,
        steps=built.case.steps,
        batch={entry: str(one) for entry, one in built.entries.items()},
        kept={entry: one.kept for entry, one in built.entries.items() if one.kept is not None},
        methods=call_texts(built.case, built.request),
        leaves=tuple(map(_freeze_leaf, traced.table.leaves)),
        random=observed.random,
        native_paths=tuple(observed.native_paths.items()),
        parts=tuple(_freeze_program(side, part) for part in traced.programs.parts),
        begin=None if begin is None else _freeze_program(side, begin),
        step=None if step is None else _freeze_program(side, step),
        no_gradients=traced.programs.no_gradients,
        names=tuple(_freeze_names(side)),
        probes=tuple(_freeze_probe(probe, observed.samples[probe.name]) for probe in reference.probes),
        noise={probe: dict(known) for probe, known in {**noise.native, **edges.noise}.items()},
        float64_noise={probe: dict(known) for probe, known in {**noise.float64, **edges.float64_noise}.items()},
        depth=dict(noise.depth),
        fresh=dict(traced.fresh),
        reused=observed.reused,
        drawn=observed.drawn,
        why_no_float64=observed.why_no_float64,
        sensitivity=state.trials,
        train_step=observed.train_step,
        default_rate=built.case.optimizer.rate if isinstance(built.case.optimizer, DefaultSgd) else DEFAULT_RATE,
        edges=edges.edges,
        edges_refused=edges.refused,
        thresholds=edges.thresholds,
    )


def _freeze_leaf(leaf: MappedLeaf) -> FrozenLeaf:
    return FrozenLeaf(leaf.name, leaf.key, leaf.spec, leaf.native_shape, leaf.mirrors, leaf.fixed_value)


def _freeze_probe(probe: Probe, given: Sample) -> FrozenProbe:
    float64 = None if given.float64 is None else dict(given.float64)
    return FrozenProbe(probe.name, probe.seed, probe.variables, probe.batches, dict(given.native), float64)


def _freeze_program(side: NumberedPort, program: Program) -> FrozenProgram:
    number = {name: index for index, name in enumerate(program.inputs)}
    needs = side.dependencies(program)
    numbers = tuple(tuple(sorted(number[name] for name in needs[output])) for output in program.outputs)
    casts = side.has_casts(program.name)
    return FrozenProgram(program.name, program.inputs, program.outputs, program.draws, numbers, casts)


MANY = 6
"""Number of rewrites up to which every set of them is tried: 64 numberings of a program."""


def _freeze_names(side: NumberedPort) -> Iterator[FrozenNames]:
    """Yield names under every set of rewrites that applies, so that a proof can name those it needs.

    Where many apply, only under sets that leave out two at most: a proof then may name more than it needs.
    """
    for precision in get_args(Precision):
        for part in all_programs(side.programs):
            form = Form(precision)
            if side.resolve(part.name, form) != form:
                continue
            if any(side.name(output, form, ALL_REWRITES) for output in part.outputs):
                applied = sorted(side.applied[form, part.name])
                number = len(applied)
                sizes = range(number + 1) if number <= MANY else (0, *range(number - 2, number + 1))
                for rules in chain.from_iterable(combinations(applied, size) for size in sizes):
                    named = {output: side.name(output, form, frozenset(rules)) for output in part.outputs}
                    outputs = {output: name for output, name in named.items() if name is not None}
                    yield FrozenNames(part.name, precision, rules, outputs)
