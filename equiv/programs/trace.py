"""Tracing of ports to programs: forward per method and mode, and gradients."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from equiv.backends.base import Leaves, Port, PortSpec, pytree_path
from equiv.backends.leaf_table import to_float64_dtype, to_native_leaves
from equiv.core.leaves import LeafTable, MappedLeaf, NativeKey
from equiv.programs.program import Program

InputSpecs = dict[str, jax.ShapeDtypeStruct]


@dataclass(frozen=True, eq=False)
class Tracer:
    """One port with everything needed to trace it, in one precision.

    Attributes:
        port: the port.
        table: its leaf table.
        request: the methods, batch and loss of the case.
        float64: trace with float64 inputs (inside `jax.enable_x64(True)`).
        has_modes: whether train and eval mode differ in any port of the case.
    """

    port: Port
    table: LeafTable
    request: PortSpec
    float64: bool
    has_modes: bool

    def modes(self) -> tuple[str, ...]:
        """`eval` and `train`, or `call` where there is no difference."""
        return ("eval", "train") if self.has_modes else ("call",)

    def struct(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        """The struct of an input; floats are float64 in a float64 trace."""
        return jax.ShapeDtypeStruct(shape, to_float64_dtype(str(dtype)) if self.float64 else dtype)

    def variables(self) -> InputSpecs:
        """Canonical name to struct."""
        return {leaf.name: self.struct(leaf.spec.shape, leaf.spec.dtype) for leaf in self.table.leaves}

    def random(self) -> InputSpecs:
        """The library's own random state, and the key of a call."""
        port = self.port
        states = {f"random/{key.path}": port.leaves[key] for key in port.leaves if port.collections[key] == "random"}
        return {**states, "key": jax.eval_shape(lambda: jax.random.key(0))}

    def batch(self, names: tuple[str, ...] | None = None) -> InputSpecs:
        """Batch entries as `batch/name`."""
        entries = self.request.batch
        return {f"batch/{name}": self.struct(entries[name].shape, entries[name].dtype) for name in names or entries}

    def native(self, inputs: Mapping[str, Any]) -> dict[NativeKey, Any]:
        """The native leaves for named inputs."""
        port = self.port
        native = to_native_leaves(self.table, {name: inputs[name] for name in self.table.names()}, self.float64)
        random = {key: inputs[f"random/{key.path}"] for key in port.leaves if port.collections[key] == "random"}
        return {key: {**native, **random}[key] for key in port.leaves}


def trace_function(name: str, function: Callable[[Mapping[str, Any]], Mapping[str, Any]], specs: InputSpecs) -> Program:
    """Trace a function of named inputs to named outputs."""
    names = tuple(specs)
    outputs: list[str] = []

    def flat(*arrays: Any) -> list[Any]:
        named = function(dict(zip(names, arrays, strict=True)))
        outputs[:] = list(named)
        return [jnp.asarray(value) for value in named.values()]

    jaxpr = jax.make_jaxpr(flat)(*specs.values())
    return Program(name, jaxpr, names, tuple(outputs))


def flatten_outputs(prefix: str, tree: Any) -> dict[str, Any]:
    """A pytree of outputs by name: `output`, or `output/0`, `output/hidden`, ..."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(part for part in (prefix, pytree_path(path)) if part): leaf for path, leaf in leaves}


@lru_cache(maxsize=32)
def trace_forward(tracer: Tracer, method: str, mode: str) -> Program:
    """Trace one public method in one mode: its outputs, and every leaf after the call. Cached."""
    names = tracer.request.methods[method]

    def run(inputs: Mapping[str, Any]) -> dict[str, Any]:
        native = tracer.native(inputs)
        arguments = tuple(inputs[f"batch/{name}"] for name in names)
        outputs, after = tracer.port.apply(native, method, arguments, mode == "train", inputs["key"])
        changed = {f"state {leaf.name}": _leaf_after_call(leaf, native, after, inputs) for leaf in tracer.table.leaves}
        return {**flatten_outputs("output", outputs), **changed}

    return trace_function(f"{mode} {method}", run, {**tracer.variables(), **tracer.batch(names), **tracer.random()})


def _leaf_after_call(leaf: MappedLeaf, native: Leaves, after: Leaves, inputs: Mapping[str, Any]) -> Any:
    """A leaf after a call; one that the call returned unchanged is the input itself, whatever its layout."""
    return inputs[leaf.name] if after[leaf.key] is native[leaf.key] else leaf.to_canonical(after[leaf.key])


def trace_gradient(tracer: Tracer, method: str) -> Program:
    """Trace the loss and its gradient with respect to every parameter and every float input.

    The first method uses the case's loss, every other a random projection of its outputs, whose coefficients
    (`cotangent/...`) are inputs of the program.
    """
    names = tracer.request.methods[method]
    first = method == next(iter(tracer.request.methods))
    mode = tracer.modes()[-1]
    floats = tuple(f"batch/{name}" for name in names if jnp.issubdtype(tracer.request.batch[name].dtype, jnp.floating))
    cotangents = {} if first else _cotangent_specs(tracer, method, mode)

    def run(inputs: Mapping[str, Any]) -> dict[str, Any]:
        def loss_of(wanted: Mapping[str, Any]) -> Any:
            all_inputs = {**inputs, **wanted}
            arguments = tuple(all_inputs[f"batch/{name}"] for name in names)
            native = tracer.native(all_inputs)
            outputs, _ = tracer.port.apply(native, method, arguments, mode == "train", inputs["key"])
            if first:
                return tracer.request.loss(
                    outputs, {name: all_inputs[f"batch/{name}"] for name in tracer.request.batch}
                )
            return sum(
                jnp.sum(value * inputs[f"cotangent/{name}"])
                for name, value in flatten_outputs("output", outputs).items()
                if f"cotangent/{name}" in cotangents
            )

        wanted = {name: inputs[name] for name in (*tracer.table.names("params"), *floats)}
        loss, gradients = jax.value_and_grad(loss_of)(wanted)
        return {"loss": loss, **{f"gradient {name}": value for name, value in gradients.items()}}

    specs = {**tracer.variables(), **tracer.batch(None if first else names), **cotangents, **tracer.random()}
    return trace_function(f"gradient {method}", run, specs)


def _cotangent_specs(tracer: Tracer, method: str, mode: str) -> InputSpecs:
    program = trace_forward(tracer, method, mode)
    return {
        f"cotangent/{name}": jax.ShapeDtypeStruct(aval.shape, aval.dtype)
        for name, aval in zip(program.outputs, program.jaxpr.out_avals, strict=True)
        if name.startswith("output") and jnp.issubdtype(aval.dtype, jnp.floating)
    }
