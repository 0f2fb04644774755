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
from equiv.core.output_name import KEY, InputName, OutputName, ProgramKind, ProgramName, batch_input, leaf_input
from equiv.programs.program import Program

InputSpecs = dict[InputName, jax.ShapeDtypeStruct]


NamedInputs = Mapping[InputName, Any]


NamedOutputs = Mapping[OutputName, Any]


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

    def modes(self) -> tuple[ProgramKind, ...]:
        """`eval` and `train`, or `call` where there is no difference."""
        return ("eval", "train") if self.has_modes else ("call",)

    def gradients(self) -> tuple[ProgramKind, ...]:
        """`gradient`, and `eval gradient` where the modes differ; none where no check reads them."""
        if "gradients" in self.request.left_out:
            return ()
        return ("gradient", "eval gradient") if self.has_modes else ("gradient",)

    def struct(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        """The struct of an input; floats are float64 in a float64 trace."""
        return jax.ShapeDtypeStruct(shape, to_float64_dtype(str(dtype)) if self.float64 else dtype)

    def variables(self) -> InputSpecs:
        """The structs of the canonical leaves."""
        return {leaf_input(leaf.name): self.struct(leaf.spec.shape, leaf.spec.dtype) for leaf in self.table.leaves}

    def random(self) -> InputSpecs:
        """The library's own random state, and the key of a call."""
        port = self.port
        states = {random_input(key): port.leaves[key] for key in port.leaves if port.collections[key] == "random"}
        return {**states, KEY: jax.eval_shape(lambda: jax.random.key(0))}

    def batch(self, names: tuple[str, ...] | None = None) -> InputSpecs:
        """The structs of batch entries."""
        entries = self.request.batch
        return {batch_input(name): self.struct(entries[name].shape, entries[name].dtype) for name in names or entries}

    def native(self, inputs: NamedInputs) -> dict[NativeKey, Any]:
        """The native leaves for named inputs."""
        port, variables = self.port, {name: inputs[leaf_input(name)] for name in self.table.names()}
        native = to_native_leaves(self.table, variables, self.float64)
        random = {key: inputs[random_input(key)] for key in port.leaves if port.collections[key] == "random"}
        given = {**native, **random}
        return {key: given[key] for key in port.leaves}


def random_input(key: NativeKey) -> InputName:
    """The input that is a leaf of the library's own random state."""
    return InputName("random", key.path)


def trace_function(name: ProgramName, function: Callable[[NamedInputs], NamedOutputs], specs: InputSpecs) -> Program:
    """Trace a function of named inputs to named outputs."""
    names = tuple(specs)
    outputs: list[OutputName] = []

    def flat(*arrays: Any) -> list[Any]:
        named = function(dict(zip(names, arrays, strict=True)))
        outputs[:] = list(named)
        return [jnp.asarray(value) for value in named.values()]

    jaxpr = jax.make_jaxpr(flat)(*specs.values())
    return Program(name, jaxpr, names, tuple(outputs))


def flatten_outputs(program: ProgramName, tree: Any) -> dict[OutputName, Any]:
    """A pytree of outputs by name: `output`, or `output/0`, `output/hidden`, ..."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {OutputName(program, "output", pytree_path(path)): leaf for path, leaf in leaves}


@lru_cache(maxsize=32)
def trace_forward(tracer: Tracer, program: ProgramName) -> Program:
    """Trace one public method in one mode: its outputs, and every leaf after the call. Cached."""
    names, training = tracer.request.methods[program.method].inputs, program.kind == "train"

    def run(inputs: NamedInputs) -> NamedOutputs:
        native = tracer.native(inputs)
        arguments = tuple(inputs[batch_input(name)] for name in names)
        outputs, after = tracer.port.apply(native, program.method, arguments, training, inputs[KEY])
        changed = {
            OutputName(program, "state", leaf=leaf.name): leaf_after_call(leaf, native, after, inputs)
            for leaf in tracer.table.leaves
        }
        return {**flatten_outputs(program, outputs), **changed}

    return trace_function(program, run, {**tracer.variables(), **tracer.batch(names), **tracer.random()})


def leaf_after_call(leaf: MappedLeaf, native: Leaves, after: Leaves, inputs: NamedInputs) -> Any:
    """A leaf after a call; one that the call returned unchanged is the input itself, whatever its layout."""
    return inputs[leaf_input(leaf.name)] if after[leaf.key] is native[leaf.key] else leaf.to_canonical(after[leaf.key])


@dataclass(frozen=True)
class DifferentiatedLoss:
    """What a gradient is taken of.

    Attributes:
        specs: the inputs of the gradient's program.
        wanted: those of them with respect to which it is taken.
        run: inputs, and values of the wanted ones instead of theirs, to the loss.
    """

    specs: InputSpecs
    wanted: InputSpecs
    run: Callable[[NamedInputs, NamedInputs], Any]


def gradient_call(tracer: Tracer, program: ProgramName) -> ProgramName:
    """The call of whose outputs a gradient is taken."""
    return ProgramName(tracer.modes()[0 if program.kind == "eval gradient" else -1], program.method)


def differentiated_loss(tracer: Tracer, program: ProgramName) -> DifferentiatedLoss:
    """The loss of a gradient, with every parameter and every float input as what is wanted.

    The first method uses the case's loss, every other a random projection of its outputs, whose coefficients
    (`cotangent/...`) are inputs of the program.

    Args:
        tracer: the port.
        program: its name: an `eval gradient`, or one of the last of the port's modes.
    """
    method, forward = program.method, gradient_call(tracer, program)
    names = tracer.request.methods[method].inputs
    first = method == next(iter(tracer.request.methods))
    floats = tuple(batch_input(name) for name in names if is_inexact(tracer.request.batch[name]))
    cotangents = {} if first else _cotangent_specs(tracer, forward)

    def loss_of(inputs: NamedInputs, wanted: NamedInputs) -> Any:
        all_inputs = {**inputs, **wanted}
        arguments = tuple(all_inputs[batch_input(name)] for name in names)
        native = tracer.native(all_inputs)
        outputs, _ = tracer.port.apply(native, method, arguments, forward.kind == "train", inputs[KEY])
        if first:
            return tracer.request.loss(outputs, {name: all_inputs[batch_input(name)] for name in tracer.request.batch})
        return sum(
            jnp.sum(value * inputs[_cotangent(name)]).real
            for name, value in flatten_outputs(forward, outputs).items()
            if _cotangent(name) in cotangents
        )

    specs = {**tracer.variables(), **tracer.batch(None if first else names), **cotangents, **tracer.random()}
    wanted = {name: specs[name] for name in (*map(leaf_input, tracer.table.names("params")), *floats)}
    return DifferentiatedLoss(specs, wanted, loss_of)


def trace_gradient(tracer: Tracer, program: ProgramName) -> Program:
    """Trace the loss and its gradient with respect to every parameter and every float input.

    Args:
        tracer: the port.
        program: its name: an `eval gradient`, or one of the last of the port's modes.
    """
    loss = differentiated_loss(tracer, program)

    def run(inputs: NamedInputs) -> NamedOutputs:
        wanted = {name: inputs[name] for name in loss.wanted}
        value, gradients = jax.value_and_grad(lambda one: loss.run(inputs, one))(wanted)
        return {
            OutputName(program, "loss"): value,
            **{name_gradient(program, name): one for name, one in gradients.items()},
        }

    return trace_function(program, run, loss.specs)


def name_gradient(program: ProgramName, name: InputName) -> OutputName:
    """The gradient with respect to a leaf, or to a batch entry, which has the whole name of the input as its path."""
    return OutputName(program, "gradient", "" if name.leaf else str(name), name.leaf)


def _cotangent(output: OutputName) -> InputName:
    return InputName("cotangent", output.text)


def _cotangent_specs(tracer: Tracer, forward: ProgramName) -> InputSpecs:
    program = trace_forward(tracer, forward)
    return {
        _cotangent(name): jax.ShapeDtypeStruct(aval.shape, aval.dtype)
        for name, aval in zip(program.outputs, program.jaxpr.out_avals, strict=True)
        if name.kind == "output" and is_inexact(aval)
    }


def is_inexact(struct: Any) -> bool:
    """Whether it is an array of floats, or of complex numbers."""
    return bool(jnp.issubdtype(struct.dtype, jnp.inexact))
