"""Judge what equiv says of a pair of `tests/published/`: its map by the map written by hand, its verdict by both."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from published_pair import LeafMap, Pair

from equiv.backends.base import Leaves, Port
from equiv.backends.batches import resolve_batch
from equiv.backends.build import build_port, port_spec
from equiv.backends.leaf_table import map_port, to_canonical_variables
from equiv.backends.registry import load_library
from equiv.core.case import Case
from equiv.core.case_files import LoadedCase
from equiv.core.leaves import LeafTable, NativeKey
from equiv.errors import EquivError
from equiv.frontends.functions import compare_through, infer_layers
from equiv.infer.draft_case import draft_case
from equiv.infer.session import InferredLayers
from equiv.programs.compiled import FAST_COMPILE_OPTIONS, lower_programs, run_executable
from equiv.programs.probes import make_probe
from equiv.programs.table_bounds import bound_by_tables
from equiv.programs.trace import Tracer
from equiv.programs.traced_port import trace_programs

HALF_THE_DIGITS = float(np.sqrt(np.finfo(np.float32).eps))
"""Outputs that agree in more digits differ by rounding, in fewer by a bug. Pairs are made so that none is near it."""


@dataclass(frozen=True)
class Answer:
    """What equiv says of a pair.

    Attributes:
        found: the inferred map; None: the ports were not read.
        verdict: of the run; empty: it raised.
        why: the first reasons, or the error.
        seconds: CPU time of inference and run.
    """

    found: InferredLayers | None
    verdict: str
    why: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Score:
    """One row of the score table.

    Attributes:
        name: of the pair.
        expected: the right verdict.
        verdict: what equiv says.
        traced: whether both ports were read.
        mapped: whether the inferred table covers both.
        map_right: whether it agrees with the map written by hand.
        hand_right: whether both models, run by themselves under that map, confirm the right verdict.
        seconds: CPU time of inference and run.
        compile_seconds: CPU time to trace, compile and run each program of both ports once; None: not measured.
        why: what is wrong, in words.
    """

    name: str
    expected: str
    verdict: str = ""
    traced: bool = False
    mapped: bool = False
    map_right: bool = False
    hand_right: bool = False
    seconds: float | None = None
    compile_seconds: float | None = None
    why: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        """Whether everything is right."""
        return self.verdict == self.expected and self.map_right and self.hand_right

    @property
    def wrong_verdict(self) -> bool:
        """Whether a verdict was given, and the opposite one is right."""
        return {self.verdict, self.expected} == {"same", "different"}


def ask(pair: Pair) -> Answer:
    """Ask equiv, as `equiv check` does."""
    started = time.process_time()
    found = None
    try:
        case = resolve_batch(pair.case)
        found = infer_layers(pair.left, pair.right, batch=case.batch, methods=case.methods)
        (result,) = compare_through(found, LoadedCase("published", "", case)).cases
    except EquivError as error:
        return Answer(found, "", (str(error),), time.process_time() - started)
    seconds = time.process_time() - started
    reasons = [
        f"{check.check}: {finding.place}: {finding.grade} {finding.note}"
        for check in result.checks
        for finding in check.findings
        if finding.grade in ("refuted", "error", "unidentifiable", "vacuous")
    ]
    said = [text for text in (result.problem, *found.draft.missing, *reasons[:4]) if text]
    return Answer(found, str(next(iter(result.verdicts.values()), "error")), tuple(said), seconds)


def judge(name: str, pair: Pair, answer: Answer, measure: bool = True) -> Score:
    """Compare an answer with what is right.

    Args:
        name: of the pair.
        pair: what is right.
        answer: what equiv says.
        measure: whether to measure what compiling both ports takes.
    """
    found = answer.found
    if found is None:
        return Score(name, pair.verdict, answer.verdict, seconds=answer.seconds, why=answer.why)
    odd = list(differing_leaves(pair, found)) if found.covered else ["the table lacks leaves"]
    disproved = list(hand_differences(pair, found.proposal.ports))
    wrong = answer.why if answer.verdict != pair.verdict else ()
    return Score(
        name,
        pair.verdict,
        answer.verdict,
        traced=True,
        mapped=found.covered,
        map_right=not odd,
        hand_right=not disproved,
        seconds=answer.seconds,
        compile_seconds=compile_seconds(draft_case(found.draft, pair.case)) if measure and found.covered else None,
        why=(*wrong, *odd, *disproved),
    )


def differing_leaves(pair: Pair, found: InferredLayers) -> Iterator[str]:
    """Yield the leaves of the port for which the inferred table says something else than every map written by hand."""
    layers = draft_case(found.draft, resolve_batch(pair.case)).layers
    tables = [map_port(layers, port, load_library(port.library)) for port in found.proposal.ports]
    left, right = found.proposal.ports
    numbered = number_leaves(left)
    said = convert(tables[0], tables[1], numbered)
    own = {leaf.key for leaf in tables[1].leaves if leaf.library_only}
    answers = []
    for leaf_map in pair.leaf_maps:
        wanted = place_leaves(right, leaf_map(paths(numbered)))
        kept = {key: leaf for key, leaf in wanted.items() if key not in own}
        answers.append([key for key, leaf in kept.items() if not np.array_equal(said[key], leaf, equal_nan=True)])
    for key in min(answers, key=len):
        yield f"map: {key} is mapped otherwise than by hand"


def number_leaves(port: Port) -> Leaves:
    """Leaves whose elements are all different, so that a map shows which element goes where: 0, 1, 2, ..."""
    found, start = {}, 0
    for key, leaf in variables(port).items():
        size = math.prod(leaf.shape)
        found[key] = np.arange(start, start + size, dtype=np.float64).reshape(leaf.shape)
        start += size
    return found


def variables(port: Port) -> dict[NativeKey, Any]:
    """The leaves of a port that are parameters or state."""
    return {key: leaf for key, leaf in port.leaves.items() if port.collections[key] != "random"}


def paths(leaves: Mapping[NativeKey, Any]) -> dict[str, Any]:
    """Leaves by their paths; where two collections have one path, the second is `collection:path`."""
    found: dict[str, Any] = {}
    for key, leaf in leaves.items():
        found[key.path if key.path not in found else f"{key.collection}:{key.path}"] = leaf
    return found


def place_leaves(port: Port, by_path: Mapping[str, Any]) -> Leaves:
    """What a map written by hand returns, for every leaf of the port; NaN where it says nothing.

    Raises:
        ValueError: it names a leaf that the port lacks, or has another shape.
    """
    keys = paths({key: key for key in variables(port)})
    if unknown := sorted(set(by_path) - set(keys)):
        raise ValueError(f"the map written by hand names {unknown[0]}, but the port has {sorted(keys)}")
    found = {key: np.full(leaf.shape, np.nan) for key, leaf in variables(port).items()}
    for path, leaf in by_path.items():
        if np.shape(leaf) != found[keys[path]].shape:
            raise ValueError(f"the map written by hand gives {path} as {np.shape(leaf)}, not {found[keys[path]].shape}")
        found[keys[path]] = np.asarray(leaf, np.float64)
    return found


def convert(left: LeafTable, right: LeafTable, leaves: Leaves) -> Leaves:
    """The leaves of the port by both leaf tables; NaN where the reference has no counterpart."""
    canonical = to_canonical_variables(left, leaves)
    found = {leaf.key: np.full(leaf.native_shape, np.nan) for leaf in right.leaves}
    for leaf in right.leaves:
        if leaf.name in canonical and not leaf.library_only:
            block = np.asarray(leaf.to_block(canonical[leaf.name]), np.float64)
            where = ... if leaf.region is None else tuple(slice(*bounds) for bounds in leaf.region)
            found[leaf.key].reshape(leaf.grid)[where] = block  # a view, as it is contiguous
    return found


def hand_differences(pair: Pair, ports: tuple[Port, Port]) -> Iterator[str]:
    """Yield what contradicts the right verdict when both models are run under the map written by hand.

    A mode in which the reference draws is left out: the two libraries draw otherwise.
    """
    # equiv's table has no part in this: the libraries' own functions are called with converted leaves.
    request, entries = port_spec(bound_by_tables(resolve_batch(pair.case)), need_bounds=False)
    probe = make_probe("by hand", 1, LeafTable("", ()), entries, 1)
    batch = {name: array[0] for name, array in probe.batches.items()}
    left, right = ports
    leaves = vary(left.init(jax.random.key(0)))
    converted = port_leaves(right, pair.leaf_maps[0], leaves)
    worst, compared = 0.0, 0
    for method, call in request.methods.items():
        inputs = tuple(batch[name] for name in call.inputs)
        for train in (False, True) if left.has_modes or right.has_modes else (False,):
            ours, theirs = (compile_call(port, method, train) for port in ports)
            one, again = (ours(leaves, inputs, jax.random.key(seed)) for seed in (0, 1))
            if distance(one, again) == 0:
                other = theirs(converted, inputs, jax.random.key(0))
                worst, compared = max(worst, distance(one, other)), compared + 1
    differ = pair.verdict == "different" and pair.outputs_differ
    if not compared:
        yield "by hand: every mode draws, so that nothing was compared"
    elif (worst > HALF_THE_DIGITS) != differ:
        yield f"by hand: outputs differ by {worst:.2g} of the largest, wanted {'more' if differ else 'rounding'}"


def compile_call(port: Port, method: str, train: bool) -> Callable[..., Any]:
    """A function of leaves, inputs and key to the outputs of one call."""

    def call(leaves: Leaves, inputs: tuple[Any, ...], key: Any) -> Any:
        return port.apply(leaves, method, inputs, train, key)[0]

    return jax.jit(call, compiler_options=FAST_COMPILE_OPTIONS)


def vary(leaves: Leaves) -> Leaves:
    """Initial values, moved at random, so that zeros and ones differ.

    Vectors move upwards, so that variances stay positive. Kernels move both ways: where all their elements are
    positive, logits are so large that a softmax has one weight, whatever else a mask lets through.
    """
    numbers = np.random.default_rng(3)
    return {
        key: leaf + 0.3 * (numbers.random(leaf.shape) - 0.5 * (leaf.ndim > 1)).astype(leaf.dtype)
        if jax.numpy.issubdtype(leaf.dtype, jax.numpy.inexact)
        else leaf
        for key, leaf in leaves.items()
    }


def port_leaves(port: Port, leaf_map: LeafMap, leaves: Leaves) -> Leaves:
    """The leaves of the port from those of the reference, by hand; where it has more, as it is initialised."""
    numbers = {key: np.asarray(leaf, np.float64) for key, leaf in leaves.items() if is_number(leaf)}
    given = place_leaves(port, leaf_map(paths(numbers)))
    return {
        key: jax.numpy.where(np.isnan(given[key]), leaf, given[key]).astype(leaf.dtype) if key in given else leaf
        for key, leaf in port.init(jax.random.key(0)).items()
    }


def is_number(leaf: Any) -> bool:
    """Whether a leaf is no random key."""
    return not jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def distance(one: Any, other: Any) -> float:
    """The largest difference of two outputs, relative to the largest value of the array that it is in."""
    pairs = list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
    return max(
        (
            math.inf
            if np.shape(a) != np.shape(b)
            else float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())
            / (float(np.abs(np.asarray(a, np.float64)).max()) or 1)
            for a, b in pairs
        ),
        default=0.0,
    )


def compile_seconds(case: Case) -> float:
    """CPU time to trace, compile and run each program of both ports once: what any comparison by numbers needs."""
    jax.clear_caches()
    started = time.process_time()
    request, entries = port_spec(case)
    ports = [build_port(case, port, request) for port in case.models]
    has_modes = any(built.port.has_modes for built in ports)
    probe = make_probe("0", 1, ports[0].table, entries, case.steps)
    for built in ports:
        programs, _ = trace_programs(Tracer(built.port, built.table, request, False, has_modes))
        run_executable(lower_programs(programs, built.table, case.steps, probe)(), probe)
    return time.process_time() - started
