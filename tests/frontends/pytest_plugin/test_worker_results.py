"""Merging what several processes know: nothing is lost, nothing is counted twice, contradictions are said."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equiv.core.grades import EQUAL_GRADES, GRADE_PRIORITY
from equiv.core.join_runs import single_case_run
from equiv.core.results import CaseResult, CheckResult, Finding
from equiv.core.verdict import verdict_of
from equiv.frontends.pytest_plugin.failures import Mismatch, NotCompared, make_failure
from equiv.frontends.pytest_plugin.worker_results import (
    CaseEvent,
    append_event,
    merge_events,
    read_events,
)

HERE = {"jax": "1", "platform": "cpu"}


def result(name: str, grade: str = "proved") -> CaseResult:
    """A case with one check of one candidate."""
    checks = (CheckResult("outputs", "nnx", grade, "1", (Finding("call: output", grade),)),)
    return CaseResult(name, "", "", "linen", ("nnx",), {"nnx": verdict_of(checks)}, checks)


def lines_of(name: str, worker: str = "", grade: str = "proved", environment: dict[str, str] = HERE) -> list[CaseEvent]:
    """A case that is collected, begun and judged."""
    key = f"cases/{name}.py"
    run = replace(single_case_run(result(name, grade), environment), rewrites={f"rewrite of {name}": "condition"})
    judged = CaseEvent("judged", key, name, worker, run)
    return [CaseEvent("collected", key, name, worker), CaseEvent("begun", key, name, worker), judged]


NAMES = ["a", "b", "c"]


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(["gw0", "gw1", "gw2"])), min_size=1))
def test_however_cases_fall_to_workers_each_counts_once(judged):
    lines = [line for name, worker in judged for line in lines_of(name, worker)]
    run = merge_events(lines, [], "", 0.0)
    assert sorted(case.name for case in run.cases) == sorted({name for name, _ in judged})
    assert run.verdict == "same"
    assert run.problems == ()
    assert run.environment == HERE
    assert run.rewrites == {f"rewrite of {case.name}": "condition" for case in run.cases}


@given(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)))
def test_what_is_collected_has_a_result_or_is_named(begun, judged):
    lines = [CaseEvent("collected", f"cases/{name}.py", name) for name in NAMES]
    lines += [CaseEvent("begun", f"cases/{name}.py", name, "gw0") for name in sorted(begun)]
    lines += [line for name in sorted(judged) for line in lines_of(name)]
    run = merge_events(lines, [], "", 0.0)
    assert {case.name for case in run.cases} == judged
    assert {problem.partition(":")[0] for problem in run.problems} == set(NAMES) - judged
    assert (run.verdict == "same") == (judged == set(NAMES))


def test_a_missing_result_has_the_reason_that_holds():
    lines = [CaseEvent("collected", "k", "x"), CaseEvent("begun", "k", "x", "gw0"), CaseEvent("begun", "k", "x", "gw2")]
    assert "worker gw2 died while running it" in merge_events(lines, ["gw0", "gw2"], "", 0.0).problems[0]
    assert "the run ended while it was running" in merge_events(lines, [], "", 0.0).problems[0]
    assert "the run ended before" in merge_events(lines[:1], [], "", 0.0).problems[0]


def test_a_missing_result_does_not_hide_a_difference():
    run = merge_events([CaseEvent("collected", "k", "x"), *lines_of("a", grade="refuted")], [], "", 0.0)
    assert run.verdict == "different"
    assert run.headline.startswith("Not the same: 1 of 1")


@pytest.mark.parametrize("grades", [("proved", "refuted"), ("refuted", "proved")])
def test_workers_that_disagree_are_named_and_the_worse_is_kept(grades):
    lines = [
        line for worker, grade in zip(("gw0", "gw1"), grades, strict=True) for line in lines_of("a", worker, grade)
    ]
    run = merge_events(lines, [], "", 0.0)
    assert run.verdict == "different"
    words = {"proved": "same", "refuted": "different"}
    assert run.problems == (
        f"a: gw0 says nnx {words[grades[0]]} and gw1 says nnx {words[grades[1]]}. "
        "The worse verdict is kept; remove randomness from its builders",
    )


def test_results_of_two_environments_are_not_one_run():
    lines = [*lines_of("a"), *lines_of("b", environment=HERE | {"jax": "2"})]
    assert merge_events(lines, [], "", 0.0).problems == ("b was run with jax '2', a with '1'",)


def test_a_line_that_a_killed_worker_left_unfinished_is_dropped(tmp_path):
    for worker in ("gw10", "gw9"):
        for line in lines_of(worker, worker):
            append_event(tmp_path / f"{worker}.jsonl", line)
    whole = read_events(tmp_path)
    assert [line.worker for line in whole] == ["gw9"] * 3 + ["gw10"] * 3
    path = tmp_path / "gw9.jsonl"
    path.write_bytes(path.read_bytes()[:-2])
    assert read_events(tmp_path) == whole[:2] + whole[3:]


@pytest.mark.parametrize("grade", [grade for grade in GRADE_PRIORITY if grade not in EQUAL_GRADES])
def test_every_grade_that_is_not_equal_is_a_failure(grade):
    """Also `not run` and `vacuous`: pytest would end with 0 for a skip, where `equiv run` ends with 3."""
    case = result("a", grade)
    error = make_failure(single_case_run(case, HERE), case.checks[0])
    assert error.result is case
    if grade == "refuted":
        assert type(error) is Mismatch
        assert str(error).startswith("call: output")
    else:
        assert type(error) is NotCompared
        assert str(error).startswith(f"{grade}: call: output")
    assert f"{type(error).__module__}.{type(error).__qualname__}" == f"equiv.{type(error).__name__}"


def test_a_long_reason_is_cut_to_100_characters():
    """On one line."""
    case = replace(result("a"), problem="line one\nand " + "a very long reason " * 20)
    said = str(make_failure(single_case_run(case, HERE), None, " (outputs, nnx)"))
    assert said.startswith("line one and a very long reason ")
    assert len(said) == 100
