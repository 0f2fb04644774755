"""Errors carry what they say: problem, fix, port and leaf are attributes, also in another process."""

import pickle

import pytest
from helpers import patched

from equiv.backends.build import call_user_code
from equiv.comparison.stages import open_case
from equiv.conversion.formats.checkpoint import CheckpointError, TemplateMismatch, naming_checkpoint
from equiv.conversion.verify import ConversionMismatch
from equiv.core.batch_spec import parse_batch
from equiv.errors import CaseError, EquivError, NotRun, PortError


def test_the_message_is_the_problem_and_its_fix():
    error = CaseError("linen: it fails.", fix="Mend it.", port="linen", leaf="a/b")
    assert str(error) == "linen: it fails. Mend it."
    assert (error.problem, error.fix, error.port, error.leaf) == ("linen: it fails.", "Mend it.", "linen", "a/b")
    assert str(EquivError("it fails.")) == "it fails."


@pytest.mark.parametrize(
    "error",
    [
        PortError("old: it fails.", fix="Mend it.", port="old"),
        NotRun("old: it is missing.", port="old"),
        TemplateMismatch("file: other leaves.", 3, fix="Give another.", leaf="a"),
        ConversionMismatch("file: it differs.", "different"),
    ],
)
def test_an_error_is_the_same_in_another_process(error):
    """pytest-xdist sends errors from its workers."""
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_an_error_of_a_builder_names_its_port_and_fix():
    with pytest.raises(PortError, match="old: tracing raised ValueError: planted") as caught:
        call_user_code("old", "tracing", lambda: (_ for _ in ()).throw(ValueError("planted")))
    assert caught.value.port == "old"
    assert caught.value.fix.startswith("Fix ")


def test_an_error_of_a_batch_entry_has_its_fix():
    with pytest.raises(CaseError, match="cannot parse") as caught:
        parse_batch({"x": "float32"})
    assert caught.value.fix == 'Write "float32[8,784]" or "int32[8]:10".'


def test_an_error_of_a_reference_names_its_port():
    case = patched("counter", ("def haiku():", "def haiku():\n    raise OSError('no')"))
    with pytest.raises(CaseError, match="without it nothing can be compared") as caught:
        open_case(case)
    assert caught.value.port == "haiku"


def test_a_file_is_named_and_the_fix_stays(tmp_path):
    """The error of a reader gets the name of the file before it, once."""
    file = tmp_path / "params.npz"
    with pytest.raises(CheckpointError, match="a leaf is cut") as caught, naming_checkpoint(file, "reading"):
        raise CheckpointError("a leaf is cut.", fix="Save it again.", leaf="w")
    assert str(caught.value) == f"{file}: a leaf is cut. Save it again."
    assert (caught.value.fix, caught.value.leaf) == ("Save it again.", "w")
