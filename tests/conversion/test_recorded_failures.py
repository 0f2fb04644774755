"""Failures of checkpoints that projects recorded in public, each with its thread: taken over whole, or refused by name.

Others of them are in `test_found_checkpoints.py` (orbax issue 2972, maxtext PRs 4343 and 5071, scanned and unrolled).
"""

import pickle
from dataclasses import replace
from pathlib import Path

import convert_helpers as h
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from conversion import found_models as models
from conversion import recorded_models as recorded
from flax import serialization

from equiv.conversion.formats.checkpoint import CheckpointError


def test_layer_10_does_not_come_after_layer_1(tmp_path) -> None:
    """orbax keeps whole numbers as text, and text has another order (google/flax issue 5030)."""
    file = h.save_orbax(tmp_path / "old", {"layers": recorded.numbered()})
    models.take_over(recorded.deep(), file, "linen", origin="nnx")
    with np.load(tmp_path / "new.npz") as found:
        values = [found[f"params/layers_{index}/kernel"][0, 0] for index in range(recorded.LAYERS)]
    assert values == list(range(1, recorded.LAYERS + 1))


def test_layers_by_name_and_by_number_are_one_model(tmp_path) -> None:
    """`layers_0` of Linen is `layers/0` of NNX (maxtext PR 4619), which a wrong origin does not hide."""
    by_name = {f"layers_{index}": one for index, one in recorded.numbered().items()}
    file = h.save_orbax(tmp_path / "old", {"params": {"params": by_name}})
    with pytest.raises(CheckpointError, match=r"none of its 22 leaves, .*layers_0/bias', is one of the 22 of nnx"):
        models.take_over(recorded.deep(), file, "nnx", origin="nnx")
    models.take_over(recorded.deep(), file, "nnx")
    with np.load(tmp_path / "new.npz") as found:
        assert found["layers/10/kernel"][0, 0] == 11


def managed(folder: Path, *steps: int, **items: ocp.args.CheckpointArgs) -> Path:
    """A folder of orbax's `CheckpointManager`, with its steps."""
    with ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions()) as manager:
        for step in steps:
            manager.save(step, args=ocp.args.Composite(**items) if items else ocp.args.StandardSave(layers()))
        manager.wait_until_finished()
    return folder


def layers() -> dict:
    """The parameters of `found_models.Boxed`, without boxes."""
    hidden = {"kernel": np.full((3, 5), 2, "f4"), "bias": np.ones(5, "f4")}
    return {"hidden": hidden, "out": {"kernel": np.full((5, 2), 3, "f4"), "bias": np.zeros(2, "f4")}}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_folder_of_steps_is_read_where_it_has_one(tmp_path) -> None:
    """`CheckpointManager` keeps a tree below step and item (google/flax issue 4521); of two, none is guessed."""
    with pytest.raises(CheckpointError, match=r"found 1/default, 2/default\. Give the folder of one item"):
        models.take_over(models.boxed(), managed(tmp_path / "two", 1, 2), "nnx", origin="linen")
    manifest = models.take_over(models.boxed(), managed(tmp_path / "run", 123), "nnx", origin="linen")
    assert manifest.notes == ()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_train_state_beside_other_items_is_found(tmp_path) -> None:
    """A Linen `TrainState` beside the state of a data loader (p-doom/jasmine issue 106); its step is named."""
    tree = ocp.args.StandardSave({"params": layers(), "step": 3})
    folder = managed(tmp_path / "run", 7, model_state=tree, loader=ocp.args.JsonSave({"epoch": 3}))
    with pytest.raises(CheckpointError, match=r"1 leaf too many for linen, first 'step' int.*--drop"):
        models.take_over(models.boxed(), folder, "nnx", origin="linen")
    manifest = models.take_over(models.boxed(), folder, "nnx", origin="linen", drop=("step",))
    assert manifest.notes == ("step is left out (--drop)",)


def adam_state() -> tuple[dict, dict]:
    """Parameters, and what adam keeps of them after a step."""
    optimizer, params = models.adam(), layers()
    state = optimizer.update(jax.tree.map(lambda leaf: leaf + 1, params), optimizer.init(params))[1][0]
    moments = {"mu": state.mu, "nu": state.nu}
    return params, {"count": np.int32(1), **jax.tree.map(np.asarray, moments)}


def valued(tree: dict) -> dict:
    """The tree with a `value` below each leaf, as a saved `nnx.State` has it."""
    return jax.tree.map(lambda leaf: {"value": leaf}, tree)


def nnx_numbers() -> dict:
    """Optimizer states under numbers, and a step without a sign."""
    params, moments = adam_state()
    return {"model": params, "optimizer": {"step": np.uint32(1), "opt_state": {0: moments}}}


def nnx_values() -> dict:
    """The same in variables."""
    params, moments = adam_state()
    optimizer = {"step": {"value": np.uint32(1)}, "opt_state": {0: valued(moments)}}
    return {"model": valued(params), "optimizer": optimizer}


def linen_list() -> dict:
    """Optimizer states in a list with None, `params` twice and in the moments, and a step with a sign."""
    params, moments = adam_state()
    wrapped = {name: {"params": moments[name]} for name in ("mu", "nu")}
    return {
        "params": {"params": params},
        "step": np.int32(1),
        "opt_state": [{"count": moments["count"], **wrapped}, None],
    }


@pytest.mark.parametrize("to", ["linen", "nnx"])
@pytest.mark.parametrize(("tree", "origin"), [(nnx_numbers, "nnx"), (nnx_values, "nnx"), (linen_list, "linen")])
def test_both_trees_of_an_optimizer_hold_the_same(tree, origin, to, tmp_path) -> None:
    """The three differences of the layouts that maxtext PR 3929 names, each way."""
    models.take_over(models.boxed(models.adam), h.save_orbax(tmp_path / "old", tree()), to, origin=origin)
    before = "optimizer/" if to == "nnx" else ""
    with np.load(tmp_path / "new.npz") as found:
        assert np.array_equal(found[f"{before}opt_state/0/nu/out/kernel"], adam_state()[1]["nu"]["out"]["kernel"])
        assert found[f"{before}opt_state/0/count"] == 1


def test_moments_at_another_depth_are_not_begun_again(tmp_path) -> None:
    """An optimizer outside of a chain has no number (maxtext PR 4343): its state was reset without a word."""
    params, moments = adam_state()
    file = h.save_orbax(tmp_path / "old", {"params": params, "step": np.int32(1), "opt_state": moments})
    message = r"9 of the 13 leaves of linen missing, first 'opt_state/0/count'.*'opt_state/count' int32\[\], close to"
    with pytest.raises(CheckpointError, match=message):
        models.take_over(models.boxed(models.adam), file, "nnx", origin="linen")


def test_base_above_and_value_below_each_leaf(tmp_path) -> None:
    """The third variant of MaxText's trees (maxtext PR 2946)."""
    models.take_over(models.boxed(), h.save_orbax(tmp_path / "old", {"base": valued(layers())}), "linen", origin="nnx")
    with np.load(tmp_path / "new.npz") as found:
        assert np.array_equal(found["params/out/kernel"], layers()["out"]["kernel"])


def wider() -> dict:
    """Another width."""
    return {**layers(), "hidden": {"kernel": np.ones((3, 6), "f4"), "bias": np.ones(6, "f4")}}


def without_kernel() -> dict:
    """No array where one is named."""
    return {**layers(), "out": {"kernel": None, "bias": np.ones(2, "f4")}}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (wider, r"'params/hidden/bias' is float32\[6\], linen has float32\[5\].*2 of 4 leaves are unlike"),
        (without_kernel, r"1 of the 4 leaves of linen missing, first 'params/out/kernel' float32\[5, 2\].*not filled"),
    ],
)
def test_a_weight_of_another_width_or_none_is_named(tree, message, tmp_path) -> None:
    """A restore filled it with zeros, or left a placeholder (maxtext PRs 4341 and 4342)."""
    with pytest.raises(CheckpointError, match=message):
        models.take_over(models.boxed(), h.save_orbax(tmp_path / "old", {"params": tree()}), "nnx", origin="linen")
    assert not (tmp_path / "new.npz").exists()


@pytest.mark.parametrize(("origin", "named"), [("linen", "routing/table"), ("nnx", "table")])
def test_a_table_that_no_optimizer_trains_is_not_forgotten(origin, named, tmp_path) -> None:
    """A routing table fell out of the tree, and came back as zeros (maxtext PR 4343)."""
    mlp = {"kernel": np.ones((4, 4), "f4"), "bias": np.ones(4, "f4")}
    file = h.save_orbax(tmp_path / "old", {"params": {"params": {"mlp": mlp}}})
    with pytest.raises(CheckpointError, match=rf"1 of the 3 leaves of {origin} missing, first '{named}' int32\[3\]"):
        models.take_over(recorded.routed(), file, "nnx", origin=origin)


STREAM = jax.random.key(5)


def streams(stream: dict) -> dict:
    """The parameters of `found_models.Dropped`, and a stream for each of its two layers."""
    first = {"kernel": np.ones((3, 4), "f4"), "bias": np.ones(4, "f4")}
    second = {"kernel": np.ones((4, 2), "f4"), "bias": np.ones(2, "f4")}
    return {"first": first, "second": second, "early": {"rngs": stream}, "late": {"rngs": stream}}


def test_a_stream_without_its_count_is_not_kept(tmp_path) -> None:
    """Older trees have no counts (maxtext PR 4555): that it begins again is said, and asked for."""
    case = replace(models.dropped(), optimizer=None)
    file = h.save_orbax(tmp_path / "old", streams({"key": STREAM}))
    with pytest.raises(CheckpointError, match=r"it has no 'early/rngs/count' to keep.*--random seed:N"):
        models.take_over(case, file, "nnx", origin="nnx", random="keep")
    manifest = models.take_over(case, file, "nnx", origin="nnx", random="seed:1")
    assert manifest.notes[0] == "random state is left out: early/rngs/key, late/rngs/key"


def test_keys_saved_as_their_numbers_are_keys_again(tmp_path) -> None:
    """What users do since orbax refused typed keys (google/flax issues 4231 and 4383)."""
    case = replace(models.dropped(), optimizer=None)
    numbers = np.asarray(jax.random.key_data(STREAM))
    file = h.save_orbax(tmp_path / "old", streams({"key": numbers, "count": np.uint32(4)}))
    models.take_over(case, file, "nnx", origin="nnx", random="keep")
    with np.load(tmp_path / "new.npz") as found:
        assert np.array_equal(found["late/rngs/key"], numbers)
        assert found["late/rngs/count"] == 4


def pickled(file: Path, tree) -> Path:
    """A pickle, as many Haiku users keep a model."""
    file.write_bytes(pickle.dumps(tree))
    return file


def packed(file: Path, tree) -> Path:
    """The same as msgpack."""
    file.write_bytes(serialization.msgpack_serialize(tree))
    return file


@pytest.mark.parametrize("save", [pickled, packed])
def test_settings_beside_the_arrays_can_be_left_out(save, tmp_path) -> None:
    """A baseline of Haiku with the arguments of its model (sotetsuk/pgx issue 1200), texts among them."""
    params, state = recorded.baseline().init(jax.random.key(0), jnp.ones((5, 3)), True)
    arrays = jax.tree.map(np.asarray, {"params": dict(params), "state": dict(state)})
    file = save(tmp_path / "old", {"args": {"name": "resnet", "channels": 64, "second": True}, **arrays})
    with pytest.raises(CheckpointError, match=r"3 leaves too many for haiku, first 'args/(name' text|channels' i)"):
        models.take_over(recorded.normalised(), file, "linen", allow_pickle=True)
    manifest = models.take_over(recorded.normalised(), file, "linen", allow_pickle=True, drop=("args",))
    assert "args/name is left out (--drop)" in manifest.notes
    with np.load(tmp_path / "new.npz") as found:
        assert np.array_equal(found["params/out/kernel"], params["out"]["w"])
        assert np.array_equal(found["batch_stats/bn/var"], np.ravel(state["bn/~/var_ema"]["average"]))


def test_parameters_without_their_running_averages_are_refused(tmp_path) -> None:
    """Evaluation would use the averages of a fresh model (sotetsuk/pgx issue 1200)."""
    params, _ = recorded.baseline().init(jax.random.key(0), jnp.ones((5, 3)), True)
    file = pickled(tmp_path / "old.pkl", {"params": params})
    with pytest.raises(CheckpointError, match=r"6 of the 10 leaves of haiku missing, first 'state/bn/~/mean_ema"):
        models.take_over(recorded.normalised(), file, "linen", allow_pickle=True)
