"""Ports for the tests of inference: made of plain functions, or with renamed leaves; and what is inferred of two."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from equiv.backends import registry
from equiv.backends.base import Port, PortSpec
from equiv.backends.build import port_spec
from equiv.backends.leaf_table import map_port, to_native_leaves
from equiv.core.case import Case
from equiv.core.leaves import LeafTable, NativeKey
from equiv.infer.matching.proposal import Proposal
from equiv.infer.matching.propose import propose
from equiv.infer.session import INFERENCE_SEED
from equiv.infer.table.rows import infer_rows
from equiv.programs.probes import make_probe


def asked(batch: Mapping[str, str]) -> tuple[PortSpec, dict[str, np.ndarray]]:
    """The request to a backend for this batch, and one random batch."""
    request, entries = port_spec(Case(guide="", models={}, batch=batch, layers=()))
    probe = make_probe("inference", INFERENCE_SEED, LeafTable("", ()), entries, 1)
    return request, {name: array[0] for name, array in probe.batches.items()}


def pure(backend: str, function: Callable[..., Any], **shapes: tuple[int, ...]) -> Port:
    """Make a port of a function `(parameters by name, *batch entries)`; `shapes` are of its float32 parameters."""
    leaves = {NativeKey("params", name): jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}

    def apply(native, method, arguments, train, key):
        return function({leaf.path: value for leaf, value in native.items()}, *arguments), native

    def never(*_: Any) -> Any:
        raise AssertionError("inference makes no parameters and takes no step")

    return Port(backend, backend, leaves, dict.fromkeys(leaves, "params"), False, apply, never, never, never, True)


def renamed(port: Port, seed: int) -> tuple[Port, dict[NativeKey, NativeKey]]:
    """Give the leaves of a port random names in random order; also returns old key to new key."""
    rng = np.random.default_rng(seed)
    keys = list(port.leaves)
    rng.shuffle(keys)
    new = {key: NativeKey(key.collection, "".join(rng.choice(list("abcdefghij"), 9))) for key in keys}
    return called(port, new), new


def exchanged(port: Port, one: str, two: str) -> Port:
    """Exchange two words in the names of a port's leaves."""
    words = {one: two, two: one}
    new = {}
    for key in port.leaves:
        parts = re.split(r"([./])", key.path)
        new[key] = NativeKey(key.collection, "".join(words.get(part, part) for part in parts))
    return called(port, new)


def called(port: Port, new: Mapping[NativeKey, NativeKey]) -> Port:
    """Rename the leaves of a port, by old key to new key; the new order is that of the mapping."""

    def apply(native, method, arguments, train, key):
        outputs, after = port.apply({old: native[new[old]] for old in port.leaves}, method, arguments, train, key)
        return outputs, {new[old]: value for old, value in after.items()}

    leaves = {new[key]: port.leaves[key] for key in new}
    return replace(port, leaves=leaves, collections={new[k]: port.collections[k] for k in new}, apply=apply)


def build(backend: str, builder: Callable[..., Any], batch: Mapping[str, str]) -> Port:
    """Build a port of a library's model."""
    return registry.load_backend(backend).build(builder, asked(batch)[0])


def inferred(left: Port, right: Port, batch: Mapping[str, str]) -> Proposal:
    """Infer the leaf pairs of two ports."""
    return propose((left, right), *asked(batch))


def tabled_outputs(left: Port, right: Port, batch: Mapping[str, str]) -> list[np.ndarray]:
    """The outputs of two ports under their inferred table, which has to be complete: equal if it is right."""
    rows, problems = infer_rows(proposal := inferred(left, right, batch))
    assert (problems, proposal.unpaired) == ((), ())
    layers, rng, outputs = tuple(row.layer for row in rows), np.random.default_rng(7), []
    tables = [map_port(layers, port, registry.load_library(port.library)) for port in (left, right)]
    values = {leaf.name: rng.normal(size=leaf.spec.shape).astype("float32") for leaf in tables[0].leaves}
    arguments = tuple(asked(batch)[1].values())
    for port, table in zip((left, right), tables, strict=True):
        outputs.append(port.apply(to_native_leaves(table, values), "__call__", arguments, False, None)[0])
    assert np.abs(outputs[0]).sum() > 0
    return outputs


def found(proposal: Proposal) -> dict[tuple[str, Any], tuple[str, Any]]:
    """Left path and start of its block to right path and start of its block."""
    return {(pair.left.path, pair.bounds[0]): (pair.right.path, pair.bounds[1]) for pair in proposal.pairs}


def paths(proposal: Proposal) -> dict[str, str]:
    """Left path to right path, for leaves that are mapped as a whole."""
    return {pair.left.path: pair.right.path for pair in proposal.pairs}


def shuffled_back(proposal: Proposal, left: Mapping[NativeKey, NativeKey], right: Mapping[NativeKey, NativeKey]):
    """Left path to right path of a proposal for renamed ports, in the old names."""
    old = {new: key for names in (left, right) for key, new in names.items()}
    return {old[pair.left].path: old[pair.right].path for pair in proposal.pairs}
