"""The views of a run: what is found is shown, in words and not in colour alone."""

import re
from dataclasses import replace
from typing import get_args

import pytest
from report.sample_runs import MISSING, NEAR, OFF, RUNS, TRAINED, broken, case, check, result, section, shown

from equiv.core.checks import CHECK_NAMES
from equiv.core.grades import EQUAL_GRADES, Grade, Verdict
from equiv.core.headline import verdict_words
from equiv.core.results import CaseResult, Finding, ProbeTrial
from equiv.core.results_json import decode_results, encode_results
from equiv.report.cells import GRADE_SIGNS, NOT_APPLICABLE, VERDICT_SIGNS, check_cell, describe_finding
from equiv.report.html.page import render_page
from equiv.report.html.views.case_view import build_case_view
from equiv.report.markdown import render_markdown
from equiv.report.runs.merge import MergedCase


@pytest.mark.parametrize("verdict", get_args(Verdict))
def test_every_verdict_opens_both_views_with_sign_and_sentence(verdict: Verdict):
    run = RUNS[verdict]
    assert run.verdict == verdict
    assert shown(run).splitlines()[0] == f"{VERDICT_SIGNS[verdict]} {run.headline}"
    assert render_markdown([run]).splitlines()[0].startswith(f"# {VERDICT_SIGNS[verdict]} ")


@pytest.mark.parametrize("width", [40, 80, 120, 200])
@pytest.mark.parametrize("verdict", get_args(Verdict))
def test_no_width_loses_a_verdict_or_a_name(verdict: Verdict, width: int):
    run = RUNS[verdict]
    text = shown(run, width)
    for one in run.cases:
        assert one.name in text
        for candidate, word in one.verdicts.items():
            assert re.search(rf"{candidate} / haiku", text)
            assert f"{VERDICT_SIGNS[word]} {verdict_words(one, candidate)}" in text


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_a_long_name_costs_the_table_but_no_text(width: int):
    name = "a_folder/with/a/very_long_name_of_a_case_that_somebody_has_written"
    text = shown(result(case(name, check("train", OFF), check("outputs", NEAR))), width)
    assert "…" not in text
    assert re.search(rf"{name}.*(linen|nnx) / haiku|(linen|nnx) / haiku.*{name}", text)
    assert "✗ same function, different training" in text
    assert "✓ same" in text
    words = " ".join(text.split())
    for cell_text in (
        ("train ✗ refuted 2.5e+02", "outputs ✓ float64 0.5") if width < 200 else ("✗ refuted", "✓ float64")
    ):
        assert cell_text in words


def test_a_table_too_wide_loses_numbers_then_becomes_a_list():
    run = result(case("apart", *(check(name, OFF) for name in CHECK_NAMES)))
    wide, narrow, narrowest = (shown(run, width).splitlines()[2:5] for width in (220, 160, 80))
    assert wide[0].split() == ["case", "candidate", *CHECK_NAMES, "verdict"]
    assert wide[1].count("✗ refuted 2.5e+02") == len(CHECK_NAMES)
    assert narrow[0].split() == wide[0].split()
    assert narrow[1].count("✗ refuted") == len(CHECK_NAMES)
    assert "2.5e+02" not in narrow[1]
    assert narrowest[0] == "✗ different  apart, linen / haiku"
    assert narrowest[1].startswith("    structure ✗ refuted 2.5e+02, randomness ✗ refuted 2.5e+02, ")


@pytest.mark.parametrize("grade", get_args(Grade))
def test_every_grade_has_a_sign_and_word_everywhere(grade: Grade):
    run = result(case("a", check("gradients", Finding("gradient f: loss", grade, note="a note"))))
    words = f"{GRADE_SIGNS[grade]} {grade}"
    assert check_cell(run.cases[0], "linen", "gradients") == (words, grade)
    assert words in shown(run)
    assert words in shown(run, width=60)
    assert f"| {words} " in render_markdown([run])


def test_equal_and_unequal_grades_have_different_signs():
    equal = {GRADE_SIGNS[grade] for grade in EQUAL_GRADES}
    assert not equal & {GRADE_SIGNS[grade] for grade in GRADE_SIGNS if grade not in EQUAL_GRADES}
    assert len(set(VERDICT_SIGNS.values())) == len(VERDICT_SIGNS)


def test_colour_adds_nothing_that_the_text_does_not_say():
    for run in RUNS.values():
        coloured = shown(run, terminal=True)
        assert "\x1b[" in coloured
        assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == shown(run)


def test_a_check_that_does_not_apply_is_a_dash():
    whole = case("a")
    less = replace(whole, checks=tuple(one for one in whole.checks if one.check != "state"))
    assert check_cell(less, "linen", "state") == (NOT_APPLICABLE, "")
    assert f" {NOT_APPLICABLE} " in shown(result(less))


def test_the_worst_finding_shows_values_index_error_and_budget():
    """And where the budget comes from."""
    for text, bullet in ((shown(RUNS["different"]), "  "), (render_markdown([RUNS["different"]]), "- ")):
        assert re.search(r"First finding: apart-linen, outputs, eval encode: output\n", text.replace("*", ""))
        for line in (
            "haiku 2, linen 6 at [0, 3]",
            "error 4 / budget 0.001 = 4e+03 x budget (float64 run, probe 1)",
            "no rounding explains this difference",
        ):
            assert f"\n{bullet}{line}\n" in text
        assert re.search(
            rf"\n{bullet}budget: one ulp in every input changes this by 0\.0001; times the square root of 16 rounded "
            r"operations in sequence; times 6\.5, which chance exceeds once in 1,000,000,000\n",
            text,
        )


@pytest.mark.parametrize(
    ("budget", "sentence"),
    [
        (
            0.0026,
            r"budget: one ulp in every input changes this by 0\.0001; times the square root of 16 rounded operations",
        ),
        (0.01, r"budget: twice the reference's distance from its own float64 run"),
    ],
    ids=["derived", "measured"],
)
def test_the_budget_says_where_it_comes_from(budget: float, sentence: str):
    lines = describe_finding(replace(OFF, budget=budget), "haiku", "linen")
    assert re.match(sentence, lines[-1])


def test_a_finding_in_training_says_after_which_step():
    assert (
        describe_finding(replace(OFF, output=TRAINED), "haiku", "linen")[1]
        == "haiku 1.5, linen 1.75 at [3] after step 1"
    )
    assert (
        describe_finding(replace(OFF, output=TRAINED, index=(4,)), "haiku", "linen")[1]
        == "haiku 1.5, linen 1.75 after step 5"
    )


def test_a_same_run_names_what_came_closest_to_its_budget():
    text = shown(RUNS["same"])
    assert (
        "Closest to its budget: alike-linen, train, train: a/kernel\n  haiku 1.5, linen 1.75 at [0, 1] after step 3\n"
        in text
    )
    assert "error 0.0005 / budget 0.001 = 0.5 x budget (float64 run, probe 1)" in text
    assert "First finding" not in text
    assert "First finding" not in render_markdown([RUNS["same"]])


def test_what_is_unidentifiable_is_never_closest_to_its_budget():
    zero = replace(NEAR, place="train: b/bias", grade="unidentifiable", ratio=0.9)
    text = shown(result(case("a", check("train", NEAR, zero))))
    assert "Closest to its budget: a-linen, train, train: a/kernel\n" in text


def test_a_refused_finding_is_never_closest_to_its_budget():
    run = result(broken("empty", "has no CASE."), case("apart", check("outputs", OFF)))
    assert "First finding: apart-linen, outputs, call __call__: output\n" in shown(run)
    assert "Closest" not in shown(run)


def test_everything_that_is_not_the_same_has_its_line():
    run = result(
        *(RUNS[verdict].cases[0] for verdict in ("different", "inconclusive", "error")), RUNS["error"].cases[1]
    )
    lines = (
        "✗ apart-linen, outputs, eval encode: output: haiku 2, linen 6: 4e+03 x budget",
        f"? missing-linen: structure not run, {MISSING}",
        "! raises: linen: tracing raised KeyError. Fix a.py:3.",
        "! empty: empty.py: has no CASE. End the file with CASE = Case(...), from equiv.core.case.",
    )
    text, document = shown(run), render_markdown([run])
    for line in lines:
        assert f"\n{line}\n" in text
    for line in lines[:3]:
        assert f"- {line[2:]}" in section(document, "Not the same")
    assert f"- {lines[3][2:]}" in section(document, "Not compared")


def test_what_the_numbers_are_is_said_beside_the_table():
    assert "A number is error / budget, 1 is the limit" in shown(RUNS["same"])
    assert "18 findings: 17 exact, 1 float64; 0 leaves mapped, 0 left over" in shown(RUNS["same"])


def test_device_and_versions_are_shown_once():
    assert shown(RUNS["same"]).splitlines()[1] == "cpu · jax 1.2.3 · flax 4.5.6 · 1.2 s"
    assert shown(replace(RUNS["same"], environment={})).splitlines()[1] == "1.2 s"


REMARK = "both ports are trained with `sgd`"


def remarked(name: str) -> CaseResult:
    """A case whose check of training has a remark."""
    return case(name, replace(check("train", NEAR), remarks=(REMARK,)))


def test_a_remark_is_among_the_first_lines_of_every_view():
    """Once for all cases, with the first of their names where there are several."""
    cases = [remarked(name) for name in ("mlp", "rnn", "gru", "lstm", "cnn")]
    several, single = result(*cases), result(cases[0])
    for view in (shown(several), render_markdown([several]), render_page([several])):
        assert "(mlp, rnn, gru and 2 more)" in view
    assert f"\ntrain: {REMARK}\n" in shown(single)
    assert f"\n- train: {REMARK}\n" in render_markdown([single])


def test_a_remark_is_the_same_after_writing_and_reading():
    assert decode_results(encode_results(result(remarked("mlp"))), "results") == result(remarked("mlp"))


def test_a_trial_of_several_leaves_counts_their_pairs() -> None:
    """Of ten pairs, seven are noticed; the three that are not are one line, whatever their number."""
    group = ("a", "b", "c", "d", "e")
    trials = (
        ProbeTrial("moved", ("a",)),
        ProbeTrial("swapped", group, pairs=7, unrun=5),
        ProbeTrial("swapped", group[2:], False, 0.1, "it changes nothing", 3),
    )
    run = result(case("many", check("outputs", NEAR), trials=trials))
    line = (
        "1 of 1 changed leaves and 7 of 10 swapped leaf pairs noticed (5 of these without a run, by gradients and by "
        "what is returned)"
    )
    assert line in shown(run)
    assert "not noticed: swapped any two of c, d, e" in shown(run)
    view = build_case_view(MergedCase("cpu", run, run.cases[0]))
    assert "7 of 10 swaps of leaves of the same shape" in view.probes
    assert view.undetected_changes == ("swapped any two of c, d, e: it changes nothing",)
