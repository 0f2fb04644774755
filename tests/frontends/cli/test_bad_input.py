"""Bad input: one message with who, what, where and the fix, and never a traceback."""

from pathlib import Path

import pytest
from frontends.cli.bad_cases import (
    ALL_THREE,
    MODELS,
    RETURN,
    SOURCE,
    STEP_TROUBLE,
    STEPS,
    UNBUILT,
    UNUSABLE,
    Change,
    H,
    Y,
    run_files,
    says,
    write,
)

from equiv.core.grades import EQUAL_GRADES
from equiv.core.results import CaseResult, Finding
from equiv.core.verdict import verdict_exit_code


def run_one(folder: Path, *changes: Change, source: str = SOURCE) -> tuple[CaseResult, int]:
    """One case and the exit code of a run over it alone."""
    result = run_files(write(folder, *changes, source=source))
    return result.cases[0], verdict_exit_code(result.verdict)


def findings(case: CaseResult, candidate: str, *grades: str) -> list[Finding]:
    """The findings of a candidate with such grades, in the order of the checks."""
    own = [check for check in case.checks if check.candidate == candidate]
    return [finding for check in own for finding in check.findings if finding.grade in grades]


def only(case: CaseResult, check: str, candidate: str = "linen") -> str:
    """The grade of one check."""
    return next(one.grade for one in case.checks if (one.check, one.candidate) == (check, candidate))


@pytest.mark.parametrize(("changes", "words"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_case_says_why_and_is_trouble(tmp_path: Path, changes: list[Change], words: list[str]):
    case, code = run_one(tmp_path, *changes)
    says(case.problem, *words)
    assert case.candidates == ()
    assert code == 2


@pytest.mark.parametrize(
    ("source", "words"),
    [("", "bad.py: has no CASE"), ("CASE = {'models': 1}", "has a CASE that is {'models': 1}")],
    ids=["empty", "another_type"],
)
def test_a_file_without_a_case_is_asked_for_one(tmp_path: Path, source: str, words: str):
    case, code = run_one(tmp_path, source=source)
    says(case.problem, words, "End the file with CASE = Case(...)")
    assert code == 2


@pytest.mark.parametrize(("changes", "words"), UNBUILT.values(), ids=UNBUILT)
def test_an_unusable_builder_or_row_says_why_and_is_trouble(tmp_path: Path, changes: list[Change], words: list[str]):
    case, code = run_one(tmp_path, *changes)
    if case.problem:
        says(case.problem, *words)
    else:
        (candidate,) = case.candidates
        says(findings(case, candidate, "error")[0].note, *words)
        assert case.verdicts == {candidate: "error"}
        assert {check.grade for check in case.checks} == {"error", "blocked"}
    assert code == 2


def test_a_key_that_is_no_library_is_a_free_name(tmp_path: Path):
    """The library is recognised from the model, and rows that name the library are its ports'."""
    case, code = run_one(tmp_path, (MODELS, '{"old": haiku, "new": linen}'))
    assert (case.problem, case.reference, case.verdicts, code) == ("", "old", {"new": "same"}, 0)


def test_one_builder_that_raises_leaves_the_other_candidate_alone(tmp_path: Path):
    case, code = run_one(tmp_path, ALL_THREE, (RETURN, "raise ValueError('no such thing')"))
    assert case.verdicts == {"linen": "error", "nnx": "same"}
    assert code == 2


def test_a_missing_library_is_not_run_and_others_are(tmp_path: Path):
    case, code = run_one(tmp_path, ALL_THREE, ("import flax.linen as nn", "import nonexistent_library"))
    (finding,) = findings(case, "linen", "not run")
    says(finding.note, "linen: building the model needs nonexistent_library, which is not installed here. Install it.")
    assert case.verdicts == {"linen": "inconclusive", "nnx": "same"}
    assert code == 3


@pytest.mark.parametrize(
    ("change", "values"),
    [
        (("nn.Dense(3", "nn.Dense(4"), ("(2, 3)", "(2, 4)", "shape differs")),
        (("nn.Dense(3", "nn.Dense(3, param_dtype=jnp.bfloat16"), ("float32", "bfloat16", "dtype differs")),
    ],
    ids=["shape", "dtype"],
)
def test_another_shape_or_dtype_is_refuted_and_blocks_the_rest(
    tmp_path: Path, change: Change, values: tuple[str, str, str]
):
    case, code = run_one(tmp_path, change)
    first = findings(case, "linen", "refuted")[0]
    assert (first.place, first.reference, first.candidate, first.note) == ("leaf dense/kernel", *values)
    assert only(case, "structure") == "refuted"
    assert {check.grade for check in case.checks if check.check != "structure"} == {"blocked"}
    assert {check.summary for check in case.checks if check.grade == "blocked"} == {f"leaf dense/kernel: {values[2]}"}
    assert code == 1


LOG = {"haiku": (H, "return jnp.log(h)"), "linen": (Y, "return jnp.log(y)\n")}


def test_a_loss_not_finite_in_both_is_an_error(tmp_path: Path):
    """Equal values that are not finite are equal, as in the outputs; of the loss nothing else is left to compare."""
    case, code = run_one(tmp_path, LOG["haiku"], LOG["linen"])
    first = findings(case, "linen", "error")[0]
    assert first.place == "gradient __call__: loss"
    assert (first.reference, first.candidate, first.nonfinite) == ("nan", "nan", (1, 1))
    says(first.note, "both ports give values that are not finite (haiku 1 of 1, linen 1 of 1)", "Keep the model finite")
    assert not findings(case, "linen", "refuted")
    assert code == 2


@pytest.mark.parametrize(("side", "counts"), [("haiku", (2, 0)), ("linen", (0, 2))], ids=["reference", "candidate"])
def test_values_not_finite_in_one_port_refute_it_by_name(tmp_path: Path, side: str, counts: tuple[int, int]):
    case, code = run_one(tmp_path, LOG[side])
    first = findings(case, "linen", "refuted")[0]
    assert first.nonfinite == counts
    assert first.note == (
        f"{side} gives values that are not finite where the other does not "
        f"(haiku {counts[0]} of 12, linen {counts[1]} of 12)"
    )
    assert code == 1


def test_training_that_overflows_alike_is_equal_where_finite(tmp_path: Path):
    """Equal infinities at one place are equal; another factor in one port shows before the overflow."""
    own_rate = "optimizer=lambda: __import__('optax').sgd(0.1)"  # the default one would be lowered
    changes = (H, "return h * 1e12"), (Y, "return y * 1e12\n"), (STEPS, f"{STEPS}, {own_rate}")
    case, code = run_one(tmp_path, *changes)
    (train,) = [check for check in case.checks if check.check == "train"]
    assert (train.grade in EQUAL_GRADES, code) == (True, 0)
    case, code = run_one(tmp_path, changes[0], (Y, "return y * 1.1e12\n"), changes[2])
    assert findings(case, "linen", "refuted")
    assert code == 1


@pytest.mark.parametrize("side", ["haiku", "linen"])
def test_a_model_without_float64_is_judged_natively_with_the_reason(tmp_path: Path, side: str):
    changes = {"haiku": (H, "return refuse(h)"), "linen": (Y, "return refuse(y)\n")}
    case, code = run_one(tmp_path, changes[side])
    finding = next(one for one in findings(case, "linen", "rounding") if one.place == "call __call__: output")
    assert finding.precision == "native"
    assert 0 < finding.ratio <= 1
    says(finding.note, f"no float64 run: {side}: tracing in float64 raised TypeError: only float32 here", "bad.py:")
    assert code == 0


@pytest.mark.parametrize(("step", "words"), STEP_TROUBLE.values(), ids=STEP_TROUBLE)
def test_a_train_step_that_cannot_be_used_says_why(tmp_path: Path, step: str, words: list[str]):
    case, code = run_one(tmp_path, (RETURN, step))
    says(findings(case, "linen", "error")[0].note, *words)
    assert code == 2


LOOP = """key = self.make_rng("dropout")
            y = y + jax.lax.while_loop(
                lambda carry: carry[0] < 2,
                lambda carry: (carry[0] + 1, jax.random.normal(jax.random.fold_in(key, carry[0]), (4, 3))),
                (0, jnp.zeros((4, 3))),
            )[1]
            return y
"""
CALLBACK = """failing = jax.pure_callback(lambda: 1 / 0, jax.ShapeDtypeStruct((), "float32"))
            return y + failing
"""


def test_a_draw_in_a_while_loop_is_refused_with_reason(tmp_path: Path):
    case, code = run_one(tmp_path, (Y, LOOP))
    says(
        findings(case, "linen", "error")[0].note,
        "a random draw inside while at ",
        "bad.py:",
        "how often it runs is not known beforehand. Draw outside the loop, or use jax.lax.scan.",
    )
    assert code == 2


def test_a_model_that_fails_when_run_says_what_it_raised(tmp_path: Path):
    case, code = run_one(tmp_path, (Y, CALLBACK))
    says(
        findings(case, "linen", "error")[0].note, "linen: running raised ", "ZeroDivisionError: division by zero. Fix "
    )
    assert code == 2


@pytest.mark.parametrize(
    "changes",
    [
        [("import random", "raise ValueError('planted')")],
        [(H, "raise ValueError('planted')")],
        [("import random", "def fail(*_):\n    raise ValueError('planted')"), (STEPS, "loss=fail")],
    ],
    ids=["file", "builder", "function_of_the_loss"],
)
def test_a_message_names_the_line_of_the_case_file(tmp_path: Path, changes: list[Change]):
    case, _ = run_one(tmp_path, *changes)
    path = tmp_path / "bad.py"
    lines = enumerate(path.read_text().splitlines(), 1)
    number = next(number for number, text in lines if "raise ValueError('planted')" in text)
    says(case.problem, "raised ValueError: planted.")
    says(case.problem, f"Fix {path}:{number}.")


def test_the_deepest_line_of_the_case_file_is_named(tmp_path: Path):
    case, _ = run_one(tmp_path, ("import random", "def fail():\n    raise ValueError"), (H, "return fail()"))
    says(case.problem, f"Fix {tmp_path / 'bad.py'}:5.")
