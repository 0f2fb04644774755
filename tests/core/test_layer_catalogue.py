"""The layer catalogue: every layer has a case, every case its layer; layouts are exact, and a wrong one is found.

Here every case is mapped and proved as far as it can be, and some are run. All of them to the last figure, in float32
and float64: `equiv run cases/layers`.
"""

import inspect
import re
from dataclasses import replace
from functools import cache

import flax.linen as nn
import haiku as hk
import helpers
import jax
import numpy as np
import pytest
from flax import nnx

from equiv.backends import registry
from equiv.backends.leaf_table import map_port, to_canonical_variables, to_native_leaves
from equiv.comparison.pipeline import PROVE_ONLY
from equiv.comparison.stages import check_structure, open_case
from equiv.comparison.state import advance
from equiv.core.case import Case, Layer
from equiv.core.grades import EQUAL_GRADES
from equiv.core.layer_catalogue import LAYER_PAIRS, pair_of
from equiv.core.layer_kinds import LAYER_KINDS
from equiv.core.layers import linear, lstm
from equiv.core.layouts import SwapAxes
from equiv.core.results import CaseResult, CheckResult
from equiv.errors import CaseError
from equiv.programs.built_case import BuiltCase
from equiv.programs.traced_port import trace_port
from equiv.report.cells import NOT_APPLICABLE
from equiv.report.layer_catalogue import catalogue_rows

LIBRARIES = {"haiku": hk, "linen": nn, "nnx": nnx}
NAMES = sorted(path.stem for path in (helpers.CASES / "layers").glob("*.py"))

BY_NUMBERS = {
    *("attention", "conv_channels_first", "conv_transpose", "conv_transpose_flipped", "embedding", "norm_batch"),
    *("norm_group", "norm_instance", "norm_layer", "norm_spectral", "rnn_lstm_packed"),
}
"""Cases of which something is not proved, and has to be run."""


def case_of(name: str) -> Case:
    return helpers.loaded(f"layers/{name}").case


def workshop_of(name: str) -> BuiltCase:
    return helpers.workshop_of(f"layers/{name}")


def test_every_layer_of_the_catalogue_has_its_case_and_conversely():
    """One without the other would be a claim without evidence, or evidence that nobody reads."""
    assert sorted(pair.case for pair in LAYER_PAIRS) == NAMES
    assert len({pair.name for pair in LAYER_PAIRS}) == len(LAYER_PAIRS)
    assert [pair_of(name).case for name in NAMES] == NAMES
    assert pair_of("nothing") is None


@pytest.mark.parametrize("backend", LIBRARIES)
@pytest.mark.parametrize("pair", LAYER_PAIRS, ids=lambda pair: pair.case)
def test_a_case_writes_its_layer_as_the_catalogue_does(pair, backend):
    """The same functions, which the library has, and arguments; where there is none, why, and what works."""
    written = getattr(pair, backend)
    if not written:
        assert pair.reason
        assert pair.works
        return
    source = inspect.getsource(case_of(pair.case).models[backend])
    for path in re.findall(r"\b(?:hk|nn|nnx)\.([\w.]+)", written):
        assert path in source
        assert hasattr(LIBRARIES[backend], path.split(".")[0])
    for argument in re.findall(r"\b\w+=(?:True|False|None|1e-\d|\"\w+\"|nnx?\.relu)?", written):
        assert argument in source


@pytest.mark.parametrize("backend", LIBRARIES)
def test_every_kind_has_the_same_leaves_in_every_library(backend):
    """Leaves that only one library has are marked as its own."""
    table = registry.load_library(backend).leaves
    assert set(table) == {*LAYER_KINDS, "module"}
    for kind, leaves in LAYER_KINDS.items():
        shared = [
            leaf
            for leaf, native in table[kind].items()
            if isinstance(native, tuple) or (native.mirrors is None and native.fixed_value is None)
        ]
        assert set(shared) == set(leaves)


SHIFTED = "lstm/hf/bias"
"""The only leaf of the catalogue that is not the same bits everywhere: Haiku adds 1 to it."""


def bits(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Whatever a float can be: NaN payloads and negative zeros included."""
    kind = np.dtype(dtype)
    count = int(np.prod(shape, dtype=int)) * kind.itemsize
    return np.frombuffer(np.random.default_rng(0).bytes(count), kind).reshape(shape)


@pytest.mark.quick(5)
@pytest.mark.parametrize("name", NAMES)
def test_every_port_loads_what_another_gives_bit_for_bit(name):
    """And all share names, shapes and dtypes; of the forget gate's bias, what a shift loses."""
    workshop = workshop_of(name)
    assert not workshop.problems
    shared = []
    for one in workshop.built.values():
        specs = {leaf.name: leaf.spec for leaf in one.table.leaves}
        shared.append({leaf.name: leaf.spec for leaf in one.table.leaves if not leaf.library_only})
        given = {leaf: bits(spec.shape, spec.dtype) for leaf, spec in specs.items()}
        if SHIFTED in given:
            given[SHIFTED] = np.linspace(-3, 3, given[SHIFTED].size, dtype="float32")
        back = to_canonical_variables(one.table, to_native_leaves(one.table, given))
        for leaf, array in given.items():
            lost = 4 * 2.0**-23 if leaf == SHIFTED else 0
            assert back[leaf].dtype == array.dtype
            assert back[leaf].tobytes() == array.tobytes() or np.max(np.abs(back[leaf] - array)) <= lost
    assert all(one == shared[0] for one in shared)


@cache
def proved(name: str) -> tuple[CheckResult, ...]:
    """Structure and proofs of every candidate of a case."""
    candidates = tuple(helpers.loaded(f"layers/{name}").case.models)[1:]
    state = check_structure(replace(helpers.opened(f"layers/{name}"), candidates=candidates))
    return advance(state, PROVE_ONLY).checks


@pytest.mark.quick(4)
@pytest.mark.parametrize("name", sorted(set(NAMES) - BY_NUMBERS))
def test_most_layers_are_proved_the_same_for_every_input(name):
    """A proof needs no numbers, no precision and no probe: outputs, gradients, state and train step."""
    assert [
        (check.candidate, check.check, check.summary) for check in proved(name) if check.grade not in EQUAL_GRADES
    ] == []


def test_flax_has_no_layer_where_the_catalogue_says_so():
    """A reason that a new release makes stale shall fail here; the others are planted faults."""
    assert not hasattr(nnx, "ConvLSTMCell")
    for kind in (nn.MultiHeadDotProductAttention, nnx.MultiHeadAttention):
        sizes = {name for name in inspect.signature(kind.__init__).parameters if name.endswith(("features", "size"))}
        assert sizes - {"in_features", "in_kv_features"} == {"qkv_features", "out_features"}
    variables = jax.eval_shape(nn.SimpleCell(4).init, jax.random.key(0), np.ones((5, 4)), np.ones((5, 3)))
    assert {name: set(leaves) for name, leaves in variables["params"].items()} == {
        "i": {"kernel", "bias"},
        "h": {"kernel"},
    }


def result_of(name: str) -> CaseResult:
    """What a run would give of a case, of proofs alone."""
    case = case_of(name)
    reference, *candidates = case.models
    verdicts = dict.fromkeys(candidates, "same")
    told = name, "", "", reference, tuple(candidates), verdicts, proved(name)
    return CaseResult(*told, path=f"cases/layers/{name}.py")


def test_the_catalogue_has_every_layer_and_candidate_in_its_order():
    """Whatever the order of the cases; a case from elsewhere is none of it."""
    cases = [result_of(name) for name in ("rnn_vanilla_two_biases", "linear")]
    elsewhere = replace(result_of("linear"), path="cases/linear.py")
    rows = catalogue_rows([*cases, elsewhere])
    assert [(row[0], row[2].partition(":")[0]) for row in rows] == [
        ("linear", "linen"),
        ("linear", "nnx"),
        ("vanilla RNN, two biases", "linen"),
        ("vanilla RNN, two biases", "nnx"),
    ]
    assert rows[0][1:4] == ["hk.Linear(n)", "linen: nn.Dense(n)", "same arrays"]
    assert rows[0][4:] == ["✓ proved", "✓ proved", NOT_APPLICABLE, "✓ proved", "✓ same"]
    assert rows[2][2].startswith("linen: none: flax's simple cell has one bias")
    assert "Works: a cell of two dense layers" in rows[2][2]


def with_row(name: str, row: Layer, backend: str) -> None:
    """Map a port of a case with another row."""
    map_port((row,), workshop_of(name).built[backend].port, registry.load_library(backend))


@pytest.mark.parametrize(
    ("name", "row", "backend", "message"),
    [
        (
            "stacked_unrolled",
            linear("a", linen="ScanBlock_0/Dense_0[4]"),
            "linen",
            r"linen: row a says 'ScanBlock_0/Dense_0\[4\]', but ScanBlock_0/Dense_0/kernel \(params\) is "
            r"float32\[4, 6, 6\]\. Fix the index, which counts from 0",
        ),
        (
            "stacked_unrolled",
            linear("a", linen="ScanBlock_0/Dense_0[3]"),
            "linen",
            r"linen: ScanBlock_0/Dense_0/kernel \(params\) float32\[4, 6, 6\], shared by a/kernel and others: the rows "
            r"cover 36 of its 144 elements\. Give every part of it exactly one row",
        ),
        (
            "rnn_gru",
            lstm("a", haiku="gru"),
            "haiku",
            r"haiku: row a \(lstm\) says 'gru', but the model has no such leaf there; closest is 'gru/.*looks for "
            r"gru/linear/w \(params\)",
        ),
        (
            "linear",
            replace(linear("a", linen=""), layouts={"linen": {"kernal": SwapAxes()}}),
            "linen",
            r"linen: row a has a layout for 'kernal', a leaf that it does not have; it has 'bias', 'kernel'\. Fix",
        ),
    ],
    ids=["index", "half-a-stack", "other-kind", "layout-of-nothing"],
)
def test_a_row_that_does_not_fit_names_place_and_fix(name, row, backend, message):
    """Each with the leaf, both values and the fix."""
    with pytest.raises(CaseError, match=message):
        with_row(name, row, backend)


def test_a_leaf_covered_whole_and_in_parts_is_covered_twice():
    """Two rows of one leaf are parts of it only where both say which."""
    rows = linear("a", linen="ScanBlock_0/Dense_0[0]"), linear("b", linen="ScanBlock_0/Dense_0")
    port = workshop_of("stacked_unrolled").built["linen"].port
    with pytest.raises(CaseError, match=r"is covered twice, by a/kernel and b/kernel\. Give each layer its own scope"):
        map_port(rows, port, registry.load_library("linen"))


@pytest.mark.parametrize("backend", LIBRARIES)
def test_a_parameter_that_a_call_returns_unchanged_is_no_state(backend):
    """Split and joined it would be another value to the prover, and rounded where a number is added."""
    programs = trace_port(workshop_of("rnn_lstm"), backend).programs
    assert [output for part in programs.parts for output in part.outputs if output.kind == "state"] == []


def test_a_model_without_any_leaf_can_be_traced_and_trained():
    """Pools alone: there is a loss, and nothing to move."""
    bare = {
        "haiku": lambda: hk.without_apply_rng(hk.transform(lambda x: hk.max_pool(x, (1, 2, 1), (1, 2, 1), "VALID"))),
        "linen": lambda: Pool(),
    }
    state = open_case(Case("none", bare, {"x": "float32[5,4,3]"}, ()))
    assert not state.built_case.problems
    assert {check.check: check.grade for check in advance(state, PROVE_ONLY).checks} == {
        "outputs": "proved",
        "gradients": "proved",
        "train": "proved",
    }


class Pool(nn.Module):
    """No leaves at all."""

    def __call__(self, x):
        return nn.max_pool(x, (2,), (2,))
