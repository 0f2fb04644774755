"""The journal: what has a verdict is kept whole, and nothing is taken over that has changed since."""

import resource
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from equiv.core.case_files import CaseFile
from equiv.core.join_runs import broken_case, join_runs, single_case_run
from equiv.core.results import CaseResult, CheckResult, Finding, RunResult
from equiv.running import journal as module
from equiv.running.installation import digest_installation
from equiv.running.journal import Journal
from equiv.running.task import CaseTask, TaskOptions


@pytest.fixture
def task(tmp_path: Path) -> CaseTask:
    path = tmp_path / "a.py"
    path.write_text("import neighbour_of_the_journal")
    (tmp_path / "neighbour_of_the_journal.py").write_text("SIZE = 3")
    return CaseTask(CaseFile("sub/a", path), TaskOptions())


def run_of(name: str, candidate: str = "nnx") -> RunResult:
    checks = (CheckResult("outputs", candidate, "proved", "1", (Finding("call: output", "proved"),)),)
    case = CaseResult(name, "", "", "linen", (candidate,), {candidate: "same"}, checks)
    return single_case_run(case, {"jax": "1"})


def read_again(folder: Path, task: CaseTask) -> RunResult | None:
    module._digest_task.cache_clear()
    return Journal(folder).read(task)


def test_what_is_kept_is_read_again(tmp_path, task):
    Journal(tmp_path).write(task, run_of("sub/a"))
    assert read_again(tmp_path, task) == run_of("sub/a")


def test_what_has_no_verdict_is_run_again(tmp_path, task):
    Journal(tmp_path).write(task, single_case_run(broken_case("sub/a", "stopped"), {}))
    assert read_again(tmp_path, task) is None


@pytest.mark.parametrize("change", ["source", "neighbour", "options", "variable", "contents"])
def test_what_has_changed_since_is_run_again(tmp_path, task, monkeypatch, change):
    Journal(tmp_path / "kept").write(task, run_of("sub/a"))
    (kept,) = (tmp_path / "kept").iterdir()
    if change == "source":
        task.file.path.write_text("import neighbour_of_the_journal  # changed")
    elif change == "neighbour":
        (tmp_path / "neighbour_of_the_journal.py").write_text("SIZE = 4")
    elif change == "options":
        task = replace(task, options=TaskOptions(prove_only=True))
    elif change == "variable":
        monkeypatch.setenv("XLA_FLAGS", "--another")
        digest_installation.cache_clear()
    else:
        kept.write_bytes(kept.read_bytes()[:-20])
    assert read_again(tmp_path / "kept", task) is None
    digest_installation.cache_clear()


def test_sources_that_change_while_a_case_runs_are_run_again(tmp_path, task):
    journal = Journal(tmp_path / "kept")
    journal.begin(task)
    task.file.path.write_text("changed = True")
    journal.write(task, run_of("sub/a"))
    assert read_again(tmp_path / "kept", task) is None


def test_a_case_has_one_file_and_the_last_result(tmp_path, task):
    Journal(tmp_path / "kept").write(task, run_of("sub/a"))
    task.file.path.write_text("changed = True")
    module._digest_task.cache_clear()
    Journal(tmp_path / "kept").write(task, run_of("sub/a", "linen2"))
    assert len(list((tmp_path / "kept").iterdir())) == 1
    assert read_again(tmp_path / "kept", task) == run_of("sub/a", "linen2")


def test_a_full_disk_is_a_problem_of_the_run(tmp_path, task):
    """And leaves what was written before."""
    journal, before = Journal(tmp_path / "kept"), run_of("sub/a")
    journal.write(task, before)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        journal.write(task, run_of("sub/a", "other"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    (problem,) = journal.problems
    assert problem.endswith("cannot be written: File too large. Run it again with another folder: --reports.")
    assert read_again(tmp_path / "kept", task) == before
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_finding_neighbours_leaves_the_import_path_alone(tmp_path, task):
    before = list(sys.path)
    Journal(tmp_path).read(task)
    assert sys.path == before


def test_another_commit_is_no_other_environment():
    """Another commit of the user's repository is no other environment; another device is."""
    one, other = run_of("a"), run_of("b")
    one, other = (replace(run, environment={"commit": name}) for run, name in ((one, "1"), (other, "2")))
    assert join_runs([one, other], "", 0.0).problems == ()
    one, other = (replace(run, environment={"device": name}) for run, name in ((one, "cpu"), (other, "gpu")))
    assert join_runs([one, other], "", 0.0).problems == ("b was run with device 'gpu', a with 'cpu'",)
