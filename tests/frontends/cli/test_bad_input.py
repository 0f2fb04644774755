"""Bad input: one message with who, what, where and the fix; the rest of the run finishes; never a traceback."""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

import equiv.comparison.pipeline
from equiv.comparison import stages
from equiv.comparison.pipeline import make_run_result, run_cases
from equiv.core.case_files import CaseFile
from equiv.core.grades import EQUAL_GRADES
from equiv.core.results import CaseResult, Finding, RunResult
from equiv.core.results_json import decode_results, encode_results
from equiv.core.verdict import verdict_exit_code
from equiv.frontends.cli.main import main
from equiv.running.run_tasks import INTERRUPTED

SOURCE = '''"""A layer and nothing else."""

import itertools
import random

from equiv.case import Case, zero_debias
from equiv.layers import linear, parameter, state

COUNT = itertools.count(1)


def refuse(x):
    if str(x.dtype) == "float64":
        raise TypeError("only float32 here")
    return (x + 0.1) * 3 - 2 * x - 0.3


def haiku():
    import haiku as hk
    import jax.numpy as jnp

    def forward(x):
        h = hk.Linear(3, name="dense")(x)
        return h

    return hk.without_apply_rng(hk.transform(forward))


def linen():
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = nn.Dense(3, name="dense")(x)
            return y

    return Model()


def nnx(rngs):
    from flax import nnx

    return nnx.Linear(2, 3, rngs=rngs)


CASE = Case(
    guide="none",
    models={"haiku": haiku, "linen": linen},
    batch={"x": "float32[4,2]"},
    layers=(linear("dense", haiku="dense", linen="dense", nnx=""),),
    steps=2,
)
'''

MODELS = '{"haiku": haiku, "linen": linen}'
ALL_THREE = (MODELS, '{"haiku": haiku, "linen": linen, "nnx": nnx}')
H = "return h"
Y = "return y\n"
RETURN = "return Model()"
ENTRY = '"float32[4,2]"'
STEPS = "steps=2"
STEP = """def train_step(params, key, x{more}):
        {body}

    return Model(), train_step, lambda params: ()"""

FIXES = "Add|Draw|End|Fix|Give|Install|Keep|Rename|Remove|Return|Take|Write"
"""What a fix begins with."""

Change = tuple[str, str]


def write(folder: Path, *changes: Change, source: str = SOURCE, name: str = "bad") -> CaseFile:
    """A case file, with each text replaced where it first occurs."""
    for old, new in changes:
        assert old in source, f"{old!r} does not occur"
        source = source.replace(old, new, 1)
    path = folder / f"{name}.py"
    path.write_text(source)
    return CaseFile(name, path)


def run_files(*files: CaseFile) -> RunResult:
    """The cases to their verdict; the results have to make the way through JSON, whatever was found."""
    result = make_run_result(list(run_cases(list(files))), datetime.now(UTC), seconds=0.0)
    assert decode_results(encode_results(result), "results").verdict == result.verdict
    return result


def run_one(folder: Path, *changes: Change, source: str = SOURCE) -> tuple[CaseResult, int]:
    """One case and the exit code of a run over it alone."""
    result = run_files(write(folder, *changes, source=source))
    return result.cases[0], verdict_exit_code(result.verdict)


def told(text: str, *words: str) -> None:
    """One line that ends with what to do, is not about an accident of ours, and holds the words."""
    assert "\n" not in text, text
    assert "Traceback" not in text, text
    assert "equiv itself" not in text, text
    assert re.search(rf" ({FIXES})[ ,].*\.$", text), text
    for word in words:
        assert word in text, f"{word!r} is missing in: {text}"


def findings(case: CaseResult, candidate: str, *grades: str) -> list[Finding]:
    """The findings of a candidate with such grades, in the order of the checks."""
    own = [check for check in case.checks if check.candidate == candidate]
    return [finding for check in own for finding in check.findings if finding.grade in grades]


def only(case: CaseResult, check: str, candidate: str = "linen") -> str:
    """The grade of one check."""
    return next(one.grade for one in case.checks if (one.check, one.candidate) == (check, candidate))


UNUSABLE = {
    "no_case": ([("CASE = Case(", "MODEL = Case(")], ["bad.py", "has no CASE", "End the file with CASE = Case(...)"]),
    "a_class": ([("CASE = Case(", "CASE = Case\n_ = Case(")], ["bad.py", "a CASE that is <class", "Case(...)"]),
    "syntax_error": ([("def haiku():", "def haiku(:")], ["bad.py", "SyntaxError: invalid syntax (bad.py, line 18)"]),
    "import_error": (
        [("import linear,", "import conv3000,")],
        ["ImportError: cannot import name 'conv3000' from 'equiv.layers'", "Fix ", "bad.py:"],
    ),
    "missing_library_at_the_top": (
        [("import random", "import nonexistent_library")],
        ["ModuleNotFoundError: No module named 'nonexistent_library'", "bad.py:"],
    ),
    "leaves_the_program": ([("import random", "raise SystemExit(0)")], ["bad.py", "SystemExit: 0", "bad.py:"]),
    "unknown_field": ([("guide=", "giude=")], ["TypeError", "unexpected keyword argument 'giude'", "bad.py:"]),
    "one_model": ([(MODELS, '{"linen": linen}')], ["bad.py", "has 1 model", "Give it two"]),
    "no_models": ([(MODELS, "None")], ["the case's models is None", '{"old": ..., "new": ...}', "Fix models"]),
    "list_of_models": ([(MODELS, "[haiku, linen]")], ["the case's models is", "wanted names of ports to builders"]),
    "model_for_a_builder": ([(MODELS, '{"haiku": haiku, "linen": 3}')], ["the case's models is", "to builders"]),
    "one_row_for_a_tuple": (
        [("layers=(linear", "layers=linear"), ('nnx=""),)', 'nnx="")')],
        ["the case's layers is", "with the comma", "Fix layers in the file"],
    ),
    "text_for_a_tuple": (
        [(STEPS, 'methods={"__call__": ("x")}')],
        ["the case's methods is {'__call__': 'x'}", '{"__call__": ("x",)}, with the comma'],
    ),
    "no_steps": ([(STEPS, "steps=0")], ["the case's steps is 0, wanted a whole number from 1 on"]),
    "shape_for_text": ([(ENTRY, "(4, 2)")], ["the case's batch is {'x': (4, 2)}", '{"x": "float32[8,784]"}']),
    "unknown_dtype": ([(ENTRY, '"float31[4,2]"')], ["batch entry 'x'", "no dtype 'float31'", "e.g. float32 or int32"]),
    "unreadable_entry": ([(ENTRY, '"4 by 2"')], ["batch entry 'x'", "cannot parse '4 by 2'", '"int32[8]:10"']),
    "no_bound": ([(ENTRY, '"int32[4,2]"')], ["batch entry 'x'", "'int32[4,2]' has no upper bound", '"int32[4, 2]:10"']),
    "empty_axis": (
        [(ENTRY, '"float32[4,0]"')],
        ["batch entry 'x'", "'float32[4,0]' is empty", "Give every axis a size"],
    ),
    "empty_batch": ([(f'{{"x": {ENTRY}}}', "{}")], ["the batch is empty", "Give it an entry"]),
    "64_bits": (
        [(ENTRY, '"float64[4,2]"')],
        ["batch entry 'x'", "float64 becomes float32, as 64-bit types are disabled", "JAX_ENABLE_X64=1"],
    ),
    "method_without_entry": (
        [(STEPS, 'methods={"__call__": ("images",)}')],
        ["method __call__ takes batch entry 'images', the batch has x", "Fix"],
    ),
    "formula_for_no_leaf": (
        [(STEPS, 'known_differences=zero_debias("norm", 0.9)')],
        [
            "known_differences names the leaf 'norm/mean', which haiku does not have",
            "closest is",
            "Fix the name in known_differences",
        ],
    ),
    "printed_for_no_backend": (
        [(STEPS, 'printed={"lynen": {"dense/bias": (3,)}}')],
        ["printed names 'lynen', which is no port and no library; the ports are haiku, linen", "Rename it in printed"],
    ),
    "reference_lacks_its_library": (
        [("import haiku as hk", "import nonexistent_library")],
        ["haiku: building the model needs nonexistent_library, which is not installed", "The reference is haiku"],
    ),
    "reference_raises": (
        [(H, "raise ValueError('no such thing')")],
        ["haiku: building the model raised ValueError: no such thing", "Fix ", "bad.py:", "The reference is haiku"],
    ),
    "reference_lacks_a_method": (
        [(STEPS, 'methods={"__call__": ("x",), "encode": ("x",)}')],
        ["haiku: no apply function for encode", "hk.multi_transform", "The reference is haiku"],
    ),
    "loss_raises": (
        [(STEPS, "loss=lambda outputs, batch: batch['labels'].sum()")],
        ["haiku: tracing raised KeyError: 'labels'", "bad.py:"],
    ),
    "loss_is_no_scalar": (
        [(STEPS, "loss=lambda outputs, batch: outputs")],
        ["haiku: tracing raised TypeError: Gradient only defined for scalar-output functions"],
    ),
    "optimizer_raises": ([(STEPS, "optimizer=lambda: 1 / 0")], ["haiku: tracing raised ZeroDivisionError", "bad.py:"]),
}


@pytest.mark.parametrize(("changes", "words"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_case_says_why_and_is_trouble(tmp_path: Path, changes: list[Change], words: list[str]):
    case, code = run_one(tmp_path, *changes)
    told(case.problem, *words)
    assert case.candidates == ()
    assert code == 2


def test_an_empty_file_is_asked_to_end_with_a_case(tmp_path: Path):
    case, code = run_one(tmp_path, source="")
    told(case.problem, "bad.py: has no CASE", "End the file with CASE = Case(...)")
    assert code == 2


def test_a_case_of_another_type_is_shown(tmp_path: Path):
    case, code = run_one(tmp_path, source="CASE = {'models': 1}")
    told(case.problem, "has a CASE that is {'models': 1}", "End the file with CASE = Case(...)")
    assert code == 2


UNBUILT = {
    "raises": (
        [(RETURN, "raise ValueError('\\n\\n  first line\\nsecond line')")],
        ["linen: building the model raised ValueError: first line. Fix ", "bad.py:"],
    ),
    "raises_nothing_but_a_kind": ([(RETURN, "raise ValueError")], ["raised ValueError. Fix ", "bad.py:"]),
    "leaves_the_program": (
        [(RETURN, "raise SystemExit(1)")],
        ["linen: building the model raised SystemExit: 1. Fix "],
    ),
    "wants_an_argument": (
        [("def linen():", "def linen(rngs):")],
        ["linen: the builder is one of nnx. Rename the key in the case's models"],
    ),
    "returns_nothing": ([(RETURN, "Model()")], ["linen: the builder returned (NoneType), wanted a flax.linen.Module"]),
    "returns_a_class": ([(RETURN, "return Model")], ["linen: the builder returned (the class Model), wanted a flax"]),
    "returns_four": (
        [(RETURN, "return Model(), len, len, len")],
        ["linen: the builder returned (Model, builtin", "Return model, (model, train_step) or (model, train_step, cr"],
    ),
    "returns_another_library": (
        [('"linen": linen', '"linen": haiku')],
        ["linen: the builder is one of haiku. Rename the key in the case's models: 'haiku'"],
    ),
    "wrong_scope": (
        [('linen="dense"', 'linen="dence"')],
        ["linen: row dense (linear) says 'dence'", "closest is 'dense/", "looks for dence/kernel (params)"],
    ),
    "scope_with_its_leaf": (
        [('linen="dense"', 'linen="dense/kernel"')],
        ["linen: row dense (linear) says 'dense/kernel'", "which looks for dense/kernel/kernel (params)"],
    ),
    "state_that_is_a_parameter": (
        [("layers=(", 'layers=(state("mean", haiku="dense/b", linen="dense/bias"), ')],
        ["haiku: row mean (state) says 'dense/b'", "which looks for dense/b (state)"],
    ),
    "no_scope": ([('linen="dense", ', "")], ['linen: row dense has no scope for it. Add linen="..." to the row']),
    "uncovered_leaf": (
        [(Y, "self.param('extra', nn.initializers.ones, (5,))\n            return y\n")],
        ["linen: no row of the layer table covers extra (params) float32[5] (1 of 3 leaves)", "Add a row"],
    ),
    "leaf_covered_twice": (
        [("),),", '), linear("again", haiku="dense", linen="dense")),')],
        ["is covered twice, by dense/kernel and again/kernel", "Give each layer its own scope"],
    ),
    "method_that_does_not_exist": (
        [(STEPS, 'methods={"encode": ("x",)}')],
        ["linen: Model has no method 'encode', which the case's methods name", "Add it to the model, or remove it"],
    ),
    "chance_in_the_model": (
        [(Y, "return y * random.random()\n")],
        ["linen: the builder is not deterministic", "Remove randomness and global state from it"],
    ),
    "counter_in_the_model": ([(Y, "return y * next(COUNT)\n")], ["linen: the builder is not deterministic"]),
    "counter_in_the_builder": (
        [("class Model(nn.Module):", "n = next(COUNT)\n\n    class Model(nn.Module):"), (Y, "return y * n\n")],
        ["linen: the builder is not deterministic"],
    ),
}


@pytest.mark.parametrize(("changes", "words"), UNBUILT.values(), ids=UNBUILT)
def test_an_unusable_builder_or_row_says_why_and_is_trouble(tmp_path: Path, changes: list[Change], words: list[str]):
    case, code = run_one(tmp_path, *changes)
    if case.problem:
        told(case.problem, *words)
    else:
        (candidate,) = case.candidates
        told(findings(case, candidate, "error")[0].note, *words)
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
    told(finding.note, "linen: building the model needs nonexistent_library, which is not installed here. Install it.")
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
    told(first.note, "both ports give values that are not finite (haiku 1 of 1, linen 1 of 1)", "Keep the model finite")
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
    told(finding.note, f"no float64 run: {side}: tracing in float64 raised TypeError: only float32 here", "bad.py:")
    assert code == 0


STEP_TROUBLE = {
    "unknown_argument": (
        STEP.format(more=", lr", body="return params, ()"),
        [
            "linen: train_step has the parameter 'lr', for which there is no value",
            "available are: batch, key, opt_state, params, x",
        ],
    ),
    "too_few_values": (
        STEP.format(more=", opt_state", body="return params"),
        ["linen: train_step returns 1 values but takes params, opt_state", "Return the updated values"],
    ),
    "nothing": (
        STEP.format(more="", body="params"),
        ["linen: train_step was given dense/", "and does not return it (2 of ", "Return the whole carry"],
    ),
    "another_tree": (
        STEP.format(more="", body="return {'dense': {'kernel': params['dense']['kernel']}}"),
        ["linen: train_step was given dense/bias and does not return it (1 of ", "Return the whole carry"],
    ),
    "raises": (
        STEP.format(more="", body="raise KeyError('w')"),
        ["linen: tracing raised KeyError: 'w'. Fix ", "bad.py:"],
    ),
}


@pytest.mark.parametrize(("step", "words"), STEP_TROUBLE.values(), ids=STEP_TROUBLE)
def test_a_train_step_that_cannot_be_used_says_why(tmp_path: Path, step: str, words: list[str]):
    case, code = run_one(tmp_path, (RETURN, step))
    told(findings(case, "linen", "error")[0].note, *words)
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
    told(
        findings(case, "linen", "error")[0].note,
        "a random draw inside while at ",
        "bad.py:",
        "how often it runs is not known beforehand. Draw outside the loop, or use jax.lax.scan.",
    )
    assert code == 2


def test_a_model_that_fails_when_run_says_what_it_raised(tmp_path: Path):
    case, code = run_one(tmp_path, (Y, CALLBACK))
    told(
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
    told(case.problem, "raised ValueError: planted.")
    told(case.problem, f"Fix {path}:{number}.")


def test_the_deepest_line_of_the_case_file_is_named(tmp_path: Path):
    case, _ = run_one(tmp_path, ("import random", "def fail():\n    raise ValueError"), (H, "return fail()"))
    told(case.problem, f"Fix {tmp_path / 'bad.py'}:5.")


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
    assert ran.stdout.startswith("✓ Same: all 1 comparisons of 1 case.\n")
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
        r"! no_bound: batch entry 'x': 'int32\[4,2\]' has no upper bound\.",
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
