"""A port read for inference: traced without its parameters being made, walked, and cut where it has to be."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp

from equiv.backends.base import Port, Request
from equiv.backends.build import guarded
from equiv.core.leaves import NativeKey
from equiv.infer.dataflow.blocks import Cuts
from equiv.infer.dataflow.use_graph import Skeleton, skeleton
from equiv.infer.dataflow.walk import Block, Flow, flow
from equiv.programs.program import Program
from equiv.programs.trace import flat_outputs, trace
from equiv.programs.transform import select

Cutting = Mapping[int, tuple[Cuts, ...]]
"""Leaf, by its place among the program's inputs, to the places where each of its axes is cut."""


@dataclass(frozen=True)
class Reading:
    """A port and what its program tells of its leaves.

    Attributes:
        port: the port.
        program: the forward pass in eval mode, of every method, without dead equations.
        keys: place among the program's inputs to native leaf.
        flow: its uses.
    """

    port: Port
    program: Program
    keys: Mapping[int, NativeKey]
    flow: Flow

    @cached_property
    def skeleton(self) -> Skeleton:
        """Uses in their order."""
        kinds = {place: _kind(self.port.leaves[key].dtype) for place, key in self.keys.items()}
        return skeleton(self.flow, kinds, _ends(self.program))

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The nodes that are leaves or parts of leaves."""
        return self.flow.blocks

    def key(self, node: int) -> NativeKey:
        """The native leaf of a node."""
        return self.keys[self.blocks[node].leaf]

    def shape(self, node: int) -> tuple[int, ...]:
        """The shape of a node's native leaf."""
        return tuple(self.port.leaves[self.key(node)].shape)

    @property
    def dead(self) -> tuple[NativeKey, ...]:
        """Leaves on which no output depends."""
        alive = {self.key(node) for node in self.skeleton.alive}
        return tuple(key for key in self.keys.values() if key not in alive)


def read(port: Port, request: Request, train: bool = False) -> Reading:
    """Trace a port and walk its program.

    Args:
        port: built, abstractly.
        request: its methods and batch.
        train: in train mode instead, with every leaf after the call as an output.

    Raises:
        PortError: it cannot be traced.
    """
    program = guarded(port.backend, "tracing", partial(_forward, port, request, train))
    named = {f"leaf {key}": key for key in port.leaves if port.collections[key] != "random"}
    keys = {place: named[name] for place, name in enumerate(program.inputs) if name in named}
    return Reading(port, program, keys, flow(program, frozenset(keys), {}))


def recut(reading: Reading, cutting: Cutting) -> Reading:
    """The same port with some leaves cut."""
    if not cutting:
        return reading
    return replace(reading, flow=flow(reading.program, frozenset(reading.keys), cutting))


def _ends(program: Program) -> list[tuple[object, ...]]:
    """Outputs by number; leaves after a call, which every library lists in its own order, by size."""
    found: list[tuple[object, ...]] = []
    for name, aval in zip(program.outputs, program.jaxpr.out_avals, strict=True):
        later = " after leaf " in name
        found.append(("leaf", math.prod(aval.shape)) if later else ("number", len(found)))
    return found


def _kind(dtype: Any) -> str:
    return "float" if jnp.issubdtype(dtype, jnp.floating) else str(dtype)


def _name(port: Port, key: NativeKey) -> str:
    return f"{'random/' if port.collections[key] == 'random' else 'leaf '}{key}"


def _forward(port: Port, request: Request, train: bool) -> Program:
    inputs = {_name(port, key): struct for key, struct in port.leaves.items()}
    inputs |= {f"batch/{name}": struct for name, struct in request.batch.items()}
    inputs |= {"key": jax.eval_shape(lambda: jax.random.key(0))}

    def run(given: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for method, entries in request.methods.items():
            native = {key: given[_name(port, key)] for key in port.leaves}
            arguments = tuple(given[f"batch/{name}"] for name in entries)
            outputs, after = port.apply(native, method, arguments, train, given["key"])
            found |= flat_outputs(f"output {method}", outputs)
            if train:
                found |= {f"{method} after {_name(port, key)}": value for key, value in after.items()}
        return found

    program = trace("train" if train else "eval", run, inputs)
    return select(program, tuple(name for name in program.outputs if "after random/" not in name))
