"""Which files become items, in which folders, and what a run without cases never loads."""

import pytest
from plugin_project import CASE, python_in, write_case

from equiv.core.checks import CHECK_NAMES

pytest_plugins = ["pytester"]

NAMES = [f"same-nnx-{check}" for check in CHECK_NAMES]


@pytest.fixture
def collected(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """The names that pytest collects."""
    for name in ("CI", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)

    def collect(*arguments: str) -> list[str]:
        done = pytester.runpytest_inprocess("--collect-only", "-q", "-p", "no:cacheprovider", *arguments)
        assert done.ret in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED), done.outlines
        return [line.rpartition("::")[2] for line in done.outlines if "::" in line]

    return collect


def test_a_case_is_one_item_for_every_candidate_and_check(pytester, collected):
    write_case(pytester.path / "cases" / "same.py")
    assert collected() == NAMES
    assert collected("cases") == NAMES
    assert collected("cases/same.py") == NAMES
    assert collected("cases/same.py::same-nnx-state") == ["same-nnx-state"]


def test_every_candidate_has_its_items(pytester, collected):
    path = write_case(pytester.path / "cases" / "three.py")
    path.write_text(CASE.replace('"nnx": nnx}', '"nnx": nnx, "haiku": linen}'))
    assert collected("-k", "structure") == ["three-nnx-structure", "three-haiku-structure"]


def test_items_are_chosen_by_word_and_by_mark(pytester, collected):
    write_case(pytester.path / "cases" / "same.py")
    pytester.makepyfile(test_own="def test_own(): pass\ndef test_ours(equiv): pass\n")
    assert collected("-k", "same and not state") == [name for name in NAMES if not name.endswith("state")]
    assert collected("-k", "same-nnx") == NAMES
    assert collected("-m", "equiv") == [*NAMES, "test_ours"]
    assert collected("-m", "not equiv") == ["test_own"]


def test_names_are_plain_ascii_that_files_and_addresses_can_have(pytester, collected):
    write_case(pytester.path / "cases" / "deep" / "er" / "same.py")
    names = collected()
    assert names == NAMES
    assert all(name.isascii() and name.replace("-", "").replace("_", "").isalnum() for name in names)


def test_only_files_with_a_case_are_collected_and_imported(pytester, collected):
    write_case(pytester.path / "cases" / "same.py")
    for name in ("neighbour", "_private", "conftest_", "mentions"):
        (pytester.path / "cases" / f"{name}.py").write_text("'CASE'\ndef f():\n    CASE = 1\nraise RuntimeError\n")
    write_case(pytester.path / "cases" / "_hidden.py")
    assert collected() == NAMES


@pytest.mark.parametrize(
    "source",
    [
        "from same import *\n",
        "from same import CASE\n",
        "CASE: object = 1\n",
        "if True:\n    CASE = None\n",
        "x = (CASE := 1)",
    ],
)
def test_a_file_that_may_hold_a_case_is_not_skipped(pytester, collected, source):
    write_case(pytester.path / "cases" / "same.py")
    (pytester.path / "cases" / "other.py").write_text(source)
    assert any(name.startswith("other-") for name in collected())


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("CASE = = 1\n", "importing it raised SyntaxError"),
        ("CASE = 1\n", "has a CASE that is 1. End the file with CASE = Case"),
        (
            "import nonexistent_library\nCASE = 1\n",
            "importing it raised ModuleNotFoundError: No module named 'nonexist",
        ),
    ],
)
def test_a_file_that_cannot_be_loaded_is_an_error(pytester, source, said):
    """The others run."""
    (pytester.path / "cases").mkdir()
    (pytester.path / "cases" / "bad.py").write_text(source)
    pytester.makepyfile(test_own="def test_own(): pass\n")
    done = pytester.runpytest_inprocess("-rE")
    done.assert_outcomes(passed=1, errors=1)
    done.stdout.fnmatch_lines([f"*equiv.NotCompared: {said[:20]}*"])
    assert said in done.stdout.str()


def test_a_folder_is_configured_and_no_other_is_looked_at(pytester, collected):
    write_case(pytester.path / "ports" / "same.py")
    write_case(pytester.path / "cases" / "unseen.py")
    pytester.makeini("[pytest]\nequiv_cases = ports\n")
    assert collected() == NAMES


def test_a_configured_folder_that_is_missing_is_a_usage_error(pytester):
    pytester.makeini("[pytest]\nequiv_cases = prots\n")
    done = pytester.runpytest_inprocess()
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: equiv_cases: *prots: no such folder. Fix equiv_cases in *tox.ini."])


def test_a_case_named_like_a_library_does_not_hide_it(tmp_path):
    """Asked for by name, pytest itself would import it, with its folder first on `sys.path`."""
    write_case(tmp_path / "cases" / "wave.py")
    code = (
        "import pytest\npytest.main(['cases/wave.py', '--collect-only'])\nimport wave\nprint(wave.Wave_read.__name__)"
    )
    done = python_in(tmp_path, "-c", code)
    assert "<CheckItem wave-nnx-structure>" in done.stdout
    assert done.stdout.endswith("\nWave_read\n")


def test_tests_beside_a_case_are_kept(pytester, collected):
    write_case(pytester.path / "cases" / "same.py").write_text(CASE + "\n\ndef test_beside(): pass\n")
    assert collected("cases/same.py") == ["test_beside", *NAMES]


def test_options_and_the_mark_are_registered(pytester):
    helped = pytester.runpytest_inprocess("--help").stdout.str()
    for option in (
        "--equiv-json=PATH",
        "--equiv-html=PATH",
        "--equiv-require=PLATFORM",
        "equiv_cases",
        "equiv_require",
    ):
        assert option in helped
    write_case(pytester.path / "cases" / "same.py")
    done = pytester.runpytest_inprocess("--strict-markers", "--strict-config", "-W", "error", "--collect-only")
    assert done.ret == pytest.ExitCode.OK
    pytester.runpytest_inprocess("--markers").stdout.fnmatch_lines(["@pytest.mark.equiv(require=None, checks=None)*"])


def test_results_that_cannot_be_written_change_the_exit_status(pytester):
    pytester.makepyfile(test_own="def test_own(): pass\n", taken="")
    done = pytester.runpytest_inprocess("--equiv-json=taken.py/results.json")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stdout.fnmatch_lines(["equiv: *results.json: cannot be written: * Give another --equiv-json."])


def test_results_without_cases_say_that_nothing_was_run(pytester):
    pytester.makepyfile(test_own="def test_own(): pass\n")
    done = pytester.runpytest_inprocess("--equiv-json=results.json")
    assert done.ret == pytest.ExitCode.OK
    done.stdout.fnmatch_lines(["? Inconclusive: no case was run.*", "results: results.json"])


LOADED = """
import sys, pytest
code = pytest.main(sys.argv[1:])
ours = ("equiv", "jax", "flax", "msgspec", "rich", "click")
print("loaded:", *sorted(name for name in sys.modules if name.partition(".")[0] in ours))
sys.exit(code)
"""


@pytest.mark.parametrize("cases", [False, True])
def test_an_ordinary_run_loads_the_stub_and_nothing_else(tmp_path, cases):
    """Also where there are cases that this run does not collect."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_own.py").write_text("def test_own(): pass\n")
    if cases:
        write_case(tmp_path / "cases" / "same.py")
    done = python_in(tmp_path, "-c", LOADED, "tests")
    assert done.returncode == 0, done.stdout
    plugin = "equiv.frontends.pytest_plugin"
    assert f"loaded: equiv equiv.frontends {plugin} {plugin}.hooks\n" in done.stdout
    assert "equiv:" not in done.stdout
    assert "= equiv =" not in done.stdout


def test_collecting_cases_loads_no_jax(tmp_path):
    write_case(tmp_path / "cases" / "same.py")
    done = python_in(tmp_path, "-c", LOADED, "cases", "--collect-only")
    loaded = done.stdout.rpartition("loaded: ")[2].split()
    assert "equiv.core.case_files" in loaded
    assert not {"jax", "flax"} & set(loaded)
