"""Checkpoints as projects write them: boxes, MaxText's and T5X's trees, Hugging Face's files, and what they lack."""

import json
from pathlib import Path

import convert_helpers as h
import flax.linen as nn
import jax
import numpy as np
import pytest
from conversion import found_models as models
from flax import serialization, traverse_util
from flax.training.train_state import TrainState

from equiv.conversion.formats.checkpoint import CheckpointError


def boxed_params():
    """Parameters as `init` gives them, in boxes."""
    return models.params_of(models.Boxed(), 3)


def plain_params():
    """The same without boxes."""
    return nn.meta.unbox(boxed_params())


@pytest.mark.quick(1)
@pytest.mark.parametrize("save", [h.save_msgpack, h.save_orbax])
def test_boxes_with_axis_names_are_no_part_of_a_path(save, tmp_path) -> None:
    """A train state that was saved with them: parameters and moments have `value` below each kernel."""
    state = TrainState.create(apply_fn=lambda: None, params=boxed_params(), tx=models.adam())
    stepped = state.apply_gradients(grads=jax.tree.map(lambda leaf: leaf + 1, state.params))
    file = save(tmp_path / "old", stepped)
    models.take_over(models.boxed(models.adam), file, "nnx")
    want = nn.meta.unbox(stepped.opt_state[0].mu)["hidden"]["kernel"]
    with np.load(tmp_path / "new.npz") as found:
        assert np.array_equal(found["model/hidden/kernel"], nn.meta.unbox(stepped.params)["hidden"]["kernel"])
        assert np.array_equal(found["optimizer/opt_state/0/mu/hidden/kernel"], want)


def t5x(params, param_states, step: int = 7) -> dict:
    """The tree of T5X's optimizer (google-research/t5x, `optimizers.py`: `state_dict`)."""
    states = serialization.to_state_dict(param_states)
    return {"target": params, "state": {"step": np.int32(step), "param_states": states}}


def test_optax_state_that_t5x_wraps_goes_to_its_place(tmp_path) -> None:
    """`OptaxWrapper` keeps it as `state/param_states`, without the empty states."""
    params, tx = plain_params(), models.adam()
    moments = tx.update(jax.tree.map(lambda leaf: leaf + 1, params), tx.init(params))[1]
    file = h.save_msgpack(tmp_path / "old.msgpack", t5x(params, {"0": moments[0]}, step=1))
    models.take_over(models.boxed(models.adam), file, "nnx", origin="linen")
    with np.load(tmp_path / "new.npz") as found:
        assert np.array_equal(found["optimizer/opt_state/0/nu/out/bias"], moments[0].nu["out"]["bias"])
        assert found["optimizer/opt_state/0/count"] == 1


def test_t5x_own_optimizer_is_refused_by_name(tmp_path) -> None:
    """Its Adafactor keeps `m` and `v` below each parameter; without them the parameters are taken over."""
    unused = np.zeros((1,), "f4")
    states = jax.tree.map(
        lambda leaf: {"m": unused, "v": np.ones_like(leaf), "v_col": unused, "v_row": unused}, plain_params()
    )
    file = h.save_msgpack(tmp_path / "old.msgpack", t5x(plain_params(), states))
    with pytest.raises(CheckpointError, match=r"'state/param_states/hidden/bias/m' float32\[1\].*T5X's own Adafactor"):
        models.take_over(models.boxed(models.adam), file, "nnx", origin="linen")
    manifest = models.take_over(models.boxed(models.adam), file, "nnx", origin="linen", drop=("param_states",))
    assert "state/step is left out (--drop)" in manifest.notes
    with np.load(tmp_path / "new.npz") as found:
        assert np.array_equal(found["out/kernel"], plain_params()["out"]["kernel"])


def test_layers_stacked_on_axis_1_become_a_list(tmp_path) -> None:
    """MaxText's tree, `params` twice, saved by orbax beside a step and adam's moments in a list."""
    params = models.params_of(models.Scanned(), models.WIDTH)
    file = h.save_orbax(tmp_path / "old", {"params": {"params": params}})
    assert params["layers"]["mlp"]["kernel"].shape == (models.WIDTH, models.LAYERS, models.WIDTH)
    models.take_over(models.scanned(), file, "nnx")
    with np.load(tmp_path / "new.npz") as found:
        assert np.array_equal(found["blocks/2/kernel"], params["layers"]["mlp"]["kernel"][:, 2])


@pytest.mark.parametrize(
    ("saved", "case", "message"),
    [
        (
            models.Scanned(1),
            models.unrolled,
            r"none of its 2 leaves, .* of linen, first 'params/mlp_0/bias'; the checkpoint has "
            r"'params/params/layers/mlp/bias' float32\[4, 3\], a stack of 3 layers on axis 1, .*scanned .*\[:, 0\]",
        ),
        (
            models.Unrolled(),
            models.scanned,
            r"the model has 'params/layers/mlp/bias' float32\[4, 3\], a stack of 3 layers on axis 1, where the "
            r"checkpoint has them one by one, 'params/params/mlp_0/bias' float32\[4\]\. Give the case the model with",
        ),
        (
            models.Scanned(0),
            models.scanned,
            r"'params/params/layers/mlp/bias' is float32\[3, 4\], linen has float32\[4, 3\].*2 of 2 leaves are "
            r"unlike\. The sizes are the same on other axes.*param_scan_axis",
        ),
    ],
)
def test_scanned_and_unrolled_layers_are_told_apart(saved, case, message, tmp_path) -> None:
    """MaxText's `scan_layers` and `param_scan_axis`, in the wrong setting: with both shapes."""
    file = h.save_orbax(tmp_path / "old", {"params": {"params": models.params_of(saved, models.WIDTH)}})
    with pytest.raises(CheckpointError, match=message):
        models.take_over(case(), file, "nnx", origin="linen")
    assert not (tmp_path / "new.npz").exists()


def test_a_checkpoint_of_fewer_layers_is_refused_by_name(tmp_path) -> None:
    """orbax fills what it finds and leaves the rest as it was (google/orbax issue 2972)."""
    params = models.params_of(models.Unrolled(), models.WIDTH)
    fewer = {"params": {name: layer for name, layer in params.items() if name != "mlp_2"}}
    message = r"2 of the 6 leaves of linen missing, first 'params/mlp_2/bias' float32\[4\].*not filled in"
    with pytest.raises(CheckpointError, match=message):
        models.take_over(models.unrolled(), h.save_orbax(tmp_path / "old", fewer), "nnx", origin="linen")


def test_a_renamed_leaf_is_named_with_the_closest_one(tmp_path) -> None:
    """Neither is dropped: the one that no leaf takes, and the one that is missing, with their shapes."""
    params = plain_params()
    renamed = {"params": {"hiden": params["hidden"], "out": params["out"]}}
    message = (
        r"2 leaves too many for linen, first 'params/hiden/bias' float32\[5\], close to 'params/hidden/bias' float32"
    )
    with pytest.raises(CheckpointError, match=message):
        models.take_over(models.boxed(), h.save_orbax(tmp_path / "old", renamed), "nnx", origin="linen")


def hugging_face(folder: Path, parts: int) -> list[Path]:
    """Parameters without a level `params`, in one file or several, each with whole paths (`save_pretrained`)."""
    flat = list(traverse_util.flatten_dict(plain_params(), sep="/").items())
    files = []
    for number in range(parts):
        name = "flax_model.msgpack" if parts == 1 else f"flax_model-{number + 1:05d}-of-{parts:05d}.msgpack"
        shard = traverse_util.unflatten_dict(dict(flat[number::parts]), sep="/")
        (folder / name).write_bytes(serialization.to_bytes(shard))
        files.append(folder / name)
    return files


@pytest.mark.parametrize("parts", [1, 2])
def test_files_of_hugging_face_are_read_whole(parts, tmp_path) -> None:
    """Any part stands for all."""
    file = hugging_face(tmp_path, parts)[-1]
    models.take_over(models.boxed(), file, "nnx", origin="linen")
    with np.load(tmp_path / "new.npz") as found:
        assert np.array_equal(found["hidden/kernel"], plain_params()["hidden"]["kernel"])
        assert np.array_equal(found["out/bias"], plain_params()["out"]["bias"])


def test_a_lost_part_of_several_files_is_named(tmp_path) -> None:
    """Its leaves would be missing; and a name of a part is none for a whole checkpoint."""
    first, second = hugging_face(tmp_path, 2)
    second.unlink()
    with pytest.raises(
        CheckpointError, match=r"it is part 1 of 2, and 1 of the others .*first flax_model-00002-of-00002"
    ):
        models.take_over(models.boxed(), first, "nnx")


LAYOUTS = sorted((Path(__file__).parent / "nnx_layouts").glob("*.json"))


def checkpoint_of(layout: Path, folder: Path) -> Path:
    """A checkpoint with the paths, shapes and dtypes that a release of flax saves (`nnx_layouts/write_layout.py`)."""
    tree: dict = {}
    for path, (shape, dtype) in json.loads(layout.read_text())["leaves"].items():
        *words, last = path.split("/")
        node = tree
        for word in words:
            node = node.setdefault(word, {})
        key = dtype.startswith("key<")
        node[last] = jax.random.key(5) if key else np.full(shape, 1, dtype)
    return h.save_orbax(folder / "old", tree)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda file: file.stem)
def test_random_state_of_every_release_is_known_as_such(layout, tmp_path) -> None:
    """Streams that layers share (up to flax 0.10) or fork; another library has no place for them, and says so."""
    file = checkpoint_of(layout, tmp_path)
    with pytest.raises(
        CheckpointError, match=r"its random state \(.*rngs/.*key.*\) has no place in linen.*--random omit"
    ):
        models.take_over(models.dropped(), file, "linen")
    manifest = models.take_over(models.dropped(), file, "linen", random="omit")
    assert any(note.startswith("random state is left out: ") for note in manifest.notes)
    with np.load(tmp_path / "new.npz") as found:
        assert found["opt_state/0/mu/first/kernel"].shape == (3, 4)


@pytest.mark.parametrize("layout", LAYOUTS[:1], ids=lambda file: file.stem)
def test_streams_that_layers_share_are_not_taken_for_their_own(layout, tmp_path) -> None:
    """A model of today forks a stream for each layer: what it draws is not what the old one would have drawn."""
    file = checkpoint_of(layout, tmp_path)
    with pytest.raises(
        CheckpointError, match=r"is that of another release of NNX: up to flax 0\.10 layers share streams"
    ):
        models.take_over(models.dropped(), file, "nnx", origin="nnx", random="keep")
    manifest = models.take_over(models.dropped(), file, "nnx", origin="nnx", random="seed:1")
    assert {leaf.origin for leaf in manifest.leaves if "rngs" in leaf.path} == {"seeded"}


def test_random_state_is_not_kept_where_there_is_no_place(tmp_path) -> None:
    """`--random keep` to a library without it would lose it without a word."""
    file = checkpoint_of(LAYOUTS[-1], tmp_path)
    with pytest.raises(CheckpointError, match=r"rngs/count.* has no place in linen to be kept in"):
        models.take_over(models.dropped(), file, "linen", random="keep")


def test_what_one_port_lacks_has_the_value_held(tmp_path) -> None:
    """A bias that only NNX has, and one part of three of its packed kernel: filled in, and left out if it is so."""
    weight = np.arange(24, dtype="f4").reshape(4, 6) + 1
    params = {"query": {"kernel": weight[:, :3]}, "key": {"kernel": weight[:, 3:]}}
    case = models.packed()
    manifest = models.take_over(case, h.save_msgpack(tmp_path / "old.msgpack", {"params": params}), "nnx", verify=True)
    assert "value/kernel = 0, as the case holds what linen lacks" in manifest.notes
    with np.load(tmp_path / "new.npz") as found:
        assert np.array_equal(found["qkv/kernel"], np.concatenate([weight, np.zeros((4, 3), "f4")], axis=1))
        assert np.array_equal(found["qkv/bias"], np.zeros(9))
        whole = {"qkv": {"kernel": found["qkv/kernel"], "bias": found["qkv/bias"]}}
    (tmp_path / "back").mkdir()
    back = models.take_over(case, h.save_msgpack(tmp_path / "back" / "old.msgpack", whole), "linen", origin="nnx")
    assert "query/bias is 0, where the case says that linen lacks it" in back.notes
    with np.load(tmp_path / "back" / "new.npz") as found:
        assert np.array_equal(found["params/key/kernel"], params["key"]["kernel"])
    whole["qkv"]["kernel"][1, 7] = 0.5
    (tmp_path / "other").mkdir()
    with pytest.raises(
        CheckpointError, match=r"value/kernel is 0\.5 at \[1, 1\].*the same where it is 0\. Give linen this"
    ):
        models.take_over(case, h.save_msgpack(tmp_path / "other" / "old.msgpack", whole), "linen", origin="nnx")


def test_maxtexts_tree_of_an_nnx_model_comes_back_whole(tmp_path) -> None:
    """Parameters and moments as Linen has them, and streams beside them, under `nnx_aux` (maxtext PR 4343)."""
    leaf = {"kernel": np.full((3, 4), 2, "f4"), "bias": np.ones(4, "f4")}
    params = {"first": leaf, "second": {"kernel": np.full((4, 2), 3, "f4"), "bias": np.zeros(2, "f4")}}
    moments = {"count": np.int32(6), "mu": {"params": params}, "nu": {"params": params}}
    stream = {"rngs": {"count": np.uint32(5), "key": jax.random.key(8)}}
    tree = {
        "params": {"params": params},
        "opt_state": [moments, None],
        "step": np.int32(6),
        "nnx_aux": {"model": {"early": stream, "late": stream}},
    }
    file = h.save_orbax(tmp_path / "old", tree)
    models.take_over(models.dropped(), file, "nnx", origin="nnx", random="keep")
    with np.load(tmp_path / "new.npz") as found:
        assert found["model/early/rngs/count"] == 5
        assert found["optimizer/step"] == found["optimizer/opt_state/0/count"] == 6
        assert np.array_equal(found["optimizer/opt_state/0/nu/second/kernel"], params["second"]["kernel"])
        assert np.array_equal(found["model/late/rngs/key"], jax.random.key_data(jax.random.key(8)))
