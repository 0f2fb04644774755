"""Ties decided by what leaves do: where all tied leaves hold the same, only equal leaves have equal gradients.

Every leaf is filled in the form in which it is used, so that two libraries' layouts of it hold the same numbers. One
gradient of a random projection of all outputs then tells the leaves of a tie apart.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from equiv.backends.build import guarded
from equiv.errors import EquivError
from equiv.infer.dataflow.leaf_uses import ADD, CONTRACT
from equiv.infer.dataflow.local_hash import roles
from equiv.infer.dataflow.port_graph import Reading
from equiv.infer.dataflow.strided_views import Form
from equiv.infer.matching.match import Decision, Matching, Tie
from equiv.programs.eager import evaluate

EQUAL = float(np.sqrt(np.finfo("float32").eps))
"""Gradients apart by less than half of float32's digits, next to the largest of the tie, are one."""


MARGIN = 10.0
"""Where no two are one, as between ports that differ elsewhere: how many times nearer the nearest has to be."""


LARGEST = 2**29
"""Elements of all leaves, 2 GB of float32, above which nothing is run for a proposal."""


PERIOD = 65537
"""Numbers drawn for a leaf before they repeat: a prime, so that no two rows of a matrix hold the same."""


@dataclass
class Telling:
    """Decides ties by gradients.

    Attributes:
        readings: both ports.
        batch: entry to array.
        named: the pairs of a tie whose names fit best, for leaves that are interchangeable.
        reason: why nothing could be decided; empty where something was, or nothing asked.
    """

    readings: tuple[Reading, Reading]
    batch: Mapping[str, np.ndarray]
    named: Callable[[Tie], Sequence[tuple[int, int]]]
    reason: str = ""
    asked: set[Tie] = field(default_factory=set)

    def __call__(self, matching: Matching, ties: list[Tie]) -> list[Decision]:
        """Decide what can be decided: one tie of every kind by its gradients, the others like it."""
        ties = [tie for tie in ties if tie not in self.asked and self._floats(tie)]
        size = sum(int(np.prod(struct.shape)) for struct in self.readings[0].port.leaves.values())
        if not ties:
            return []
        if size > LARGEST:
            self.reason = f"{size} elements are more than {LARGEST}: no gradient was taken"
            return []
        groups: dict[Any, list[Tie]] = {}
        kinds = {tie: self._kind(tie) for tie in ties}
        # Leaves that differ in what they do decide first: the others, such as kernels under their biases, may follow.
        telling = {tie: kind for tie, kind in kinds.items() if kind is not None}
        for tie, kind in (telling or kinds).items():
            groups.setdefault(tie if kind is None else kind, []).append(tie)
        chosen = [max(group, key=self._late) for group in groups.values()]
        self.asked.update(chosen)
        try:
            gradients = [self._gradients(matching, side, chosen) for side in (0, 1)]
        except EquivError as error:
            self.reason = f"no gradient could be taken: {error}"
            return []
        found: list[Decision] = []
        for tie, group in zip(chosen, groups.values(), strict=True):
            decision = _decided(tie, gradients[0], gradients[1])
            found += [] if decision is None else [self._like(tie, decision, other) for other in group]
        certain = [decision for decision in found if not decision.alike]
        # Of leaves that could change places one pair is chosen, and what follows from it is looked at first.
        return certain or [self._chosen(ties, decision) for decision in found[:1]]

    def _chosen(self, ties: Sequence[Tie], decision: Decision) -> Decision:
        """A pair of a tie in which any pair will do: one that is called alike, if there is any."""
        tie = next(tie for tie in ties if set(tie[0]) == set(decision.alike))
        best = self.named(tie)[:1]
        return Decision(tuple(best), decision.evidence, decision.alike) if best else decision

    @cached_property
    def roles(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The role of every node in either program."""
        return roles(self.readings[0].flow), roles(self.readings[1].flow)

    def _floats(self, tie: Tie) -> bool:
        return all(self.readings[0].skeleton.labels[node][1] == "float" for node in tie[0])

    def _kind(self, tie: Tie) -> Any:
        """What ties have in common that are decided alike: all their roles, if no two are the same."""
        found = tuple(tuple(sorted(self.roles[side][node] for node in tie[side])) for side in (0, 1))
        return found if all(len(set(some)) == len(some) for some in found) else None

    def _late(self, tie: Tie) -> int:
        """How near to the outputs: the nearer, the less there is to differentiate."""
        skeleton = self.readings[0].skeleton
        return max(skeleton.order.index(place) for place, node in enumerate(skeleton.owners) if node in tie[0])

    def _like(self, tie: Tie, decision: Decision, other: Tie) -> Decision:
        """The same decision for a tie whose leaves have the same roles."""
        if other == tie:
            return decision
        to = [{self.roles[side][node]: node for node in other[side]} for side in (0, 1)]
        pairs = tuple((to[0][self.roles[0][one]], to[1][self.roles[1][two]]) for one, two in decision.pairs)
        return Decision(pairs, decision.evidence, tuple(to[0][self.roles[0][one]] for one in decision.alike))

    def _gradients(self, matching: Matching, side: int, ties: Sequence[Tie]) -> dict[int, np.ndarray]:
        """Tied node to its gradient in the order of its form."""
        reading = self.readings[side]
        arrays = filled(reading, numbers(matching, side))
        nodes = [node for tie in ties for node in tie[side]]
        places = sorted({reading.blocks[node].leaf for node in nodes})
        given = [
            _given(reading, name, arrays.get(place), self.batch) for place, name in enumerate(reading.program.inputs)
        ]
        run = jaxpr_as_fun(reading.program.jaxpr)
        moved = [given[place] for place in places]

        def projected(moved: list[Any]) -> Any:
            inputs = list(given)
            for place, array in zip(places, moved, strict=True):
                inputs[place] = array
            outs = [out for out in run(*inputs) if jnp.issubdtype(out.dtype, jnp.floating)]
            return sum(jnp.vdot(_projection(number, out.size), out.reshape(-1)) for number, out in enumerate(outs))

        def gradients() -> list[np.ndarray]:
            # Operation by operation: nothing is compiled as a whole, which would take longer than all the rest.
            return evaluate(jax.make_jaxpr(jax.grad(projected))(moved), moved)

        found = dict(zip(places, guarded(reading.port.backend, "its gradient", gradients), strict=True))
        blocks = {node: block(reading, node, found[reading.blocks[node].leaf]) for node in nodes}
        return {node: array.astype("float64").reshape(-1) for node, array in blocks.items()}


def numbers(matching: Matching, side: int) -> dict[int, object]:
    """What the content of each node depends on: its pair; without one, its size and use."""
    skeleton = matching.sides[side]
    anchors = matching.anchored()[side].anchors
    return {
        node: ("pair", anchors[node]) if node in anchors else skeleton.labels[node] for node in range(skeleton.blocks)
    }


def filled(reading: Reading, content: Mapping[int, object]) -> dict[int, np.ndarray]:
    """Place among the program's inputs to a leaf; nodes of the same content hold the same, each in its own layout."""
    structs = {place: reading.port.leaves[key] for place, key in reading.keys.items()}
    arrays = {place: np.zeros(struct.shape, struct.dtype) for place, struct in structs.items()}
    for node, what in content.items():
        uses = reading.skeleton.uses[node]
        shift = next((use.shift for use in uses if use.shift and float(use.shift).is_integer()), 0.0)
        into = block(reading, node, arrays[reading.blocks[node].leaf])
        into[...] = (_drawn(what, reading.skeleton.labels[node]) - shift).reshape(into.shape)
    return arrays


def block(reading: Reading, node: int, array: np.ndarray) -> np.ndarray:
    """The elements of a node in an array of its leaf, in the order of its form, as a view."""
    found = next((use.form for use in reading.skeleton.uses[node] if use.form is not None), None)
    if found is None or found.size != reading.blocks[node].size:
        return array[(*(slice(*ends) for ends in reading.blocks[node].bounds), ...)]
    return strided(array, found)


def strided(array: np.ndarray, form: Form) -> np.ndarray:
    """An array in the order of a form: a view with one axis for each digit, if its elements lie in a row."""
    flat = array.reshape(-1)
    sizes, steps = [digit.size for digit in form.digits], [digit.stride * flat.itemsize for digit in form.digits]
    return np.lib.stride_tricks.as_strided(flat[form.start :], sizes, steps)


def _drawn(content: object, label: tuple[Any, ...]) -> np.ndarray:
    size, kind, *ways = label
    if kind != "float":
        return np.full(size, 1.0, "float32")
    rng = np.random.default_rng(zlib.crc32(repr(content).encode()))
    drawn = np.resize(rng.standard_normal(min(size, PERIOD), "float32").clip(-2.5, 2.5), size)
    if CONTRACT in ways:
        return drawn * size**-0.25
    return 0.2 * drawn if ADD in ways else 1 + 0.2 * drawn


def _given(reading: Reading, name: str, array: np.ndarray | None, batch: Mapping[str, np.ndarray]) -> Any:
    if array is not None:
        return array
    if name.startswith("batch/"):
        return batch[name.removeprefix("batch/")]
    aval = reading.program.jaxpr.in_avals[reading.program.inputs.index(name)]
    if jnp.issubdtype(aval.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0), aval.shape)
    return np.zeros(aval.shape, aval.dtype)


def _projection(number: int, size: int) -> np.ndarray:
    return np.random.default_rng([number, size]).standard_normal(size).astype("float32")


def _decided(tie: Tie, left: Mapping[int, np.ndarray], right: Mapping[int, np.ndarray]) -> Decision | None:
    """The nearest gradients together, if they are equal, or by far the nearest both ways."""
    every = [left[node] for node in tie[0]] + [right[node] for node in tie[1]]
    scale = max(float(np.linalg.norm(gradient)) for gradient in every)
    if not scale or not np.isfinite(scale):
        return None
    apart = np.array([[np.linalg.norm(left[one] - right[two]) / scale for two in tie[1]] for one in tie[0]])
    own = np.array([[np.linalg.norm(left[one] - left[two]) / scale for two in tie[0]] for one in tie[0]])
    alike = {one for one in range(len(own)) if (own[one] < EQUAL).sum() > 1}
    pairs = []
    for one, row in enumerate(apart):
        two = int(row.argmin())
        rest = [*np.delete(row, two), *np.delete(apart[:, two], one)]
        if one not in alike and (row[two] < EQUAL <= min(rest) or MARGIN * row[two] < min(rest)):
            pairs.append((tie[0][one], tie[1][two]))
    if len({two for _, two in pairs}) < len(pairs) or (not pairs and len(alike) < len(own)):
        return None
    if not pairs:
        # Every one does the same as every other: the first two together, and the rest follows.
        return Decision(((tie[0][0], tie[1][0]),), "order", tie[0])
    return Decision(tuple(pairs), "function")
