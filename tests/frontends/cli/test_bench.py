"""`equiv bench`: judged first, timed then; what is said, what is stored, and whose verdict is believed."""

import importlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from equiv.bench.session import bench_cases
from equiv.core.case_files import CaseFile, load_case
from equiv.core.results import RunResult
from equiv.core.results_json import decode_results, encode_results
from equiv.core.source_digest import digest_sources
from equiv.core.timings import PHASES
from equiv.frontends.cli.main import main

pytestmark = pytest.mark.usefixtures("serial")


SOURCE = '''"""A lesson."""

from equiv.case import Case
from equiv.layers import linear


def linen():
    import flax.linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3, name="dense")(x)

    return Model()


def nnx(rngs):
    from flax import nnx
    from neighbour import FACTOR

    class Model(nnx.Module):
        def __init__(self):
            self.dense = nnx.Linear(2, 3, rngs=rngs)

        def __call__(self, x):
            return self.dense(x) * FACTOR

    return Model()


CASE = Case(
    guide="none",
    models={"linen": linen, "nnx": nnx},
    batch={"x": "float32[4,2]"},
    layers=(linear("dense", linen="dense", nnx="dense"),),
    steps=1,
)
'''


def written(folder: Path, factor: float) -> Path:
    """A case whose NNX model is another model unless the factor of its neighbour is 1."""
    folder.mkdir(exist_ok=True)
    name = f"neighbour_{folder.name}"
    sys.modules.pop(name, None)
    (folder / f"{name}.py").write_text(f"FACTOR = {factor}\n")
    (folder / "small.py").write_text(SOURCE.replace("neighbour", name))
    importlib.invalidate_caches()
    return folder / "small.py"


def bench(folder: Path, *arguments: object, **environment: str) -> Result:
    """`equiv bench` of the small case in this process, with its reports in the folder."""
    runner = CliRunner(env={"FORCE_COLOR": None, "NO_COLOR": "1", "COLUMNS": "200", **environment})
    given = ["bench", folder / "small.py", "--reports", folder / "reports", *arguments]
    return runner.invoke(main, list(map(str, given)))


def stored(folder: Path) -> RunResult:
    """What a bench has written."""
    return decode_results((folder / "reports" / "results.json").read_bytes(), "results")


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bench of two ports that are the same."""
    folder = tmp_path_factory.mktemp("same")
    written(folder, 1.0)
    ran = bench(folder, "--seconds", 0)
    assert ran.exit_code == 0, ran.output
    (folder / "stdout").write_text(ran.stdout)
    (folder / "stderr").write_text(ran.stderr)
    (folder / "results.json").write_bytes((folder / "reports" / "results.json").read_bytes())
    return folder


def test_the_verdict_comes_before_the_timings_of_every_candidate(same: Path) -> None:
    """Results on standard output, the place of the file on standard error."""
    first, *rest = (same / "stdout").read_text().splitlines()
    assert first == "✓ Same: 1 comparison of 1 case."
    text = "\n".join(rest)
    assert "small: ✓ nnx same" in text
    assert "nnx split + jax.jit / linen" in text
    assert "modules to arrays" in text
    assert (same / "stderr").read_text() == f"results: {same / 'reports' / 'results.json'}\n"


def test_the_results_hold_the_costs_beside_the_verdict(same: Path) -> None:
    """For reports, and for the next release to be compared with."""
    (case,) = decode_results((same / "results.json").read_bytes(), "results").cases
    assert case.verdicts == {"nnx": "same"}
    assert case.costs is not None
    assert {one.phase for one in case.costs.timings} == set(PHASES)
    assert case.source_digest == digest_sources(same / "small.py") != ""


def test_a_refuted_port_is_not_timed_with_the_reason_given(tmp_path: Path) -> None:
    """What another model costs says nothing of this one; its prices are missing, the reason is not."""
    written(tmp_path, 2.0)
    ran = bench(tmp_path, "--seconds", 0)
    assert ran.exit_code == 1, ran.stderr
    assert ran.stdout.startswith("✗ Not the same: 1 of 1 comparison of 1 case. First: small-nnx, outputs, ")
    assert "withheld nnx: different: small-nnx, outputs, " in ran.stdout
    (case,) = stored(tmp_path).cases
    assert case.costs is not None
    assert {one.backend for one in case.costs.timings} == {"linen"}
    assert case.costs.withheld["nnx"].startswith("different: small-nnx, outputs, ")


def marked(folder: Path, **changes: object) -> Path:
    """The stored results with a lesson that only a verdict taken from them can have."""
    result = decode_results((folder / "results.json").read_bytes(), "results")
    (case,) = result.cases
    case = replace(case, lesson="stored", costs=None)
    path = folder / "marked.json"
    path.write_bytes(encode_results(replace(result, cases=(case,), **changes)))
    return path


def test_a_stored_verdict_is_used_where_the_text_is_unchanged(same: Path) -> None:
    """Nothing is judged twice; as JSON there is nothing else on standard output."""
    ran = bench(same, "--seconds", 0, "--results", marked(same), "--json")
    assert ran.exit_code == 0, ran.stderr
    result = decode_results(ran.stdout_bytes, "standard output")
    assert result.cases == stored(same).cases
    (case,) = result.cases
    assert case.lesson == "stored"
    assert case.costs is not None


def test_prices_that_cannot_be_written_are_shown_all_the_same(same: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes of measuring are not lost to a folder that is a file; exit code 2."""
    result = decode_results((same / "results.json").read_bytes(), "results")
    monkeypatch.setattr("equiv.bench.session.bench_cases", lambda *_: result)
    (same / "file").write_text("")
    ran = CliRunner().invoke(main, ["bench", str(same / "small.py"), "--reports", str(same / "file")])
    assert ran.exit_code == 2
    assert ran.stdout.startswith("✓ Same: 1 comparison of 1 case.\n")
    assert "cannot be written: " in ran.stderr
    assert ran.stderr.endswith("Give another folder with --reports.\n")


def test_a_stored_verdict_is_dropped_where_an_imported_module_changed(same: Path) -> None:
    """A stored `same` would price another model; the case file itself is as it was."""
    results = marked(same)
    try:
        written(same, 3.0)
        ran = bench(same, "--seconds", 0, "--results", results)
    finally:
        written(same, 1.0)
    assert ran.exit_code == 1, ran.stderr
    (case,) = stored(same).cases
    assert case.lesson == "A lesson."
    assert case.verdicts == {"nnx": "different"}


def test_results_of_another_release_are_refused(same: Path) -> None:
    """Another release, another verdict."""
    results = marked(same, environment={**stored(same).environment, "flax": "0.0.1"})
    ran = bench(same, "--results", results)
    assert ran.exit_code == 2
    assert ran.stderr.startswith("equiv: --results was recorded with flax 0.0.1, this environment has ")
    assert ran.stderr.endswith("Leave out --results, and the cases are compared first.\n")


def test_under_xdist_nothing_is_timed(tmp_path: Path) -> None:
    """One message, exit code 2."""
    written(tmp_path, 1.0)
    ran = bench(tmp_path, PYTEST_XDIST_WORKER="gw1")
    assert ran.exit_code == 2
    assert ran.stderr == (
        "equiv: timing: the pytest-xdist worker gw1 shares the machine with others. Run it without -n.\n"
    )


@pytest.mark.slow
def test_an_interrupt_keeps_what_is_timed_and_names_the_rest(tmp_path: Path) -> None:
    """A bench of all cases takes minutes."""
    path = written(tmp_path, 1.0)
    begun = []

    def progress(text: str) -> None:
        begun.append(text)
        if text == "second: forward":
            raise KeyboardInterrupt

    result = bench_cases([CaseFile("first", path), CaseFile("second", path)], None, 0.0, progress)
    first, second = result.cases
    assert first.costs is not None
    assert second.costs is None
    assert second.verdicts == {"nnx": "same"}
    assert result.problems == ("interrupted: not timed: second",)
    assert begun.index("second") < begun.index("first: forward")  # all are judged before any is timed


def test_help_and_wrong_usage_need_no_jax() -> None:
    """They answer at once."""
    code = (
        "import sys; from equiv.frontends.cli.main import main\ntry: main()\nfinally: assert 'jax' not in sys.modules"
    )
    for arguments, shown in ((["--help"], "--seconds"), (["nowhere"], "nowhere: no such file or folder")):
        command = [sys.executable, "-c", code, "bench", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert shown in done.stdout + done.stderr
        assert "AssertionError" not in done.stderr


def test_a_negative_time_is_wrong_usage() -> None:
    """The message names the option and the range."""
    ran = CliRunner().invoke(main, ["bench", "--seconds", "-1"])
    assert ran.exit_code == 2
    assert "Invalid value for '--seconds': -1.0 is not in the range x>=0" in ran.stderr


def test_a_cases_text_includes_the_users_own_imports(tmp_path: Path) -> None:
    """Inside functions too, through packages, relatively; what is installed is not hashed."""
    package = tmp_path / "own_package_of_a_test"
    (package / "inner").mkdir(parents=True)
    files = {
        package / "__init__.py": "",
        package / "inner" / "__init__.py": "from . import beside\n",
        package / "inner" / "beside.py": "VALUE = 1\n",
        package / "inner" / "module.py": "import numpy\nfrom ..other import x\n",
        package / "other.py": "x = 1\n",
        package / "unused.py": "x = 1\n",
        tmp_path / "case.py": "def linen():\n    from own_package_of_a_test.inner import module\n",
    }
    for path, text in files.items():
        path.write_text(text)
    sys.path.append(str(tmp_path))
    try:
        before = digest_sources(tmp_path / "case.py")
        for path, text in files.items():
            path.write_text(f"{text}# changed\n")
            changed = digest_sources(tmp_path / "case.py") != before
            assert changed == (path.name != "unused.py"), path
            path.write_text(text)
        assert digest_sources(tmp_path / "case.py") == before
    finally:
        sys.path.remove(str(tmp_path))


def test_a_loaded_case_knows_its_text(tmp_path: Path) -> None:
    """A neighbour counts, whichever folder the process runs in."""
    path = written(tmp_path, 1.0)
    one = load_case(CaseFile("small", path)).source_digest
    written(tmp_path, 2.0)
    assert load_case(CaseFile("small", path)).source_digest != one != ""
