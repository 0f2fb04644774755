"""Build."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from equiv import backends
from equiv.backends.base import Port, Request
from equiv.backends.leaf_table import map_port
from equiv.core.batch_spec import Entry, parse_batch
from equiv.core.case import Case
from equiv.core.leaves import LeafTable
from equiv.errors import CaseError, EquivError, NotRun, PortError, place, told


@dataclass(frozen=True)
class Built:
    """A built port and its leaf table."""

    port: Port
    table: LeafTable


def request_of(case: Case) -> tuple[Request, Mapping[str, Entry]]:
    """What backends need to know of a case.

    Raises:
        CaseError: a batch entry or method that cannot be used.
    """
    entries = parse_batch(case.batch)
    if not entries:
        raise CaseError('the batch is empty: nothing would be compared. Give it an entry, e.g. "float32[8,784]".')
    inputs = tuple(name for name in entries if name not in ("labels", "targets", "y"))
    methods = dict(case.methods or {"__call__": inputs})
    for method, names in methods.items():
        if unknown := [name for name in names if name not in entries]:
            raise CaseError(
                f"method {method} takes batch entry {unknown[0]!r}, the batch has {', '.join(entries)}. "
                "Mend the case's methods or batch."
            )
    for name, entry in entries.items():
        if (here := str(jax.dtypes.canonicalize_dtype(entry.spec.dtype))) != entry.spec.dtype:
            raise CaseError(
                f"batch entry {name!r}: {entry.spec.dtype} would be {here} here, where JAX runs without 64-bit types. "
                f"Write {here}, or set JAX_ENABLE_X64=1."
            )
    structs = {name: jax.ShapeDtypeStruct(entry.spec.shape, entry.spec.dtype) for name, entry in entries.items()}
    return Request(methods, structs, case.loss or _mean_square, case.optimizer or _sgd), entries


def _mean_square(outputs: Any, batch: Mapping[str, Any]) -> Any:
    leaves = [leaf for leaf in jax.tree.leaves(outputs) if "float" in str(leaf.dtype)]
    return sum((leaf**2).mean() for leaf in leaves)


def _sgd() -> Any:
    import optax

    return optax.sgd(0.1)


def guarded(backend: str, what: str, function: Callable[[], Any]) -> Any:
    """Call into a builder or library; whatever it raises becomes one message that says which side it was.

    Raises:
        NotRun: a library is missing.
        PortError: anything else that is not already ours.
    """
    try:
        return function()
    except EquivError:
        raise
    except ModuleNotFoundError as missing:
        library = missing.name or missing
        raise NotRun(f"{backend}: {what} needs {library}, which is not installed here. Install it.") from missing
    except (Exception, SystemExit) as error:
        raise PortError(f"{backend}: {what} raised {told(error)}. Mend {place(error, 'the case')}.") from error


def build_port(case: Case, backend: str, request: Request) -> Built:
    """Build one port and map its leaves.

    Raises:
        CaseError: the builder or the layer table cannot be used.
        NotRun: a library is missing.
        PortError: the builder raised.
    """
    module = backends.load(backend)
    port = guarded(backend, "building the model", partial(module.build, case.models[backend], request))
    return Built(port, map_port(case.layers, port, module))
