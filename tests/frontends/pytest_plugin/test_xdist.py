"""Cases under pytest-xdist: results of all workers in one file, also of those that are killed."""

import subprocess
from pathlib import Path

import pytest
from plugin_project import outcomes, pytest_in, write_case

from equiv.core.checks import CHECK_NAMES
from equiv.core.results import RunResult
from equiv.core.results_json import read_results
from equiv.running.devices import share_devices

pytest_plugins = ["pytester"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One case that is the same, one that differs, and one that ends its worker process."""
    folder = tmp_path_factory.mktemp("workers")
    for name, kind in (("b_different", "different"), ("c_killing", "killing"), ("d_same", "same")):
        write_case(folder / "cases" / f"{name}.py", kind)
    return folder


@pytest.fixture(scope="module")
def two(project: Path) -> tuple[subprocess.CompletedProcess[str], RunResult]:
    """Two workers, nobody killed."""
    chosen = ("-k", "not killing", "-n", "2", "--dist", "loadfile", "-v", "-rA")
    done = pytest_in(project, "cases", *chosen, "--equiv-json=two.json", "--junitxml=two.xml")
    return done, read_results(project / "two.json")


@pytest.fixture(scope="module")
def killed(project: Path) -> tuple[subprocess.CompletedProcess[str], RunResult]:
    """One worker, killed after its first case, and replaced."""
    done = pytest_in(project, "cases", "-k", "not killing or structure", "-n", "1", "--equiv-json=killed.json")
    return done, read_results(project / "killed.json")


@pytest.mark.slow
def test_the_results_of_all_workers_are_one_run(two):
    done, result = two
    assert [case.name for case in result.cases] == ["b_different", "d_same"]
    assert result.problems == ()
    assert result.headline.startswith("Not the same: 1 of 2 comparisons of 2 cases. First: b_different-nnx, outputs, ")
    assert result.environment["platform"]
    assert "= equiv =" in done.stdout
    assert f"✗ {result.headline}" in done.stdout
    assert "results: two.json" in done.stdout


@pytest.mark.slow
def test_loadfile_keeps_the_items_of_a_case_in_one_worker(two):
    done, _ = two
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("[gw") and "%]" in line]
    workers = {case: {row[0] for row in rows if f"/{case}.py" in row[-1]} for case in ("b_different", "d_same")}
    assert len(rows) == 2 * len(CHECK_NAMES)
    assert all(len(found) == 1 for found in workers.values())


def test_the_items_of_a_case_are_one_group_for_loadgroup(pytester):
    """The mark only: pytest-xdist 3.8.0 passes groups over under pytest 9.2.0, whatever has them."""
    write_case(pytester.path / "cases" / "below" / "same.py")
    items, _ = pytester.inline_genitems("cases")
    assert [item.get_closest_marker("xdist_group").args for item in items] == [("equiv-below/same",)] * len(CHECK_NAMES)


@pytest.mark.slow
def test_failures_of_a_worker_look_as_they_do_without(project, two):
    done, _ = two
    failed = {name for name, word in outcomes(done.stdout).items() if word == "FAILED"}
    assert failed == {f"b_different-nnx-{check}" for check in ("outputs", "gradients", "train")}
    assert "FAILED cases/b_different.py::b_different-nnx-outputs - equiv.Mismatch: " in done.stdout
    assert "✗ different  b_different, nnx / linen" in done.stdout
    assert 'message="equiv.Mismatch: call __call__: output: ' in (project / "two.xml").read_text()
    assert 'name="equiv.ratio"' in (project / "two.xml").read_text()


def test_what_a_killed_worker_had_finished_is_kept(killed):
    done, result = killed
    assert "worker 'gw0' crashed while running 'cases/c_killing.py::c_killing-nnx-structure'" in done.stdout
    assert [case.name for case in result.cases] == ["b_different", "d_same"]
    assert {len(case.checks) for case in result.cases} == {4}


def test_what_a_killed_worker_had_not_finished_is_named(killed):
    done, result = killed
    said = "c_killing: no result: worker gw0 died while running it. Run it again: pytest cases/c_killing.py"
    assert result.problems == (said,)
    assert f"! {said}" in done.stdout


def test_workers_share_the_gpus_and_take_memory_as_needed():
    assert share_devices(3, {}, 2) == {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "CUDA_VISIBLE_DEVICES": "1"}
    assert share_devices(3, {}, 1) == {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    assert share_devices(3, {}, 0) == {}


def test_what_the_user_has_set_for_the_devices_stays():
    own = {"XLA_PYTHON_CLIENT_PREALLOCATE": "true", "CUDA_VISIBLE_DEVICES": "0,1"}
    assert share_devices(3, own, 8) == {}
