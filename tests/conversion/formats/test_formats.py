"""Real files of the real libraries are read leaf by leaf, and what is written the real libraries read."""

import pickle
import tracemalloc
from pathlib import Path

import convert_helpers as h
import haiku as hk
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import safetensors.flax
import safetensors.numpy
from flax import nnx, serialization
from flax.core import FrozenDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from equiv.conversion.formats import msgpack as flax_msgpack
from equiv.conversion.formats import orbax, registry
from equiv.conversion.formats.checkpoint import (
    Checkpoint,
    CheckpointError,
    Format,
    OutgoingCheckpoint,
    OutgoingLeaf,
    spec_of,
)
from equiv.conversion.formats.registry import FORMATS, format_for, open_checkpoint, write_checkpoint
from equiv.conversion.formats.tree_paths import Empty, flatten, nest, path_text, path_words

BF16 = np.arange(6).astype(ml_dtypes.bfloat16).reshape(2, 3) / ml_dtypes.bfloat16(7)
TREE = {
    "params": {"mlp/~/linear": {"w": np.arange(12, dtype="f4").reshape(3, 4) / 7, "b": BF16}},
    "opt_state": {"0": {"count": np.array(3, "i4")}, "1": {}},
    "mask": np.array([True, False]),
    "half": np.array([1.5, 2.5], "f2"),
    "wide": np.array([[1.5]], "f8"),
}


def arrays_of(tree) -> dict[tuple[str, ...], np.ndarray]:
    """Path to array."""
    return {path: leaf for path, leaf in flatten(tree).items() if not isinstance(leaf, Empty)}


def outgoing(tree) -> OutgoingCheckpoint:
    """A tree of arrays as writers take it."""
    leaves = [OutgoingLeaf(path, spec_of(array), lambda array=array: array) for path, array in arrays_of(tree).items()]
    empties = {path: leaf for path, leaf in flatten(tree).items() if isinstance(leaf, Empty)}
    return OutgoingCheckpoint(leaves, empties, lambda arrays: nest([*arrays.items(), *empties.items()]))


def read_all(file: Path, allow_pickle: bool = False) -> dict[tuple[str, ...], np.ndarray]:
    """Every leaf, checked against what was said of it before."""
    checkpoint = open_checkpoint(file, allow_pickle)
    found = {path: checkpoint.read(path) for path in checkpoint.leaves}
    assert {path: spec_of(array) for path, array in found.items()} == dict(checkpoint.leaves)
    checkpoint.close()
    return found


def assert_same(found, tree) -> None:
    """Bit for bit, whatever separates the keys."""
    left = {path_text(path): array for path, array in found.items()}
    right = {path_text(path): array for path, array in arrays_of(tree).items()}
    assert left.keys() == right.keys()
    for name, array in right.items():
        assert (left[name].dtype, left[name].shape) == (array.dtype, array.shape), name
        assert left[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("format", [format.name for format in FORMATS if format.write])
def test_every_format_gives_back_what_was_written_bfloat16_included(format, tmp_path) -> None:
    """Shapes, dtypes and bits."""
    write_checkpoint(tmp_path / f"new.{format}", format, outgoing(TREE))
    assert_same(read_all(tmp_path / f"new.{format}"), TREE)


def test_msgpack_is_byte_for_byte_flaxs_and_flax_restores_it(tmp_path) -> None:
    """Empty states included, without which `from_bytes` refuses a TrainState."""
    sizes = {f"{size}": np.arange(size, dtype="u1") for size in (2**16 - 30, 2**16 - 1, 2**16, 2**17)}
    tree = {**TREE, **sizes, "large": np.ones((3, 2**15), BF16.dtype)}
    write_checkpoint(tmp_path / "new.msgpack", "msgpack", outgoing(tree))
    data = (tmp_path / "new.msgpack").read_bytes()
    assert data == serialization.msgpack_serialize(tree, in_place=True)
    assert_same(read_all(tmp_path / "new.msgpack"), tree)
    assert serialization.msgpack_restore(data)["opt_state"]["1"] == {}


def test_an_array_in_flax_chunks_is_read_and_written_so(tmp_path, monkeypatch) -> None:
    """With flax's own limit of a gibibyte made small, in flax and here."""
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 64)
    monkeypatch.setattr(flax_msgpack, "CHUNK_BYTES", 64)
    tree = {"w": np.arange(45, dtype="f4").reshape(5, 9), "b": np.ones(3, "f4")}
    theirs = serialization.msgpack_serialize({**tree}, in_place=True)
    (tmp_path / "old.msgpack").write_bytes(theirs)
    assert_same(read_all(tmp_path / "old.msgpack"), tree)
    write_checkpoint(tmp_path / "new.msgpack", "msgpack", outgoing(tree))
    assert (tmp_path / "new.msgpack").read_bytes() == theirs


def test_npz_is_read_by_numpy_and_numpys_files_are_read(tmp_path) -> None:
    """numpy gives bfloat16 back as two bytes of nothing; here it is what it was."""
    write_checkpoint(tmp_path / "new.npz", "npz", outgoing(TREE))
    flat = {path_text(path): array for path, array in arrays_of(TREE).items()}
    np.savez_compressed(tmp_path / "old.npz", **flat)
    for file in ("new.npz", "old.npz"):
        with np.load(tmp_path / file) as found:
            assert found["params/mlp/~/linear/b"].dtype == np.dtype("V2")
            assert found["params/mlp/~/linear/b"].tobytes() == BF16.tobytes()
        assert_same(read_all(tmp_path / file), TREE)


def test_safetensors_is_what_its_library_writes_and_reads(tmp_path) -> None:
    """The header is written here: byte for byte where all leaves have one dtype, elsewhere in another order."""
    flat = {path_text(path): array for path, array in arrays_of(TREE).items()}
    write_checkpoint(tmp_path / "new.safetensors", "safetensors", outgoing(flat))
    assert_same(
        {(name,): array for name, array in safetensors.numpy.load_file(tmp_path / "new.safetensors").items()}, flat
    )
    assert safetensors.flax.load_file(tmp_path / "new.safetensors")["params/mlp/~/linear/b"].dtype == jnp.bfloat16
    one = {"a": np.ones((2, 3), "f4"), "b": np.arange(4, dtype="f4")}
    safetensors.numpy.save_file(one, tmp_path / "old.safetensors")
    write_checkpoint(tmp_path / "one.safetensors", "safetensors", outgoing(one))
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "old.safetensors").read_bytes()


def test_float8_goes_where_it_can_be_read_and_nowhere_else(tmp_path) -> None:
    """numpy writes what it cannot read; the library of safetensors cannot read what it knows."""
    tree = {"w": np.arange(4).astype(ml_dtypes.float8_e4m3fn)}
    write_checkpoint(tmp_path / "new.msgpack", "msgpack", outgoing(tree))
    assert_same(read_all(tmp_path / "new.msgpack"), tree)
    for format in ("npz", "safetensors"):
        with pytest.raises(CheckpointError, match=rf"leaf 'w' is float8_e4m3fn\[4\], which {format} does not support"):
            write_checkpoint(tmp_path / f"new.{format}", format, outgoing(tree))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_safe_unpickler_reads_haiku_jax_and_optax_only(protocol, tmp_path) -> None:
    """Arrays of jax, scalars, Fortran order, bfloat16, states of optax, immutable mappings of both libraries."""
    params = {"mlp/~/linear": {"w": jnp.ones((3, 4)), "b": BF16, "t": np.asfortranarray(TREE["wide"].T)}}
    state = optax.adam(1e-3).init(params)
    tree = {"params": hk.data_structures.to_immutable_dict(params), "opt_state": state, "step": np.int32(3), "n": 4}
    (tmp_path / "old.pkl").write_bytes(pickle.dumps({**tree, "more": FrozenDict({"a": np.ones(2)})}, protocol))
    found = {path_text(path): array for path, array in read_all(tmp_path / "old.pkl", allow_pickle=True).items()}
    assert found["params/mlp/~/linear/b"].tobytes() == BF16.tobytes()
    assert found["opt_state/0/mu/mlp/~/linear/w"].shape == (3, 4)
    assert found["opt_state/0/count"] == 0
    assert (found["step"], found["n"], found["more/a"].sum()) == (3, 4, 2)


def test_orbax_reads_single_leaves_and_gives_integer_keys_as_text(tmp_path) -> None:
    """A State of NNX has `value` below each variable, a dict of arrays has not: the words are the same."""

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)])

    state = nnx.state(Model(nnx.Rngs(0)))
    h.save_orbax(tmp_path / "state", state)
    h.save_orbax(tmp_path / "pure", nnx.to_pure_dict(state))
    paths = {}
    for name in ("state", "pure"):
        checkpoint = open_checkpoint(tmp_path / name)
        paths[name] = {path_words(path): path for path in checkpoint.leaves}
        kernel = checkpoint.read(paths[name]["layers", "1", "kernel"])
        assert np.array_equal(kernel, state["layers"][1]["kernel"].get_value())
        checkpoint.close()
    assert paths["state"].keys() == paths["pure"].keys()
    assert paths["state"]["layers", "1", "kernel"] == ("layers", "1", "kernel", "value")


def test_the_one_item_of_a_checkpoint_managers_step_is_found(tmp_path) -> None:
    """A step is a folder of items."""
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        manager.save(7, args=ocp.args.StandardSave({"w": np.ones(3, "f4")}))
    assert_same(read_all(tmp_path / "run" / "7"), {"w": np.ones(3, "f4")})


def test_orbax_reads_small_arrays_together_and_large_ones_alone(tmp_path, monkeypatch) -> None:
    """What is asked for in order is read once."""
    monkeypatch.setattr(orbax, "SINGLE_READ_ELEMENTS", 20)
    monkeypatch.setattr(orbax, "GROUP_BYTES", 100)
    tree = {f"w{index}": np.full(30 if index == 4 else 10, index, "f4") for index in range(8)}
    h.save_orbax(tmp_path / "old", tree)
    assert_same(read_all(tmp_path / "old"), tree)
    assert [len(lot) for lot in orbax._read_groups({(name,): spec_of(array) for name, array in tree.items()})] == [
        2,
        2,
        1,
        2,
        1,
    ]


@pytest.mark.parametrize("format", ["npz", "safetensors", "msgpack"])
def test_a_conversion_holds_a_few_leaves_and_not_the_checkpoint(format, tmp_path) -> None:
    """32 leaves of a mebibyte: what numpy holds at once is counted."""
    tree = {f"w{index:02}": np.zeros(2**18, "f4") for index in range(32)}
    write_checkpoint(tmp_path / f"old.{format}", format, outgoing(tree))
    del tree
    checkpoint = open_checkpoint(tmp_path / f"old.{format}")
    leaves = [
        OutgoingLeaf(path, spec, lambda path=path: checkpoint.read(path)) for path, spec in checkpoint.leaves.items()
    ]
    tracemalloc.start()
    write_checkpoint(tmp_path / f"new.{format}", format, OutgoingCheckpoint(leaves, {}, lambda arrays: arrays))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    checkpoint.close()
    assert peak < 8 * 2**20


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        (("layers", "0", "kernel", "value"), ("layers", "0", "kernel")),
        (("layers/0/kernel",), ("layers", "0", "kernel")),
        (("layers.0.kernel",), ("layers", "0", "kernel")),
        (("mlp/~/linear", "w"), ("mlp", "~", "linear", "w")),
        (("value",), ("value",)),
    ],
)
def test_separators_integer_keys_and_wrappers_make_no_difference(path, wanted) -> None:
    """One spelling for all."""
    assert path_words(path) == wanted


def test_the_format_is_the_suffix_unless_it_is_said() -> None:
    """And one that cannot be written is refused with those that can."""
    assert format_for(Path("a.npz"), None).name == "npz"
    assert format_for(Path("folder"), None).name == "orbax"
    assert format_for(Path("a.npz"), "orbax").name == "orbax"
    with pytest.raises(
        CheckpointError, match=r"a\.pkl: cannot write 'pkl'\. Pass --format with one of npz, safetensors"
    ):
        format_for(Path("a.pkl"), None)


def test_a_format_is_added_by_one_record(tmp_path, monkeypatch) -> None:
    """Written by its name or suffix, and recognised by its first bytes under any name."""

    def read(file: Path) -> Checkpoint:
        values = np.frombuffer(file.read_bytes()[4:], "f4")
        return Checkpoint(file, "toy", {("w",): spec_of(values)}, lambda _: values)

    def write(file: Path, outgoing: OutgoingCheckpoint) -> None:
        file.write_bytes(b"TOY!" + b"".join(leaf.make().tobytes() for leaf in outgoing.leaves))

    toy = Format("toy", (".toy",), read, write, recognise=lambda head: head.startswith(b"TOY!"))
    monkeypatch.setattr(registry, "FORMATS", (toy, *FORMATS))
    tree = {"w": np.arange(3, dtype="f4")}
    write_checkpoint(tmp_path / "a", format_for(tmp_path / "new.toy", None).name, outgoing(tree))
    (tmp_path / "a").rename(tmp_path / "misnamed.npz")
    assert_same(read_all(tmp_path / "misnamed.npz"), tree)


@pytest.mark.parametrize(
    ("name", "data", "wanted"),
    [
        ("a.pkl", b"PK\x03\x04rest", "npz"),
        ("a.npz", bytes(8) + b"{", "safetensors"),
        ("a.msgpack", b"\x80\x04rest", "msgpack"),
        ("a.bin", b"\x80\x04rest", "pickle"),
        ("a", b"\x80", "msgpack"),
        ("a", b"rest", "msgpack"),
    ],
)
def test_conclusive_bytes_go_before_the_suffix(name, data, wanted, tmp_path) -> None:
    """The suffix goes before bytes that two formats may begin with; a file without a suffix is no folder."""
    (tmp_path / name).write_bytes(data)
    assert registry.format_of(tmp_path / name).name == wanted


KEYS = st.text("abz_~0", min_size=1, max_size=3)
ARRAYS = hnp.arrays(
    st.sampled_from(["f4", "f2", "i4", "u1", "?"]), hnp.array_shapes(min_dims=0, max_dims=3, max_side=3)
)
TREES = st.dictionaries(
    KEYS, st.recursive(ARRAYS, lambda below: st.dictionaries(KEYS, below, max_size=3), max_leaves=6)
)


@settings(max_examples=25, deadline=None)
@given(TREES)
def test_any_tree_of_arrays_survives_msgpack_and_its_own_paths(tmp_path_factory, tree) -> None:
    """Flattened and nested again, and written and read."""
    assert jax.tree.structure(nest(flatten(tree).items())) == jax.tree.structure(tree)
    file = tmp_path_factory.mktemp("tree") / "new.msgpack"
    write_checkpoint(file, "msgpack", outgoing(tree))
    assert_same(read_all(file), tree)
