"""A really trained checkpoint goes Haiku, Linen, NNX, Haiku: nothing is lost, and training goes on as if it had not."""

import convert_helpers as h
import jax
import numpy as np
import pytest
from flax import nnx, serialization
from flax.training.train_state import TrainState

from equiv.conversion import manifest as manifests
from equiv.conversion.formats.registry import open_checkpoint
from equiv.conversion.formats.tree_paths import path_words

GO_ON = range(h.STEPS, 2 * h.STEPS)


def contents(file) -> dict[tuple[str, ...], np.ndarray]:
    """Every leaf of a checkpoint by the words of its path."""
    checkpoint = open_checkpoint(file)
    found = {path_words(path): checkpoint.read(path) for path in checkpoint.leaves}
    checkpoint.close()
    return found


def same_bits(left, right) -> bool:
    """Whether two dicts of arrays are one, bit for bit."""
    return left.keys() == right.keys() and all(
        (left[path].dtype, left[path].shape, left[path].tobytes())
        == (right[path].dtype, right[path].shape, right[path].tobytes())
        for path in left
    )


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Haiku to Linen to NNX to Haiku, each in another format."""
    folder = tmp_path_factory.mktemp("chain")
    first = h.save(folder / "haiku.msgpack", "haiku", h.trained(h.ADAM, "haiku"))
    h.take_over(first, h.ADAM, "linen", folder / "linen.msgpack")
    h.take_over(folder / "linen.msgpack", h.ADAM, "nnx", folder / "nnx", random="seed:5")
    h.take_over(folder / "nnx", h.ADAM, "haiku", folder / "back.npz", random="omit")
    return folder


def test_haiku_to_linen_to_nnx_to_haiku_is_bit_exact(chain) -> None:
    """Haiku's counters and undebiased averages too, which neither Linen nor NNX has."""
    before, after = contents(chain / "haiku.msgpack"), contents(chain / "back.npz")
    assert len(before) == 25
    assert same_bits(before, after)
    assert before["opt_state", "0", "count"] == h.STEPS


def test_training_goes_on_as_if_it_had_not_moved(chain) -> None:
    """The same losses and the same carry, bit for bit, after the way through both other libraries."""
    stay, losses = h.train(h.ADAM, "haiku", h.trained(h.ADAM, "haiku"), GO_ON)
    again, same = h.train(h.ADAM, "haiku", h.loaded_npz(chain / "back.npz", h.ADAM, "haiku"), GO_ON)
    assert np.array_equal(losses, same)
    assert same_bits(h.leaves_of(stay), h.leaves_of(again))


def test_preserved_leaves_are_not_used_once_trained_elsewhere(chain, tmp_path) -> None:
    """Haiku's own averages belong to the leaves they were kept with; else they are the converged values."""
    carry, _ = h.train(h.ADAM, "linen", h.trained(h.ADAM, "linen"), GO_ON)
    moved = h.save_msgpack(tmp_path / "moved.msgpack", {name: carry[name] for name in ("params", "batch_stats")})
    manifests.manifest_path(moved).write_bytes(manifests.manifest_path(chain / "linen.msgpack").read_bytes())
    origins = {leaf.names[0]: leaf for leaf in h.take_over(moved, h.ADAM, "haiku", tmp_path / "back.npz").leaves}
    assert origins["bn/mean.hidden"].origin == origins["bn/mean.counter"].origin == "derived"
    assert origins["bn/mean.hidden"].rule == "= bn/mean"


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    ("ours", "theirs", "optimizer"),
    [
        ("haiku", "linen", "chain"),
        ("linen", "nnx", "chain"),
        ("nnx", "haiku", "chain"),
        ("linen", "haiku", "clip, schedule, momentum"),
        ("haiku", "nnx", "injected"),
        ("linen", "haiku", "adamw"),
        ("haiku", "linen", "momentum"),
    ],
)
def test_an_optimizer_goes_on_with_the_same_losses(ours, theirs, optimizer, tmp_path) -> None:
    """Chains with schedules and clipping, momentum, injected hyperparameters; one program, hence the same bits."""
    name = "layers/linear"
    file = h.save(tmp_path / "old", ours, h.trained(name, ours, optimizer))
    h.take_over(file, name, theirs, tmp_path / "new", optimizer)
    stayed, losses = h.train(name, ours, h.trained(name, ours, optimizer), GO_ON, optimizer)
    moved, same = h.train(name, theirs, h.restored(tmp_path / "new", name, theirs, optimizer), GO_ON, optimizer)
    assert np.array_equal(jax.tree.leaves(losses), jax.tree.leaves(same))
    assert len(set(np.ravel(jax.tree.leaves(losses)))) == h.STEPS
    assert not same_bits(h.leaves_of(stayed), h.leaves_of(h.trained(name, ours, optimizer)))
    assert len(jax.tree.leaves(moved)) > 0


def test_flax_restores_a_train_state_made_from_haiku(tmp_path) -> None:
    """Step, parameters and optimizer, with the empty state of optax in its place."""
    name = "train_state_dropout"
    file = h.save(tmp_path / "old.msgpack", "haiku", h.trained(name, "haiku"))
    h.take_over(file, name, "linen", tmp_path / "new.msgpack")
    like = h.saved_form(h.trained(name, "linen"))
    state = serialization.from_bytes(like, (tmp_path / "new.msgpack").read_bytes())
    assert isinstance(state, TrainState)
    assert jax.tree.structure(state) == jax.tree.structure(like)
    assert state.step == state.opt_state[0].count == h.STEPS
    theirs = h.saved_form(h.trained(name, "haiku")).opt_state[0].mu["model/linear"]["w"]
    assert np.array_equal(state.opt_state[0].mu["Dense_0"]["kernel"], theirs)


def test_an_nnx_model_and_optimizer_are_updated_from_linens(chain) -> None:
    """`nnx.update` with what orbax restores, keys of random state as keys."""
    graphdef, _ = h.trained(h.ADAM, "nnx")
    model, optimizer = nnx.merge(graphdef, h.restored(chain / "nnx", h.ADAM, "nnx")[1])
    assert optimizer.step[...] == optimizer.opt_state[0].count[...] == h.STEPS
    assert jax.numpy.issubdtype(model.dropout.rngs.key.dtype, jax.dtypes.prng_key)
    linen = h.trained(h.ADAM, "linen")["params"] and contents(chain / "linen.msgpack")
    assert np.array_equal(model.linear1.w[...], linen["params", "linear1", "w"])
    assert np.array_equal(optimizer.opt_state[0].nu["bn"]["scale"][...], linen["opt_state", "0", "nu", "bn", "scale"])


def test_the_manifest_has_a_checkable_hash_of_every_leaf(chain) -> None:
    """SHA-256 of the leaf's bytes, and where it is from."""
    import hashlib

    manifest = manifests.read_manifest(chain / "linen.msgpack")
    leaves = contents(chain / "linen.msgpack")
    assert {tuple(leaf.path.split("/")) for leaf in manifest.leaves} == leaves.keys()
    for leaf in manifest.leaves:
        array = leaves[tuple(leaf.path.split("/"))]
        assert hashlib.sha256(array.tobytes()).hexdigest() == leaf.sha256
    (kernel,) = [leaf for leaf in manifest.leaves if leaf.path == "params/linear1/w"]
    assert (kernel.origin, kernel.sources, kernel.names) == ("unchanged", ("params/mlp/~/linear1/w",), ("linear1/w",))
    assert {leaf.place for leaf in manifest.kept} == {
        f"mlp/~/bn/~/{average}_ema/{leaf} (state)" for average in ("mean", "var") for leaf in ("hidden", "counter")
    }


def test_parameters_alone_are_taken_over_without_an_optimizer(tmp_path) -> None:
    """What has no optimizer gets none."""
    carry = h.trained(h.ADAM, "haiku")
    file = h.save_npz(tmp_path / "old.npz", {name: carry[name] for name in ("params", "state")})
    h.take_over(file, h.ADAM, "nnx", tmp_path / "new.safetensors", random="omit")
    found = contents(tmp_path / "new.safetensors")
    assert len(found) == 8
    assert np.array_equal(found["bn", "mean"], carry["state"]["mlp/~/bn/~/mean_ema"]["average"][0])


def test_the_same_library_in_another_format_keeps_its_random_state(tmp_path) -> None:
    """Keys come back as they were."""
    file = h.save(tmp_path / "old", "nnx", h.trained(h.ADAM, "nnx"))
    manifest = h.take_over(file, h.ADAM, "nnx", tmp_path / "new", format="orbax", random="keep", verify=True)
    before, after = h.trained(h.ADAM, "nnx"), h.restored(tmp_path / "new", h.ADAM, "nnx")
    assert same_bits(h.leaves_of(before), h.leaves_of(after))
    assert manifest.verified == "every leaf read back as it was written; both are of one library"


def test_random_state_begins_as_the_library_begins_from_the_seed(tmp_path) -> None:
    """As `nnx.Rngs(seed)` gives the builder."""
    file = h.save(tmp_path / "old.npz", "linen", h.trained(h.ADAM, "linen"))
    h.take_over(file, h.ADAM, "nnx", tmp_path / "new.npz", random="seed:7")
    fresh = h.model(h.ADAM, "nnx").port.init(jax.random.key(7))
    (key,) = [leaf for place, leaf in fresh.items() if place.path == "dropout.rngs.key"]
    assert np.array_equal(contents(tmp_path / "new.npz")["model", "dropout", "rngs", "key"], jax.random.key_data(key))


def test_a_step_that_no_optimizer_counts_must_be_given(tmp_path) -> None:
    """Momentum has no count: nothing is made up, and nothing is dropped unsaid."""
    name, momentum = "layers/linear", "momentum"
    file = h.save(tmp_path / "old", "linen", h.trained(name, "linen", momentum))
    with pytest.raises(
        Exception, match=r"old: nnx stores 'step', which the checkpoint lacks.*there is none\. Pass --step N"
    ):
        h.take_over(file, name, "nnx", tmp_path / "no", momentum)
    h.take_over(file, name, "nnx", tmp_path / "new", momentum, step=4)
    assert contents(tmp_path / "new")["optimizer", "step"] == 4
    with pytest.raises(
        Exception, match=r"'optimizer/step/value' \(step\) has no place in haiku.*--drop optimizer/step"
    ):
        h.take_over(tmp_path / "new", name, "haiku", tmp_path / "no", momentum)
    h.take_over(tmp_path / "new", name, "haiku", tmp_path / "back", momentum, drop=("optimizer/step",))
    assert not (tmp_path / "no").exists()
