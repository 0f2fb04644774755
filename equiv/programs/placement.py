"""Where the arrays that a port is called with are placed on a mesh, as its own annotations say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from equiv.core.annotation import Annotation, Rules, resolve_names
from equiv.core.leaves import NativeKey
from equiv.programs.carry import CarryLeafParts, map_carry_leaves
from equiv.programs.trace import Tracer

Sharding = Any
"""A `jax.sharding.Sharding`."""


@dataclass(frozen=True)
class CarriedLeaf:
    """One leaf of the carry of training, and what says how it is sharded.

    Attributes:
        parts: the canonical leaves that it holds.
        shape: its shape.
        annotation: its own: what the library keeps of it, or the constraint that makes it; None: it has none.
    """

    parts: CarryLeafParts
    shape: tuple[int, ...]
    annotation: Annotation | None

    def follows(self, annotations: Mapping[NativeKey, Annotation]) -> Annotation | None:
        """What says how it is sharded: its own annotation, else that of the parameter that it is kept for."""
        if self.annotation is not None or not self.parts or self.parts[0].mapped.native_shape != self.shape:
            return self.annotation
        return annotations.get(self.parts[0].mapped.key)


@dataclass(frozen=True)
class Placement:
    """The sharding of every array that a port's calls take.

    Attributes:
        leaves: native leaf to its sharding.
        entries: batch entry to its own.
        carry: those of the carry of training, in the order of its pytree.
        rest: that of all else: on every device.
    """

    leaves: Mapping[NativeKey, Sharding]
    entries: Mapping[str, Sharding]
    carry: Sequence[Sharding]
    rest: Sharding


def read_carry(tracer: Tracer) -> list[CarriedLeaf]:
    """What says how each leaf of the carry of training is sharded, in the order of its pytree.

    A constraint on what the beginning of training returns, as `jax.lax.with_sharding_constraint` sets one, is the last
    word on a leaf.
    """
    port = tracer.port
    native = {key: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for key, leaf in port.leaves.items()}
    key = jax.eval_shape(lambda: jax.random.key(0))
    closed, carry = jax.make_jaxpr(port.init_training, return_shape=True)(native, key)
    outputs = closed.jaxpr.outvars
    kept = [_constraint(closed.jaxpr, out) or own for out, own in zip(outputs, port.annotate(carry), strict=True)]
    leaves = zip(map_carry_leaves(tracer, carry), jax.tree.leaves(carry), kept, strict=True)
    return [CarriedLeaf(parts, np.shape(leaf), annotation) for parts, leaf, annotation in leaves]


def _constraint(jaxpr: Any, variable: Any) -> Annotation | None:
    """The constraint that a variable of a jaxpr is the result of, looked up through functions under `jax.jit`."""
    for eqn in jaxpr.eqns:
        if variable not in eqn.outvars:
            continue
        if eqn.primitive.name == "sharding_constraint" and isinstance(eqn.params["sharding"], NamedSharding):
            spec = eqn.params["sharding"].spec
            return Annotation(tuple(name if name is None or isinstance(name, str) else tuple(name) for name in spec))
        if eqn.primitive.name in ("jit", "pjit"):
            inner = eqn.params["jaxpr"].jaxpr
            return _constraint(inner, inner.outvars[eqn.outvars.index(variable)])
    return None


def place_port(
    tracer: Tracer,
    mesh: jax.sharding.Mesh,
    rules: Rules,
    batch_axes: Mapping[str, Sequence[Any]],
    carry: Sequence[CarriedLeaf],
) -> Placement:
    """Place all that a port's calls take on a mesh.

    Args:
        tracer: the port.
        mesh: the mesh.
        rules: those of the case for this port.
        batch_axes: batch entry to the names of its axes.
        carry: what `read_carry` gives.
    """

    def sharding(annotation: Annotation | None) -> NamedSharding:
        names = () if annotation is None else resolve_names(annotation, rules, mesh.axis_names)
        return NamedSharding(mesh, PartitionSpec(*names))

    port = tracer.port
    entries = {name: Annotation(tuple(names)) for name, names in batch_axes.items()}
    return Placement(
        leaves={key: sharding(port.annotations.get(key)) for key in port.leaves},
        entries={name: sharding(entries.get(name)) for name in tracer.request.batch},
        carry=[sharding(one.follows(port.annotations)) for one in carry],
        rest=sharding(None),
    )
