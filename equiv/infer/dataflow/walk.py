"""A walk over a program: calls are entered, loops are closed, and every use of a leaf is put in its place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from math import prod
from typing import Any

import numpy as np
from jax.extend import core

from equiv.infer.dataflow import loops as turns
from equiv.infer.dataflow.blocks import Cuts, Scene, Step, Value, filled, parts, single, spans
from equiv.infer.dataflow.leaf_uses import CONSTANT, Atom, Held, Uses
from equiv.infer.dataflow.primitives import apply
from equiv.infer.dataflow.strided_views import Shape, whole
from equiv.programs.jaxpr import CALLS, opened
from equiv.programs.program import Program


@dataclass(frozen=True)
class Block:
    """A leaf, or a part of it where programs take it apart.

    Attributes:
        leaf: its place among the program's inputs.
        bounds: first and one past the last index on every axis.
    """

    leaf: int
    bounds: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        """How many elements it has."""
        return prod(end - start for start, end in self.bounds)


@dataclass(frozen=True)
class Flow:
    """A program as uses of its leaves.

    Attributes:
        blocks: the leaves, or their parts; their places are nodes.
        inputs: batch entries; the nodes after the blocks.
        uses: every use.
        ends: for each output the uses right before it, as bits.
        wanted: leaf and axis to the places where the program cuts it.
        turned: leaf to the number of turns of the loop that slices it on its first axis.
        steps: see `Scene.steps`.
    """

    blocks: tuple[Block, ...]
    inputs: tuple[str, ...]
    uses: Uses
    ends: tuple[int, ...]
    wanted: Mapping[tuple[int, int], Cuts]
    turned: Mapping[int, int]
    steps: tuple[Step, ...]


def flow(program: Program, leaves: frozenset[int], cuts: Mapping[int, tuple[Cuts, ...]]) -> Flow:
    """Walk a program.

    Args:
        program: a traced port, without dead equations.
        leaves: which of its inputs are leaves, by place.
        cuts: leaf to the places where each of its axes is cut; the others are whole.
    """
    scene = Scene()
    jaxpr, consts = opened(program.jaxpr)
    blocks: list[Block] = []
    values: dict[int, Value] = {}
    for place in sorted(leaves):
        values[place] = _leaf(place, tuple(jaxpr.invars[place].aval.shape), cuts.get(place), blocks)
    entries = [name for name in program.inputs if name.startswith("batch/")]
    for place, (name, var) in enumerate(zip(program.inputs, jaxpr.invars, strict=True)):
        if name in entries:
            scene.uses.path = ("input", name)
            use = scene.uses.use(len(blocks) + entries.index(name), "input", None)
            entry, shape = -1 - entries.index(name), tuple(var.aval.shape)
            origins = tuple(frozenset([(entry, axis, Fraction(1), Fraction(0))]) for axis in range(len(shape)))
            values[place] = single(shape, Atom(use, moving=True), origins)
        elif place not in leaves:
            values[place] = single(tuple(var.aval.shape), CONSTANT)
    scene.uses.path = ()
    outs = _walk(scene, jaxpr, consts, [values[place] for place in range(len(jaxpr.invars))], ())
    scene.uses.path = ("output",)
    ends = tuple(_end(scene, number, value) for number, value in enumerate(outs))
    wanted = {key: tuple(sorted(places)) for key, places in scene.wanted.items()}
    return Flow(tuple(blocks), tuple(entries), scene.uses, ends, wanted, scene.turned, tuple(scene.steps))


def _leaf(leaf: int, shape: Shape, cuts: tuple[Cuts, ...] | None, blocks: list[Block]) -> Value:
    places = cuts or ((),) * len(shape)

    def make(index: tuple[int, ...]) -> Atom:
        bounds = tuple(spans(at, size)[part] for at, size, part in zip(places, shape, index, strict=True))
        blocks.append(Block(leaf, bounds))
        return Atom(leaves=(Held(len(blocks) - 1, whole(shape, bounds)),))

    origins = tuple(frozenset([(leaf, axis, Fraction(1), Fraction(0))]) for axis in range(len(shape)))
    return Value(shape, filled(shape, places, make), places, origins)


def _end(scene: Scene, number: int, value: Value) -> int:
    found = 0
    for index, atom in enumerate(parts(value)):
        taken = scene.uses.take(atom.leaves, "output", (number, index))
        found |= scene.uses.settle(atom) | taken
    return found


def _walk(scene: Scene, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Value], path: Any) -> list[Value]:
    values: dict[Any, Value] = {var: _constant(np.shape(c)) for var, c in zip(jaxpr.constvars, consts, strict=True)}
    values.update(zip(jaxpr.invars, inputs, strict=True))

    def read(item: Any) -> Value:
        return _number(item) if isinstance(item, core.Literal) else values[item]

    for place, eqn in enumerate(jaxpr.eqns):
        here = (path, place)
        scene.uses.path = here
        values.update(zip(eqn.outvars, _equation(scene, eqn, [read(item) for item in eqn.invars], here), strict=True))
    return [read(item) for item in jaxpr.outvars]


def _constant(shape: Shape) -> Value:
    return single(tuple(shape), CONSTANT)


def _number(item: Any) -> Value:
    shape = tuple(item.aval.shape)
    if shape or not np.issubdtype(item.aval.dtype, np.number):
        return _constant(shape)
    return single((), Atom(number=float(item.val)))


def _equation(scene: Scene, eqn: Any, ins: list[Value], path: Any) -> list[Value]:
    name, params = eqn.primitive.name, eqn.params
    if name in CALLS:
        body, consts = opened(params[CALLS[name]])
        return _walk(scene, body, consts, ins[len(ins) - len(body.invars) :], path)
    if name in turns.RULES:
        return turns.RULES[name](scene, eqn, ins, partial(_walk, scene), path)
    outs = apply(scene, eqn, ins)
    if not scene.uses.again:
        scene.steps.append(Step(name, ins, outs, path))
    return outs
