"""A case file of two ports that are the same, what can be wrong in it, and what has to be said then."""

import re
from datetime import UTC, datetime
from pathlib import Path

from equiv.comparison.pipeline import make_run_result, run_cases
from equiv.core.case_files import CaseFile
from equiv.core.results import RunResult
from equiv.core.results_json import decode_results, encode_results

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
    "no_bound": ([(ENTRY, '"int32[4,2]"')], ["batch entry 'x'", "'int32[4,2]' has no upper bound", '"int32[4,2]:10"']),
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
        ["method __call__ takes 'images', which is no input; the batch has x", "Give an input of the batch"],
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


def run_files(*files: CaseFile) -> RunResult:
    """The cases to their verdict; the results have to make the way through JSON, whatever was found."""
    result = make_run_result(list(run_cases(list(files))), datetime.now(UTC), seconds=0.0)
    assert decode_results(encode_results(result), "results").verdict == result.verdict
    return result


def says(text: str, *words: str) -> None:
    """One line that ends with what to do, is not about an accident of ours, and holds the words."""
    assert "\n" not in text, text
    assert "Traceback" not in text, text
    assert "equiv itself" not in text, text
    assert re.search(rf" ({FIXES})[ ,].*\.$", text), text
    for word in words:
        assert word in text, f"{word!r} is missing in: {text}"
