"""Wrong layouts and wrong layers: each is refused at the leaf that it is about, and what the case has passes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import helpers
import optax
import pytest

from equiv.backends import registry
from equiv.comparison.stages import (
    check_candidates,
    check_structure,
    open_case,
    run_reference,
    start_compiling,
    trace_ports,
)
from equiv.comparison.state import CaseState, Reference, advance
from equiv.core.case import Case
from equiv.core.grades import EQUAL_GRADES
from equiv.core.layers import conv
from equiv.core.layouts import Chain, Flip, Layout, MergeAxes, Shift, SwapAxes
from equiv.core.leaves import NativeLeaf
from equiv.core.packing import Gate

Change = Callable[[Case, str], Case]
"""Case and candidate to the case with the fault in that candidate."""


def layout(path: str, leaf: str, wrong: Layout) -> Change:
    """One leaf of a row in another layout."""

    def change(case: Case, candidate: str) -> Case:
        return _rows(case, path, lambda row: replace(row, layouts={**row.layouts, candidate: {leaf: wrong}}))

    return change


def scopes(wrong: dict[str, str]) -> Change:
    """Rows with another scope."""

    def change(case: Case, candidate: str) -> Case:
        for path, scope in wrong.items():
            case = _rows(case, path, lambda row, scope=scope: replace(row, scopes={**row.scopes, candidate: scope}))
        return case

    return change


def _rows(case: Case, path: str, change: Callable) -> Case:
    assert path in [row.path for row in case.layers]
    return replace(case, layers=tuple(change(row) if row.path == path else row for row in case.layers))


def source(name: str, old: str, new: str) -> Change:
    """The case's text changed."""
    return lambda case, candidate: helpers.patched(f"layers/{name}", (old, new))


@dataclass(frozen=True)
class Fault:
    """A wrong port of a case under `cases/layers`.

    Attributes:
        name: of the test.
        case: its name.
        candidate: the port at fault.
        place: which finding must be refused.
        change: makes the fault.
        leaves: kind and the wrong native form of some of its leaves.
        training: whether training is run too.
    """

    name: str
    case: str
    candidate: str
    place: str
    change: Change = lambda case, candidate: case
    leaves: tuple[str, dict[str, NativeLeaf]] | None = None
    training: bool = False


GRADIENT, OUTPUT = "gradient __call__: gradient", "call __call__: output"

SWAPPED = {"scale": NativeLeaf("params", "bias"), "bias": NativeLeaf("params", "scale")}
STATISTICS = {"mean": NativeLeaf("batch_stats", "var"), "var": NativeLeaf("batch_stats", "mean")}

HAIKUS_ORDER = {
    f"i{gate}/kernel": NativeLeaf("params", "dense_i.kernel", part=Gate(at)) for at, gate in enumerate("igfo")
}
"""The gates of NNX's packed cell in the order of Haiku's."""

HEADS_LAST = Chain((SwapAxes(), MergeAxes()))

OVERWRITES = """self.linear.kernel[...] = kernel / sigma
            return x @ (kernel / sigma) + self.linear.bias[...]"""

RESET_AFTER = "jnp.tanh(a_x + r * (hidden @ w_h[:, 2 * self.size :])"

FAULTS = (
    Fault("window-backwards", "conv_1d", "linen", f"{GRADIENT} conv/kernel", layout("conv", "kernel", Flip((-3,)))),
    Fault("other-groups", "conv_depthwise", "nnx", f"{GRADIENT} conv/kernel", layout("conv", "kernel", Flip((-1,)))),
    Fault(
        "not-flipped", "conv_transpose_flipped", "linen", f"{GRADIENT} up/kernel", layout("up", "kernel", SwapAxes())
    ),
    Fault("flipped", "conv_transpose", "nnx", f"{GRADIENT} up/kernel", layout("up", "kernel", Flip((-4, -3)))),
    Fault("other-words", "embedding", "nnx", OUTPUT, layout("embed", "embedding", Flip((-2,)))),
    Fault("scale-for-bias", "norm_group", "linen", f"{GRADIENT} norm/scale", leaves=("group_norm", SWAPPED)),
    Fault("eps-of-flax", "norm_layer", "linen", OUTPUT, source("norm_layer", "epsilon=1e-5, ", "")),
    Fault(
        "mean-for-var",
        "norm_batch",
        "linen",
        "train __call__: state norm/mean",
        leaves=("batch_norm", STATISTICS),
        training=True,
    ),
    Fault(
        "normalised-kernel-kept",  # as nnx.SpectralNorm does
        "norm_spectral",
        "nnx",
        "train: linear/kernel",
        source("norm_spectral", "return x @ (kernel / sigma) + self.linear.bias[...]", OVERWRITES),
        training=True,
    ),
    Fault(
        "drawn-in-one-fixed-in-the-other",
        "norm_spectral",
        "nnx",
        "train: norm/u",
        source("norm_spectral", "jax.random.normal(rngs.params(), (1, outputs))", "jnp.full((1, outputs), 0.5)"),
        training=True,
    ),
    Fault(
        "heads-last",
        "attention",
        "linen",
        f"{GRADIENT} attention/key/kernel",
        layout("attention", "key/kernel", HEADS_LAST),
    ),
    Fault("gates-as-in-haiku", "rnn_lstm_packed", "nnx", f"{GRADIENT} lstm/if/kernel", leaves=("lstm", HAIKUS_ORDER)),
    Fault("no-forget-bias", "rnn_lstm", "linen", f"{GRADIENT} lstm/hf/bias", layout("lstm", "hf/bias", Shift(1.0))),
    Fault(
        "carry-hidden-first",
        "rnn_lstm",
        "nnx",
        f"{OUTPUT}/1",
        source("rnn_lstm", "_carry=(cell, hidden))", "_carry=(hidden, cell))"),
    ),
    Fault(
        "kernel-transposed", "rnn_vanilla", "linen", f"{GRADIENT} rnn/h/kernel", layout("rnn", "h/kernel", SwapAxes())
    ),
    Fault("activation-of-flax", "rnn_vanilla", "nnx", OUTPUT, source("rnn_vanilla", "activation_fn=nnx.relu, ", "")),
    Fault(
        "reset-after",
        "rnn_gru",
        "linen",
        OUTPUT,
        source("rnn_gru", "jnp.tanh(a_x + (r * hidden) @ w_h[:, 2 * self.size :]", RESET_AFTER),
    ),
    Fault(
        "layers-in-another-order",
        "stacked_unrolled",
        "linen",
        f"{GRADIENT} blocks.2/kernel",
        scopes({"blocks.2": "ScanBlock_0/Dense_0[3]", "blocks.3": "ScanBlock_0/Dense_0[2]"}),
    ),
    Fault("other-features", "variables", "linen", OUTPUT, layout("w", "", Chain((SwapAxes(), Flip((-1,)))))),
    Fault("padding-counts", "pool_average", "linen", OUTPUT, source("pool_average", ", count_include_pad=False", "")),
)


def case_of(fault: Fault) -> Case:
    return helpers.loaded(f"layers/{fault.case}").case


def traced_quickly(state: CaseState, training: bool) -> CaseState:
    """Its ports, to be run in their own precision only; a layout shows without training."""
    state = trace_ports(state)
    traced = dict(state.traced)
    if not training:
        for name, one in traced.items():
            traced[name] = replace(one, programs=replace(one.programs, begin=None, step=None))
    return replace(state, traced=traced, in_float64=dict.fromkeys(traced, frozenset()))


@cache
def reference_of(name: str, training: bool) -> Reference:
    """Haiku's port of a case, run once for all its faults."""
    state = replace(open_case(helpers.loaded(f"layers/{name}").case), candidates=(), reference="haiku")
    observed = advance(traced_quickly(state, training), (start_compiling, run_reference)).observed
    assert observed is not None
    return observed


def refused(fault: Fault, case: Case) -> set[str]:
    """The places that are not equal in a candidate."""
    both = {name: case.models[name] for name in ("haiku", fault.candidate)}
    state = open_case(replace(case, models=both))
    assert not state.built_case.problems
    known = replace(traced_quickly(state, fault.training), observed=reference_of(fault.case, fault.training))
    checks = advance(known, (start_compiling, check_candidates)).checks
    return {finding.place for check in checks for finding in check.findings if finding.grade not in EQUAL_GRADES}


@pytest.mark.quick(5)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_wrong_layer_is_refused_at_its_leaf(fault, monkeypatch):
    """Every one runs and has the right shapes: only its results show the fault."""
    if fault.leaves:
        kind, wrong = fault.leaves
        leaves = registry.load_library(fault.candidate).leaves
        monkeypatch.setitem(leaves, kind, {**leaves[kind], **wrong})
    assert fault.place in refused(fault, fault.change(case_of(fault), fault.candidate))


@pytest.mark.quick(5)
@pytest.mark.parametrize("fault", {fault.case: fault for fault in FAULTS}.values(), ids=lambda fault: fault.case)
def test_without_the_fault_nothing_is_refused(fault):
    """Else the fault would not be what was found."""
    assert refused(fault, case_of(fault)) <= {f"{GRADIENT} attention/key/bias", f"eval {GRADIENT} attention/key/bias"}


def test_a_channels_first_bias_taken_unchanged_has_another_shape():
    """What no layout hides is said before anything runs."""
    case = helpers.loaded("layers/conv_channels_first").case
    row = conv("conv", **case.layers[0].scopes)
    state = check_structure(replace(open_case(replace(case, layers=(row,))), candidates=("linen",)))
    (wrong,) = [item for item in state.checks[0].findings if item.grade == "refuted"]
    assert (wrong.place, wrong.note) == ("leaf conv/bias", "shape differs")
    assert (wrong.reference, wrong.candidate) == ("(6, 1, 1)", "(6,)")


@pytest.mark.slow
def test_what_adam_keeps_of_a_shifted_bias_is_not_shifted():
    """The 1 that Haiku hides in its code is no part of a momentum."""
    case = replace(helpers.loaded("layers/rnn_lstm").case, optimizer=lambda: optax.adam(0.01))
    state = open_case(replace(case, models={name: case.models[name] for name in ("linen", "haiku")}))
    ran = advance(traced_quickly(state, training=True), (start_compiling, run_reference, check_candidates))
    (train,) = [check for check in ran.checks if check.check == "train"]
    kept = {finding.place: finding.grade for finding in train.findings if finding.place.endswith("lstm/hf/bias")}
    assert set(kept) == {"train: lstm/hf/bias", *(f"train: opt_state/{slot}/lstm/hf/bias" for slot in ("mu", "nu"))}
    assert set(kept.values()) <= set(EQUAL_GRADES)
