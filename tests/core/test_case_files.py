"""Case files: found by their place, chosen by name, and each one that cannot be used says why."""

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equiv.core.case_files import CaseFile, find_case_files, load_case, matches_expression
from equiv.errors import CaseError, EquivError

GOOD = '''"""The lesson in one line.

And more about it.
"""
from equiv.case import Case

CASE = Case(guide="here", models={"haiku": print, "nnx": print}, batch={"x": "float32[2]"}, layers=())
'''


@pytest.fixture(autouse=True)
def _own_imports(monkeypatch):
    """Loading a case puts its folder and module where Python finds them."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [name for name in sys.modules if name.startswith(("equiv_case_", "_shared_by_cases"))]:
        del sys.modules[name]


def folder_of(path, *names, source=GOOD):
    for name in names:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    return path


def names_of(*paths, expression=""):
    return [file.name for file in find_case_files(paths, expression)]


def test_cases_of_a_folder_are_found_in_order_of_name(tmp_path):
    """With their place below the folder."""
    folder = folder_of(tmp_path, "rnn.py", "mlp.py", "vision/conv.py", "notes.txt")
    assert names_of(folder) == ["mlp", "rnn", "vision/conv"]
    assert find_case_files((folder,))[0].path == folder / "mlp.py"


def test_files_that_are_private_or_tests_are_left_out(tmp_path):
    folder = folder_of(tmp_path, "mlp.py", "_shared.py", "__init__.py", "test_mlp.py", "conftest.py", ".venv/lib.py")
    assert names_of(folder) == ["mlp"]


def test_a_folder_run_on_request_is_found_by_name_only(tmp_path):
    """Else the first run of everybody would run every single layer too."""
    folder = folder_of(tmp_path, "mlp.py", "layers/conv.py", "layers/deep/norm.py", "more/rnn.py")
    (folder / "layers" / ".on-request").touch()
    assert names_of(folder) == ["mlp", "more/rnn"]
    assert names_of(folder / "layers") == ["conv", "deep/norm"]
    assert names_of(folder / "layers" / "conv.py") == ["conv"]
    assert names_of(folder, folder / "layers", expression="conv or rnn") == ["more/rnn", "conv"]


def test_layers_and_models_of_this_project_are_run_on_request():
    """The guides' cases are what `equiv run` runs."""
    cases = Path(__file__).parents[2] / "cases"
    assert not any("/" in name for name in names_of(cases))
    assert "rnn_lstm" in names_of(cases / "layers")
    assert "gpt" in names_of(cases / "models")


def test_a_file_is_found_whatever_its_name(tmp_path):
    folder = folder_of(tmp_path, "_draft.py", "mlp.py")
    assert names_of(folder / "_draft.py", folder / "mlp.py") == ["_draft", "mlp"]


def test_a_path_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(EquivError, match=r"nowhere: no such file or folder\. Give a case file, or a folder of them"):
        find_case_files((tmp_path / "nowhere",))


@pytest.mark.parametrize("name", ["notes.txt", "_shared.py"], ids=["no-python", "private-only"])
def test_a_folder_without_cases_is_an_error(tmp_path, name):
    folder = folder_of(tmp_path, name)
    with pytest.raises(
        EquivError, match=r": no case files \(\*\.py\) in this folder\. Give a folder or file with a CASE"
    ):
        find_case_files((folder,))


def test_an_expression_chooses_by_name(tmp_path):
    folder = folder_of(tmp_path, "dropout.py", "rnn_dropout.py", "rnn.py")
    assert names_of(folder, expression="dropout and not rnn") == ["dropout"]
    assert names_of(folder, expression="lstm") == []


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("", True),
        ("  ", True),
        ("rnn", True),
        ("scan", True),
        ("lstm", False),
        ("not lstm", True),
        ("not rnn", False),
        ("rnn and scan", True),
        ("rnn and lstm", False),
        ("rnn or lstm", True),
        ("not (rnn or lstm)", False),
        ("not(lstm)and(rnn)", True),
        ("lstm and rnn or scan", True),
        ("lstm and (rnn or scan)", False),
        ("not not rnn", True),
        ("rnn_scan-over.layers", False),
    ],
    ids=lambda value: str(value).replace(" ", "_") or "empty" if isinstance(value, str) else "",
)
def test_a_word_holds_for_the_names_that_contain_it(expression, wanted):
    assert matches_expression(expression, "rnn_scan") is wanted


@pytest.mark.parametrize(
    "expression", ["not", "rnn scan", "rnn and", "or rnn", "(rnn", "rnn)", "()", "rnn (scan)", "(rnn)(scan)", "rnn not"]
)
def test_an_unreadable_expression_shows_how_to_write_it(expression):
    with pytest.raises(
        EquivError, match=r"-k '.*': cannot be parsed\. Write words with and, or, not: \"dropout or rnn\""
    ):
        matches_expression(expression, "rnn_scan")


WORDS = st.sampled_from(["rnn", "scan", "lstm", "__import__", "0", "True", "None", "x.y", "a,b", "[1]", "lambda:0"])


@settings(deadline=None, max_examples=100)
@given(WORDS, WORDS, st.text("rnscalmt_", max_size=8))
def test_expressions_follow_the_laws_of_logic_and_run_nothing(one, other, name):
    """Whatever the words are, they are only looked for in the name."""
    first, second = one in name, other in name
    assert matches_expression(one, name) is first
    assert matches_expression(f"{one} and {other}", name) is (first and second)
    assert matches_expression(f"{one} or {other}", name) is (first or second)
    assert matches_expression(f"not ({one} or {other})", name) is matches_expression(f"not {one} and not {other}", name)


def load_source(path, source, name="case.py"):
    folder_of(path, name, source=source)
    return load_case(CaseFile("case", path / name))


def test_a_case_is_loaded_with_its_name_and_its_lesson(tmp_path):
    loaded = load_source(tmp_path, GOOD)
    assert (loaded.name, loaded.lesson, loaded.case.guide) == ("case", "The lesson in one line.", "here")


def test_a_case_without_a_docstring_has_no_lesson(tmp_path):
    assert load_source(tmp_path, GOOD.partition('"""\nfrom')[2].join(("from", ""))).lesson == ""


def test_a_case_may_import_its_neighbour(tmp_path):
    folder_of(tmp_path, "_shared_by_cases.py", source="BATCH = {'x': 'float32[7]'}\n")
    source = GOOD.replace('{"x": "float32[2]"}', "BATCH").replace(
        "\nCASE", "\nfrom _shared_by_cases import BATCH\nCASE"
    )
    assert load_source(tmp_path, source).case.batch == {"x": "float32[7]"}


def test_two_cases_of_one_name_are_both_kept(tmp_path):
    """From two folders."""
    folder_of(tmp_path, "a/mlp.py", source=GOOD)
    folder_of(tmp_path, "b/mlp.py", source=GOOD.replace('"here"', '"there"'))
    assert [load_case(file).case.guide for file in find_case_files((tmp_path,))] == ["here", "there"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", r"has no CASE\. End the file with CASE = Case\(\.\.\.\)"),
        ("CASE = 3", r"has a CASE that is 3\. End the file with CASE = Case"),
        ("CASE = dict(guide='x' * 99)", r"has a CASE that is a dict\. End the file"),
        (
            "import no_such_library",
            r"importing it raised ModuleNotFoundError: No module named 'no_such_library'\. no_such_library is looked "
            r"for beside case\.py and among installed packages: install it, move it there, or set PYTHONPATH=FOLDER\. ",
        ),
        ("1 / 0", r"importing it raised ZeroDivisionError: division by zero\. Fix .*case\.py:1"),
        ("\ndef broken(:", r"importing it raised SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(3)", r"importing it raised SystemExit: 3\. Fix .*case\.py:2"),
        (GOOD.replace('"haiku": print, ', ""), r"the case has 1 model\. Give it two: a reference and a candidate"),
        (GOOD.replace('{"haiku": print, "nnx": print}', "{}"), r"the case has 0 model\. Give it two"),
        (GOOD.replace('"nnx": print', '"nnx": 3'), r"the case's models is \{.*\}, wanted names of ports to builders"),
        (GOOD.replace("layers=()", "layers=3"), r"the case's layers is 3, wanted a tuple of rows: .* Fix layers"),
        (GOOD.replace('"float32[2]"', "(2,)"), r"the case's batch is \{'x': \(2,\)\}, wanted names to text"),
        (
            GOOD.replace("layers=()", 'layers=(), methods={"encode": ("x")}'),
            r"the case's methods is \{'encode': 'x'\}, wanted calls: .* or method names to tuples.*with the comma",
        ),
        (GOOD.replace("layers=()", "layers=(), steps=0"), r"the case's steps is 0, wanted a whole number from 1 on"),
        (GOOD.replace("layers=()", "layers=(), steps=True"), r"the case's steps is True, wanted a whole number"),
    ],
    ids=[
        *("no-case", "number", "dict", "import", "raises", "syntax", "exits", "one-model", "no-model", "no-builder"),
        *("layers", "batch", "no-comma", "no-steps", "true-steps"),
    ],
)
def test_an_unusable_file_says_which_why_and_what_to_fix(tmp_path, source, message):
    with pytest.raises(CaseError, match=rf"case\.py: {message}"):
        load_source(tmp_path, source)


def test_a_file_that_is_no_python_is_an_error(tmp_path):
    with pytest.raises(CaseError, match=r"case\.txt: not a Python file\. Give a \.py file with a CASE"):
        load_source(tmp_path, GOOD, "case.txt")
