"""Build a port from a case, with errors that name the port."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from equiv import backends
from equiv.backends.base import Port, PortSpec
from equiv.backends.leaf_table import map_port
from equiv.core.batch_spec import BatchEntry, parse_batch
from equiv.core.case import Case
from equiv.core.leaves import LeafTable
from equiv.errors import CaseError, EquivError, NotRun, PortError, error_summary, user_code_location


@dataclass(frozen=True)
class MappedPort:
    """A port and its leaf table."""

    port: Port
    table: LeafTable


def port_spec(case: Case) -> tuple[PortSpec, Mapping[str, BatchEntry]]:
    """The port specification of a case, and its batch entries.

    Raises:
        CaseError: a batch entry or a method is invalid.
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
                "Fix the case's methods or batch."
            )
    for name, entry in entries.items():
        if (dtype := str(jax.dtypes.canonicalize_dtype(entry.spec.dtype))) != entry.spec.dtype:
            raise CaseError(
                f"batch entry {name!r}: {entry.spec.dtype} becomes {dtype}, as 64-bit types are disabled in JAX. "
                f"Write {dtype}, or set JAX_ENABLE_X64=1."
            )
    structs = {name: jax.ShapeDtypeStruct(entry.spec.shape, entry.spec.dtype) for name, entry in entries.items()}
    return PortSpec(methods, structs, case.loss or _mean_square, case.optimizer or _sgd), entries


def _mean_square(outputs: Any, batch: Mapping[str, Any]) -> Any:
    leaves = [leaf for leaf in jax.tree.leaves(outputs) if "float" in str(leaf.dtype)]
    return sum((leaf**2).mean() for leaf in leaves)


def _sgd() -> Any:
    import optax

    return optax.sgd(0.1)


def call_user_code(backend: str, action: str, function: Callable[[], Any]) -> Any:
    """Call a function of the user or a library; any exception becomes one message that names the port.

    Raises:
        NotRun: a library is missing.
        PortError: the function raised anything else but an `EquivError`.
    """
    try:
        return function()
    except EquivError:
        raise
    except ModuleNotFoundError as missing:
        library = missing.name or missing
        raise NotRun(f"{backend}: {action} needs {library}, which is not installed here. Install it.") from missing
    except (Exception, SystemExit) as error:
        raise PortError(
            f"{backend}: {action} raised {error_summary(error)}. Fix {user_code_location(error, 'the case')}."
        ) from error


def build_port(case: Case, backend: str, spec: PortSpec) -> MappedPort:
    """Build one port and map its leaves.

    Raises:
        CaseError: the builder or the layer table is invalid.
        NotRun: a library is missing.
        PortError: the builder raised.
    """
    module = backends.load_backend(backend)
    port = call_user_code(backend, "building the model", partial(module.build, case.models[backend], spec))
    return MappedPort(port, map_port(case.layers, port, module))
