"""A model trained in Haiku goes on in Linen, in NNX and in Haiku again, in code that knows nothing of this package."""

import pickle
from dataclasses import replace
from functools import cache

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import linen as nn
from flax import nnx, serialization
from flax.training.train_state import TrainState

from equiv.conversion.convert import ConversionRequest, convert_checkpoint
from equiv.conversion.formats.checkpoint import CheckpointError
from equiv.core.case import Case
from equiv.core.case_files import LoadedCase
from equiv.core.layers import embed, linear

WORDS, LENGTH, WIDTH, CLASSES = 11, 6, 16, 3
LEARNED, GO_ON = 60, 5


def haiku_model(tokens):
    """A bag of words and two layers."""
    bag = hk.Embed(WORDS, WIDTH, name="embed")(tokens).mean(axis=1)
    return hk.Linear(CLASSES, name="out")(jax.nn.relu(hk.Linear(2 * WIDTH, name="hidden")(bag)))


class LinenModel(nn.Module):
    """The same."""

    @nn.compact
    def __call__(self, tokens):
        bag = nn.Embed(WORDS, WIDTH)(tokens).mean(axis=1)
        hidden = nn.relu(nn.Dense(2 * WIDTH)(bag))
        return nn.Dense(CLASSES)(hidden)


class NNXModel(nnx.Module):
    """The same."""

    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(WORDS, WIDTH, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(WIDTH, 2 * WIDTH, rngs=rngs), nnx.Linear(2 * WIDTH, CLASSES, rngs=rngs)])

    def __call__(self, tokens):
        hidden, out = self.layers
        return out(nnx.relu(hidden(self.embed(tokens).mean(axis=1))))


TX = optax.adam(0.01)
PURE = hk.without_apply_rng(hk.transform(haiku_model))
CASE = Case(
    "none",
    {"haiku": lambda: PURE, "linen": LinenModel, "nnx": NNXModel},
    {"tokens": f"int32[5,{LENGTH}]:{WORDS}"},
    (
        embed("embed", haiku="embed", linen="Embed_0", nnx="embed"),
        linear("hidden", haiku="hidden", linen="Dense_0", nnx="layers.0"),
        linear("out", haiku="out", linen="Dense_1", nnx="layers.1"),
    ),
    optimizer=lambda: TX,
)


@cache
def data() -> tuple[np.ndarray, np.ndarray]:
    """A batch of texts for each step; the class is that of the smallest word in it."""
    tokens = np.random.default_rng(0).integers(0, WORDS, (LEARNED + GO_ON, 32, LENGTH), dtype=np.int32)
    return tokens, tokens.min(axis=2) % CLASSES


def cross_entropy(logits, labels):
    """The loss of all three."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@jax.jit
def haiku_step(params, state, tokens, labels):
    """As in Haiku's own examples."""
    loss, grads = jax.value_and_grad(lambda p: cross_entropy(PURE.apply(p, tokens), labels))(params)
    updates, state = TX.update(grads, state, params)
    return optax.apply_updates(params, updates), state, loss


def in_haiku(params, state, steps):
    """Train in Haiku."""
    losses = []
    for step in steps:
        params, state, loss = haiku_step(params, state, *(part[step] for part in data()))
        losses.append(float(loss))
    return params, state, losses


@pytest.fixture(scope="module")
def learned():
    """Parameters, optimizer and losses of a model that has really learned."""
    params = PURE.init(jax.random.key(0), data()[0][0])
    params, state, losses = in_haiku(params, TX.init(params), range(LEARNED))
    assert losses[-1] < losses[0] / 2
    return params, state


@pytest.fixture(scope="module")
def stayed(learned):
    """What training goes on to in Haiku, where nothing has moved."""
    return in_haiku(*learned, range(LEARNED, LEARNED + GO_ON))


@pytest.fixture(scope="module")
def files(learned, tmp_path_factory):
    """A pickle, as scripts for Haiku write it, then msgpack, verified, orbax and npz, each from the one before."""
    folder = tmp_path_factory.mktemp("files")
    params, state = learned
    (folder / "old.pkl").write_bytes(pickle.dumps({"params": params, "opt_state": state}))
    hops = (("old.pkl", "linen", "new.msgpack"), ("new.msgpack", "nnx", "new"), ("new", "haiku", "back.npz"))
    loaded = LoadedCase("words", "", CASE)
    for old, target, new in hops:
        manifest = convert_checkpoint(
            ConversionRequest(folder / old, loaded, target, folder / new, allow_pickle=True, verify=target == "linen")
        )
        assert manifest is not None
        if target == "linen":
            assert manifest.verified.startswith("same: outputs exact, gradients exact")
    return folder


def test_a_row_naming_two_different_layers_is_an_error(files, tmp_path) -> None:
    """In Linen layers are numbered as they are made, and not as they are called."""
    rows = (CASE.layers[0], linear("hidden", haiku="hidden", linen="Dense_1", nnx="layers.0"))
    swapped = replace(CASE, layers=(*rows, linear("out", haiku="out", linen="Dense_0", nnx="layers.1")))
    request = ConversionRequest(
        files / "old.pkl", LoadedCase("words", "", swapped), "linen", tmp_path / "new", allow_pickle=True
    )
    message = r"old\.pkl: .*out/bias is float32\[3\] in haiku and float32\[32\] in linen\. Fix the case: its row"
    with pytest.raises(CheckpointError, match=message):
        convert_checkpoint(request)
    assert not list(tmp_path.iterdir())


def test_it_comes_back_bit_for_bit(learned, files) -> None:
    """Every leaf of parameters and optimizer, through both other libraries."""
    names = jax.tree_util.tree_flatten_with_path({"params": learned[0], "opt_state": learned[1]})[0]
    with np.load(files / "back.npz") as back:
        assert len(back.files) == len(names) == 16
        for path, leaf in names:
            found = back[jax.tree_util.keystr(path, simple=True, separator="/")]
            assert (found.dtype, found.tobytes()) == (leaf.dtype, np.asarray(leaf).tobytes())


def test_linen_goes_on_with_the_original_models_losses(stayed, files) -> None:
    """Restored by flax into a `TrainState`."""
    params = LinenModel().init(jax.random.key(1), data()[0][0])["params"]
    like = {"params": params, "opt_state": TX.init(params)}
    found = serialization.from_bytes(like, (files / "new.msgpack").read_bytes())
    state = TrainState(LEARNED, LinenModel().apply, found["params"], TX, found["opt_state"])

    @jax.jit
    def step(state, tokens, labels):
        def loss(params):
            return cross_entropy(state.apply_fn({"params": params}, tokens), labels)

        value, grads = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=grads), value

    losses = []
    for index in range(LEARNED, LEARNED + GO_ON):
        state, value = step(state, *(part[index] for part in data()))
        losses.append(float(value))
    assert losses == stayed[2]
    assert state.opt_state[0].count == LEARNED + GO_ON


def test_nnx_goes_on_with_the_original_models_losses(stayed, files) -> None:
    """Restored by orbax into a model and its `nnx.Optimizer`."""
    model = NNXModel(nnx.Rngs(1))
    optimizer = nnx.Optimizer(model, TX, wrt=nnx.Param)
    like = {"model": nnx.state(model), "optimizer": nnx.state(optimizer)}
    with ocp.StandardCheckpointer() as checkpointer:
        found = checkpointer.restore(files / "new", jax.tree.map(ocp.utils.to_shape_dtype_struct, like))
    nnx.update(model, found["model"])
    nnx.update(optimizer, found["optimizer"])
    assert optimizer.step[...] == LEARNED

    @nnx.jit
    def step(model, optimizer, tokens, labels):
        value, grads = nnx.value_and_grad(lambda model: cross_entropy(model(tokens), labels))(model)
        optimizer.update(model, grads)
        return value

    losses = [
        float(step(model, optimizer, *(part[index] for part in data()))) for index in range(LEARNED, LEARNED + GO_ON)
    ]
    assert losses == stayed[2]


def test_haiku_goes_on_as_if_nothing_had_moved(learned, stayed, files) -> None:
    """The same losses, and in the end the same parameters and moments, bit for bit."""
    like = {"params": learned[0], "opt_state": learned[1]}
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    with np.load(files / "back.npz") as back:
        leaves = [jnp.asarray(back[jax.tree_util.keystr(path, simple=True, separator="/")]) for path, _ in paths]
    found = jax.tree.unflatten(structure, leaves)
    again = in_haiku(found["params"], found["opt_state"], range(LEARNED, LEARNED + GO_ON))
    assert again[2] == stayed[2]
    assert jax.tree.all(jax.tree.map(np.array_equal, again[:2], stayed[:2]))
    assert len(set(again[2])) == GO_ON
