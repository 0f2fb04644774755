"""`equiv bench`: judged first, timed then; what is said, what is stored, and whose verdict is believed."""

import importlib
import io
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from equiv.bench.session import bench_cases
from equiv.core.case_files import CaseFile, load_case
from equiv.core.results import CaseResult, RunResult
from equiv.core.results_json import decode_results, encode_results
from equiv.core.source_digest import digest_sources
from equiv.core.timings import (
    FASTER,
    NO_DIFFERENCE,
    PHASES,
    SLOWER,
    TOO_FEW,
    CaseCosts,
    Growth,
    HostPart,
    ProgramCost,
    Ratio,
    Timing,
)
from equiv.frontends.cli.main import main
from equiv.report.cells import NOT_APPLICABLE
from equiv.report.terminal.timings import format_duration, print_bench

ROOT = Path(__file__).parents[3]

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


@pytest.fixture(autouse=True, scope="module")
def serial() -> Iterator[None]:
    """What is refused in a worker of pytest-xdist is tried here with small programs all the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTEST_XDIST_WORKER", raising=False)
        yield


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
    assert first == "✓ Same: all 1 comparisons of 1 case."
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
    assert ran.stdout.startswith("✗ Not the same: 1 of 1 comparisons of 1 case. First: small-nnx, outputs, ")
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
    assert ran.stdout.startswith("✓ Same: all 1 comparisons of 1 case.\n")
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


R = Ratio(1.5, 1.25, 1.75)


def timing(backend: str, claim: str = "", ratio: Ratio | None = None, **changes: object) -> Timing:
    """A step of ten blocks."""
    base = Timing(backend, "forward", "jax.jit", "step", 10, 2e-3, 3e-3, 4e-3, ratio, Ratio(1.0, 0.99, 1.01), R, claim)
    return replace(base, **changes)


def cost(backend: str, **changes: object) -> ProgramCost:
    """A program of some size."""
    return replace(ProgramCost(backend, "forward", "jax.jit", 12, 34, 5.6e6, 7.8e3, 900), **changes)


SHOWN = CaseCosts(
    timings=(
        timing("haiku"),
        timing("linen", SLOWER, R),
        timing("nnx", NO_DIFFERENCE, R, runner="nnx.jit"),
        timing("nnx", TOO_FEW, R, runner="split + jax.jit", rounds=1),
        timing("haiku", phase="dispatch", p50=5e-6),
        timing("linen", FASTER, Ratio(0.5, 0.25, 0.75), phase="dispatch"),
        timing("nnx", "", None, phase="dispatch", runner="nnx.jit"),
    ),
    programs=(
        cost("haiku"),
        cost("linen", identical=True),
        cost("nnx", runner="nnx.jit", differs="copy +4", retraces=2),
    ),
    growth=tuple(
        Growth("linen", form, depth, phase, seconds * depth, 10)
        for form, seconds in (("unrolled", 3e-3), ("scanned", 1e-3))
        for depth in (1, 8)
        for phase in PHASES
    ),
    withheld={"torch": "different: [because]"},
    seconds=12.3,
    parts=(
        HostPart("nnx", "forward", "nnx.jit", "modules to arrays", 3e-4),
        HostPart("nnx", "forward", "nnx.jit", "compiled program", 1e-4),
    ),
    load=(0.5, 1.25),
)


@cache
def shown(width: int = 200, **console: object) -> str:
    """A bench run of one case as it is printed."""
    case = CaseResult("a", "", "", "haiku", ("linen", "nnx"), {"linen": "same", "nnx": "inconclusive"}, (), costs=SHOWN)
    result = RunResult("same", "Same: all.", {"jax": "1.2.3"}, (case,), "", 1.0, problems=("b is not timed: [why]",))
    out = io.StringIO()
    print_bench(result, Console(file=out, width=width, highlight=False, **console))
    return out.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "✓ Same: all.\n",
        "! b is not timed: [why]",
        "a: ✓ linen same, ? nnx inconclusive (12 s, load 0.5 to 1.2)",
        "withheld torch: different: [because]",
        "1.50 (1.25 to 1.75) ▲",
        "0.50 (0.25 to 0.75) ▼",
        "1.50 (1.25 to 1.75) =",
        "1.50 ·",
        "1.00 (0.99 to 1.01)",
        "2 ms",
        "5.6 M",
        "7.8 kB",
        "900 B",
        "2 !",
        "linen (jax.jit) forward: = same optimised program as haiku: any time difference is on the host",
        "nnx (nnx.jit) forward: different optimised program: copy +4",
        "nnx nnx.jit, forward, 400 µs: modules to arrays 300 µs (75%), compiled program 100 µs (25%)",
        "if timed one port after the other, forward: control 1.50 (1.25 to 1.75), linen jax.jit 1.50",
        "8 layers, unrolled / scanned: linen jax.jit trace 3.00, linen jax.jit compile 3.00, ",
    ],
)
def test_measurements_are_shown_with_intervals_in_signs_and_words(text: str) -> None:
    """Colour never speaks alone."""
    assert text in shown()


def test_a_table_that_does_not_fit_becomes_a_list() -> None:
    """With the same numbers: a log of eighty columns loses nothing."""
    assert "forward step: haiku jax.jit 2 ms; linen jax.jit / haiku 1.50 (1.25 to 1.75) ▲; " in shown(80)


def test_no_escape_codes_without_colour() -> None:
    """NO_COLOR, and a file."""
    assert "\x1b" not in shown()
    assert "\x1b[" in shown(force_terminal=True, color_system="standard")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2.0, "2 s"),
        (0.0364, "36.4 ms"),
        (9.93e-4, "993 µs"),
        (4e-9, "4 ns"),
        (-2e-6, NOT_APPLICABLE),
        (0.0, NOT_APPLICABLE),
    ],
)
def test_a_duration_is_given_in_the_unit_that_fits(seconds: float, text: str) -> None:
    """Three digits are what it is known to."""
    assert format_duration(seconds) == text


def test_costs_come_back_from_json_as_they_went_in() -> None:
    """With everything in them."""
    assert msgspec.json.decode(msgspec.json.encode(SHOWN), type=CaseCosts) == SHOWN
