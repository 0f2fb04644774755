"""Proofs between ports: induction over training, the suite's cases, where a fault is, what proofs may decide."""

import dataclasses
from functools import cache

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner
from named import make_program, output_named

from equiv.comparison.explain.locate import add_first_differences
from equiv.comparison.numeric.difference import ROUNDS_MORE, apply_proof
from equiv.comparison.observation import Comparison, PortOutputs, RoundingNoise, Sample
from equiv.comparison.pipeline import RunOptions, run_case
from equiv.comparison.proofs import needed_in_float64, prove_all, prover_side
from equiv.core.case_files import CaseFile, LoadedCase
from equiv.core.layouts import Identity
from equiv.core.leaves import LeafSpec, LeafTable, MappedLeaf, NativeKey
from equiv.core.output_name import TRAINING
from equiv.core.results import CheckResult, Finding
from equiv.core.results_json import decode_results
from equiv.core.verdict import check_grade
from equiv.frontends.cli.main import main
from equiv.programs.built_case import build_case
from equiv.programs.program import Programs
from equiv.programs.prover.algebra import MASKS, REORDERED_PRODUCTS
from equiv.programs.prover.dependencies import input_dependencies
from equiv.programs.prover.first_difference import find_first_differences
from equiv.programs.prover.proof import FLOAT64_CONSTANTS, Proof
from equiv.programs.prover.prove import NumberedPort, all_programs, prove
from equiv.programs.traced_port import trace_port

# Programs by hand: leaves a, b, c are trained; d is state.


def leaf(name, collection="params", copies=None):
    return MappedLeaf(
        name, NativeKey(collection, name), Identity(), LeafSpec((3,), "float32", collection), (3,), copies
    )


LEAVES = ("a", "b", "c", "d")


def program(name, function, inputs, outputs):
    closed = jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct((3,), "float32") for _ in inputs))
    return make_program(name, closed, inputs, outputs)


def begin(*values):
    return values


def forward(a, b, c, d, x):
    return a * x, b + x, d - c


def step(a, b, c, d, x):
    """b learns from a, c from nobody else, d counts."""
    return a - x, b - a * x, c * 0.5, d + 1, jnp.sin(a)


def port(forward=forward, step=step, begin=begin, table=None, float64=None):
    """One port of four leaves; its forward gives `output/0` of a, `output/1` of b and `output/2` of c and d."""
    inputs = (*LEAVES, "batch/x")
    parts = (program("eval __call__", forward, inputs, [f"output/{index}" for index in range(3)]),)
    start = program("begin", begin, LEAVES, LEAVES)
    train = program("step", step, inputs, (*LEAVES, "loss"))
    table = table or LeafTable("some", (leaf("a"), leaf("b"), leaf("c"), leaf("d", "state")))
    wide = {part.name: part for part in all_programs(float64)} if float64 else {}
    return NumberedPort(Programs("some", False, parts, start, train), table, wide.get)


def proved(left, right, same_initial_state=frozenset(("d",))):
    """The places proved, warm, and the places proved, cold."""
    found = prove(left, right, same_initial_state)
    return tuple({str(place) for place, _, cold in found if cold is wanted} for wanted in (False, True))


EVERY = {"eval __call__: output/0", "eval __call__: output/1", "eval __call__: output/2"}
TRAINED = {"train: a", "train: b", "train: c", "train: d", "train: loss"}
AFTER = {f"after training, {place}" for place in EVERY}


def test_ports_that_are_one_program_are_proved_everywhere():
    assert proved(port(), port()) == (EVERY | TRAINED | AFTER, TRAINED | AFTER)
    assert set(prove(port(), port(), frozenset(("d",))).values()) == {Proof("proved")}


def test_a_leaf_that_trains_otherwise_unproves_its_dependents_only():
    """What depends on it is not proved, and everything else is."""
    other = port(step=lambda a, b, c, d, x: (a - 2 * x, b - a * x, c * 0.5, d + 1, jnp.sin(a)))
    warm, cold = proved(port(), other)
    lost = {"train: a", "train: b", "train: loss"}
    lost |= {f"after training, eval __call__: output/{index}" for index in (0, 1)}
    assert (EVERY | TRAINED | AFTER) - warm == lost
    assert (TRAINED | AFTER) - cold == lost


def test_a_leaf_that_nothing_depends_on_takes_nothing_along():
    other = port(step=lambda a, b, c, d, x: (a - x, b - a * x, c * 0.25, d + 1, jnp.sin(a)))
    warm, _ = proved(port(), other)
    assert (EVERY | TRAINED | AFTER) - warm == {"train: c", "after training, eval __call__: output/2"}


def test_another_forward_leaves_training_proved():
    warm, _ = proved(port(), port(forward=lambda a, b, c, d, x: (a * x, b - x, d - c)))
    assert (EVERY | TRAINED | AFTER) - warm == {"eval __call__: output/1", "after training, eval __call__: output/1"}


def test_state_that_starts_otherwise_is_unproved_when_cold_only():
    warm, cold = proved(port(), port(), same_initial_state=frozenset())
    assert warm == EVERY | TRAINED | AFTER
    assert (TRAINED | AFTER) - cold == {"train: d", "after training, eval __call__: output/2"}


def test_a_carry_made_from_unequal_state_starts_unequal():
    """As an average does that starts from a running mean."""
    start = {"begin": lambda a, b, c, d: (a, d * 2, c, d)}
    warm, cold = proved(port(**start), port(**start), same_initial_state=frozenset())
    assert warm == EVERY | TRAINED | AFTER
    assert (TRAINED | AFTER) - cold == {
        "train: b",
        "train: d",
        *(f"after training, eval __call__: output/{index}" for index in (1, 2)),
    }


def test_a_carry_that_starts_from_another_variable_is_unproved():
    warm, _ = proved(port(), port(begin=lambda a, b, c, d: (b, b, c, d)))
    assert TRAINED - warm == {"train: a", "train: b", "train: loss"}


def test_a_swap_of_two_leaves_is_not_proved():
    """Even though the programs are one up to names."""
    other = port(step=lambda a, b, c, d, x: (a - b * x, b - x, c * 0.5, d + 1, jnp.sin(b)))
    warm, _ = proved(port(), other)
    assert warm >= EVERY | {"train: c", "train: d"}
    assert not warm & {"train: a", "train: b", "train: loss"}


def test_rewrites_of_a_kept_leaf_are_named_in_every_place():
    other = port(step=lambda a, b, c, d, x: (a - x, b - a * x, c / 2, d + 1, jnp.sin(a)))
    found = prove(port(), other, frozenset(("d",)))
    trained, output = output_named("train: a"), output_named("eval __call__: output/0")
    assert found[trained, trained, False] == Proof("proved modulo", (REORDERED_PRODUCTS,))
    assert found[output, output, False] == Proof("proved")


def test_a_leaf_only_the_reference_has_is_what_it_repeats():
    ours = LeafTable("haiku", (leaf("a"), leaf("b"), leaf("c"), leaf("d", "state", copies="c")))
    warm, _ = proved(port(table=ours), port(forward=lambda a, b, c, d, x: (a * x, b + x, c - c)))
    assert "eval __call__: output/2" in warm
    apart, _ = proved(port(), port(forward=lambda a, b, c, d, x: (a * x, b + x, c - c)))
    assert "eval __call__: output/2" not in apart


def test_constants_that_differ_only_in_float32_are_proved_in_float64():
    one = lambda a, b, c, d, x: (a * np.float32(0.01), b, c)  # noqa: E731
    other = lambda a, b, c, d, x: (a * np.float32(1 - 0.99 + 1e-9), b, c)  # noqa: E731
    wide = port(forward=lambda a, b, c, d, x: (a * 0.25, b, c)).programs
    place = output_named("eval __call__: output/0")
    alone = prove(port(forward=one), port(forward=other), frozenset())
    float64 = prove(port(forward=one, float64=wide), port(forward=other, float64=wide), frozenset())
    assert (place, place, False) not in alone
    assert float64[place, place, False] == Proof("proved modulo", (FLOAT64_CONSTANTS,))


def test_no_training_is_proved_where_there_is_none():
    one = port()
    one.programs = dataclasses.replace(one.programs, begin=None, step=None)
    assert proved(one, port()) == (EVERY, set())


def dependencies(function, inputs, outputs):
    """Output to the inputs that it depends on, by text."""
    found = input_dependencies(program("step", function, inputs, outputs))
    return {output.text: set(map(str, inputs)) for output, inputs in found.items()}


def test_a_loops_carry_depends_on_what_any_iteration_adds():
    def loop(a, b, c, x):
        return jax.lax.scan(lambda s, row: ((s[0] + s[1], s[1] * row, s[2]), s[2]), (a[0], b[0], c[0]), x)

    found = dependencies(lambda *given: (*loop(*given)[0], loop(*given)[1]), "abcx", "pqrs")
    assert found == {"p": {"a", "b", "x"}, "q": {"b", "x"}, "r": {"c"}, "s": {"c"}}


def test_an_output_depends_on_operands_of_while_and_cond():
    def loops(a, b, c):
        turned = jax.lax.while_loop(lambda s: s[0] < 3, lambda s: s * 2 + a, b)
        return turned, jax.lax.cond(a[0] > 0, lambda: b, lambda: c), jax.jit(jnp.sin)(c)

    found = dependencies(lambda a, b, c: loops(a, b, c)[1:], "abc", "pq")
    assert found == {"p": {"a", "b", "c"}, "q": {"c"}}


# The suite's own cases.


@cache
def suite(name):
    """A case's ports, traced, and the proofs of every candidate."""
    built_case = build_case(helpers.loaded(name).case)
    assert not built_case.problems
    reference, *candidates = (trace_port(built_case, backend) for backend in built_case.case.models)
    return reference, prove_all(prover_side(reference), {one.port.name: one for one in candidates})


def wanted_places(reference):
    """Everything that a port gives on its first probe, without what only its library has."""
    own = {one.name for one in reference.table.leaves if one.library_only}
    programs = reference.programs
    outputs = {output for part in programs.parts for output in part.outputs}
    outputs |= {output.of(TRAINING) for output in programs.step.outputs}
    return {output for output in outputs if output.leaf not in own}


@pytest.mark.parametrize("candidate", ["linen", "nnx"])
@pytest.mark.parametrize("name", ["auto_encoder", "counter", "custom_linear", "rnn_scan", "stateful_linear"])
def test_cases_that_are_one_program_are_proved_without_rewrites(name, candidate):
    reference, proofs = suite(name)
    found = {place for place, _, cold in proofs[candidate] if not cold}
    assert wanted_places(reference) <= found
    assert set(proofs[candidate].values()) == {Proof("proved")}
    assert needed_in_float64(reference.table, reference.programs, proofs)[candidate] == frozenset()


@pytest.mark.parametrize("candidate", ["linen", "nnx"])
@pytest.mark.parametrize("name", ["dropout", "scan_over_layers", "train_state_dropout"])
def test_dropout_is_proved_modulo_its_mask(name, candidate):
    reference, proofs = suite(name)
    assert wanted_places(reference) <= {place for place, _, cold in proofs[candidate] if not cold}
    modulo = {proof.rewrites for proof in proofs[candidate].values() if proof.grade == "proved modulo"}
    assert modulo == {(MASKS, REORDERED_PRODUCTS)}


@pytest.mark.parametrize("candidate", ["linen", "nnx"])
def test_of_batch_norm_all_but_haikus_averages_is_proved(candidate):
    reference, proofs = suite("batch_norm")
    found = {place for place, _, cold in proofs[candidate] if not cold}
    lacking = wanted_places(reference) - found
    averages = {"block.norm/mean", "block.norm/var"}
    assert lacking
    assert {output.leaf for output in lacking} <= averages
    # Eval mode after training depends on those averages.
    assert not any(output.after_training and output.program.kind == "eval" for output in found)


NAMES = sorted(path.stem for path in helpers.CASES.glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_linen_and_nnx_are_one_program_in_every_case(name):
    case = helpers.loaded(name).case
    models = {backend: case.models[backend] for backend in ("linen", "nnx")}
    known = tuple(one for one in case.known_differences if one.backend in models)
    built_case = build_case(dataclasses.replace(case, models=models, known_differences=known))
    left, right = (trace_port(built_case, backend) for backend in models)
    proofs = prove_all(prover_side(left), {"nnx": right})["nnx"]
    assert wanted_places(left) <= {place for place, _, cold in proofs if not cold}
    assert set(proofs.values()) == {Proof("proved")}


# Where a fault is.


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
    assert (output, output, False) not in prove_all(prover_side(left), {candidate: right})[candidate]
    findings = tuple(Finding(place, grade, output=output) for grade in ("refuted", "exact", "proved"))
    (check,) = add_first_differences([CheckResult("outputs", candidate, "refuted", "", findings)], left, right)
    refuted, exact, proved = check.findings
    assert exact.first_differences == refuted.first_differences
    assert proved.first_differences == ()
    return {one.port: one for one in refuted.first_differences}


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
    one, other = port().programs.parts[0], port().programs.parts[0]
    assert find_first_differences(one, other, {}, ("haiku", "nnx")) == ()


# What proofs may decide.

PLACE = "eval __call__: output/0"
NAMED = {"output": output_named(PLACE)}


def compared(proof, **finding):
    """A finding by numbers together with a proof, which may be forged."""
    observed = PortOutputs(LeafTable("haiku", ()), 0, {"0": Sample({}, None)}, {}, {})
    output = NAMED["output"]
    proofs = {(output, output, False): proof} if proof else {}
    comparison = Comparison(helpers.loaded("counter").case, observed, observed, RoundingNoise({}, {}, {}), proofs)
    return apply_proof(comparison, Finding(PLACE, **{"probe": "0", "error": 1.0, **NAMED, **finding}), output)


PROOF, MODULO = Proof("proved"), Proof("proved modulo", (REORDERED_PRODUCTS,))


@pytest.mark.parametrize("precision", ["native", "float64", ""])
def test_numbers_that_contradict_a_proof_are_an_error_of_ours(precision):
    found = compared(PROOF, grade="refuted", precision=precision)
    assert found.grade == "error"
    assert "an error of equiv" in found.note


@pytest.mark.parametrize("precision", ["float64", ""])
def test_float64_numbers_that_contradict_a_proof_modulo_are_errors(precision):
    assert compared(MODULO, grade="refuted", precision=precision).grade == "error"


def test_a_native_run_over_budget_stays_refused_if_proved_modulo():
    """It is the same function in real numbers, and the note says so."""
    found = compared(MODULO, grade="refuted", precision="native", note="too far")
    assert found.grade == "refuted"
    assert (found.note, found.rewrites) == (ROUNDS_MORE, (REORDERED_PRODUCTS,))


@pytest.mark.parametrize("proof", [PROOF, MODULO])
def test_a_proof_does_not_hide_an_error(proof):
    assert compared(proof, grade="error", note="broke") == Finding(
        PLACE, "error", error=1.0, probe="0", note="broke", **NAMED
    )


@pytest.mark.parametrize("proof", [PROOF, MODULO])
def test_a_refusal_by_shape_or_dtype_stands_beside_a_proof(proof):
    """A float64 program has lost its casts: it proves nothing about a dtype."""
    assert compared(proof, grade="refuted", error=None, note="dtype differs").note == "dtype differs"


@pytest.mark.parametrize("grade", ["exact", "float64", "rounding", "vacuous", "unidentifiable"])
def test_a_proof_gives_its_grade_and_rewrites(grade):
    assert compared(PROOF, grade=grade).grade == "proved"
    assert (compared(MODULO, grade=grade).grade, compared(MODULO, grade=grade).rewrites) == (
        "proved modulo",
        (REORDERED_PRODUCTS,),
    )
    assert compared(None, grade=grade).grade == grade


def test_a_proof_of_the_warm_run_excludes_the_cold_one():
    assert compared(PROOF, grade="exact", probe="cold").grade == "exact"


# Proofs alone.


@cache
def proved_only(name):
    loaded = helpers.loaded(name)
    return run_case(LoadedCase(loaded.name, loaded.lesson, loaded.case), options=RunOptions(prove_only=True))


def test_proofs_alone_are_enough_for_identical_programs():
    result = proved_only("counter")
    assert result.verdicts == {"linen": "same", "nnx": "same"}
    assert {finding.grade for check in result.checks if check.check != "structure" for finding in check.findings} == {
        "proved"
    }


def test_what_is_not_proved_is_said_to_be_not_run():
    result = proved_only("batch_norm")
    assert result.verdicts == {"linen": "inconclusive", "nnx": "inconclusive"}
    open_ = [item for check in result.checks for item in check.findings if item.grade == "not run"]
    assert open_
    assert {item.note for item in open_} == {"not proved, and nothing is run with --prove-only. Run without it."}
    for check in result.checks:
        assert check.grade == check_grade(check.findings)


def test_a_fault_is_never_the_same_by_proof_alone():
    case = helpers.with_candidate(
        "counter", "nnx", helpers.patched("counter", ("x + self.multiplier", "x - self.multiplier"))
    )
    result = run_case(LoadedCase("counter", "A lesson.", case), options=RunOptions(prove_only=True))
    assert result.verdicts == {"nnx": "inconclusive"}


@pytest.mark.parametrize(("name", "code", "verdict"), [("counter", 0, "same"), ("batch_norm", 3, "inconclusive")])
def test_the_command_line_proves_only_when_asked_to(tmp_path, name, code, verdict):
    path = helpers.CASES / f"{name}.py"
    result = CliRunner().invoke(main, ["run", str(path), "--prove-only", "--json", "--reports", str(tmp_path)])
    assert result.exit_code == code
    written = decode_results((tmp_path / "results.json").read_bytes(), "results.json")
    assert written.verdict == verdict
    assert [case.name for case in written.cases] == [CaseFile(name, path).name]
