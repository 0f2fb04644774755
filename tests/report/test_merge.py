"""Several results as one, and `equiv report` in every format."""

import re
from dataclasses import replace
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result
from pages import ENVIRONMENT, case, parted, real, run

from equiv.core.results import CaseResult, CheckResult, Finding
from equiv.core.results_json import encode_results
from equiv.frontends.cli.main import main
from equiv.report.html.page import render_page
from equiv.report.junit import render_junit
from equiv.report.markdown import render_markdown
from equiv.report.runs.merge import environment_table, merge_runs

GPU = {**ENVIRONMENT, "platform": "gpu"}
NEWER = {**ENVIRONMENT, "jax": "0.11", "commit": "def"}


def good(name: str) -> CaseResult:
    """A case that is the same."""
    return case(name, Random(0))


def labels(*runs: tuple[dict[str, str], str]) -> tuple[str, ...]:
    """The labels of runs, each of one case in an environment."""
    return merge_runs([run(good(name), environment=known) for known, name in runs]).labels


def test_shards_of_one_environment_share_its_label():
    """They have different cases."""
    assert labels((ENVIRONMENT, "a"), (ENVIRONMENT, "b")) == ("cpu", "cpu")


def test_platforms_are_distinguished_by_their_names():
    """Also where they have the same cases."""
    assert labels((ENVIRONMENT, "a"), (GPU, "a")) == ("cpu", "gpu")


def test_versions_on_one_platform_are_distinguished_by_what_differs():
    """And has a short name: a commit has none."""
    assert labels((ENVIRONMENT, "a"), (NEWER, "a"), (GPU, "a")) == ("cpu jax 0.10.2", "cpu jax 0.11", "gpu")


def test_the_same_case_twice_in_one_environment_is_two_runs():
    """None hides the other."""
    assert labels((ENVIRONMENT, "a"), (ENVIRONMENT, "a"), (ENVIRONMENT, "a")) == ("cpu", "cpu run 2", "cpu run 3")


def test_settings_that_differ_come_first():
    """One column a label, whatever the order of the settings."""
    names, settings = environment_table(merge_runs([run(good("a")), run(good("b")), run(good("a"), environment=NEWER)]))
    assert names == ("cpu jax 0.10.2", "cpu jax 0.11")
    assert [(one.name, one.differs) for one in settings][:3] == [("commit", True), ("jax", True), ("device", False)]


def test_every_problem_of_every_run_is_kept():
    """Of a case and of a run."""
    broken = CaseResult("broken", "", "", "", (), {}, (), problem="has no CASE.")
    merged = merge_runs([run(broken, good("a")), run(good("b"), problems=("no device",))])
    assert merged.problems == ("broken: has no CASE.", "no device")


def parsed(*cases: CaseResult) -> ElementTree.Element:
    """A run as JUnit, read again."""
    return ElementTree.fromstring(render_junit([run(*cases)]))


def test_junit_has_a_test_case_for_every_check():
    """Of every candidate."""
    names = [one.get("name") for one in parsed(good("a")).iter("testcase")]
    assert names == [
        f"a-{who}-{check}" for who in ("linen", "nnx") for check in ("structure", "outputs", "gradients", "train")
    ]


def test_junit_separates_failures_errors_and_skips():
    """Each with its place, and counted."""
    failing = parted(real("batch_norm", Random(0)))
    missing = Finding("nnx", "not run", note="flax is missing")
    skipped = replace(good("a"), checks=(CheckResult("structure", "nnx", "not run", "flax is missing", (missing,)),))
    broken = CaseResult("broken", "", "", "", (), {}, (), problem="has no CASE.")
    root = parsed(failing, skipped, broken)
    suite = root.find("testsuite")
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["10", "2", "1", "1"]
    failure = root.find(".//testcase[@name='batch_norm-nnx-outputs']/failure")
    assert failure.get("message") == "eval __call__: output: no rounding explains this difference"
    assert "error 0.0127 / budget 3.19e-12 = 4e+09 x budget" in failure.text
    assert root.find(".//skipped").get("message") == "nnx: flax is missing"
    assert root.find(".//error").get("message") == "has no CASE."


@pytest.mark.parametrize("name", ["</testcase>", "\0\x1b[31m", "a\"b'<&>", "\ud800"])
def test_a_hostile_name_stays_text_in_junit(name: str):
    """What XML cannot hold at all is replaced."""
    root = ElementTree.fromstring(render_junit([run(replace(good("a"), name=name), environment={name: name})]))
    shown = re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd]", "\N{REPLACEMENT CHARACTER}", name)
    assert root.find(".//testcase").get("classname") == shown


FIRST, SECOND = run(parted(real("batch_norm", Random(0)))), run(good("b"), environment=GPU)


def report(folder: Path, *options: str) -> Result:
    """`equiv report` on two files, in a folder."""
    for name, result in (("a.json", FIRST), ("b.json", SECOND)):
        (folder / name).write_bytes(encode_results(result))
    files = [str(folder / name) for name in ("a.json", "b.json")]
    return CliRunner().invoke(main, ["report", *files, *(str(option).replace("@", f"{folder}/") for option in options)])


def test_the_suffix_of_the_output_decides_its_format(tmp_path: Path):
    """And the command says what it wrote."""
    for name, view in (("parity.html", render_page), ("parity.md", render_markdown), ("parity.xml", render_junit)):
        ran = report(tmp_path, "-o", f"@{name}")
        assert (ran.exit_code, ran.stdout) == (0, "")
        assert (tmp_path / name).read_text() == view([FIRST, SECOND])
        assert ran.stderr.startswith(f"4 comparisons from 2 files -> {tmp_path / name} (")


def test_one_command_writes_all_formats(tmp_path: Path):
    """As a CI wants them."""
    ran = report(tmp_path, "-o", "@parity.html", "--md", "@summary.md", "--junit", "@deep/junit.xml")
    assert ran.exit_code == 0
    assert ran.stderr.count("4 comparisons from 2 files -> ") == 3
    assert (tmp_path / "summary.md").read_text() == render_markdown([FIRST, SECOND])
    assert (tmp_path / "deep/junit.xml").read_text() == render_junit([FIRST, SECOND])


def test_without_an_output_markdown_goes_to_the_screen(tmp_path: Path):
    """And nothing else."""
    ran = report(tmp_path)
    assert (ran.exit_code, ran.stdout, ran.stderr) == (0, render_markdown([FIRST, SECOND]), "")


def test_an_earlier_run_becomes_history(tmp_path: Path):
    """In HTML."""
    ran = report(tmp_path, "-o", "@parity.html", "--since", "@b.json")
    assert ran.exit_code == 0
    assert (tmp_path / "parity.html").read_text() == render_page([FIRST, SECOND], SECOND)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("-o", "@parity.pdf"),
            r"parity\.pdf: \.pdf is not a known format\. Give a file that ends in \.html, \.md or \.xml\.",
        ),
        (
            ("--since", "@b.json"),
            r"--since .*b\.json: only HTML lists changes\. Give -o FILE\.html, or use equiv diff\.",
        ),
        (("-o", "@a.json/x.html"), r"a\.json/x\.html: cannot be written: .* Give another file with -o\."),
        (
            ("-o", "@x.html", "--since", "@no.json"),
            r"no\.json: cannot be read: .* Give the JSON file that equiv run wrote\.",
        ),
    ],
    ids=["format", "since", "unwritable", "unreadable"],
)
def test_an_unusable_file_is_one_message_with_its_fix(tmp_path: Path, options: tuple[str, ...], message: str):
    """And trouble."""
    ran = report(tmp_path, *options)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert re.fullmatch(rf"equiv: .*{message}\n", ran.stderr)
