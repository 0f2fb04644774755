"""Cases as pytest items: what is collected, how it ends, what is said and written."""

import json
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from plugin_project import CASE, outcomes, pytest_in, python_in, write_case

from equiv.core.checks import CHECK_NAMES, INVARIANCE
from equiv.core.results import RunResult
from equiv.core.results_json import read_results

pytest_plugins = ["pytester"]

ALL = ("same", "counted", "two", "different", "missing", "raising", "unlike", "unusable", "broken")
APPLY = ("structure", "outputs", "gradients", "train")
"""The checks that apply to the project's cases: nothing is drawn, nothing kept."""

DIFFERS = ("cases", "headline", "seconds", "started")
"""Where another run is another, even of the same cases."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a case of every kind, one of them in a folder below."""
    folder = tmp_path_factory.mktemp("project")
    for kind in ALL:
        write_case(folder / "cases" / ("below" if kind == "different" else "") / f"{kind}.py", kind)
    (folder / "cases" / "common.py").write_text("raise RuntimeError('a neighbour that holds no case is not imported')")
    (folder / "test_own.py").write_text("def test_own(): pass\n")
    return folder


@pytest.fixture(scope="module")
def ran(project: Path) -> subprocess.CompletedProcess[str]:
    """All of it, run once."""
    options = ("--equiv-json=out/results.json", "--equiv-html=out/page.html", "--junitxml=junit.xml")
    return pytest_in(project, "cases", "test_own.py", "-rA", *options)


@pytest.fixture(scope="module")
def stored(project: Path, ran: subprocess.CompletedProcess[str]) -> RunResult:
    """What that run has written."""
    return read_results(project / "out" / "results.json")


@pytest.fixture(scope="module")
def junit(project: Path, ran: subprocess.CompletedProcess[str]) -> dict[str, ElementTree.Element]:
    """The test cases in its JUnit file by name."""
    return {case.attrib["name"]: case for case in ElementTree.parse(project / "junit.xml").iter("testcase")}


@pytest.fixture(scope="module")
def summary(ran: subprocess.CompletedProcess[str]) -> list[str]:
    """Its short summary."""
    return ran.stdout.partition("short test summary info")[2].splitlines()


def section(output: str, name: str) -> str:
    """What is printed of one failing test."""
    return output.partition(f"_ {name} _")[2].partition("\n____")[0]


def test_an_item_ends_as_its_check_does(ran):
    ended = outcomes(ran.stdout)
    assert ran.returncode == pytest.ExitCode.TESTS_FAILED
    assert ended.pop("broken-load") == "ERROR"
    assert ended.pop("test_own") == "PASSED"
    by_case = {kind: {name: ended.get(f"{kind}-nnx-{name}") for name in CHECK_NAMES} for kind in ALL[:-1]}
    # Skipped; the last by the suite's settings.
    nothing = dict.fromkeys(("randomness", "state", "invariance", "sharding", "compiled"))
    assert by_case["same"] == by_case["counted"] == by_case["two"] == dict.fromkeys(APPLY, "PASSED") | nothing
    assert by_case["different"] == dict.fromkeys(APPLY, "FAILED") | {"structure": "PASSED"} | nothing
    asked = dict.fromkeys(CHECK_NAMES, "FAILED") | {INVARIANCE: None}  # which no case here declares
    assert by_case["missing"] == by_case["raising"] == by_case["unlike"] == asked
    assert by_case["unusable"] == dict.fromkeys(CHECK_NAMES, "FAILED")  # what it declares is not known


def test_a_check_that_does_not_apply_is_skipped_with_reason(ran):
    (line,) = [line for line in ran.stdout.splitlines() if line.startswith("SKIPPED")]
    assert line.startswith("SKIPPED [24] ")
    assert line.endswith(": does not apply")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("different-nnx-outputs", "equiv.Mismatch: call __call__: output: "),
        ("missing-nnx-structure", "equiv.NotCompared: not run: nnx: building the model needs nonexistent_library"),
        ("missing-nnx-train", "equiv.NotCompared: blocked: structure: nnx: building the model needs nonexistent"),
        ("raising-nnx-outputs", "equiv.NotCompared: blocked: structure: nnx: building the model raised Attribute"),
        ("raising-nnx-structure", "equiv.NotCompared: error: nnx: building the model raised AttributeError"),
        ("unlike-nnx-structure", "equiv.Mismatch: leaf dense/"),
        ("unlike-nnx-state", "equiv.NotCompared: blocked: leaf dense/"),
        ("unusable-nnx-state", "equiv.NotCompared: batch entry"),
        ("broken-load", "equiv.NotCompared: importing it raised SyntaxError"),
    ],
)
def test_a_failure_says_in_one_short_line_what_and_where(junit, name, message):
    (failure,) = [child for child in junit[name] if child.tag in ("failure", "error")]
    said = failure.attrib["message"].removeprefix("failed on setup with ").strip('"')
    assert said.startswith(message)
    assert "\n" not in said
    assert len(said.partition(": ")[2]) <= 100


def test_the_place_of_a_mismatch_comes_before_both_values(stored, junit):
    (case,) = [case for case in stored.cases if case.name == "below/different"]
    for check in case.checks:
        if check.grade == "refuted":
            said = junit[f"different-nnx-{check.check}"].find("failure").attrib["message"]
            place = said.removeprefix("equiv.Mismatch: ")
            (finding,) = [item for item in check.findings if place.startswith(f"{item.place}: ")]
            assert f"linen {finding.reference}, nnx {finding.candidate}" in said


def test_a_summary_line_is_one_line_of_the_terminal(summary):
    failed = [line for line in summary if line.startswith(("FAILED", "ERROR"))]
    assert len(failed) == 3 + 4 * (len(CHECK_NAMES) - 1) + len(CHECK_NAMES) + 1
    assert all(len(line) <= 80 for line in failed)


def test_the_table_is_a_section_of_the_failure_without_colour(ran):
    shown = section(ran.stdout, "different-nnx-gradients")
    assert "Captured equiv call" in shown
    assert "✗ different  below/different, nnx / linen" in shown
    assert "First finding: below/different-nnx, outputs, call __call__: output" in shown
    assert "\ngradients, gradient __call__: gradient dense/" in shown
    assert "x budget (float64 run" in shown
    assert "\x1b[" not in ran.stdout


def test_a_table_shows_one_candidate_or_the_whole_reason(ran):
    """The whole reason where the case itself could not be run."""
    shown = section(ran.stdout, "two-haiku-structure")
    assert "ZeroDivisionError" in shown
    assert "two-nnx" not in shown
    assert "Fix " in section(ran.stdout, "ERROR at setup of broken-load")


@pytest.mark.slow
def test_the_json_is_that_of_equiv_run(project, ran, stored):
    built = (project / "built.txt").read_text()
    again = python_in(project, "-m", "equiv", "run", "cases", "--json", "--reports", "reports")
    assert (project / "built.txt").read_text() == 2 * built, "six items are one judgement"
    theirs = {case["name"]: case for case in json.loads(again.stdout)["cases"]}
    run = json.loads((project / "out" / "results.json").read_text())
    assert {**run, **dict.fromkeys(DIFFERS)} == {**json.loads(again.stdout), **dict.fromkeys(DIFFERS)}
    ours = {case["name"]: case for case in run["cases"]}
    assert theirs.pop("common")["problem"]  # a file without a CASE is trouble there
    assert ours.keys() == theirs.keys()
    for name, case in ours.items():
        for one in (case, theirs[name]):
            del one["seconds"]
            one["problem"] = one["problem"].replace(f"{project}/", "")
            one["lesson"] = ""  # of a case that cannot be used, `equiv run` does not say it
        assert case == theirs[name]


def test_junit_has_verdict_grade_place_and_ratio_as_scalars(junit):
    def properties(name: str) -> dict[str, str]:
        return {item.attrib["name"]: item.attrib["value"] for item in junit[name].iter("property")}

    found = properties("different-nnx-outputs")
    assert list(found) == ["equiv.verdict", "equiv.grade", "equiv.place", "equiv.ratio"]
    assert found["equiv.verdict"] == "different"
    assert found["equiv.grade"] == "refuted"
    assert found["equiv.place"] == "call __call__: output"
    assert float(found["equiv.ratio"]) > 1
    assert properties("same-nnx-structure") | {"equiv.place": ""} == {
        "equiv.verdict": "same",
        "equiv.grade": "exact",
        "equiv.place": "",
    }
    assert properties("unusable-nnx-train") == {"equiv.verdict": "error"}


def test_the_environment_is_said_after_collection(ran):
    assert "\nequiv: cpu · jax " in ran.stdout.partition("\ncollected ")[2][:300]


def test_the_summary_has_the_verdict_first_and_the_results_path(ran, stored):
    lines = ran.stdout.partition("= equiv =")[2].splitlines()[1:5]
    assert lines[0] == f"! {stored.headline}"
    assert lines[1].startswith("cpu · jax ")
    assert lines[2:] == ["results: out/results.json", "report: out/page.html"]


def test_the_page_is_made_of_the_same_results(project, stored):
    page = (project / "out" / "page.html").read_text()
    assert page.startswith("<!")
    assert all(case.name in page for case in stored.cases)


def test_a_page_that_cannot_be_made_is_reported(project):
    """Without the library that makes pages."""
    (project / "conftest.py").write_text("import sys\nsys.modules['jinja2'] = None\n")
    done = pytest_in(project, "test_own.py", "--equiv-html=never.html", "--equiv-json=still.json")
    (project / "conftest.py").unlink()
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "1 passed" in done.stdout
    assert "results: still.json\nequiv: --equiv-html needs jinja2, which is not installed." in done.stdout


@pytest.mark.slow
def test_what_failed_is_rerun_by_lf_and_whole_in_ci(project, ran):
    """On CI the line of a failure is not cut."""
    again = pytest_in(project, "cases", "-q", "--lf", "-k", "different", "--tb=line", CI="1")
    builder = next(number for number, line in enumerate(CASE.splitlines(), 1) if line.startswith("def nnx"))
    assert f"{project / 'cases' / 'below' / 'different.py'}:{builder}: equiv.Mismatch: call __call__" in again.stdout
    assert "\n3 failed, " in again.stdout
    lines = [line.partition(" - ")[2] for line in again.stdout.splitlines() if line.startswith("FAILED")]
    assert lines[0].startswith("equiv.Mismatch: call __call__: output: ")
    assert all(line.startswith("equiv.Mismatch: ") and 80 < len(line) <= 116 for line in lines)


@pytest.mark.slow
def test_a_platform_that_is_missing_fails_everything(project):
    (project / "needs.ini").write_text("[pytest]\nequiv_require = cuda\n")
    for arguments in (["--equiv-require=cuda"], ["-c", "needs.ini", "--rootdir=."]):
        done = pytest_in(project, *arguments, "cases/same.py", "--tb=no", "--equiv-json=r.json", JAX_PLATFORMS="cpu")
        assert done.returncode == pytest.ExitCode.TESTS_FAILED
        assert f"{len(CHECK_NAMES)} failed in " in done.stdout
        result = read_results(project / "r.json")
        assert result.environment["platform"] == "cpu"
        (case,) = result.cases
        assert case.problem.startswith("cuda is required but not available: JAX runs on cpu (cpu).")


def test_a_present_platform_with_all_same_is_exit_status_0(project):
    done = pytest_in(project, "--equiv-require=cpu", "cases/same.py", "-x", JAX_PLATFORMS="cpu")
    assert done.returncode == pytest.ExitCode.OK
    assert "✓ Same: 1 comparison of 1 case." in done.stdout


@pytest.mark.slow
def test_x_stops_at_the_first_failure_and_names_the_rest(project):
    done = pytest_in(project, "cases/below", "cases/same.py", "-x", "--equiv-json=x.json")
    assert "1 failed, " in done.stdout
    result = read_results(project / "x.json")
    assert [case.name for case in result.cases] == ["below/different"]
    assert result.problems == ("same: no result: the run ended before it started. Run it again: pytest cases/same.py",)
    assert result.problems[0] in done.stdout
