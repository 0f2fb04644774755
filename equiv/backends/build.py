"""Build a port from a case, with errors that name the port."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax

from equiv.backends.base import Port, PortSpec
from equiv.backends.calls import as_keys
from equiv.backends.identify import describe_builders, library_by_arguments, library_of, model_of
from equiv.backends.known_errors import known_fix
from equiv.backends.leaf_table import map_port
from equiv.backends.library import Library
from equiv.backends.patches import keep_patches, with_own_patches
from equiv.backends.registry import backend_names, load_backend, load_library
from equiv.backends.sharding import within_axes, within_calls
from equiv.core.annotation import rules_for
from equiv.core.batch_spec import BatchEntry, nest_batch, parse_batch
from equiv.core.call_sequence import read_sequence
from equiv.core.case import Builder, Case
from equiv.core.checks import left_out_checks
from equiv.core.leaves import LeafTable
from equiv.core.method_call import read_call, read_methods, with_entries
from equiv.core.scope import HeldLeaf
from equiv.errors import CaseError, EquivError, NotRun, PortError, error_summary, user_code_location

DEFAULT_RATE = 0.1
"""Rate of the default optimizer, unless training blows up with it."""


@dataclass(frozen=True)
class DefaultSgd:
    """The optimizer of the default train step: plain gradient descent."""

    rate: float = DEFAULT_RATE

    def __call__(self) -> Any:
        """Make the optax transformation."""
        import optax

        return optax.sgd(self.rate)

    def __str__(self) -> str:
        return f"optax.sgd({self.rate:g})"


@dataclass(frozen=True)
class ModelOnly:
    """A builder of the model alone, without the train step that it returns too."""

    builder: Builder

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Build the model."""
        return model_of(self.builder(*arguments, **keywords))

    @property
    def __wrapped__(self) -> Builder:
        """The builder, whose signature `inspect` reads."""
        return self.builder


@dataclass(frozen=True)
class MappedPort:
    """A port and its leaf table.

    Attributes:
        port: the port.
        table: its leaf table.
        held: the leaves that are left out of both, as another port lacks them.
    """

    port: Port
    table: LeafTable
    held: tuple[HeldLeaf, ...] = ()


def port_spec(case: Case, need_bounds: bool = True) -> tuple[PortSpec, Mapping[str, BatchEntry]]:
    """The port specification of a case whose batch is resolved, and its batch entries.

    Args:
        case: the case.
        need_bounds: whether whole numbers of the batch must have a bound.

    Raises:
        CaseError: a batch entry or a method is invalid.
    """
    entries = parse_batch(case.inputs, need_bounds)
    if not entries:
        raise CaseError(
            "the batch is empty: nothing would be compared.", fix='Give it an entry, e.g. "float32[8,784]".'
        )
    methods = read_methods(case.methods, case.inputs)
    for name, entry in entries.items():
        if (dtype := str(jax.dtypes.canonicalize_dtype(entry.spec.dtype))) != entry.spec.dtype:
            raise CaseError(
                f"batch entry {name!r}: {entry.spec.dtype} becomes {dtype}, as 64-bit types are disabled in JAX.",
                fix=f"Write {dtype}, or set JAX_ENABLE_X64=1.",
            )
    structs = {name: jax.ShapeDtypeStruct(entry.spec.shape, entry.spec.dtype) for name, entry in entries.items()}
    bounds = {name: entry.bound for name, entry in entries.items() if "int" in entry.spec.dtype and entry.bound}
    loss, optimizer = case.loss or _mean_square, case.optimizer or DefaultSgd()

    def nest(batch: Mapping[str, Any]) -> dict[str, Any]:
        return nest_batch(case.inputs, lambda name: as_keys(batch[name]) if entries[name].is_key else batch[name])

    def loss_of(outputs: Any, batch: Mapping[str, Any]) -> Any:
        return loss(outputs, nest(batch))

    left_out = left_out_checks(case.checks)
    spec = PortSpec(methods, structs, loss_of, optimizer, bounds=bounds, nest=nest, left_out=left_out)
    if case.initial:
        method, call = read_call(case.initial, "initial")
        spec = replace(spec, initial=replace(with_entries(method, call, case.inputs), method=method))
    return spec, entries


def call_texts(case: Case, spec: PortSpec) -> dict[str, tuple[str, ...]]:
    """How each method is called, and the calls of each sequence, as text."""
    sequences = {f"sequence {name}": one.texts for name, one in case.sequences.items()}
    return {method: call.texts for method, call in spec.methods.items()} | sequences


def _mean_square(outputs: Any, batch: Mapping[str, Any]) -> Any:
    """The mean square of the floats among the outputs; of complex numbers that of their absolute values."""
    leaves = [leaf for leaf in jax.tree.leaves(outputs) if jax.numpy.issubdtype(leaf.dtype, jax.numpy.inexact)]
    squares = (leaf**2 if leaf.dtype.kind != "c" else (leaf * leaf.conj()).real for leaf in leaves)
    return sum(square.mean() for square in squares)


def call_user_code(port: str, action: str, function: Callable[[], Any]) -> Any:
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
        raise NotRun(
            f"{port}: {action} needs {library}, which is not installed here.", fix="Install it.", port=port
        ) from missing
    except (Exception, SystemExit) as error:
        raise PortError(
            f"{port}: {action} raised {error_summary(error)}.",
            fix=f"{known_fix(error)}Fix {user_code_location(error, 'the case')}.",
            port=port,
        ) from error


def identify_library(port: str, builder: Builder) -> Library:
    """Recognise the library of a builder by its argument, else by what it returns.

    Args:
        port: name of the port. One that is named after a library must be a model of that library.
        builder: is called, unless its argument says whose it is.

    Raises:
        CaseError: it returns a model of no known library, or of another than the port is named after.
        NotRun: a library is missing.
        PortError: the builder raised.
    """
    library = library_by_arguments(port, builder)
    if library is None:
        with with_own_patches(builder):
            model = model_of(call_user_code(port, "building the model", builder))
        library = library_of(model)
        if library is None and port in backend_names():
            return load_library(port)  # its `build` says what it wants instead
        shown = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        if library is None:
            raise CaseError(
                f"{port}: the builder returned {shown}, which is no model of a known library.",
                fix=f"Give {describe_builders()}.",
                port=port,
            )
        if library.builder_arguments:
            raise CaseError(
                f"{port}: the builder takes no argument and returned {shown}, whose parameters all builds would share.",
                fix=f"Make it {library.builder_result}.",
                port=port,
            )
    if port in backend_names() and port != library.name:
        raise CaseError(
            f"{port}: the builder is one of {library.name}.",
            fix=f"Rename the key in the case's models: {library.name!r}, or any name that is no library's.",
            port=port,
        )
    return library


def build_port(case: Case, name: str, spec: PortSpec, library: str = "") -> MappedPort:
    """Build one port and map its leaves.

    Args:
        case: the case.
        name: of the port.
        spec: what it has to provide.
        library: name of its library; empty: it is recognised.

    Raises:
        CaseError: the builder or the layer table is invalid.
        NotRun: a library is missing.
        PortError: the builder raised.
    """
    builder = case.models[name]
    known = load_library(library) if library else identify_library(name, builder)
    sequences = {
        sequence: read_sequence(sequence, calls, case.inputs, name, known.name)
        for sequence, calls in case.sequences.items()
    }
    if taken := [sequence for sequence in sequences if sequence in spec.methods]:
        raise CaseError(f"sequence {taken[0]} has the name of a method.", fix="Give it another one.")
    rules = rules_for(case.rules, name, known.name)
    with within_axes(case.meshes):
        port = build_unmapped(name, builder, known.name, replace(spec, sequences=sequences, rules=rules))
    if case.meshes:
        port = within_calls(port, partial(within_axes, case.meshes))
    port = replace(port, step_left_out=isinstance(builder, ModelOnly), sequences=sequences)
    return MappedPort(port, map_port(case.layers, port, known))


def build_unmapped(name: str, builder: Builder, library: str, spec: PortSpec) -> Port:
    """Build one port of a known library; what its builder changes outside of the model stays with the port.

    Raises:
        CaseError: the builder is invalid.
        NotRun: a library is missing.
        PortError: the builder raised.
    """
    build = partial(load_backend(library, name).build, builder, replace(spec, port=name))
    with with_own_patches(builder):
        port = call_user_code(name, "building the model", build)
    return keep_patches(port, builder)
