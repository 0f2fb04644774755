"""Names of programs, inputs and outputs from the texts that reports show, and programs with such names."""

from equiv.core.output_name import KEY, InputName, OutputName, ProgramName, batch_input, leaf_input
from equiv.programs.program import Program
from equiv.programs.trace import trace_function


def program_named(text):
    """`eval __call__`, `step`, ...; `train` alone is all steps of training."""
    kind, _, method = text.partition(" ")
    if text.startswith("eval gradient "):
        kind, method = "eval gradient", text.removeprefix("eval gradient ")
    return ProgramName("training" if (kind, method) == ("train", "") else kind, method)


def output_named(text):
    """`train __call__: state a/mean`, `after training, eval __call__: output/0`, `train: a/kernel`, ..."""
    program, _, rest = text.removeprefix("after training, ").partition(": ")
    name, later = program_named(program), text.startswith("after training, ")
    kind, _, leaf = rest.partition(" ")
    if kind in ("state", "gradient"):
        return OutputName(name, kind, leaf=leaf, after_training=later)
    kind, _, path = rest.partition("/")
    if kind in ("output", "loss", "random", "draw"):
        return OutputName(name, kind, path, after_training=later)
    return OutputName(name, "leaf", leaf=rest, after_training=later)


def input_named(text):
    """`batch/x`, `draw/0`, `random/count`, `key`, or a leaf."""
    kind, _, path = text.partition("/")
    if kind == "batch":
        return batch_input(path)
    if kind in ("draw", "random"):
        return InputName(kind, path)
    return KEY if text == "key" else leaf_input(text)


def make_program(name, closed, inputs, outputs, draws=()):
    """A program with these names, given as texts; outputs without their program."""
    names = tuple(output_named(f"{name}: {output}") for output in outputs)
    return Program(program_named(name), closed, tuple(map(input_named, inputs)), names, draws)


def trace_named(name, function, specs):
    """Trace a function from inputs to outputs by text."""

    def run(inputs):
        given = {text: inputs[input_named(text)] for text in specs}
        return {output_named(f"{name}: {output}"): value for output, value in function(given).items()}

    return trace_function(program_named(name), run, {input_named(text): spec for text, spec in specs.items()})


def by_text(mapping):
    """The same mapping with the texts of outputs, without their program, as keys."""
    return {output.text: value for output, value in mapping.items()}
