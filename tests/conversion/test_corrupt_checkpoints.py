"""Corrupt and hostile checkpoints: each is a clear error with file and leaf, and nothing is written anywhere."""

import convert_helpers as h
import pytest
from conversion.good_checkpoint import NAME, OPTIMIZER
from data_modules import modules_of

from equiv.conversion.formats.checkpoint import CheckpointError

BAD = [pytest.param(*bad, id=what) for module in modules_of("conversion.corrupt") for what, bad in module.BAD.items()]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_a_bad_checkpoint_is_a_clear_error_and_writes_nothing(make, message, tmp_path, monkeypatch) -> None:
    """The message has the file and, if there is one, the leaf; the folder is as before."""
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
