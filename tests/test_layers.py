"""The layer catalogue: every layer has a case, every case its layer; layouts are exact, and a wrong one is found.

Here every case is mapped and proved as far as it can be, and some are run. All of them to the last figure, in float32
and float64: `equiv run cases/layers`.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import flax.linen as nn
import haiku as hk
import helpers
import jax
import numpy as np
import pytest
from flax import nnx

from equiv import backends
from equiv.case import Case
from equiv.checks import structure
from equiv.errors import CaseError
from equiv.judge import Reference, check_candidate, sample_reference
from equiv.layers import KINDS, linear, lstm
from equiv.layers.pairs import LAYERS, pair_of
from equiv.layouts import Chain, Flip, MergeAxes, Shift, SwapAxes
from equiv.mapping import map_port, to_canonical, to_native
from equiv.observe import Prepared, outline, prepare
from equiv.observed import Comparison, Noise
from equiv.prove_only import prove_candidates
from equiv.report.catalogue import catalogue
from equiv.results import EQUAL, CaseResult, CheckResult
from equiv.traced import trace_port
from equiv.variables import Identity, Layout, Native
from equiv.workshop import Workshop, open_workshop

LIBRARIES = {"haiku": hk, "linen": nn, "nnx": nnx}
NAMES = sorted(path.stem for path in (helpers.CASES / "layers").glob("*.py"))

BY_NUMBERS = {
    *("attention", "conv_channels_first", "conv_transpose", "conv_transpose_flipped", "embedding", "norm_batch"),
    *("norm_group", "norm_instance", "norm_layer", "norm_spectral", "rnn_gru", "rnn_lstm", "rnn_lstm_packed"),
    "stacked_unrolled",
}
"""Cases of which something is not proved, and has to be run."""


def case_of(name: str) -> Case:
    return helpers.loaded(f"layers/{name}").case


def workshop_of(name: str) -> Workshop:
    return helpers.workshop_of(f"layers/{name}")


def test_every_layer_of_the_catalogue_has_its_case_and_every_case_its_layer():
    """One without the other would be a claim without evidence, or evidence that nobody reads."""
    assert sorted(pair.case for pair in LAYERS) == NAMES
    assert len({pair.name for pair in LAYERS}) == len(LAYERS)
    assert [pair_of(name).case for name in NAMES] == NAMES
    assert pair_of("nothing") is None


@pytest.mark.parametrize("backend", LIBRARIES)
@pytest.mark.parametrize("pair", LAYERS, ids=lambda pair: pair.case)
def test_a_layer_is_written_in_its_case_as_the_catalogue_writes_it(pair, backend):
    """The same functions, which the library has, with the same arguments; what no library has says why and what works."""
    written = getattr(pair, backend)
    if not written:
        assert pair.reason
        assert pair.works
        return
    source = inspect.getsource(case_of(pair.case).models[backend])
    for path in re.findall(r"\b(?:hk|nn|nnx)\.([A-Za-z_.]+)", written):
        assert path in source
        assert hasattr(LIBRARIES[backend], path.split(".")[0])
    for argument in re.findall(r"\b\w+=(?:True|False|None|1e-\d|\"\w+\"|nnx?\.relu)?", written):
        assert argument in source


@pytest.mark.parametrize("backend", LIBRARIES)
def test_every_kind_has_the_same_leaves_in_every_library(backend):
    """Leaves that only one library has are marked as its own."""
    table = backends.load(backend).LEAVES
    assert set(table) == {*KINDS, "module"}
    for kind, leaves in KINDS.items():
        shared = [
            leaf
            for leaf, native in table[kind].items()
            if isinstance(native, tuple) or (native.copies is None and native.constant is None)
        ]
        assert set(shared) == set(leaves)


def bits(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Whatever a float can be: NaN payloads and negative zeros included."""
    kind = np.dtype(dtype)
    count = int(np.prod(shape, dtype=int)) * kind.itemsize
    return np.frombuffer(np.random.default_rng(0).bytes(count), kind).reshape(shape)


@pytest.mark.parametrize("name", NAMES)
def test_every_port_loads_what_another_gives_bit_for_bit(name):
    """And all share names, shapes and dtypes; of the forget gate's bias, what a shift loses."""
    workshop = workshop_of(name)
    assert not workshop.problems
    shared = []
    for one in workshop.built.values():
        specs = {leaf.name: leaf.spec for leaf in one.table.leaves}
        shared.append({leaf.name: leaf.spec for leaf in one.table.leaves if not leaf.own})
        given = {leaf: bits(spec.shape, spec.dtype) for leaf, spec in specs.items()}
        given |= {leaf: np.linspace(-3, 3, array.size, dtype="float32") for leaf, array in given.items() if "hf/" in leaf}
        given |= {leaf: array.reshape(specs[leaf].shape) for leaf, array in given.items()}
        back = to_canonical(one.table, to_native(one.table, given))
        for leaf, array in given.items():
            lost = 0 if leaf != "lstm/hf/bias" else 4 * 2.0**-23
            assert back[leaf].dtype == array.dtype
            assert back[leaf].tobytes() == array.tobytes() or np.max(np.abs(back[leaf] - array)) <= lost
    assert all(one == shared[0] for one in shared)


@cache
def proved(name: str) -> tuple[CheckResult, ...]:
    """Structure and proofs of every candidate of a case."""
    workshop = workshop_of(name)
    reference, *candidates = workshop.case.models
    comparisons = [
        Comparison(workshop.case, outline(workshop, reference), outline(workshop, candidate), Noise({}, {}, {}))
        for candidate in candidates
    ]
    return (*map(structure.check, comparisons), *prove_candidates(workshop, candidates))


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_is_the_same_for_every_input_or_its_case_is_one_that_is_run(name):
    """A proof needs no numbers, no precision and no probe."""
    open_ones = {check.check for check in proved(name) if check.grade not in EQUAL}
    assert not open_ones or name in BY_NUMBERS
    assert "structure" not in open_ones


@dataclass(frozen=True)
class Fault:
    """A wrong port of a layer's case.

    Attributes:
        name: of the test.
        case: below `cases/layers`.
        candidate: the port at fault.
        place: which finding must be refused.
        layouts: row to leaf to the wrong layout.
        leaves: kind and its wrong leaves.
        scopes: row to the wrong scope.
        source: old and new text of the case.
    """

    name: str
    case: str
    candidate: str
    place: str
    layouts: Mapping[str, Mapping[str, Layout]] = field(default_factory=dict)
    leaves: tuple[str, Mapping[str, Native]] | None = None
    scopes: Mapping[str, str] = field(default_factory=dict)
    source: tuple[str, str] | None = None

    def wrong(self) -> Case:
        """The case with the fault."""
        case = helpers.patched(f"layers/{self.case}", self.source) if self.source else case_of(self.case)
        rows = [
            replace(
                row,
                layouts={**row.layouts, **({self.candidate: self.layouts[row.path]} if row.path in self.layouts else {})},
                scopes={**row.scopes, self.candidate: self.scopes.get(row.path, row.scopes[self.candidate])},
            )
            for row in case.layers
        ]
        reference = next(iter(case.models))
        return replace(case, layers=tuple(rows), models={name: case.models[name] for name in (reference, self.candidate)})


GRADIENT = "gradient __call__: gradient"
PACKED = {
    leaf: Native("params", f"dense_{leaf[0]}.{leaf.partition('/')[2]}", part=Gate)
    for leaf, Gate in ()
}


def prepared_of(workshop: Workshop, backend: str, training: bool) -> Prepared:
    """One port, compiled quickly and in its own precision alone."""
    traced = trace_port(workshop, backend)
    if not training:
        traced = replace(traced, programs=replace(traced.programs, begin=None, step=None))
    return prepare(workshop, traced, frozenset(), quick=True)()
