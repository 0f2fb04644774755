"""Corrupt and hostile checkpoints: each is a clear error with file and leaf, and nothing is written anywhere."""

import codecs
import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import convert_helpers as h
import jax.numpy as jnp
import msgpack
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import serialization
from safetensors.numpy import save_file

from equiv.conversion.formats.checkpoint import CheckpointError

NAME, OPTIMIZER = "layers/linear", "adam"


def good() -> dict[str, np.ndarray]:
    """A whole checkpoint of Haiku, as flat names."""
    return h.leaves_of(h.trained(NAME, "haiku", OPTIMIZER))


KERNEL = "params/linear/w"


def npz(**changes):
    """An npz file with some leaves changed, added, or, where None, left out."""

    def make(folder: Path) -> Path:
        leaves = {**good(), **{name.replace("__", "/"): value for name, value in changes.items()}}
        np.savez(folder / "old.npz", **{name: value for name, value in leaves.items() if value is not None})
        return folder / "old.npz"

    return make


def changed(function):
    """A leaf of the kernel changed by a function."""
    return lambda folder: npz(**{KERNEL: function(good()[KERNEL])})(folder)


def nan(kernel):
    """One NaN in the middle."""
    kernel = kernel.copy()
    kernel[1, 2] = np.nan
    return kernel


def infinite(kernel):
    """One infinite value."""
    kernel = kernel.copy()
    kernel[0, 0] = -np.inf
    return kernel


def twice_in_zip(folder: Path) -> Path:
    """zipfile writes a name a second time with a warning only."""
    file = npz()(folder)
    with zipfile.ZipFile(file) as archive:
        data = archive.read(f"{KERNEL}.npy")
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(f"{KERNEL}.npy", data)
    return file


def cut(make, share: float = 0.6):
    """A file that ends too early."""

    def cut_it(folder: Path) -> Path:
        file = make(folder)
        data = file.read_bytes()
        file.write_bytes(data[: int(len(data) * share)])
        return file

    return cut_it


def flipped(folder: Path) -> Path:
    """One bit of a leaf is another; zip has a checksum."""
    file = npz()(folder)
    data = bytearray(file.read_bytes())
    at = data.find(good()[KERNEL].tobytes())
    data[at] ^= 1
    file.write_bytes(data)
    return file


def bomb(folder: Path) -> Path:
    """A few kilobytes that say they are four terabytes."""
    file = npz(**{KERNEL: None})(folder)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)})
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{KERNEL}.npy", header.getvalue() + bytes(10**6))
    return file


def header_bomb(folder: Path) -> Path:
    """A few hundred kilobytes whose header says that it is four gigabytes, and is, once decompressed, 64 megabytes."""
    file = npz(**{KERNEL: None})(folder)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{KERNEL}.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(2**26))
    return file


def safetensors(folder: Path) -> Path:
    """A good safetensors file."""
    save_file({name: np.array(array, order="C") for name, array in good().items()}, folder / "old.safetensors")
    return folder / "old.safetensors"


def with_header(change):
    """A safetensors file with its header changed by a function of the parsed header to text."""

    def make(folder: Path) -> Path:
        file = safetensors(folder)
        data = file.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        text = change(json.loads(data[8 : 8 + length])).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
        return file

    return make


def moved_offsets(header):
    """Two leaves share bytes."""
    header[KERNEL]["data_offsets"] = [offset + 4 for offset in header[KERNEL]["data_offsets"]]
    return json.dumps(header)


def of_another_shape(header):
    """More elements than 64 bits count."""
    header[KERNEL]["shape"] = [2**40, 2**40]
    return json.dumps(header)


def of_another_dtype(header):
    """An entry that says half of the size that its bytes have."""
    header[KERNEL]["dtype"] = "F16"
    return json.dumps(header)


def named_out(header):
    """A name that is a path out of any folder."""
    header["../../evil"] = header.pop(KERNEL)
    return json.dumps(header)


def named_twice(header):
    """The same name a second time."""
    text = json.dumps(header)
    return text[:-1] + f", {json.dumps(KERNEL)}: {json.dumps(header[KERNEL])}}}"


def long_header(folder: Path) -> Path:
    """A header that says it is as long as memory."""
    file = safetensors(folder)
    file.write_bytes(struct.pack("<Q", 2**62) + file.read_bytes()[8:])
    return file


def packed(tree=None, more: bytes = b"", data: bytes | None = None):
    """A msgpack file as flax writes it, of a tree or of bytes."""

    def make(folder: Path) -> Path:
        whole = data if data is not None else serialization.to_bytes(tree() if tree else nested())
        (folder / "old.msgpack").write_bytes(whole + more)
        return folder / "old.msgpack"

    return make


def nested() -> dict:
    """The good checkpoint as a tree of arrays."""
    return serialization.to_state_dict(h.jax.tree.map(np.asarray, h.trained(NAME, "haiku", OPTIMIZER)))


def with_text() -> dict:
    """A leaf that is a word."""
    tree = nested()
    tree["params"]["linear"]["w"] = "a word"
    return tree


def array_of(shape, data: bytes) -> bytes:
    """What flax writes for an array."""
    return msgpack.packb({"w": msgpack.ExtType(1, msgpack.packb((shape, "float32", data)))})


def pickled(tree):
    """A pickle of anything."""

    def make(folder: Path) -> Path:
        (folder / "old.pkl").write_bytes(tree if isinstance(tree, bytes) else pickle.dumps(tree))
        return folder / "old.pkl"

    return make


class Calls:
    """What a pickle runs when it is loaded."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def stack_global(module: str, name: str) -> bytes:
    """A pickle that asks for one name and calls it with nothing."""
    return b"\x80\x04" + b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name)) + b"\x93)R."


def changing(module: str, name: str) -> bytes:
    """A pickle that sets an attribute of what it asks for: BUILD with a state of slots."""
    asked = b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name))
    return b"\x80\x04" + asked + b"\x93N}\x8c\x04evilK\x01s\x86b."


def laughs() -> list:
    """A thousand million leaves in a hundred bytes."""
    tree: list = [1.0]
    for _ in range(9):
        tree = [tree] * 10
    return tree


def deep() -> bytes:
    """Lists in lists."""
    return b"\x91" * 5000 + b"\xc0"


def orbax(change):
    """A folder of orbax, changed."""

    def make(folder: Path) -> Path:
        file = h.save(folder / "old", "haiku", h.trained(NAME, "haiku", OPTIMIZER))
        change(file)
        return file

    return make


def without_data(folder: Path) -> None:
    """The leaves themselves are gone."""
    for part in ("d", "ocdbt.process_0"):
        shutil.rmtree(folder / part)


def half_the_data(folder: Path) -> None:
    """The largest file of leaves is cut."""
    file = max(folder.rglob("d/*"), key=lambda file: file.stat().st_size)
    os.truncate(file, file.stat().st_size * 2 // 3)


def huge_chunks(folder: Path) -> None:
    """A header that says that a chunk is as large as memory, in the older form of a folder for each array."""
    tree = h.saved_form(h.trained(NAME, "haiku", OPTIMIZER))
    shutil.rmtree(folder)
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_zarr3=False)
    with ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(folder, args=ocp.args.PyTreeSave(tree))
    (header,) = folder.glob("params.linear.w/.zarray")
    header.write_text(json.dumps({**json.loads(header.read_text()), "chunks": [2**20, 2**20]}))


def link_out(folder: Path) -> None:
    """A file of the checkpoint is one of the machine."""
    (folder / "d" / "passwd").symlink_to("/etc/passwd")


def two_items(folder: Path) -> None:
    """Two trees in one step."""
    for name in ("default", "other"):
        shutil.copytree(folder, folder.with_name("step") / name)
    shutil.rmtree(folder)
    folder.with_name("step").rename(folder)


def with_two_trees(folder: Path) -> Path:
    """Parameters and their moving average, which have the same names."""
    averages = {name.replace("params", "ema"): array for name, array in good().items() if name.startswith("params/")}
    return npz(**averages)(folder)


def link_to_nowhere(folder: Path) -> Path:
    """A link whose file is gone."""
    (folder / "old.npz").symlink_to(folder / "gone.npz")
    return folder / "old.npz"


def with_manifest(data: bytes | None):
    """A good file with a manifest of these bytes; None: one that waits for ever when it is opened."""

    def make(folder: Path) -> Path:
        file = npz()(folder)
        if data is None:
            os.mkfifo(f"{file}.manifest.json")
        else:
            Path(f"{file}.manifest.json").write_bytes(data)
        return file

    return make


def fifo(folder: Path) -> Path:
    """What waits for ever when it is opened."""
    os.mkfifo(folder / "old.npz")
    return folder / "old.npz"


def written(data: bytes, name: str = "old.npz"):
    """A file of these bytes."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


BAD = {
    "missing leaf": (npz(**{KERNEL: None}), r"1 of the 7 leaves of haiku missing, first 'params/linear/w' float32"),
    "extra leaf": (npz(params__other__w=np.ones(3)), r"1 leaf too many for haiku, first 'params/other/w'"),
    "renamed leaf": (
        npz(**{KERNEL: None, "params/linear/ww": np.ones((3, 4), "f4")}),
        r"'params/linear/ww' float32\[3, 4\], close to 'params/linear/w'",
    ),
    "misshaped leaf": (changed(np.transpose), r"leaf 'params/linear/w' is float32\[.*, haiku has float32\["),
    "mistyped leaf": (changed(np.float64), r"leaf 'params/linear/w' is float64.*haiku has float32.*Save it as that"),
    "whole numbers": (changed(np.int32), r"leaf 'params/linear/w' is int32"),
    "other byte order": (changed(lambda w: w.astype(">f4")), r"leaf 'params/linear/w' is >f4"),
    "small floats in npz": (
        changed(lambda w: w.astype(jnp.float8_e5m2)),
        r"reading leaf 'params/linear/w' failed with ValueError: descr",
    ),
    "nan": (changed(nan), r"leaf 'params/linear/w' is nan at \[1, 2\].*--allow-nonfinite"),
    "infinite": (changed(infinite), r"leaf 'params/linear/w' is -inf at \[0, 0\]"),
    "nan in the optimizer": (
        npz(opt_state__0__nu__linear__b=np.full(7, np.nan, "f4")),
        r"'opt_state/0/nu/linear/b' is nan",
    ),
    "two spellings of a leaf": (
        npz(**{"params.linear.w": np.ones((3, 4), "f4")}),
        r"'params/linear/w' and 'params\.linear\.w' are both linear/kernel\. Pass --drop",
    ),
    "two trees of parameters": (with_two_trees, r"'ema' and 'params' hold 2 leaves|'params' and 'ema' hold 2 leaves"),
    "a count that does not fit": (
        npz(opt_state__0__count=np.int64(2**40)),
        r"opt_state/mu,nu/count is 1099511627776, which int32 cannot hold",
    ),
    "another optimizer": (npz(opt_state__0__trace__linear__w=np.ones((3, 4), "f4")), r"'opt_state/0/trace/linear/w'"),
    "part of an optimizer": (npz(opt_state__0__nu__linear__w=None), r"missing, first 'opt_state/0/nu/linear/w'"),
    "another case": (
        lambda folder: h.save(folder / "old.npz", "haiku", h.trained("layers/norm_layer", "haiku")),
        r"is one of the 2 of haiku, first 'params/linear/b'.*Give the case of this checkpoint",
    ),
    "name with a way out": (npz(**{"../../../tmp/evil": np.ones(3)}), r"first '\.\./\.\./\.\./tmp/evil'"),
    "pickle in npz": (npz(**{KERNEL: np.array([{}], object)}), r"leaf 'params/linear/w' is a pickled object"),
    "fields in npz": (npz(**{KERNEL: np.zeros(3, [("é", "f4")])}), r"leaf 'params/linear/w' has fields"),
    "twice in a zip": (twice_in_zip, r"two leaves are called 'params/linear/w'"),
    "npz cut": (cut(npz()), r"old\.npz: reading as npz failed with BadZipFile"),
    "npz with one bit flipped": (flipped, r"BadZipFile: Bad CRC-32 for file 'params/linear/w\.npy'"),
    "npz that grows": (bomb, r"leaf 'params/linear/w' is float32\[1000000, 1000000\], haiku has"),
    "npz whose header grows": (header_bomb, r"reading leaf 'params/linear/w' failed with ValueError: EOF"),
    "npz that is a pickle": (written(pickle.dumps(Calls(os.system, "touch evil"))), r"failed with BadZipFile"),
    "one array of numpy": (written(b"\x93NUMPY\x01\x00", "old.npy"), r"old\.npy: it is one array of numpy\. Give npz"),
    "HDF5": (written(b"\x89HDF\r\n\x1a\n", "old.h5"), r"old\.h5: it is HDF5\. Give npz"),
    "gzip": (written(b"\x1f\x8b\x08\x00\x00", "old.pkl"), r"old\.pkl: it is compressed with gzip"),
    "a zip of something else": (
        lambda folder: zipfile.ZipFile(folder / "old.npz", "w").writestr("word.xml", "<xml/>") or folder / "old.npz",
        r"reading leaf 'word.xml' failed with ValueError",
    ),
    "safetensors cut": (cut(safetensors, 0.9), r"old\.safetensors: reading as safetensors failed"),
    "safetensors with a long header": (long_header, r"reading as safetensors failed"),
    "safetensors with shared bytes": (with_header(moved_offsets), r"reading as safetensors failed"),
    "safetensors with a name twice": (with_header(named_twice), r"two leaves are called 'params/linear/w'"),
    "safetensors with a shape that overflows": (with_header(of_another_shape), r"reading as safetensors failed"),
    "safetensors with a false dtype": (with_header(of_another_dtype), r"reading as safetensors failed"),
    "safetensors with a way out": (with_header(named_out), r"1 leaf too many for haiku, first '\.\./\.\./evil'"),
    "safetensors without a header": (written(struct.pack("<Q", 2) + b"{}", "old.safetensors"), r"none of its 0 leaves"),
    "msgpack cut": (cut(packed()), r"old\.msgpack: the file is truncated at byte \d+"),
    "msgpack that goes on": (packed(more=b"\x01"), r"extra data after the end, at byte \d+ of \d+"),
    "msgpack with another extension": (
        packed(data=msgpack.packb({"w": msgpack.ExtType(42, b"12345678")})),
        r"an extension of type 42, which is no array",
    ),
    "msgpack with a false shape": (packed(data=array_of((10**6, 4), bytes(16))), r"declared as float32\[1000000, 4\]"),
    "msgpack with an array of nothing": (packed(data=b"\x81\xa1w\xc7\x00\x01"), r"reading as msgpack failed with"),
    "msgpack with a leaf longer than the file": (
        packed(data=b"\x81\xa1w\xc9\xff\xff\xff\xff\x01\x93"),
        r"the file is truncated at byte 10, inside a leaf",
    ),
    "msgpack with a text of four gigabytes": (
        packed(data=b"\x81\xa1w\xdb\xff\xff\xff\xffabc"),
        r"reading as msgpack failed with OutOfData",
    ),
    "msgpack of very many entries": (
        packed(data=b"\xdd\x00\x10\x00\x00" + b"\xc0" * 2**20),
        r"more than 400000 entries",
    ),
    "msgpack with a name twice": (packed(data=b"\x82\xa1w\x01\xa1w\x02"), r"two leaves are called 'w' in one map"),
    "msgpack, deep": (packed(data=deep()), r"nested more than 64 deep"),
    "msgpack with endless entries": (
        packed(data=b"\xdf\xff\xff\xff\xff\xa1w\x01"),
        r"the file is truncated at byte 8",
    ),
    "msgpack with a word": (packed(with_text), r"leaf 'params/linear/w' is 'a word', which is no array"),
    "pickle that runs a command": (
        pickled(Calls(os.system, "touch evil")),
        r"it refers to posix\.system, which is no",
    ),
    "pickle that evaluates": (pickled(Calls(eval, "1")), r"it refers to builtins\.eval"),
    "pickle that reads a file": (pickled(Calls(open, "/etc/passwd")), r"it refers to (_?io)\.open"),
    "pickle of a function of optax": (pickled(Calls(optax.sgd, 0.1)), r"it refers to optax\._src\.alias\.sgd"),
    "pickle with a dotted name": (
        pickled(stack_global("optax._src.base", "EmptyState.__init__")),
        r"it refers to optax\._src\.base\.EmptyState\.__init__",
    ),
    "pickle that changes optax": (pickled(changing("optax._src.base", "EmptyState")), r"it changes EmptyState"),
    "pickle that changes a dtype": (pickled(changing("ml_dtypes", "bfloat16")), r"reading as pickle failed with Attr"),
    "pickle that changes the reader": (pickled(changing("numpy._core.multiarray", "scalar")), r"it changes _Scalar"),
    "pickle of an encoding": (pickled(Calls(codecs.encode, "a", "utf-7")), r"bytes as 'utf-7'"),
    "pickle of itself": (pickled(b"\x80\x04]\x94h\x00a."), r"nested more than 64 deep"),
    "pickle of bytes without end": (
        pickled(b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fabc"),
        r"reading as pickle failed with",
    ),
    "pickle of a module's own import": (pickled(stack_global("optax._src.base", "jax")), r"it refers to optax"),
    "pickle of objects": (pickled({"w": np.array([{}, []], object)}), r"reading as pickle failed"),
    "pickle of an empty array that is huge": (
        pickled(
            b"\x80\x04\x8c\x16numpy._core.multiarray\x8c\x0c_reconstruct\x93\x8c\x05numpy\x8c\x07ndarray\x93J\x00\x00\x00\x7f\x85\x8c\x01b\x87R."
        ),
        r"leaf '' is _Array, which is no array",
    ),
    "pickle of very many leaves": (pickled(laughs()), r"more than 200000 leaves"),
    "pickle cut": (cut(pickled(good())), r"old\.pkl: reading as pickle failed with"),
    "pickle that goes on": (pickled(pickle.dumps(good()) * 2), r"extra data after the end"),
    "orbax without its description": (
        orbax(lambda at: (at / "_METADATA").unlink()),
        r"old: expected one checkpoint of orbax",
    ),
    "orbax with half its description": (
        orbax(lambda at: (at / "_METADATA").write_text((at / "_METADATA").read_text()[:300])),
        r"old: orbax cannot read its metadata",
    ),
    "orbax without its leaves": (orbax(without_data), r"old: reading as orbax failed with ValueError: NOT_FOUND"),
    "orbax with half its data": (orbax(half_the_data), r"old: reading as orbax failed"),
    "orbax with chunks as large as memory": (
        orbax(huge_chunks),
        r"old: array 'params\.linear\.w' of shape \[3, 7\] is in chunks of \[1048576, 1048576\]",
    ),
    "orbax with a link out of it": (orbax(link_out), r"old: passwd is a link to a file outside of it"),
    "orbax with two items": (orbax(two_items), r"old: expected one checkpoint of orbax in it, found default, other"),
    "a manifest that is no manifest": (with_manifest(b'{"equiv": 1}'), r"old\.npz\.manifest\.json: not the manifest"),
    "a manifest that is cut": (with_manifest(b'{"equiv": "0'), r"manifest\.json: not the manifest.*: Input data was"),
    "a manifest that is a pipe": (
        with_manifest(None),
        r"manifest\.json: not the manifest of a conversion: it is no file",
    ),
    "a link to nowhere": (link_to_nowhere, r"old\.npz: cannot be opened: No such file"),
    "nothing there": (lambda folder: folder / "old.npz", r"old\.npz: cannot be opened: No such file"),
    "empty file": (written(b""), r"old\.npz: it is empty"),
    "text": (written(b"once upon a time", "old.txt"), r"old\.txt: "),
    "pipe": (fifo, r"old\.npz: neither a file nor a folder"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_checkpoint_is_a_clear_error_and_writes_nothing(what, tmp_path, monkeypatch) -> None:
    """The message has the file and, if there is one, the leaf; the folder is as before."""
    make, message = BAD[what]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    file = make(tmp_path / "in")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match=message) as raised:
        h.take_over(file, NAME, "linen", tmp_path / "out" / "new.npz", OPTIMIZER, origin="haiku", allow_pickle=True)
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_pickle_is_not_read_unless_that_is_said(tmp_path) -> None:
    """Not even a good one."""
    file = pickled(good())(tmp_path)
    with pytest.raises(CheckpointError, match=r"old\.pkl: it is a pickle, which can run code\. Pass --allow-pickle"):
        h.take_over(file, NAME, "linen", tmp_path / "new.npz", OPTIMIZER)
    h.take_over(file, NAME, "linen", tmp_path / "new.npz", OPTIMIZER, allow_pickle=True)


def test_an_optimizer_that_the_case_lacks_is_reported_missing(tmp_path) -> None:
    """The case as it is in its file trains with plain gradients."""
    with pytest.raises(
        CheckpointError, match=r"opt_state/0/count'.*Give the case the optimizer that it was trained with"
    ):
        h.take_over(npz()(tmp_path), NAME, "linen", tmp_path / "new.npz", origin="haiku")
    assert h.take_over(npz()(tmp_path), NAME, "linen", tmp_path / "new.npz", origin="haiku", drop=("opt_state",))


def test_nan_is_taken_over_where_that_is_said(tmp_path) -> None:
    """Bit for bit."""
    file = changed(nan)(tmp_path)
    h.take_over(file, NAME, "linen", tmp_path / "new.npz", OPTIMIZER, nonfinite=True)
    with np.load(tmp_path / "new.npz") as found:
        assert np.isnan(found["params/kernel"][1, 2])


def test_extras_are_left_out_on_request_and_in_the_manifest(tmp_path) -> None:
    """By the beginning of its path."""
    manifest = h.take_over(with_two_trees(tmp_path), NAME, "linen", tmp_path / "new.npz", OPTIMIZER, drop=("ema",))
    assert "ema/linear/b is left out (--drop)" in manifest.notes


@pytest.mark.parametrize("what", ["a file", "a folder", "a link to nowhere", "a manifest"])
def test_what_is_there_is_never_overwritten(what, tmp_path) -> None:
    """Not even through a link."""
    out = tmp_path / "new.npz"
    if what == "a file":
        out.write_text("mine")
    elif what == "a folder":
        out.mkdir()
    elif what == "a link to nowhere":
        out.symlink_to(tmp_path / "nowhere")
    else:
        out.with_name("new.npz.manifest.json").write_text("mine")
    file = npz()(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"the file exists, and nothing is overwritten\. Give another path with -o"
    ):
        h.take_over(file, NAME, "linen", out, OPTIMIZER)
    assert not (tmp_path / "nowhere").exists()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_is_not_there_is_not_made(tmp_path) -> None:
    """A typing mistake would hide the checkpoint."""
    with pytest.raises(CheckpointError, match=r"the folder .*no does not exist\. Create it first"):
        h.take_over(npz()(tmp_path), NAME, "linen", tmp_path / "no" / "new.npz", OPTIMIZER)


def test_nothing_is_written_into_the_old_checkpoint(tmp_path) -> None:
    """It would be part of it from then on."""
    old = h.save(tmp_path / "old", "haiku", h.trained(NAME, "haiku", OPTIMIZER))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        CheckpointError, match=r"new\.npz: the path is inside of the old checkpoint, .*old\. Give another path"
    ):
        h.take_over(old, NAME, "linen", old / "new.npz", OPTIMIZER)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_that_is_too_long_is_an_error(tmp_path) -> None:
    """The file's own, or its manifest's."""
    file = npz()(tmp_path)
    for length in (251, 300):
        with pytest.raises(CheckpointError, match=r"n+\.npz: .*: File name too long"):
            h.take_over(file, NAME, "linen", tmp_path / f"{'n' * (length - 4)}.npz", OPTIMIZER)
    assert [file.name for file in tmp_path.iterdir()] == ["old.npz"]


@pytest.mark.parametrize("name", ["manifest.json", "leaves"])
def test_a_checkpoint_may_be_called_as_anything(name, tmp_path) -> None:
    """Nothing else in the temporary place is called like it."""
    manifest = h.take_over(npz()(tmp_path), NAME, "linen", tmp_path / name, OPTIMIZER, format="orbax", verify=True)
    assert manifest.verified.startswith("same: ")


def test_what_is_to_be_dropped_has_to_be_there(tmp_path) -> None:
    """A typing mistake would otherwise go unseen."""
    with pytest.raises(
        CheckpointError, match=r"old\.npz: --drop optstate: no leaf has that in its path; the first leaf is"
    ):
        h.take_over(npz()(tmp_path), NAME, "linen", tmp_path / "new.npz", OPTIMIZER, drop=("optstate",))


def test_an_interrupted_conversion_leaves_nothing(tmp_path) -> None:
    """As when a user stops it in the middle of a leaf."""
    from equiv.conversion.convert import ConversionRequest, convert_checkpoint
    from equiv.core.case_files import LoadedCase

    def stop(size: int) -> None:
        raise KeyboardInterrupt

    request = ConversionRequest(
        npz()(tmp_path), LoadedCase(NAME, "", h.case_of(NAME, OPTIMIZER)), "linen", tmp_path / "new"
    )
    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(request, begin=lambda _: stop)
    assert [file.name for file in tmp_path.iterdir()] == ["old.npz"]


FULL = """
import resource, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import convert_helpers as h
from equiv.conversion.formats.checkpoint import CheckpointError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
for name in ("new.npz", "new.msgpack", "new.safetensors"):
    try:
        h.take_over(Path("old.npz"), {name!r}, "linen", Path(name), {optimizer!r})
    except CheckpointError as error:
        print(error)
"""


def test_a_disk_that_is_full_in_the_middle_leaves_nothing(tmp_path) -> None:
    """A process that may write no file beyond 400 bytes, which the system refuses as it refuses on a full disk."""
    npz()(tmp_path)
    script = FULL.format(tests=str(Path(__file__).parents[1]), name=NAME, optimizer=OPTIMIZER)
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.count("failed: File too large") == 3, ran.stdout + ran.stderr
    assert ran.stdout.startswith("new.npz: writing npz failed")
    assert [file.name for file in tmp_path.iterdir()] == ["old.npz"]
