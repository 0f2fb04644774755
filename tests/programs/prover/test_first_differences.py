"""The first difference of two programs is where a fault was planted, with the line of the file."""

import helpers
import pytest
from named import output_named
from programs.prover.rewritten import S, V, norm, traced, two_pass

from equiv.comparison.explain.locate import add_first_differences
from equiv.comparison.proofs import prove_all, prover_side
from equiv.core.results import CheckResult, Finding
from equiv.programs.built_case import build_case
from equiv.programs.prover.first_difference import find_first_differences
from equiv.programs.traced_port import trace_port


def line_of(name, text, builder):
    """The line of a text in one builder of a case."""
    lines = (helpers.CASES / f"{name}.py").read_text().splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith(f"def {builder}("))
    return next(index for index in range(first, len(lines)) if text in lines[index]) + 1


def differences_at_fault(name, candidate, place, *replacements):
    """The first differences of a refuted place of a port with a planted fault, by port."""
    case = helpers.with_candidate(name, candidate, helpers.patched(name, *replacements))
    built_case = build_case(case)
    assert not built_case.problems
    left, right = trace_port(built_case, "haiku"), trace_port(built_case, candidate)
    output = output_named(place)
    assert (output, output, False) not in prove_all(prover_side(left), {candidate: prover_side(right)})[candidate]
    findings = tuple(Finding(place, grade, output=output) for grade in ("refuted", "exact", "proved"))
    (check,) = add_first_differences([CheckResult("outputs", candidate, "refuted", "", findings)], left, right)
    refuted, exact, proved = check.findings
    assert exact.first_differences == refuted.first_differences
    assert proved.first_differences == ()
    return {one.port: one for one in refuted.first_differences}


@pytest.mark.quick(1)
@pytest.mark.parametrize("candidate", ["linen", "nnx"])
@pytest.mark.parametrize(
    ("name", "place", "new", "primitive"),
    [
        ("batch_norm", "eval __call__: output", "jax.nn.gelu", "integer_pow"),
        ("rnn_scan", "call __call__: output", "jax.numpy.tanh", "tanh"),
    ],
    ids=["straight", "in_a_loop"],
)
def test_another_activation_is_named_with_its_line(candidate, name, place, new, primitive):
    found = differences_at_fault(name, candidate, place, ("jax.nn.relu", new))
    assert list(found) == ["haiku", candidate]
    assert [one.primitive for one in found.values()] == ["max", primitive]
    lines = [line_of(name, "jax.nn.relu", port) for port in ("haiku", candidate)]
    assert [one.location.short for one in found.values()] == [
        f"cases/{name}.py:{lines[0]}",
        f"{name}.py (patched):{lines[1]}",
    ]
    assert [one.call_site for one in found.values()] == [None, None]


EPSILON = {
    "linen": ("momentum=0.99)", "momentum=0.99, epsilon=1e-3)"),
    "nnx": ("momentum=0.99,", "momentum=0.99, epsilon=1e-3,"),
}


@pytest.mark.parametrize("candidate", EPSILON)
def test_another_epsilon_is_named_where_it_is_added(candidate):
    """With both constants, the line in the library, its module, and the line of the user's call."""
    found = differences_at_fault("batch_norm", candidate, "eval __call__: output", EPSILON[candidate])
    haiku, other = found["haiku"], found[candidate]
    assert (haiku.primitive, haiku.operands, haiku.constants) == ("add", ("block.norm/var",), ("1e-05",))
    assert (other.primitive, other.operands, other.constants) == ("add", ("block.norm/var",), ("0.001",))
    assert haiku.location.file.endswith("haiku/_src/batch_norm.py")
    assert haiku.location.function == "BatchNorm.__call__"
    assert haiku.module_path == "model/block/batch_norm"
    assert haiku.user_line.short == f"cases/batch_norm.py:{line_of('batch_norm', 'hk.BatchNorm(', 'haiku')}"
    assert f"flax/{candidate}" in other.location.file
    assert other.location.file.endswith("normalization.py")
    assert other.user_line.file == "batch_norm.py (patched)"


@pytest.mark.parametrize("candidate", ["linen", "nnx"])
def test_another_momentum_is_named_where_the_average_moves(candidate):
    place = "train __call__: state block.norm/mean"
    found = differences_at_fault("batch_norm", candidate, place, ("momentum=0.99", "momentum=0.9"))
    assert found["haiku"].location.file.endswith("moving_averages.py")
    assert found[candidate].primitive == "mul"
    assert found[candidate].location.file.endswith("normalization.py")


@pytest.mark.parametrize(("candidate", "old"), [("linen", "x @ w + b"), ("nnx", "x @ self.w + self.b")])
def test_an_addition_that_one_port_lacks_is_named(candidate, old):
    """Where the other port has it."""
    found = differences_at_fault("custom_linear", candidate, "call __call__: output", (old, old.rpartition(" + ")[0]))
    assert found["haiku"].primitive == "add"
    assert found["haiku"].location.short == f"cases/custom_linear.py:{line_of('custom_linear', 'x @ w + b', 'haiku')}"


def test_nothing_is_named_where_the_programs_are_one():
    one, other = (traced(norm(two_pass), S, V) for _ in range(2))
    assert find_first_differences(one, other, {}, ("haiku", "nnx")) == ()
