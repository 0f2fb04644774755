"""The sessions of noxfile.py, run by nox itself, without installing anything and without a device."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from plugin_project import STRANGERS, write_case

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The noxfile in a project with two cases of a user's, one of which differs."""
    folder = tmp_path_factory.mktemp("sessions")
    for name in ("noxfile.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for kind in ("same", "different", "sharded"):
        write_case(folder / "cases" / f"{kind}.py", kind)
    return folder


@pytest.fixture(scope="module")
def sessions(project: Path):
    """The functions of noxfile.py."""
    before = Path.cwd()
    os.chdir(project)  # it reads the pyproject.toml of its folder
    try:
        spec = importlib.util.spec_from_file_location("noxfile_of_equiv", project / "noxfile.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        os.chdir(before)
    return module


def nox_in(folder: Path, *arguments: str, path: Path = BIN, **environment: str) -> subprocess.CompletedProcess[str]:
    """nox in a process of its own, in this environment as it is."""
    kept = {name: value for name, value in os.environ.items() if name not in STRANGERS}
    return subprocess.run(
        [sys.executable, "-m", "nox", "--no-venv", "--no-install", *arguments],
        cwd=folder,
        env={**kept, "PATH": str(path), "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def stored(folder: Path, session: str) -> dict:
    """The results of a session."""
    return json.loads((folder / "reports" / session / "results.json").read_text())


def test_every_session_is_listed_and_only_cpu_is_default(project):
    lines = [line.split() for line in nox_in(project, "--list").stdout.splitlines() if line.startswith(("* ", "- "))]
    wanted = "parity-cpu parity-cuda parity-tpu parity-fake8 matrix tests faults slow drills zoo search certificates"
    wanted += " share frontier locate repros mixtures published bench report lint types minimums old-reference"
    assert {line[1].partition("(")[0] for line in lines} == {*wanted.split(), "matrix-report"}
    assert [line[1] for line in lines if line[0] == "*"] == ["parity-cpu"]


def test_contributing_names_sessions_that_exist(sessions):
    named = re.findall(r"nox -s ([\w-]+)", (ROOT / "CONTRIBUTING.md").read_text() + (ROOT / "README.md").read_text())
    text = (ROOT / "noxfile.py").read_text()
    assert len(named) >= 7
    assert all(f"def {name.replace('-', '_')}(" in text for name in named)


@pytest.mark.parametrize(("session", "device"), [("parity-cuda", "nvidia-smi finds no GPU"), ("parity-tpu", "no TPU")])
def test_a_device_asked_for_and_absent_is_a_failure(project, tmp_path, session, device):
    if session == "parity-tpu" and Path("/sys/bus/pci/devices").is_dir():
        (project / "noxfile_bare.py").write_text((ROOT / "noxfile.py").read_text().replace("/sys/bus", "nowhere/bus"))
    file = project / "noxfile_bare.py" if session == "parity-tpu" else project / "noxfile.py"
    done = nox_in(project, "-f", str(file), "-s", session, path=tmp_path)
    assert done.returncode == 1
    assert f"{session}: {device}" in done.stderr
    assert "nothing is run: that is no pass. Run it with one." in done.stderr
    assert "successful" not in done.stderr
    assert not (project / "reports" / session).exists()


def test_a_driver_without_a_jax_device_is_a_failure(project, tmp_path):
    """A GPU by its driver, which JAX then does not find: no fall-back to the CPU."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 580.65.06\n")
    tool.chmod(0o755)
    path = Path(f"{tmp_path}{os.pathsep}{BIN}{os.pathsep}/usr/bin{os.pathsep}/bin")
    done = nox_in(project, "-s", "parity-cuda", path=path, CUDA_VISIBLE_DEVICES="-1")
    assert done.returncode == 1
    assert "equiv: JAX finds no device for JAX_PLATFORMS='cuda'" in done.stdout
    assert "Session parity-cuda failed" in done.stderr


@pytest.mark.parametrize(
    ("said", "code", "driver"),
    [("580.65.06", 0, 580), ("535.1\n535.1", 0, 535), ("No devices", 0, None), ("580.1", 9, None)],
)
def test_the_driver_decides_which_cuda_is_installed(sessions, tmp_path, monkeypatch, said, code, driver):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho '{said}'\nexit {code}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sessions.nvidia_driver() == driver


def test_a_google_network_card_is_no_tpu(sessions, tmp_path):
    for slot, vendor, device in (("a", "0x1ae0", "0x0042"), ("b", "0x8086", "0x0062"), ("c", "0x1ae0", "0x0062")):
        (tmp_path / slot).mkdir()
        (tmp_path / slot / "vendor").write_text(f"{vendor}\n")
        (tmp_path / slot / "device").write_text(f"{device}\n")
    assert sessions.tpus(tmp_path) == 1
    assert sessions.tpus(tmp_path / "nowhere") == 0


def test_eight_devices_are_there(project):
    case = str(project / "cases" / "sharded.py")
    done = nox_in(project, "-s", "parity-fake8", "--", case)
    assert done.returncode == 0, done.stderr
    found = stored(project, "parity-fake8")
    assert found["environment"]["devices"] == "8"
    assert found["cases"][0]["scope"]["meshes"][0]["sharded"] == {"linen": 2, "nnx": 2}


@pytest.mark.slow
def test_fewer_than_eight_devices_are_a_failure(project):
    case = str(project / "cases" / "sharded.py")
    source = (project / "noxfile.py").read_text()
    (project / "noxfile_four.py").write_text(source.replace("device_count=8", "device_count=4"))
    done = nox_in(project, "-f", "noxfile_four.py", "-s", "parity-fake8", "--", case)
    assert done.returncode == 1
    assert "parity-fake8: 4 devices, wanted 8." in done.stderr


def test_eight_devices_of_which_nothing_is_sharded_are_a_failure(project):
    done = nox_in(project, "-s", "parity-fake8", "--", str(project / "cases" / "same.py"))
    assert done.returncode == 1
    assert "parity-fake8: no array of any case was in different parts on the devices" in done.stderr


def test_a_run_that_is_not_same_fails_the_default_session(project):
    done = nox_in(project, "--", "nowhere.py")
    assert done.returncode == 1
    assert "equiv: nowhere.py: no such file or folder." in done.stdout
    assert "Session parity-cpu failed" in done.stderr


@pytest.mark.slow
def test_a_matrix_pair_leaves_results_and_the_report_compares(project):
    done = nox_in(project, "-s", "matrix(jax-0.7-flax-0.10)", "--", "cases/different.py")
    assert done.returncode == 0, done.stderr
    assert stored(project, "matrix/jax-0.7-flax-0.10")["verdict"] == "different"
    said = (project / "reports" / "matrix" / "README.md").read_text()
    assert said.startswith("# Releases compared\n\n- jax-0.7-flax-0.10 (jax ")
    assert "): Not the same: 1 of 1 comparison of 1 case. First: different-nnx, outputs, " in said


@pytest.mark.parametrize(("pair", "code"), [("jax-newest-flax-newest", 1), ("jax-0.8-flax-0.11", 0)])
def test_only_the_newest_pair_must_pass(project, pair, code):
    done = nox_in(project, "-s", f"matrix({pair})", "--", "nowhere.py")
    assert done.returncode == code
    said = f"{pair}: does not run: equiv: nowhere.py: no such file or folder."
    assert said in (project / "reports" / "matrix" / "README.md").read_text()
    assert ("the newest jax and flax must pass: - " + said in done.stderr) == bool(code)


def case(name: str, problem: str = "", **grades: str) -> dict:
    """A case with one candidate."""
    checks = [{"candidate": "nnx", "check": check, "grade": grade, "summary": "why"} for check, grade in grades.items()]
    bad = any(check["grade"] == "refuted" for check in checks)
    verdicts = {} if problem else {"nnx": "different" if bad else "same"}
    return {"name": name, "problem": problem, "checks": checks, "verdicts": verdicts}


def test_what_changed_between_releases_is_named_with_its_reason(sessions):
    proved = [case(name, outputs="proved") for name in "abcde"]
    new = [case("a", outputs="proved"), case("b", outputs="refuted"), case("c", outputs="float64")]
    new += [case("d", outputs="float64"), case("e", "does not import")]
    old, new = {"cases": proved}, {"cases": new}
    assert list(sessions.changes(old, new)) == [
        "b-nnx: same -> different: outputs refuted, why",
        "c-nnx, d-nnx: same, with outputs proved -> float64",
        "e: error: does not import",
    ]
    assert list(sessions.changes(old, old)) == []


def test_a_pair_that_does_not_run_is_reported_with_reason(sessions, tmp_path):
    for name, output in (("x", "Resolving\n  x No solution\n  because\n  of this\n\nlater"), ("y", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "output.txt").write_text(output)
    assert list(sessions.compared(tmp_path, ["x", "y"])) == [
        "- x: does not run: x No solution because of this",
        "- y: does not run: no output",
    ]
