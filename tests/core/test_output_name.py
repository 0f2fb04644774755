"""Names of programs, inputs and outputs: what users read, what they are sorted by, and that kinds are told apart."""

from dataclasses import replace
from itertools import permutations

import jax
import msgspec
import pytest
from named import output_named

from equiv.core.checks import CHECK_NAMES
from equiv.core.output_name import (
    BEGIN,
    KEY,
    STEP,
    TRAINING,
    InputName,
    OutputName,
    ProgramName,
    batch_input,
    carried_output,
    draw_input,
    leaf_input,
    trained_leaf,
)
from equiv.programs.prover.value_numbering import input_term

TRAIN, GRADIENT = ProgramName("train", "__call__"), ProgramName("gradient", "encode")
STATE = OutputName(TRAIN, "state", leaf="norm/mean")
MOMENT = OutputName(TRAINING, "optimizer", "opt_state/mu/", "a/kernel")
OUTPUTS = {
    "train __call__: output": (OutputName(TRAIN, "output"), "outputs"),
    "train __call__: output/hidden": (OutputName(TRAIN, "output", "hidden"), "outputs"),
    "train __call__: state norm/mean": (STATE, "state"),
    "train __call__: draw/0": (OutputName(TRAIN, "draw", "0"), "randomness"),
    "after training, eval __call__: output": (
        OutputName(ProgramName("eval", "__call__"), "output", after_training=True),
        "state",
    ),
    "gradient encode: loss": (OutputName(GRADIENT, "loss"), "gradients"),
    "gradient encode: gradient a/kernel": (OutputName(GRADIENT, "gradient", leaf="a/kernel"), "gradients"),
    "gradient encode: gradient batch/x": (OutputName(GRADIENT, "gradient", "batch/x"), "gradients"),
    "train: a/kernel": (trained_leaf("a/kernel"), "train"),
    "train: opt_state/mu/a/kernel": (MOMENT, "train"),
    "train: step": (OutputName(TRAINING, "bookkeeping", "step"), "train"),
    "train: step output/0": (OutputName(TRAINING, "output", "0"), "train"),
    "step: a/kernel": (OutputName(STEP, "leaf", leaf="a/kernel"), "train"),
    "begin: random/dropout/count": (OutputName(BEGIN, "random", "dropout/count"), "train"),
}


@pytest.mark.parametrize(("text", "name", "check"), [(text, *rest) for text, rest in OUTPUTS.items()], ids=OUTPUTS)
def test_a_name_reads_as_reports_show_it(text, name, check):
    assert str(name) == text
    assert name.check == check
    assert name.check in CHECK_NAMES


@pytest.mark.parametrize("name", [name for name, _ in OUTPUTS.values()], ids=str)
def test_a_name_survives_json_and_messagepack(name):
    for form in (msgspec.json, msgspec.msgpack):
        assert form.decode(form.encode(name), type=OutputName) == name


def test_an_input_reads_as_reports_show_it():
    names = (leaf_input("a/kernel"), batch_input("x"), draw_input(3), KEY, InputName("random", "dropout/count"))
    assert list(map(str, names)) == ["a/kernel", "batch/x", "draw/3", "key", "random/dropout/count"]
    assert str(InputName("optimizer", "opt_state/mu/", "a/kernel")) == "opt_state/mu/a/kernel"


def test_names_are_sorted_as_they_read():
    names = [name for name, _ in OUTPUTS.values()]
    assert [str(name) for name in sorted(names)] == sorted(OUTPUTS)


def test_names_that_read_alike_are_two_keys_in_one_order():
    """jax sorts the keys of a dict, and two dicts of the same keys have to be one pytree."""
    names = (leaf_input("batch/x"), batch_input("x"), InputName("bookkeeping", "batch/x"))
    assert {str(name) for name in names} == {"batch/x"}
    structures = {jax.tree.structure(dict.fromkeys(order, 0.0)) for order in permutations(names)}
    assert len(structures) == 1
    assert len(set(names)) == 3


def test_inputs_that_read_alike_are_two_values_to_the_prover():
    """A leaf and a batch entry were one as texts, so that taking one for the other would have been proved equal."""
    assert str(leaf_input("batch/x")) == str(batch_input("x"))
    assert input_term(leaf_input("batch/x"), ()) != input_term(batch_input("x"), ())


@pytest.mark.parametrize("kind", ["leaf", "optimizer", "bookkeeping", "random"])
def test_what_a_step_returns_is_an_input_of_the_next(kind):
    name = InputName(kind, "path", "leaf")
    assert carried_output(STEP, name).as_input == name
    assert name.is_carried


def test_what_is_not_carried_is_no_input_later():
    assert STATE.as_input is None
    with pytest.raises(ValueError, match=r"batch/x is not in the carry of training"):
        carried_output(STEP, batch_input("x"))


def test_the_same_output_of_another_program_keeps_its_leaf():
    assert MOMENT.of(STEP) == replace(MOMENT, program=STEP)
    assert str(MOMENT.of(STEP)) == "step: opt_state/mu/a/kernel"


@pytest.mark.parametrize("text", ["train: a/kernel", "after training, eval f: state a/mean", "gradient f: loss"])
def test_the_tests_read_a_name_as_it_is_written(text):
    assert str(output_named(text)) == text
