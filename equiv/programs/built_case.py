"""A case with its ports built and mapped: the stage before anything is compiled."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from equiv import backends
from equiv.backends.base import Request
from equiv.backends.build import Built, build_port, guarded, request_of
from equiv.core.batch_spec import Entry
from equiv.core.case import Case
from equiv.core.layer_kinds import canonical
from equiv.errors import CaseError, EquivError
from equiv.programs.trace import Tracer, forward


@dataclass(frozen=True)
class Workshop:
    """A case with its ports built and mapped, before anything is compiled.

    Attributes:
        case: the case.
        request: what its backends were asked.
        entries: its batch.
        built: backend to port, for those that could be built.
        problems: backend to the reason why it could not.
        has_modes: whether train and eval mode can differ in any port.
        tracers: backend to what its port is traced with.
    """

    case: Case
    request: Request
    entries: Mapping[str, Entry]
    built: Mapping[str, Built]
    problems: Mapping[str, EquivError]
    has_modes: bool
    tracers: Mapping[str, Tracer]


def open_workshop(case: Case) -> Workshop:
    """Build and map every port of a case; one that cannot be built is a problem of its own.

    Raises:
        CaseError: a batch entry or method that cannot be used.
    """
    request, entries = request_of(case)
    _check_backends(case)
    built: dict[str, Built] = {}
    problems: dict[str, EquivError] = {}
    for backend in case.models:
        try:
            built[backend] = build_port(case, backend, request)
        except EquivError as error:
            problems[backend] = error
    _check_known_differences(case, built)
    _check_module_leaves(case, built)
    has_modes = any(one.port.modes for one in built.values())
    tracers: dict[str, Tracer] = {}
    for backend, one in list(built.items()):
        tracer = Tracer(one.port, one.table, request, False, has_modes)
        try:
            other = build_port(case, backend, request)
            _check_deterministic(tracer, replace(tracer, port=other.port, table=other.table))
            tracers[backend] = tracer
        except EquivError as error:
            problems[backend] = error
            del built[backend]
    return Workshop(case, request, entries, built, problems, has_modes, tracers)


def _check_backends(case: Case) -> None:
    """What a case says of a library that does not exist would never be looked at."""
    named = dict.fromkeys(case.printed, "printed") | {
        known.backend: "known_differences" for known in case.known_differences
    }
    for name, field in named.items():
        if name not in backends.names():
            there = ", ".join(backends.names())
            raise CaseError(f"{field} names the backend {name!r}; there are: {there}. Rename it in {field}.")


def _check_module_leaves(case: Case, built: Mapping[str, Built]) -> None:
    """A leaf that a row names and no port has would be compared by nobody."""
    has = {name for one in built.values() for name in one.table.names()}
    for layer in case.layers:
        for leaf in layer.leaves:
            if built and canonical(layer, leaf) not in has:
                raise CaseError(
                    f"row {layer.path} names the leaf {leaf!r}, which no port has. Mend the name, or leave it out."
                )


def _check_known_differences(case: Case, built: Mapping[str, Built]) -> None:
    """A formula for a leaf that does not exist would hold unseen for ever."""
    for known in case.known_differences:
        if known.backend in built and known.leaf not in (has := built[known.backend].table.names()):
            close = difflib.get_close_matches(known.leaf, has, n=1, cutoff=0.0) or ["nothing"]
            raise CaseError(
                f"known_differences names the leaf {known.leaf!r}, which {known.backend} does not have; "
                f"closest is {close[0]!r}. Mend it in known_differences."
            )


def _check_deterministic(tracer: Tracer, other: Tracer) -> None:
    """A builder called twice must give one and the same program."""
    name, method, mode = tracer.port.backend, next(iter(tracer.request.methods)), tracer.modes()[0]
    traced = [guarded(name, "tracing", partial(forward, one, method, mode)) for one in (tracer, other)]
    if _text(traced[0].jaxpr) != _text(traced[1].jaxpr):
        raise CaseError(
            f"{name}: the builder gives another model each time it is called. "
            "Take chance and global state out of it; initial values may be random, the model may not."
        )


def _text(closed: Any) -> tuple[str, list[bytes]]:
    """A program as printed, without the addresses of functions, and its constants."""
    return re.sub(r"0x[0-9a-f]+", "", str(closed.jaxpr)), [np.asarray(const).tobytes() for const in closed.consts]
