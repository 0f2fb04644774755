"""The headline: one verdict, the counts, and the first place where something is wrong."""

import pytest
from named import output_named

from equiv.core.headline import DIFFERENT_TRAINING, headline_finding, severity, summarise_run, verdict_words
from equiv.core.results import CaseResult, CheckResult, Finding
from equiv.core.verdict import verdict_exit_code, verdict_of


def check(name, grade, *findings, candidate="nnx", summary=""):
    return CheckResult(name, candidate, grade, summary, findings)


def case(name, *checks, problem=""):
    candidates = tuple(dict.fromkeys(item.candidate for item in checks))
    verdicts = {who: verdict_of(tuple(item for item in checks if item.candidate == who)) for who in candidates}
    return CaseResult(name, "", "", "haiku", candidates, verdicts, checks, problem=problem)


SAME = case("mlp", check("structure", "exact"), check("outputs", "float64"))
FORMULA = case("norm", check("structure", "exact"), check("train", "expected"))
OFF = Finding("train __call__: output", "refuted", ratio=12.3456)
WORSE = Finding("eval __call__: output", "refuted", ratio=99.0)
DIFFERENT = case("rnn", check("structure", "exact"), check("outputs", "refuted", OFF, WORSE))
SHAPE = case("lora", check("structure", "refuted", Finding("leaf a/kernel", "refuted", note="shape differs")))
UNSURE = case("gru", check("structure", "exact"), check("outputs", "vacuous", summary="2 vacuous"))
NOT_RUN = case("cnn", check("structure", "not run", summary="linen: flax is not installed here"))
FAILED = case(
    "lstm",
    check("structure", "exact"),
    check("outputs", "error", Finding("nnx", "error", note="nnx: tracing raised TypeError")),
)
BROKEN = case("broken", problem="broken.py: has no CASE")


@pytest.mark.parametrize(
    ("cases", "verdict", "parts"),
    [
        ([SAME], "same", ["Same: 1 comparison of 1 case"]),
        ([SAME, FORMULA], "same", ["Same: all 2 comparisons of 2 cases", "1 with a known difference that holds"]),
        (
            [SAME, DIFFERENT],
            "different",
            ["Not the same: 1 of 2 comparisons", "First: rnn-nnx, outputs, eval __call__: output", "99 x budget"],
        ),
        (
            [SHAPE, DIFFERENT],
            "different",
            ["Not the same: 2 of 2 comparisons", "First: lora-nnx, structure, leaf a/kernel", "shape differs"],
        ),
        ([UNSURE, DIFFERENT], "different", ["Not the same: 1 of 2 comparisons", "First: rnn-nnx, outputs"]),
        ([SAME, UNSURE], "inconclusive", ["Inconclusive: 1 of 2 comparisons", "First: gru-nnx: outputs vacuous"]),
        (
            [NOT_RUN],
            "inconclusive",
            [
                "Inconclusive: 1 of 1 comparison",
                "First: cnn-nnx: structure not run, linen: flax is not installed here",
            ],
        ),
        ([], "inconclusive", ["Inconclusive", "no case was run"]),
        ([SAME, FAILED], "error", ["Trouble in 1 of 2 cases", "First: lstm", "nnx: tracing raised TypeError"]),
        ([SAME, BROKEN], "error", ["Trouble in 1 of 2 cases", "First: broken: broken.py: has no CASE"]),
        (
            [DIFFERENT, UNSURE, BROKEN, FAILED],
            "error",
            ["Trouble in 2 of 4 cases", "1 differ", "First: lstm", "nnx: tracing raised TypeError"],
        ),
    ],
    ids=[
        *(
            "same",
            "by-formula",
            "different",
            "first-of-two",
            "different-before-unsure",
            "vacuous",
            "not-run",
            "nothing",
        ),
        *("error", "broken", "error-first"),
    ],
)
def test_the_headline_has_the_verdict_counts_and_first_place(cases, verdict, parts):
    said, headline = summarise_run(cases)
    assert said == verdict
    assert [part for part in parts if part not in headline] == []
    assert "\n" not in headline


@pytest.mark.parametrize(
    ("cases", "code"),
    [
        ([SAME], 0),
        ([FORMULA], 0),
        ([SAME, DIFFERENT], 1),
        ([DIFFERENT, BROKEN], 2),
        ([FAILED], 2),
        ([UNSURE], 3),
        ([], 3),
    ],
    ids=["same", "by-formula", "different", "broken", "error", "inconclusive", "nothing"],
)
def test_exit_codes_follow_diff_and_only_same_is_zero(cases, code):
    assert verdict_exit_code(summarise_run(cases)[0]) == code


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        (
            [check("outputs", "exact"), check("gradients", "float64"), check("train", "refuted", OFF)],
            DIFFERENT_TRAINING,
        ),
        ([check("outputs", "refuted", OFF), check("train", "refuted", OFF)], "different"),
        ([check("outputs", "exact"), check("gradients", "refuted", OFF)], "different"),
        ([check("outputs", "exact"), check("train", "exact")], "same"),
        ([check("outputs", "exact"), check("train", "vacuous")], "inconclusive"),
        ([check("outputs", "error"), check("train", "refuted", OFF)], "error"),
    ],
    ids=["train-only", "outputs-too", "gradients-only", "same", "inconclusive", "error"],
)
def test_equal_functions_that_train_differently_have_their_own_words(checks, words):
    assert verdict_words(case("mlp", *checks), "nnx") == words


def test_different_training_is_said_of_the_candidate_that_differs():
    both = case(
        "mlp",
        check("outputs", "exact", candidate="linen"),
        check("train", "refuted", OFF, candidate="linen"),
        check("outputs", "refuted", OFF),
        check("train", "refuted", OFF),
    )
    assert (verdict_words(both, "linen"), verdict_words(both, "nnx")) == (DIFFERENT_TRAINING, "different")


def test_equal_functions_that_train_differently_are_still_different():
    apart = case("mlp", check("outputs", "exact"), check("train", "refuted", OFF))
    assert summarise_run([apart])[0] == "different"


LATER = Finding(
    "after training, eval __call__: output",
    "refuted",
    ratio=1e9,
    output=output_named("after training, eval __call__: output"),
)
BETWEEN = Finding(
    "train __call__: state a/mean", "refuted", ratio=3.0, output=output_named("train __call__: state a/mean")
)
STEPPED = Finding("train: a/kernel", "refuted", ratio=7.0, output=output_named("train: a/kernel"))


def test_what_trained_models_compute_speaks_after_their_training():
    """It has the larger number, and the training is its cause."""
    apart = case("mlp", check("outputs", "exact"), check("state", "refuted", LATER), check("train", "refuted", STEPPED))
    assert "First: mlp-nnx, train, train: a/kernel: 7 x budget" in summarise_run([apart])[1]
    assert headline_finding([apart], ("refuted",))[2] == STEPPED
    assert verdict_words(apart, "nnx") == DIFFERENT_TRAINING


def test_another_state_after_a_call_speaks_before_training():
    apart = case("mlp", check("state", "refuted", BETWEEN, LATER), check("train", "refuted", STEPPED))
    assert "First: mlp-nnx, state, " in summarise_run([apart])[1]
    assert verdict_words(apart, "nnx") == "different"


def test_trained_models_that_differ_without_a_cause_are_different():
    apart = case("mlp", check("state", "refuted", LATER), check("train", "exact"))
    assert headline_finding([apart], ("refuted",))[2] == LATER
    assert verdict_words(apart, "nnx") == "different"


def test_the_worst_finding_of_the_first_such_check_speaks():
    found = headline_finding([SAME, DIFFERENT, SHAPE], ("refuted",))
    assert (found[0].name, found[1].check, found[2]) == ("rnn", "outputs", WORSE)
    assert headline_finding([SAME, UNSURE], ("refuted", "error")) is None


def test_a_difference_without_a_ratio_is_worse_than_any_number():
    findings = [Finding("a", "exact"), Finding("b", "float64", ratio=0.5), OFF, Finding("c", "refuted")]
    assert [severity(finding) for finding in findings] == [0, 0.5, OFF.ratio, float("inf")]
