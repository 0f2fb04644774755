"""A port prepared for inference: traced abstractly, without creating parameters, then walked."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from equiv.backends.base import Port, PortSpec
from equiv.backends.build import call_user_code
from equiv.core.leaves import NativeKey
from equiv.core.output_name import KEY, InputName, OutputName, ProgramName, batch_input, leaf_input
from equiv.infer.dataflow.axis_factors import Factors, axis_factors
from equiv.infer.dataflow.blocks import AxisCuts
from equiv.infer.dataflow.program_runs import LeafArrays, run_gradients, run_outputs
from equiv.infer.dataflow.use_graph import UseGraph, build_use_graph
from equiv.infer.dataflow.walk import Dataflow, LeafBlock, walk_program
from equiv.programs.program import Program
from equiv.programs.trace import NamedInputs, NamedOutputs, flatten_outputs, random_input, trace_function
from equiv.programs.transform import select_outputs

LeafCuts = Mapping[int, tuple[AxisCuts, ...]]
"""Leaf, by its index among the program's inputs, to where each of its axes is cut."""


@dataclass(frozen=True)
class PortGraph:
    """A port and the dataflow of its leaves.

    Attributes:
        port: the port.
        program: the forward pass in eval mode, of every method, without dead equations.
        keys: index among the program's inputs to native leaf.
        dataflow: uses of its leaves.
    """

    port: Port
    program: Program
    keys: Mapping[int, NativeKey]
    dataflow: Dataflow

    @cached_property
    def use_graph(self) -> UseGraph:
        """The uses and their order."""
        kinds = {place: _dtype_kind(self.port.leaves[key].dtype) for place, key in self.keys.items()}
        return build_use_graph(self.dataflow, kinds, _output_labels(self.program))

    @cached_property
    def axis_factors(self) -> Mapping[int, tuple[Factors, ...]]:
        """Length of an axis to the ways in which the program splits such an axis."""
        return axis_factors(self.dataflow.equations)

    @property
    def blocks(self) -> tuple[LeafBlock, ...]:
        """Nodes that are leaves or parts of leaves."""
        return self.dataflow.blocks

    def key(self, node: int) -> NativeKey:
        """The native leaf of a node."""
        return self.keys[self.blocks[node].leaf]

    def shape(self, node: int) -> tuple[int, ...]:
        """The shape of a node's native leaf; an axis whose cuts recur is two."""
        return self.blocks[node].shape

    def cut(self, cutting: LeafCuts) -> "PortGraph":
        """Walk the same program again with some leaves cut."""
        if not cutting:
            return self
        return replace(self, dataflow=walk_program(self.program, frozenset(self.keys), cutting))

    def gradients(
        self, arrays: LeafArrays, places: Sequence[int], batch: Mapping[str, np.ndarray]
    ) -> dict[int, np.ndarray]:
        """The gradients of some leaves, see `run_gradients`.

        Raises:
            PortError: they cannot be computed.
        """
        run = partial(run_gradients, self.program, arrays, places, batch)
        return call_user_code(self.port.name, "its gradient", run)

    def outputs(self, arrays: LeafArrays, batch: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs, see `run_outputs`.

        Raises:
            PortError: they cannot be computed.
        """
        return call_user_code(self.port.name, "its outputs", partial(run_outputs, self.program, arrays, batch))

    @property
    def dead(self) -> tuple[NativeKey, ...]:
        """Leaves on which no output depends."""
        live = {self.key(node) for node in self.use_graph.live}
        return tuple(key for key in self.keys.values() if key not in live)


@dataclass(frozen=True, kw_only=True)
class PortElsewhere(Port):
    """A port that is built and traced in another interpreter.

    Attributes:
        read: whether train mode is meant to the graph, whose programs run there.
    """

    read: Callable[[bool], PortGraph]


def read_port(port: Port, request: PortSpec, train: bool = False) -> PortGraph:
    """Trace a port and walk its program.

    Args:
        port: built, abstractly.
        request: its methods and batch.
        train: trace train mode instead, with every leaf's value after the call as an output.

    Raises:
        PortError: it cannot be traced.
    """
    if isinstance(port, PortElsewhere):
        return port.read(train)
    program = call_user_code(port.name, "tracing", partial(_trace_forward, port, request, train))
    # Random state is no leaf of the layer table: draws are paired when the ports are compared.
    named = {_input_name(port, key): key for key in port.leaves if port.collections[key] != "random"}
    keys = {place: named[name] for place, name in enumerate(program.inputs) if name in named}
    return PortGraph(port, program, keys, walk_program(program, frozenset(keys), {}))


def _output_labels(program: Program) -> list[tuple[object, ...]]:
    """Labels of outputs: their number; their size for leaves after a call, whose order differs by library."""
    found: list[tuple[object, ...]] = []
    for name, aval in zip(program.outputs, program.jaxpr.out_avals, strict=True):
        # Methods return their outputs in the order that the case states, leaves come in the order of a library's tree.
        found.append(("leaf", math.prod(aval.shape)) if name.kind == "state" else ("number", len(found)))
    return found


def _dtype_kind(dtype: Any) -> str:
    # A float16 leaf may be a float32 leaf of the other port: the
    # structure check reports that, and needs the pair to do so.
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return "complex"
    return "float" if jnp.issubdtype(dtype, jnp.floating) else str(dtype)


def _input_name(port: Port, key: NativeKey) -> InputName:
    return random_input(key) if port.collections[key] == "random" else leaf_input(str(key))


def _trace_forward(port: Port, request: PortSpec, train: bool) -> Program:
    leaves = {key for key in port.leaves if port.collections[key] != "random"}
    inputs = {_input_name(port, key): struct for key, struct in port.leaves.items()}
    inputs |= {batch_input(name): struct for name, struct in request.batch.items()}
    inputs |= {KEY: jax.eval_shape(lambda: jax.random.key(0))}
    mode = "train" if train else "eval"

    def run(given: NamedInputs) -> NamedOutputs:
        found: dict[OutputName, Any] = {}
        for method, call in request.methods.items():
            native = {key: given[_input_name(port, key)] for key in port.leaves}
            arguments = tuple(given[batch_input(name)] for name in call.inputs)
            outputs, after = port.apply(native, method, arguments, train, given[KEY])
            program = ProgramName(mode, method)
            found |= flatten_outputs(program, outputs)
            if train:
                found |= {leaf_after_call(program, key): value for key, value in after.items() if key in leaves}
        return found

    program = trace_function(ProgramName(mode), run, inputs)
    return select_outputs(program, program.outputs)


def leaf_after_call(program: ProgramName, key: NativeKey) -> OutputName:
    """The output that is a native leaf after a call."""
    return OutputName(program, "state", leaf=str(key))
