"""A case with every model built and its parameters mapped to canonical leaves."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from equiv.backends.base import PortSpec
from equiv.backends.batches import resolve_batch
from equiv.backends.build import MappedPort, ModelOnly, build_port, call_user_code, port_spec
from equiv.backends.registry import backend_names
from equiv.backends.sharding import check_sharding
from equiv.core.batch_spec import BatchEntry
from equiv.core.case import Case
from equiv.core.layer_kinds import canonical_name
from equiv.core.output_name import ProgramName
from equiv.errors import CaseError, EquivError
from equiv.programs.content import ContentReader, digest, name_by_code
from equiv.programs.held_leaves import hold_leaves
from equiv.programs.table_bounds import bound_by_tables
from equiv.programs.trace import Tracer, trace_forward
from equiv.programs.train_step import trace_training


@dataclass(frozen=True)
class BuiltCase:
    """A case with its ports built and mapped to canonical leaves; nothing is compiled yet.

    Attributes:
        case: the case, with its batch as text and kept values.
        request: what the backends are asked to build.
        entries: its batch.
        built: the ports that could be built, by name.
        problems: name to the error, for every port that could not be built.
        has_modes: whether train and eval mode can differ in any port.
        tracers: name to the tracer of the port.
    """

    case: Case
    request: PortSpec
    entries: Mapping[str, BatchEntry]
    built: Mapping[str, MappedPort]
    problems: Mapping[str, EquivError]
    has_modes: bool
    tracers: Mapping[str, Tracer]


def build_case(case: Case) -> BuiltCase:
    """Build and map every port of a case; an error in one port is kept in `problems` and does not stop the others.

    Raises:
        CaseError: a batch entry, method, port or leaf name of the case is invalid.
    """
    case = bound_by_tables(resolve_batch(case))
    request, entries = port_spec(case)
    _check_port_names(case)
    check_sharding(case, entries)
    built: dict[str, MappedPort] = {}
    problems: dict[str, EquivError] = {}
    for name in case.models:
        try:
            built[name] = hold_leaves(build_port(case, name, request), request)
        except EquivError as error:
            problems[name] = error
    _check_known_differences(case, built)
    _check_module_leaves(case, built)
    has_modes = any(one.port.has_modes for one in built.values())
    tracers: dict[str, Tracer] = {}
    for name, one in list(built.items()):
        tracer = Tracer(one.port, one.table, request, False, has_modes)
        try:
            other = hold_leaves(build_port(case, name, request, one.port.library), request)
            _check_deterministic(tracer, replace(tracer, port=other.port, table=other.table))
            tracers[name] = tracer
        except EquivError as error:
            problems[name] = error
            del built[name]
    return BuiltCase(case, request, entries, built, problems, has_modes, tracers)


def share_train_step(built_case: BuiltCase, reference_has_step: bool | None = None) -> BuiltCase:
    """Train with the default step what has a train step of its own that no other port's can be compared with.

    A step is compared with the reference's: without one there, or in any candidate, both are trained with the default.

    Args:
        built_case: the case.
        reference_has_step: whether a frozen reference has a train step of its own; None: the reference is in the case.

    Returns:
        The case, in which a port is a problem if its own train step, though left out, cannot be used.
    """
    if "train" in built_case.request.left_out:
        return built_case
    case, own = built_case.case, {name for name, one in built_case.built.items() if not one.port.default_step}
    reference = next(iter(case.models)) if reference_has_step is None else ""
    if reference_has_step or (reference in own and len(own) > 1):
        return built_case
    if not own:
        return built_case
    problems = {name: error for name in own if (error := _step_problem(built_case.tracers[name])) is not None}
    models = {name: ModelOnly(builder) if name in own else builder for name, builder in case.models.items()}
    shared = build_case(replace(case, models=models))
    built = {name: one for name, one in shared.built.items() if name not in problems}
    return replace(shared, built=built, problems={**shared.problems, **problems})


def _step_problem(tracer: Tracer) -> EquivError | None:
    """Why a train step cannot be used, which is said even where it is not compared; None: it can."""
    try:
        call_user_code(tracer.port.name, "tracing", partial(trace_training, tracer))
    except EquivError as error:
        return error
    return None


def _check_port_names(case: Case) -> None:
    """Check that the case names only ports and libraries; settings for any other would be ignored silently.

    A port of the layer table need not be among the models: its library may no longer be installed.
    """
    for name in case.models:
        if name != name.strip() or not name.isprintable() or not name:
            raise CaseError(f"models has the name {name!r}, which cannot be printed.", fix="Rename it.")
    known = {*case.models, *(name for layer in case.layers for name in layer.scopes), *backend_names()}
    named = dict.fromkeys(case.printed, "printed") | {
        one.backend: "known_differences" for one in case.known_differences
    }
    for name, field in named.items():
        if name not in known:
            ports = ", ".join(case.models)
            raise CaseError(
                f"{field} names {name!r}, which is no port and no library; the ports are {ports}, the libraries "
                f"{', '.join(backend_names())}.",
                fix=f"Rename it in {field}.",
            )


def _check_module_leaves(case: Case, built: Mapping[str, MappedPort]) -> None:
    """Check that every leaf named in a layer row exists in some port; otherwise it would never be compared."""
    has = {name for one in built.values() for name in one.table.names()}
    for layer in case.layers:
        for leaf in layer.leaves:
            if built and canonical_name(layer, leaf) not in has:
                raise CaseError(
                    f"row {layer.path} names the leaf {leaf!r}, which no port has.",
                    fix="Fix the name, or remove the leaf from the row.",
                    leaf=leaf,
                )


def _check_known_differences(case: Case, built: Mapping[str, MappedPort]) -> None:
    """Check that known differences name existing leaves; a formula for a missing leaf would never be evaluated."""
    for known in case.known_differences:
        for name, one in built.items():
            has = one.table.names()
            if known.concerns(name, one.port.library) and known.leaf not in has:
                close = difflib.get_close_matches(known.leaf, has, n=1, cutoff=0.0) or ["nothing"]
                raise CaseError(
                    f"known_differences names the leaf {known.leaf!r}, which {name} does not have; "
                    f"closest is {close[0]!r}.",
                    fix="Fix the name in known_differences.",
                    leaf=known.leaf,
                )


def _check_deterministic(tracer: Tracer, other: Tracer) -> None:
    """Check that calling the builder twice gives the same program."""
    name, program = tracer.port.name, ProgramName(tracer.modes()[0], next(iter(tracer.request.methods)))
    traced = [call_user_code(name, "tracing", partial(trace_forward, one, program)) for one in (tracer, other)]
    if _describe_program(traced[0].jaxpr) != _describe_program(traced[1].jaxpr):
        raise CaseError(
            f"{name}: the builder is not deterministic: two calls gave two different models.",
            fix="Remove randomness and global state from it; initial values may be random, the model may not.",
            port=name,
        )


def _describe_program(closed: Any) -> str:
    """Hash a jaxpr with its constants; functions, which each call of a builder makes anew, by their code."""
    return digest(ContentReader(name_by_code).read(closed))
