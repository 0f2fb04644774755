"""A stored run is believed as far as its findings go: neither its headline, nor its verdicts, nor its grades alone."""

from dataclasses import replace

import pytest

from equiv.core.headline import summarise_run
from equiv.core.recompute import recompute_verdicts
from equiv.core.results import CaseResult, CheckResult, Finding, RunResult
from equiv.core.results_json import encode_results, read_results

GOOD = Finding("output", "float64", error=1e-9, budget=1e-6, ratio=1e-3, precision="float64")
BAD = replace(GOOD, grade="refuted", error=1.0, ratio=1e6)


def run_of(*findings, grade="float64", verdict="same", said="same"):
    check = CheckResult("outputs", "nnx", grade, "", findings)
    case = CaseResult("mlp", "", "", "linen", ("nnx",), {"nnx": verdict}, (check,))
    return RunResult(said, summarise_run([case])[1], {}, (case,), "", 0.0)


def test_a_run_that_agrees_is_returned_as_it_is():
    good, bad = run_of(GOOD), run_of(BAD, grade="refuted", verdict="different", said="different")
    assert recompute_verdicts(good, "r.json") is good
    assert recompute_verdicts(bad, "r.json") is bad


@pytest.mark.parametrize(
    "run",
    [
        run_of(BAD),
        run_of(BAD, grade="refuted"),
        run_of(BAD, grade="refuted", verdict="different"),
        run_of(GOOD, BAD, GOOD),
        run_of(replace(BAD, grade="float64")),
        run_of(replace(BAD, grade="proved", ratio=0.1)),
        run_of(replace(BAD, grade="exact", budget=0.0, ratio=None)),
    ],
    ids=["grade", "verdict", "run", "one of three", "finding", "ratio", "no budget"],
)
def test_a_refuted_finding_makes_the_run_different(run):
    again = recompute_verdicts(run, "r.json")
    assert (again.verdict, again.cases[0].verdicts) == ("different", {"nnx": "different"})
    assert again.headline.startswith("Not the same: 1 of 1 comparison of 1 case. First: mlp-nnx, outputs, output")
    assert again.problems[0].startswith("r.json: grades or verdicts do not follow from the findings (")


@pytest.mark.parametrize("findings", [(), (replace(GOOD, grade="vacuous"),)], ids=["none", "vacuous"])
def test_where_nothing_was_compared_nothing_is_same(findings):
    assert recompute_verdicts(run_of(*findings), "r.json").verdict == "inconclusive"


def test_a_candidate_without_verdict_or_check_is_inconclusive():
    case = replace(run_of(GOOD).cases[0], candidates=("nnx", "haiku"))
    again = recompute_verdicts(replace(run_of(GOOD), cases=(case,)), "r.json")
    assert again.cases[0].verdicts == {"nnx": "same", "haiku": "inconclusive"}


def test_a_false_ratio_is_computed_again():
    again = recompute_verdicts(run_of(replace(GOOD, ratio=1e-9)), "r.json")
    assert again.cases[0].checks[0].findings[0].ratio == pytest.approx(1e-3)


def test_a_run_with_missing_cases_stays_inconclusive():
    run = replace(run_of(GOOD, said="inconclusive"), problems=("lstm: no result",))
    assert recompute_verdicts(run, "r.json") is run


def test_reading_a_file_believes_its_findings(tmp_path):
    path = tmp_path / "results.json"
    path.write_bytes(encode_results(run_of(BAD)))
    read = read_results(path)
    assert read.verdict == "different"
    assert f"{path}: grades or verdicts do not follow from the findings (mlp)" in read.problems[0]
