"""Runs in which something fails: the rest finishes, what is known is stored and shown, and nothing is a traceback."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from frontends.cli.bad_cases import RETURN, STEP_TROUBLE, UNBUILT, UNUSABLE, run_files, write

import equiv.comparison.pipeline
from equiv.comparison import stages
from equiv.core.results_json import decode_results
from equiv.core.verdict import verdict_exit_code
from equiv.frontends.cli.main import main
from equiv.running.run_tasks import INTERRUPTED


def test_an_internal_error_is_reported_and_other_cases_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(case):
        if case.guide == "broken":
            raise RuntimeError("planted")
        return workshop(case)

    workshop = stages.build_case
    monkeypatch.setattr(stages, "build_case", fail)
    result = run_files(write(tmp_path, ('"none"', '"broken"'), name="broken"), write(tmp_path, name="good"))
    assert result.cases[0].problem.startswith("equiv itself failed with RuntimeError: planted")
    assert result.cases[0].problem.endswith("Please report it with the case file.")
    assert result.cases[1].verdicts == {"linen": "same"}
    assert verdict_exit_code(result.verdict) == 2


def test_an_interrupt_keeps_finished_results_and_names_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(loaded, *rest):
        if loaded.name == "b":
            raise KeyboardInterrupt
        return finish_case(loaded, *rest)

    finish_case = equiv.comparison.pipeline.finish_case
    monkeypatch.setattr(equiv.comparison.pipeline, "finish_case", interrupted)
    for name in "abc":
        write(tmp_path, name=name)
    ran = CliRunner().invoke(main, ["run", str(tmp_path), "--reports", str(tmp_path / "reports")])
    cases = decode_results((tmp_path / "reports" / "results.json").read_bytes(), "results").cases
    assert cases[0].verdicts == {"linen": "same"}
    assert [(case.name, case.problem) for case in cases[1:]] == [
        ("b", INTERRUPTED),
        ("c", INTERRUPTED),
    ]
    assert f"! b: {INTERRUPTED}\n! c: {INTERRUPTED}\n" in ran.stdout
    assert ran.exit_code == 2


@pytest.mark.parametrize("blocked", ["reports", "reports/results.json"], ids=["file_for_folder", "folder_for_file"])
def test_unwritable_reports_are_trouble_but_the_verdict_is_printed(tmp_path: Path, blocked: str):
    write(tmp_path, name="good")
    if blocked == "reports":
        (tmp_path / blocked).touch()
    else:
        (tmp_path / blocked).mkdir(parents=True)
    ran = CliRunner().invoke(main, ["run", str(tmp_path / "good.py"), "--reports", str(tmp_path / "reports")])
    assert ran.stdout.startswith("✓ Same: 1 comparison of 1 case.\n")
    assert re.search(
        r"equiv: .*results\.json: cannot be written: .*\. Give another folder with --reports\.", ran.stderr
    )
    assert ran.exit_code == 2


def equiv_run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`equiv run` over a folder's cases, as a program of its own."""
    return subprocess.run(
        [sys.executable, "-m", "equiv", "run", str(folder / "cases"), "--reports", str(folder / "reports")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_one_good_case_among_bad_ones_is_still_judged(tmp_path: Path):
    """Every bad one is reported."""
    folder = tmp_path / "cases"
    folder.mkdir()
    write(folder, name="good")
    write(folder, ("nn.Dense(3", "nn.Dense(4"), name="shape")
    for name, table in (("syntax_error", UNUSABLE), ("leaves_the_program", UNUSABLE), ("no_bound", UNUSABLE)):
        write(folder, *table[name][0], name=name)
    write(folder, *UNBUILT["wrong_scope"][0], name="wrong_scope")
    write(folder, (RETURN, "import nonexistent_library"), name="missing")
    write(folder, (RETURN, STEP_TROUBLE["raises"][0]), name="step")
    ran = equiv_run(tmp_path)
    assert ran.returncode == 2, ran.stderr
    verdicts = {
        case["name"]: case["verdicts"] for case in json.loads((tmp_path / "reports/results.json").read_text())["cases"]
    }
    assert verdicts == {
        "good": {"linen": "same"},
        "shape": {"linen": "different"},
        "missing": {"linen": "inconclusive"},
        "step": {"linen": "error"},
        "wrong_scope": {"linen": "error"},
        "leaves_the_program": {},
        "no_bound": {},
        "syntax_error": {},
    }
    assert "Traceback" not in ran.stdout + ran.stderr
    for line in (
        r"! Trouble in 5 of 8 cases; 1 differ\. First: step: linen: tracing raised KeyError: 'w'\. Fix ",
        r"! leaves_the_program: .* raised SystemExit: 0\. Fix ",
        r"! no_bound: batch entry 'x': 'int32\[4,2\]' has no upper bound, and no table",
        r"! syntax_error: .* raised SyntaxError: invalid syntax \(syntax_error\.py, line 18\)\. Fix ",
        r"\? missing-linen: structure not run, linen: building the model needs nonexistent_library",
        r"✗ shape-linen, structure, leaf dense/kernel: haiku \(2, 3\), linen \(2, 4\): shape differs",
        r"! step: linen: tracing raised KeyError: 'w'\. Fix ",
        r"! wrong_scope: linen: row dense \(linear\) says 'dence'",
    ):
        assert re.search(f"^{line}", ran.stdout, re.MULTILINE), (line, ran.stdout)


def test_a_missing_device_is_reported_before_anything_runs(tmp_path: Path):
    (tmp_path / "cases").mkdir()
    write(tmp_path / "cases", ("import random", "print('loaded')"), name="good")
    ran = equiv_run(tmp_path, JAX_PLATFORMS="abacus")
    assert ran.returncode == 2
    assert re.match(r"equiv: JAX finds no device for JAX_PLATFORMS='abacus': .* or unset it\.\n$", ran.stderr)
    assert ran.stdout == ""
