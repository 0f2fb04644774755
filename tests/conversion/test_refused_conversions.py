"""What a conversion does only when asked, never overwrites, and leaves behind when it is stopped: nothing."""

import subprocess
import sys
from pathlib import Path

import convert_helpers as h
import numpy as np
import pytest
from conversion.corrupt.pickle_files import pickled
from conversion.good_checkpoint import NAME, OPTIMIZER, changed, good, nan, npz, with_two_trees

from equiv.conversion.formats.checkpoint import CheckpointError


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
