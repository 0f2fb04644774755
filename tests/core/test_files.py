"""Files are written as a whole or not at all."""

import resource

import pytest

from equiv.core.files import write_file
from equiv.errors import EquivError


@pytest.fixture
def full_disk():
    """A process that can write no more than 100 bytes to a file."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_old_contents_survive_a_full_disk(tmp_path, full_disk):
    path = tmp_path / "results.json"
    write_file(path, b"old", "Fix.")
    with pytest.raises(EquivError, match=r"results\.json: cannot be written: File too large\. Fix\."):
        write_file(path, b"x" * 1000, "Fix.")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    link = tmp_path / "results.json"
    link.symlink_to(tmp_path / "there" / "results.json")
    write_file(link, b"new", "Fix.")
    assert link.is_symlink()
    assert (tmp_path / "there" / "results.json").read_bytes() == b"new"


def test_a_device_is_written_and_not_replaced(tmp_path):
    with pytest.raises(EquivError, match="/dev/full: cannot be written: No space left on device"):
        write_file(tmp_path.joinpath("/dev/full"), b"new", "Fix.")


def test_permissions_stay(tmp_path):
    path = tmp_path / "results.json"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write_file(path, b"new", "Fix.")
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["zero\0byte", "x" * 300], ids=["zero", "long"])
def test_a_name_that_no_file_can_have_is_an_error(tmp_path, name):
    with pytest.raises(EquivError, match="cannot be written"):
        write_file(tmp_path / name, b"new", "Fix.")
