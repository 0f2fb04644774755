"""What changed from run to run: each kind of change is listed by its name, and nothing else is."""

import json
import re
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from pages import ENVIRONMENT, case, parted, real, run

from equiv.core.results import CaseResult, Finding, RunResult
from equiv.core.results_json import encode_results
from equiv.frontends.cli.main import main
from equiv.report.runs.diff import CHANGE_KINDS, CHANGE_SIGNS, REPORTED_FACTOR, Change, diff_runs


def alike(name: str = "mlp") -> CaseResult:
    """A case that is the same by numbers."""
    return case(name, Random(7))


BEFORE = run(alike(), real("batch_norm", Random(0)), started="2025-01-01T00:00:00")


def scaled(whole: CaseResult, factor: float, check: str = "train") -> CaseResult:
    """The same case with the ratios of one check of its NNX port multiplied."""

    def one(finding: Finding) -> Finding:
        return finding if finding.ratio is None else replace(finding, ratio=finding.ratio * factor)

    return replace(
        whole,
        checks=tuple(
            replace(item, findings=tuple(map(one, item.findings)))
            if (item.candidate, item.check) == ("nnx", check)
            else item
            for item in whole.checks
        ),
    )


def changes(old: RunResult, new: RunResult) -> list[tuple[str, str, str, str]]:
    """Kind, comparison, check, and what it is now."""
    return [
        (one.kind, f"{one.case}-{one.candidate}", one.check, f"{one.old} -> {one.new}")
        for one in diff_runs(old, new).changes
    ]


def test_a_run_against_itself_has_no_changes():
    """And every comparison is counted as unchanged."""
    found = diff_runs(BEFORE, BEFORE)
    assert (found.changes, found.versions, found.unchanged) == ((), (), 4)


def test_a_new_failure_is_listed_first_with_its_place():
    """And its checks by their grades."""
    failing = replace(BEFORE, cases=(BEFORE.cases[0], parted(BEFORE.cases[1])))
    first, *rest = diff_runs(BEFORE, failing).changes
    assert first == Change(
        "newly failing", "batch_norm", "nnx", "", "same", "different", "outputs, eval __call__: output, 4e+09 x budget"
    )
    assert {(one.kind, one.check, one.new) for one in rest} == {
        ("newly failing", "outputs", "refuted"),
        ("newly failing", "train", "refuted"),
    }


def test_a_comparison_that_no_longer_fails_is_fixed():
    """The same change, the other way round."""
    failing = replace(BEFORE, cases=(BEFORE.cases[0], parted(BEFORE.cases[1])))
    found = changes(failing, BEFORE)
    assert {kind for kind, *_ in found} == {"fixed"}
    assert found[0] == ("fixed", "batch_norm-nnx", "", "different -> same")


@pytest.mark.parametrize(("factor", "moved"), [(1.0, False), (1.9, False), (2.1, True), (0.51, False), (0.4, True)])
def test_an_error_that_changes_more_than_twofold_is_listed(factor: float, moved: bool):
    """Up or down, with both figures."""
    found = changes(run(alike()), run(scaled(alike(), factor)))
    assert [(kind, who, check) for kind, who, check, _ in found] == [("moved", "mlp-nnx", "train")] * moved
    if moved:
        before, after = (float(figure.split()[0]) for figure in found[0][3].split(" -> "))
        assert after / before == pytest.approx(factor, rel=0.1)


@given(st.floats(1e-3, 1e3))
def test_a_reversed_diff_reverses_every_change_by_its_factor(factor: float):
    """By the same factor; a law of ratios."""
    there, back = (
        changes(run(alike()), run(scaled(alike(), factor))),
        changes(run(scaled(alike(), factor)), run(alike())),
    )
    assert [one[:3] for one in there] == [one[:3] for one in back]
    assert bool(there) == (max(factor, 1 / factor) > REPORTED_FACTOR)


def test_numbers_of_what_is_proved_do_not_count():
    """A proof holds whatever they are."""
    proved = tuple(
        replace(item, grade="proved", findings=tuple(replace(one, grade="proved") for one in item.findings))
        for item in alike().checks
    )
    old = run(replace(alike(), checks=proved))
    assert changes(old, run(scaled(old.cases[0], 50))) == []


def test_a_weaker_grade_is_a_change():
    """A proof that is lost is not hidden by a verdict that stays."""
    weaker = tuple(replace(one, grade="rounding") if one.check == "train" else one for one in alike().checks)
    found = changes(run(alike()), run(replace(alike(), checks=weaker)))
    assert found == [("changed", f"mlp-{who}", "train", "float64 -> rounding") for who in ("linen", "nnx")]


def test_comparisons_that_come_and_go_are_listed():
    """By candidate."""
    old, new = run(alike("gone")), run(alike("new"))
    assert changes(old, new) == [
        ("vanished", "gone-linen", "", "same -> "),
        ("vanished", "gone-nnx", "", "same -> "),
        ("appeared", "new-linen", "", " -> same"),
        ("appeared", "new-nnx", "", " -> same"),
    ]


def test_a_case_that_became_unusable_fails_in_all_candidates():
    """With the problem in the place."""
    broken = CaseResult("mlp", "", "", "", (), {}, (), problem="mlp.py: has no CASE.")
    found = diff_runs(run(alike()), run(broken)).changes
    assert [(one.kind, one.candidate, one.new, one.place) for one in found if not one.check] == [
        ("newly failing", who, "error", "mlp.py: has no CASE.") for who in ("linen", "nnx")
    ]


def test_changed_versions_are_listed_but_are_no_change():
    """In order of name; what is absent is empty."""
    newer = replace(BEFORE, environment={**ENVIRONMENT, "jax": "0.11", "optax": "0.3"})
    found = diff_runs(BEFORE, newer)
    assert found.versions == (("jax", "0.10.2", "0.11"), ("optax", "", "0.3"))
    assert found.changes == ()


def test_every_kind_has_a_sign_of_its_own():
    """Colour never speaks alone."""
    assert set(CHANGE_SIGNS) == set(CHANGE_KINDS)
    assert len(set(CHANGE_SIGNS.values())) == len(CHANGE_SIGNS)


def invoke(folder: Path, old: RunResult, new: RunResult, *options: str) -> Result:
    """`equiv diff` on two files."""
    for name, result in (("old.json", old), ("new.json", new)):
        (folder / name).write_bytes(encode_results(result))
    return CliRunner().invoke(main, ["diff", str(folder / "old.json"), str(folder / "new.json"), *options])


def test_the_command_says_what_changed_and_exits_as_diff_does(tmp_path: Path):
    """0 where nothing did, 1 where something did; the first line is the verdict."""
    same = invoke(tmp_path, BEFORE, BEFORE)
    assert (same.exit_code, same.stdout) == (0, "= nothing changed; 4 comparisons unchanged\n")
    failing = replace(
        BEFORE, cases=(BEFORE.cases[0], parted(BEFORE.cases[1])), environment={**ENVIRONMENT, "jax": "0.11"}
    )
    ran = invoke(tmp_path, BEFORE, failing)
    lines = ran.stdout.splitlines()
    assert ran.exit_code == 1
    assert lines[:2] == ["✗ 3 newly failing; 3 comparisons unchanged", "jax 0.10.2 -> 0.11"]
    assert lines[2].split()[:6] == ["✗", "newly", "failing", "batch_norm-nnx", "same", "->"]


def test_the_command_gives_json(tmp_path: Path):
    """With every field of a change."""
    ran = invoke(tmp_path, run(alike("gone")), run(alike("new")), "--json")
    assert ran.exit_code == 1
    assert [one["kind"] for one in json.loads(ran.stdout)["changes"]] == ["vanished"] * 2 + ["appeared"] * 2


def test_a_file_that_cannot_be_read_is_trouble(tmp_path: Path):
    """One message with the fix, and never the code of a difference."""
    (tmp_path / "new.json").write_bytes(encode_results(BEFORE))
    ran = CliRunner().invoke(main, ["diff", str(tmp_path / "old.json"), str(tmp_path / "new.json")])
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert re.fullmatch(r"equiv: .*old\.json: cannot be read: .* that equiv run wrote\.\n", ran.stderr)
