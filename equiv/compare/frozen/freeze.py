"""A case's reference to a bundle: with it the reference's library can be uninstalled."""

from collections.abc import Callable, Iterator
from itertools import chain, combinations

from equiv.backends.environment import environment
from equiv.compare.candidates import Reference, sample_reference
from equiv.compare.frozen.bundle import Frozen, FrozenLeaf, FrozenProbe, Names, Outline
from equiv.compare.numeric.run_port import Prepared, prepare
from equiv.compare.observation import Sample
from equiv.compare.proofs import side_of
from equiv.compare.sensitivity.probe_adequacy import adequacy
from equiv.core.case_files import LoadedCase
from equiv.core.leaves import MappedLeaf
from equiv.core.results import Finding
from equiv.errors import CaseError
from equiv.programs.built_case import Workshop, open_workshop
from equiv.programs.probes import Probe
from equiv.programs.program import Program
from equiv.programs.prover.prove import ALL, Side, every
from equiv.programs.prover.version import fingerprint
from equiv.programs.traced_port import trace_port


def freeze(loaded: LoadedCase, progress: Callable[[str], None] = lambda _: None) -> Frozen:
    """Trace, run and measure the first model of a case, and keep all that others are judged against.

    Args:
        loaded: the case.
        progress: told what is being done.

    Raises:
        EquivError: the reference cannot be built, traced, compiled or run, or draws alike where it must not.
    """
    name = next(iter(loaded.case.models))
    workshop = open_workshop(loaded.case)
    if problem := workshop.problems.get(name):
        raise CaseError(f"{problem} The reference is {name}: without it nothing can be frozen.")
    progress(f"{loaded.name}: tracing")
    traced = trace_port(workshop, name)
    progress(f"{loaded.name}: compiling {name}")
    prepared = prepare(workshop, traced)()
    progress(f"{loaded.name}: running {name}")
    reference = sample_reference(workshop, prepared)
    given = reference.observed.samples["0"].native
    told = adequacy(prepared, reference.probes, given, reference.noise)
    progress(f"{loaded.name}: naming")
    return _frozen(loaded.name, workshop, prepared, reference, told)


def _frozen(
    name: str, workshop: Workshop, prepared: Prepared, reference: Reference, told: tuple[Finding, ...]
) -> Frozen:
    traced, observed, noise = prepared.traced, reference.observed, reference.noise
    begin, step, case = traced.programs.begin, traced.programs.step, workshop.case
    assert begin is not None  # a port that was traced has both
    assert step is not None
    side = side_of(traced)
    return Frozen(
        case=name,
        backend=traced.port.backend,
        environment=environment(),
        prover=fingerprint(),
        has_modes=workshop.has_modes,
        steps=case.steps,
        batch=dict(case.batch),
        leaves=tuple(map(_leaf, traced.table.leaves)),
        random=observed.random,
        native_paths=tuple(observed.native_paths.items()),
        parts=tuple(_outline(side, part) for part in traced.programs.parts),
        begin=_outline(side, begin),
        step=_outline(side, step),
        names=tuple(_names(side)),
        probes=tuple(_probe(probe, observed.samples[probe.name]) for probe in reference.probes),
        noise={probe: dict(known) for probe, known in noise.native.items()},
        lifted_noise={probe: dict(known) for probe, known in noise.lifted.items()},
        depth=dict(noise.depth),
        fresh=dict(traced.fresh),
        reused=observed.reused,
        drawn=observed.drawn,
        unlifted=observed.unlifted,
        told=told,
    )


def _leaf(leaf: MappedLeaf) -> FrozenLeaf:
    return FrozenLeaf(leaf.name, leaf.key, leaf.spec, leaf.native_shape, leaf.copies, leaf.constant)


def _probe(probe: Probe, given: Sample) -> FrozenProbe:
    lifted = None if given.lifted is None else dict(given.lifted)
    return FrozenProbe(probe.name, probe.seed, probe.variables, probe.batches, dict(given.native), lifted)


def _outline(side: Side, program: Program) -> Outline:
    needs = {output: tuple(sorted(inputs)) for output, inputs in side.depends(program).items()}
    return Outline(program.name, program.inputs, program.outputs, program.draws, needs)


def _names(side: Side) -> Iterator[Names]:
    """Names under every set of rewrites that has something to do: a proof shall say which it needs."""
    for lifted in (False, True):
        for part in every(side.programs):
            if any(side.name(f"{part.name}: {output}", lifted, ALL) for output in part.outputs):
                applied = sorted(side.applied[lifted, part.name])
                for rules in chain.from_iterable(combinations(applied, size) for size in range(len(applied) + 1)):
                    named = {
                        output: side.name(f"{part.name}: {output}", lifted, frozenset(rules)) for output in part.outputs
                    }
                    outputs = {output: name for output, name in named.items() if name is not None}
                    yield Names(part.name, lifted, rules, outputs)
