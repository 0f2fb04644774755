"""What real libraries wrap around a model: number keys, `value`, `params` in `params`, bfloat16 as V2."""

from pathlib import Path

import convert_helpers as h
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx, serialization
from flax.training.train_state import TrainState

from equiv.conversion.convert import ConversionRequest, convert_checkpoint
from equiv.conversion.formats.checkpoint import CheckpointError
from equiv.conversion.formats.registry import open_checkpoint
from equiv.core.case import Case
from equiv.core.case_files import LoadedCase
from equiv.core.layers import linear

STACKED, LINEAR = "layers/stacked_unrolled", "layers/linear"


def states():
    """The model of NNX in a list of layers, as `nnx.state` gives it."""
    return h.saved_form(h.trained(STACKED, "nnx", "adam"), ("model", "optimizer"))["model"]


def number_keys(file: Path) -> None:
    """Keys that are numbers, packed as such."""
    pure = nnx.to_pure_dict(states())
    assert list(pure["linears"]) == [0, 1, 2, 3]
    file.write_bytes(serialization.msgpack_serialize(jax.tree.map(np.asarray, pure)))


def state(file: Path) -> None:
    """A `State`, which orbax keeps with `value` below each variable."""
    h.save_orbax(file, states())


def pure(file: Path) -> None:
    """A dict of dicts with number keys, kept by orbax."""
    h.save_orbax(file, nnx.to_pure_dict(states()))


@pytest.mark.parametrize(
    ("save", "first"),
    [
        (number_keys, ("linears", "0", "bias")),
        (state, ("linears", "0", "bias", "value")),
        (pure, ("linears", "0", "bias")),
    ],
)
def test_number_keys_and_value_suffixes_are_found_whoever_saved_them(save, first, tmp_path) -> None:
    """A list of layers goes to Linen's stack, layer by layer."""
    save(tmp_path / "old")
    checkpoint = open_checkpoint(tmp_path / "old")
    assert next(iter(checkpoint.leaves)) == first
    checkpoint.close()
    h.take_over(tmp_path / "old", STACKED, "linen", tmp_path / "new.npz")
    kernels = [np.asarray(states()["linears"][index]["kernel"].get_value()) for index in range(4)]
    with np.load(tmp_path / "new.npz") as found:
        assert np.array_equal(found["params/ScanBlock_0/Dense_0/kernel"], np.stack(kernels))


@pytest.mark.parametrize("save", [h.save_msgpack, h.save_orbax])
def test_a_train_state_of_all_variables_has_params_in_params(save, tmp_path) -> None:
    """`TrainState.create(params=model.init(...))`: in the parameters, and in what adam keeps of them."""
    params = h.trained(LINEAR, "linen", "adam")["params"]
    begun = TrainState.create(apply_fn=lambda: None, params={"params": params}, tx=optax.adam(0.01))
    stepped = begun.apply_gradients(grads=jax.tree.map(lambda leaf: leaf + 1, begun.params))
    file = save(tmp_path / "old", stepped)
    paths = list(map("/".join, open_checkpoint(file).leaves))
    assert {"params/params/kernel", "opt_state/0/mu/params/kernel", "step"} <= set(paths)
    manifest = h.take_over(file, LINEAR, "haiku", tmp_path / "new.npz", "adam", origin="linen")
    assert manifest.notes == ("step has no place in the case's train step; the optimizer's own count is the same",)
    with np.load(tmp_path / "new.npz") as found:
        assert np.array_equal(found["params/linear/w"], stepped.params["params"]["kernel"])
        assert np.array_equal(found["opt_state/0/mu/linear/w"], stepped.opt_state[0].mu["params"]["kernel"])
        assert found["opt_state/0/count"] == 1


def test_a_step_that_differs_from_the_optimizers_count_is_reported(tmp_path) -> None:
    """A `TrainState` that has counted on where adam started from 0, for a case whose train step has no count."""
    params = h.trained(LINEAR, "linen", "adam")["params"]
    state = TrainState.create(apply_fn=lambda: None, params=params, tx=optax.adam(0.01)).replace(step=9)
    file = h.save_msgpack(tmp_path / "old.msgpack", state)
    with pytest.raises(CheckpointError, match=r"old\.msgpack: 'step' = 9 has no place in haiku\..*pass --drop step"):
        h.take_over(file, LINEAR, "haiku", tmp_path / "new.npz", "adam", origin="linen")
    assert h.take_over(file, LINEAR, "haiku", tmp_path / "new.npz", "adam", origin="linen", drop=("step",))


def in_bfloat16() -> Case:
    """A layer whose parameters are bfloat16."""

    def haiku():
        import haiku as hk

        return hk.without_apply_rng(hk.transform(lambda x: hk.Linear(7, name="linear")(x)))

    def model(rngs):
        return nnx.Linear(3, 7, param_dtype=jnp.bfloat16, rngs=rngs)

    row = linear("linear", haiku="linear", nnx="")
    return Case("", {"haiku": haiku, "nnx": model}, {"x": "bfloat16[5,3]"}, (row,))


def test_bfloat16_that_numpy_wrote_as_raw_bytes_is_bfloat16_again(tmp_path) -> None:
    """`numpy.savez` of parameters of Haiku, to safetensors of NNX and back to npz, bit for bit."""
    case = in_bfloat16()
    params = case.models["haiku"]().init(jax.random.key(0), jnp.ones((5, 3), jnp.bfloat16))
    np.savez(tmp_path / "old.npz", **{f"linear/{name}": np.asarray(leaf) for name, leaf in params["linear"].items()})
    with np.load(tmp_path / "old.npz") as old:
        assert old["linear/w"].dtype == np.dtype("V2")
    loaded = LoadedCase("case", "", case)
    convert_checkpoint(
        ConversionRequest(tmp_path / "old.npz", loaded, "nnx", tmp_path / "new.safetensors", verify=True)
    )
    convert_checkpoint(ConversionRequest(tmp_path / "new.safetensors", loaded, "haiku", tmp_path / "back.npz"))
    with np.load(tmp_path / "back.npz") as back:
        assert back["params/linear/w"].tobytes() == np.asarray(params["linear"]["w"]).tobytes()


def test_bfloat16_and_float32_are_not_mixed_up(tmp_path) -> None:
    """A checkpoint in the wider type is not cast."""
    np.savez(tmp_path / "old.npz", **{"linear/w": np.ones((3, 7), "f4"), "linear/b": np.ones(7, "f4")})
    request = ConversionRequest(
        tmp_path / "old.npz", LoadedCase("case", "", in_bfloat16()), "nnx", tmp_path / "new.npz"
    )
    with pytest.raises(CheckpointError, match=r"leaf 'linear/b' is float32\[7\], haiku has bfloat16\[7\]"):
        convert_checkpoint(request)


@pytest.mark.slow
def test_an_lstm_takes_its_forget_bias_and_adams_moments_along(tmp_path) -> None:
    """Four gates in one leaf of Haiku, each a leaf in Linen; a 1 in the bias that no moment has."""
    name = "layers/rnn_lstm"
    carry = h.trained(name, "haiku", "adam")
    manifest = h.take_over(h.save_npz(tmp_path / "old.npz", carry), name, "linen", tmp_path / "new.npz", "adam")
    assert "the optimizer does not depend on it" in manifest.notes[-1]
    ours, gates = carry["params"]["lstm/linear"]["b"], carry["opt_state"][0].mu["lstm/linear"]["b"]
    with np.load(tmp_path / "new.npz") as found:
        assert np.array_equal(found["params/LSTMCell_0/hf/bias"], ours[8:12] + np.float32(1))
        assert np.array_equal(found["opt_state/0/mu/LSTMCell_0/hf/bias"], gates[8:12])
