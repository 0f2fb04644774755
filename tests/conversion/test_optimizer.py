"""Which optimizers notice another layout of the parameters: predicted from the layout, and tried by running."""

from dataclasses import replace
from functools import partial

import convert_helpers as h
import jax
import numpy as np
import optax
import pytest

from equiv.conversion.convert import ConversionRequest, convert_checkpoint
from equiv.conversion.formats.checkpoint import CheckpointError
from equiv.conversion.plan.optimizer import (
    TRANSFORMS,
    commutes,
    describe_optimizer_effects,
    layout_relation,
    predict_transforms,
)
from equiv.conversion.source.expected_leaves import build_library_model, saved_form
from equiv.conversion.verify import ConversionMismatch
from equiv.core.case import Case, Layer
from equiv.core.case_files import LoadedCase
from equiv.core.layers import linear
from equiv.core.layouts import Identity, MergeAxes, Shift, SwapAxes
from equiv.core.leaves import LeafSpec, MappedLeaf, NativeKey

STEPS = 3


def _quarters(leaf) -> dict:
    return {f"w{row}{column}": leaf[2 * row :][:2, 3 * column :][:, :3] for row in (0, 1) for column in (0, 1)}


LAYOUTS = {
    "moved": (lambda tree: {"w": tree["w"].T, "v": tree["v"].reshape(6, 4)}, 0.0),
    "packed": (lambda tree: {**_quarters(tree["w"]), "v": tree["v"]}, 0.0),
    "shifted": (lambda tree: tree, 1.0),
}
"""Relation to what it does to a tree of parameters: moves elements, and adds a number."""


OURS = (lambda tree: tree, 0.0)


def plus(tree, number):
    """A number added to every leaf."""
    return jax.tree.map(lambda leaf: leaf + number, tree)


def train_in_both_ways(start, gradients, ways):
    """Transform and way to the parameters after all steps; all in one loop, which is compiled once."""
    made = {name: transform.make() for name, transform in TRANSFORMS.items()}
    there = {way: plus(move(start), number) for way, (move, number) in ways.items()}

    def step(carry, gradient):
        after = {}
        for (name, way), (params, state) in carry.items():
            updates, state = made[name].update(ways[way][0](gradient), state, params)
            after[name, way] = optax.apply_updates(params, updates), state
        return after, None

    begun = {(name, way): (params, made[name].init(params)) for name in TRANSFORMS for way, params in there.items()}
    return {run: params for run, (params, _) in jax.lax.scan(step, begun, gradients)[0].items()}


def measure_apart(relation):
    """Transform to how far training in a layout of this relation is from training here, over what rounding explains.

    In float64. Each step rounds once, and a norm over a leaf as often as there are elements.
    """
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 6), "v": (2, 3, 4)}
    start = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    gradients = {name: rng.normal(size=(STEPS, *shape)) for name, shape in shapes.items()}
    with jax.enable_x64(True):
        ways = {"ours": OURS, relation: LAYOUTS[relation]}
        lowered = jax.jit(partial(train_in_both_ways, ways=ways)).lower(start, gradients)
        trained = jax.device_get(lowered.compile({"xla_backend_optimization_level": "0"})(start, gradients))
    found = {}
    move, number = LAYOUTS[relation]
    for name in TRANSFORMS:
        ours = jax.tree.leaves(plus(move(trained[name, "ours"]), number))
        theirs = jax.tree.leaves(trained[name, relation])
        worst = max(abs(a - b).max() for a, b in zip(ours, theirs, strict=True))
        rounded = STEPS * sum(a.size for a in ours) * np.finfo("f8").eps * max(abs(a).max() for a in ours)
        found[name] = worst / rounded
    return found


@pytest.mark.quick(1)
@pytest.mark.parametrize("relation", LAYOUTS)
def test_the_layouts_prediction_holds_for_every_transform(relation) -> None:
    """Neither a transform that is said to commute and does not, nor one that is refused for nothing."""
    apart = measure_apart(relation)
    ran = {name for name in TRANSFORMS if apart[name] <= 1}
    said = {name for name in TRANSFORMS if commutes(name, relation)}
    assert ran == said


def test_what_the_issue_names_is_said_by_name() -> None:
    """SGD and adam ignore a forget bias and separate gates; weight decay, adafactor, lamb and block clipping do not."""
    fitting, noticing = predict_transforms(frozenset(("shifted", "packed")))
    assert {"sgd", "sgd, momentum", "adam", "clip_by_global_norm"} <= set(fitting)
    assert {"adamw", "adafactor", "lamb", "clip_by_block_rms"} <= set(noticing)
    assert predict_transforms(frozenset(("unknown",)))[0] == []
    assert "adamw" in describe_optimizer_effects({"shifted": "lstm/hf/bias"})[0].partition("Those that do:")[2]
    assert describe_optimizer_effects({"same": "linear/kernel"}) == []


def leaf(layout, shape=(4, 6), name="w") -> MappedLeaf:
    """A leaf of that native shape and layout."""
    return MappedLeaf(
        name, NativeKey("params", name), layout, LeafSpec(layout.canonical_shape(shape), "float32"), shape
    )


class Twice(Identity):
    """A layout that scales, of which the optimizer does not know."""

    def to_canonical(self, array):
        return array * 2


@pytest.mark.parametrize(
    ("ours", "theirs", "relation"),
    [
        (leaf(Identity()), leaf(Identity()), "same"),
        (leaf(SwapAxes()), leaf(SwapAxes()), "same"),
        (leaf(SwapAxes(), (6, 4)), leaf(Identity()), "moved"),
        (leaf(MergeAxes(), (4, 2, 3)), leaf(Identity()), "moved"),
        (leaf(Shift(1.0)), leaf(Identity()), "shifted"),
        (leaf(Shift(1.0)), leaf(Shift(1.0)), "same"),
        (replace(leaf(Identity(), (2, 4, 6)), stack_index=1), leaf(Identity()), "packed"),
        (leaf(Twice()), leaf(Identity()), "unknown"),
    ],
)
def test_a_layouts_effect_is_found_by_trying_it_on_indices(ours, theirs, relation) -> None:
    """What moves elements gives each of them back once."""
    assert layout_relation((ours,), (theirs,)) == relation


def shifted_case(optimizer) -> Case:
    """A layer of Haiku that adds 1 to its bias in its code, as hk.LSTM does, and a plain one of Linen."""

    def haiku():
        import haiku as hk

        class Layer(hk.Module):
            def __call__(self, x):
                w = hk.get_parameter("w", (3, 7), init=hk.initializers.RandomNormal())
                return x @ w + (hk.get_parameter("b", (7,), init=hk.initializers.RandomNormal()) + 1)

        return hk.without_apply_rng(hk.transform(lambda x: Layer(name="layer")(x)))

    def linen():
        import flax.linen as nn

        return nn.Dense(7)

    row = Layer("layer", "linear", {"haiku": "layer", "linen": ""}, layouts={"haiku": {"bias": Shift(1.0)}})
    return Case("", {"haiku": haiku, "linen": linen}, {"x": "float32[5,3]"}, (row,), optimizer=optimizer)


def take_over(case: Case, tmp_path, **options):
    """Train it in Haiku for a few steps, and convert it."""
    model = build_library_model(case, "haiku")
    carry, step = h.begun(model.port, 1), h.quick(model.port.step)
    for index in range(STEPS):
        carry, _ = step(carry, {"x": np.full((5, 3), index + 1, "f4")}, jax.random.key(0))
    h.save_npz(tmp_path / "old.npz", saved_form(carry))
    request = ConversionRequest(
        tmp_path / "old.npz", LoadedCase("shifted", "", case), "linen", tmp_path / "new.npz", **options
    )
    return carry, convert_checkpoint(request)


def test_adam_goes_on_where_only_the_bias_is_one_larger(tmp_path) -> None:
    """1 is added to the bias, nothing to what adam keeps of it; the way back is bit for bit."""
    case = shifted_case(lambda: optax.adam(0.1))
    carry, manifest = take_over(case, tmp_path)
    assert "layer/bias is shifted: the optimizer does not depend on it" in manifest.notes[-1]
    with np.load(tmp_path / "new.npz") as found:
        assert np.array_equal(found["params/bias"], carry["params"]["layer"]["b"] + np.float32(1))
        assert np.array_equal(found["opt_state/0/mu/bias"], carry["opt_state"][0].mu["layer"]["b"])
    request = ConversionRequest(tmp_path / "new.npz", LoadedCase("shifted", "", case), "haiku", tmp_path / "back.npz")
    origins = {leaf.path: leaf.origin for leaf in convert_checkpoint(request).leaves}
    assert origins["params/layer/b"] == "preserved"
    with np.load(tmp_path / "back.npz") as back:
        assert back["params/layer/b"].tobytes() == np.asarray(carry["params"]["layer"]["b"]).tobytes()
        assert back["opt_state/0/mu/layer/b"].tobytes() == np.asarray(carry["opt_state"][0].mu["layer"]["b"]).tobytes()


def test_weight_decay_on_a_shifted_bias_is_refused_by_name(tmp_path) -> None:
    """It would pull the bias elsewhere; without the optimizer's state it may go."""
    case = shifted_case(lambda: optax.adamw(0.1, weight_decay=0.1))
    message = r"old\.npz: the optimizer's state cannot be converted: in linen layer/bias is shifted.*refuted at train: "
    with pytest.raises(ConversionMismatch, match=message) as raised:
        take_over(case, tmp_path)
    assert raised.value.verdict == "different"
    assert not (tmp_path / "new.npz").exists()
    take_over(case, tmp_path, drop=("opt_state",))
    with np.load(tmp_path / "new.npz") as found:
        assert set(found.files) == {"params/kernel", "params/bias"}


def test_moments_shaped_unlike_the_parameter_are_refused_for_another_layout(tmp_path) -> None:
    """adafactor keeps rows and columns: of (3, 4) they are not those of (4, 3)."""
    case = h.case_of("layers/conv_transpose_flipped")
    case = replace(case, optimizer=lambda: optax.adafactor(0.1, min_dim_size_to_factor=2))
    model = build_library_model(case, "haiku")
    file = h.save_npz(tmp_path / "old.npz", saved_form(h.begun(model.port, 0)))
    request = ConversionRequest(file, LoadedCase("case", "", case), "linen", tmp_path / "new.npz")
    with pytest.raises(CheckpointError, match=r"it does not have the layout of its parameter.*Pass --drop opt_state"):
        convert_checkpoint(request)


def test_layers_of_a_stack_take_their_momentum_along(tmp_path) -> None:
    """Four leaves of Haiku are one of Linen, and so are four of adam."""
    name = "layers/stacked_unrolled"
    file = h.save_npz(tmp_path / "old.npz", saved_form(h.trained(name, "haiku", "adam")))
    h.take_over(file, name, "linen", tmp_path / "new.npz", "adam")
    moments = [h.trained(name, "haiku", "adam")["opt_state"][0].mu[f"linear_{index}"]["w"] for index in range(4)]
    with np.load(tmp_path / "new.npz") as found:
        assert np.array_equal(found["opt_state/0/mu/ScanBlock_0/Dense_0/kernel"], np.stack(moments))


def test_a_linear_row_is_what_the_shifted_case_has() -> None:
    """The case above differs from an ordinary one in its layout alone."""
    assert linear("layer", haiku="layer", linen="").kind == shifted_case(None).layers[0].kind
