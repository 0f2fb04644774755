"""What is printed obeys nobody else, and files are named by names."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equiv.core.printable import MAX_FILE_NAME, escape_json, file_name, printable

OBEYED = ["\x1b[2J", "\x9b2J", "\a", "\b", "\r", "\f", "\v", "\x00", "\x7f", "\u2028", "\u202e", "\u2066", "\ud800"]


@pytest.mark.parametrize("text", OBEYED, ids=ascii)
def test_what_a_terminal_obeys_is_not_printed(text):
    assert text[0] not in printable(f"a{text}b")


def test_lines_and_other_languages_stay():
    assert printable("läyer\t模型\n✓") == "läyer\t模型\n✓"


@given(st.text())
def test_json_without_controls_means_the_same(text):
    encoded = escape_json(json.dumps([text], ensure_ascii=False).encode())
    assert json.loads(encoded) == [text]
    assert printable(encoded.decode()) == encoded.decode()


@given(st.text(), st.text())
def test_other_texts_have_other_file_names(one, other):
    names = [file_name(text) for text in (one, other)]
    assert (names[0] == names[1]) == (one == other)
    for name in names:
        assert 0 < len(name.encode()) <= MAX_FILE_NAME
        assert "/" not in name
        assert not name.startswith(".")
        assert printable(name) == name


def test_a_plain_name_stays():
    assert file_name("batch_norm-nnx") == "batch_norm-nnx"
