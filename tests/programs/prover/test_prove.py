"""Proofs between ports: induction over training, the suite's cases, where a fault is, what proofs may decide."""

import dataclasses
from functools import cache

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner

from equiv.compare.explain.locate import located
from equiv.compare.numeric.difference import with_proof
from equiv.compare.observation import Comparison, Noise, Observed, Sample
from equiv.compare.pipeline import run_case
from equiv.compare.proofs import needed_in_float64, prove_all
from equiv.core.case_files import CaseFile, LoadedCase
from equiv.core.layouts import Identity
from equiv.core.leaves import LeafSpec, LeafTable, MappedLeaf, NativeKey
from equiv.core.results import CheckResult, Finding
from equiv.core.results_json import decode
from equiv.core.verdict import weakest
from equiv.frontends.cli.main import main
from equiv.programs.built_case import open_workshop
from equiv.programs.program import Program, Programs
from equiv.programs.prover.algebra import MASKS, PRODUCTS
from equiv.programs.prover.first_difference import first_difference
from equiv.programs.prover.proof import Proof
from equiv.programs.prover.prove import WIDE, Side, dependencies, every, prove
from equiv.programs.traced_port import trace_port

# Programs by hand: leaves a, b, c are trained; d is state.


def leaf(name, collection="params", copies=None):
    return MappedLeaf(
        name, NativeKey(collection, name), Identity(), LeafSpec((3,), "float32", collection), (3,), copies
    )


LEAVES = ("a", "b", "c", "d")


def program(name, function, inputs, outputs):
    closed = jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct((3,), "float32") for _ in inputs))
    return Program(name, closed, tuple(inputs), tuple(outputs))


def begin(*values):
    return values


def forward(a, b, c, d, x):
    return a * x, b + x, d - c


def step(a, b, c, d, x):
    """b learns from a, c from nobody else, d counts."""
    return a - x, b - a * x, c * 0.5, d + 1, jnp.sin(a)


def port(forward=forward, step=step, begin=begin, table=None, lifted=None):
    """One port of four leaves; its forward gives `output/0` of a, `output/1` of b and `output/2` of c and d."""
    inputs = (*LEAVES, "batch/x")
    parts = (program("eval __call__", forward, inputs, [f"output/{index}" for index in range(3)]),)
    start = program("begin", begin, LEAVES, LEAVES)
    train = program("step", step, inputs, (*LEAVES, "loss"))
    table = table or LeafTable("some", (leaf("a"), leaf("b"), leaf("c"), leaf("d", "state")))
    wide = {part.name: part for part in every(lifted)} if lifted else {}
    return Side(Programs("some", False, parts, start, train), table, wide.get)


def proved(left, right, start_alike=frozenset(("d",))):
    """The places proved, warm, and the places proved, cold."""
    found = prove(left, right, start_alike)
    return tuple({place for place, _, cold in found if cold is wanted} for wanted in (False, True))


EVERY = {"eval __call__: output/0", "eval __call__: output/1", "eval __call__: output/2"}
TRAINED = {"train: a", "train: b", "train: c", "train: d", "train: loss"}
AFTER = {f"after training, {place}" for place in EVERY}


def test_ports_that_are_one_program_are_proved_everywhere():
    assert proved(port(), port()) == (EVERY | TRAINED | AFTER, TRAINED | AFTER)
    assert set(prove(port(), port(), frozenset(("d",))).values()) == {Proof("proved")}


def test_a_leaf_that_trains_otherwise_takes_along_what_depends_on_it_and_nothing_else():
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


def test_state_that_starts_otherwise_is_unproved_in_the_cold_run_only():
    warm, cold = proved(port(), port(), start_alike=frozenset())
    assert warm == EVERY | TRAINED | AFTER
    assert (TRAINED | AFTER) - cold == {"train: d", "after training, eval __call__: output/2"}


def test_a_carry_that_starts_from_another_variable_is_unproved():
    warm, _ = proved(port(), port(begin=lambda a, b, c, d: (b, b, c, d)))
    assert TRAINED - warm == {"train: a", "train: b", "train: loss"}


def test_a_swap_of_two_leaves_is_not_proved_even_though_it_is_one_up_to_names():
    other = port(step=lambda a, b, c, d, x: (a - b * x, b - x, c * 0.5, d + 1, jnp.sin(b)))
    warm, _ = proved(port(), other)
    assert warm >= EVERY | {"train: c", "train: d"}
    assert not warm & {"train: a", "train: b", "train: loss"}


def test_rewrites_of_any_kept_leaf_are_named_in_every_trained_place():
    other = port(step=lambda a, b, c, d, x: (a - x, b - a * x, c / 2, d + 1, jnp.sin(a)))
    found = prove(port(), other, frozenset(("d",)))
    assert found["train: a", "train: a", False] == Proof("proved modulo", (PRODUCTS,))
    assert found["eval __call__: output/0", "eval __call__: output/0", False] == Proof("proved")


def test_a_leaf_that_only_the_reference_has_is_the_one_it_repeats():
    ours = LeafTable("haiku", (leaf("a"), leaf("b"), leaf("c"), leaf("d", "state", copies="c")))
    warm, _ = proved(port(table=ours), port(forward=lambda a, b, c, d, x: (a * x, b + x, c - c)))
    assert "eval __call__: output/2" in warm
    apart, _ = proved(port(), port(forward=lambda a, b, c, d, x: (a * x, b + x, c - c)))
    assert "eval __call__: output/2" not in apart


def test_constants_that_only_float32_tells_apart_are_proved_in_float64():
    one = lambda a, b, c, d, x: (a * np.float32(0.01), b, c)  # noqa: E731
    other = lambda a, b, c, d, x: (a * np.float32(1 - 0.99 + 1e-9), b, c)  # noqa: E731
    wide = port(forward=lambda a, b, c, d, x: (a * 0.25, b, c)).programs
    place = "eval __call__: output/0"
    alone = prove(port(forward=one), port(forward=other), frozenset())
    lifted = prove(port(forward=one, lifted=wide), port(forward=other, lifted=wide), frozenset())
    assert (place, place, False) not in alone
    assert lifted[place, place, False] == Proof("proved modulo", (WIDE,))


def test_no_training_is_proved_where_there_is_none():
    one = port()
    one.programs = dataclasses.replace(one.programs, begin=None, step=None)
    assert proved(one, port()) == (EVERY, set())


def test_what_a_loop_carries_depends_on_what_any_turn_puts_into_it():
    def loop(a, b, c, x):
        return jax.lax.scan(lambda s, row: ((s[0] + s[1], s[1] * row, s[2]), s[2]), (a[0], b[0], c[0]), x)

    found = dependencies(program("step", lambda *given: (*loop(*given)[0], loop(*given)[1]), "abcx", "pqrs"))
    assert found == {"p": {"a", "b", "x"}, "q": {"b", "x"}, "r": {"c"}, "s": {"c"}}


def test_an_output_depends_on_what_a_while_loop_or_branch_was_given():
    def loops(a, b, c):
        turned = jax.lax.while_loop(lambda s: s[0] < 3, lambda s: s * 2 + a, b)
        return turned, jax.lax.cond(a[0] > 0, lambda: b, lambda: c), jax.jit(jnp.sin)(c)

    found = dependencies(program("step", lambda a, b, c: loops(a, b, c)[1:], "abc", "pq"))
    assert found == {"p": {"a", "b", "c"}, "q": {"c"}}


# The suite's own cases.


@cache
def suite(name):
    """A case's ports, traced, and the proofs of every candidate."""
    workshop = open_workshop(helpers.loaded(name).case)
    assert not workshop.problems
    reference, *candidates = (trace_port(workshop, backend) for backend in workshop.case.models)
    return reference, prove_all(reference, {one.port.backend: one for one in candidates})


def wanted_places(reference):
    """Everything that a port gives on its first probe, without what only its library has."""
    own = {one.name for one in reference.table.leaves if one.own}
    programs = reference.programs
    parts = [(part.name, output) for part in programs.parts for output in part.outputs]
    places = {f"{part}: {output}" for part, output in parts if output.removeprefix("state ") not in own}
    return places | {f"train: {name}" for name in programs.step.outputs if name not in own}


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
    assert modulo == {(MASKS, PRODUCTS)}


@pytest.mark.parametrize("candidate", ["linen", "nnx"])
def test_of_a_batch_norm_all_but_the_averages_of_haiku_is_proved(candidate):
    reference, proofs = suite("batch_norm")
    found = {place for place, _, cold in proofs[candidate] if not cold}
    lacking = wanted_places(reference) - found
    averages = {"block.norm/mean", "block.norm/var"}
    assert lacking
    assert {place.partition(": ")[2].removeprefix("state ") for place in lacking} <= averages
    # What training leaves to eval mode hangs on those averages.
    assert not any(place.startswith("after training, eval") for place in found)


NAMES = sorted(path.stem for path in helpers.CASES.glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_linen_and_nnx_are_one_program_in_every_case(name):
    case = helpers.loaded(name).case
    models = {backend: case.models[backend] for backend in ("linen", "nnx")}
    known = tuple(one for one in case.known_differences if one.backend in models)
    workshop = open_workshop(dataclasses.replace(case, models=models, known_differences=known))
    left, right = (trace_port(workshop, backend) for backend in models)
    proofs = prove_all(left, {"nnx": right})["nnx"]
    assert wanted_places(left) <= {place for place, _, cold in proofs if not cold}
    assert set(proofs.values()) == {Proof("proved")}


# Where a fault is.


def line_of(name, text, builder):
    """The line of a text in one builder of a case."""
    lines = (helpers.CASES / f"{name}.py").read_text().splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith(f"def {builder}("))
    return next(index for index in range(first, len(lines)) if text in lines[index]) + 1


def source_of_fault(name, candidate, place, *replacements):
    """What is said of a refused place of a port with a planted fault."""
    case = helpers.with_candidate(name, candidate, helpers.patched(name, *replacements))
    workshop = open_workshop(case)
    assert not workshop.problems
    left, right = trace_port(workshop, "haiku"), trace_port(workshop, candidate)
    assert (place, place, False) not in prove_all(left, {candidate: right})[candidate]
    findings = (Finding(place, "refuted"), Finding(place, "exact"))
    (check,) = located([CheckResult("outputs", candidate, "refuted", "", findings)], left, right)
    assert check.findings[1].source == ""
    return check.findings[0].source


@pytest.mark.parametrize("candidate", ["linen", "nnx"])
def test_another_activation_is_named_with_its_line_in_both_ports(candidate):
    told = source_of_fault("batch_norm", candidate, "eval __call__: output", ("jax.nn.relu", "jax.nn.gelu"))
    haiku, _, other = told.removeprefix("first different: ").partition("; ")
    assert haiku.startswith(f"haiku max at cases/batch_norm.py:{line_of('batch_norm', 'jax.nn.relu', 'haiku')}:")
    line = line_of("batch_norm", "jax.nn.relu", candidate)
    assert other.startswith(f"{candidate} integer_pow at batch_norm.py (patched):{line}:")


@pytest.mark.parametrize("candidate", ["linen", "nnx"])
def test_another_activation_in_a_loop_is_named_with_its_line(candidate):
    told = source_of_fault("rnn_scan", candidate, "call __call__: output", ("jax.nn.relu", "jax.numpy.tanh"))
    assert f"haiku max at cases/rnn_scan.py:{line_of('rnn_scan', 'jax.nn.relu', 'haiku')}:" in told
    assert f"{candidate} tanh at rnn_scan.py (patched):{line_of('rnn_scan', 'jax.nn.relu', candidate)}:" in told


EPSILON = {
    "linen": ("momentum=0.99)", "momentum=0.99, epsilon=1e-3)"),
    "nnx": ("momentum=0.99,", "momentum=0.99, epsilon=1e-3,"),
}


@pytest.mark.parametrize("candidate", EPSILON)
def test_another_epsilon_is_named_where_it_is_added(candidate):
    told = source_of_fault("batch_norm", candidate, "eval __call__: output", EPSILON[candidate])
    haiku, _, other = told.removeprefix("first different: ").partition("; ")
    assert haiku.startswith("haiku add at ")
    assert "haiku/_src/batch_norm.py:" in haiku
    assert "model/block/batch_norm" in haiku
    assert other.startswith(f"{candidate} add at ")
    assert f"flax/{candidate}" in other
    assert "normalization.py:" in other


@pytest.mark.parametrize("candidate", ["linen", "nnx"])
def test_another_momentum_is_named_where_the_average_moves(candidate):
    place = "train __call__: state block.norm/mean"
    told = source_of_fault("batch_norm", candidate, place, ("momentum=0.99", "momentum=0.9"))
    assert "moving_averages.py:" in told
    assert f"{candidate} mul at " in told
    assert "normalization.py:" in told


@pytest.mark.parametrize(("candidate", "old"), [("linen", "x @ w + b"), ("nnx", "x @ self.w + self.b")])
def test_an_addition_that_one_port_lacks_is_named_where_the_other_has_it(candidate, old):
    told = source_of_fault("custom_linear", candidate, "call __call__: output", (old, old.rpartition(" + ")[0]))
    line = line_of("custom_linear", "x @ w + b", "haiku")
    assert told.startswith(f"first different: haiku add at cases/custom_linear.py:{line}:")


def test_nothing_is_named_where_the_programs_are_one():
    one, other = port().programs.parts[0], port().programs.parts[0]
    assert first_difference(one, other, {}, ("haiku", "nnx")) == ""


# What proofs may decide.

PLACE = "eval __call__: output/0"


def compared(proof, **finding):
    """A finding by numbers beside a proof, which may be forged."""
    observed = Observed(LeafTable("haiku", ()), 0, {"0": Sample({}, None)}, {}, {})
    proofs = {(PLACE, PLACE, False): proof} if proof else {}
    comparison = Comparison(helpers.loaded("counter").case, observed, observed, Noise({}, {}, {}), proofs)
    return with_proof(comparison, Finding(PLACE, **{"probe": "0", "error": 1.0, **finding}), PLACE)


PROOF, MODULO = Proof("proved"), Proof("proved modulo", (PRODUCTS,))


@pytest.mark.parametrize("precision", ["native", "float64", ""])
def test_numbers_that_contradict_a_proof_are_an_error_of_ours(precision):
    found = compared(PROOF, grade="refuted", precision=precision)
    assert found.grade == "error"
    assert "an error of equiv" in found.note


@pytest.mark.parametrize("precision", ["float64", ""])
def test_float64_numbers_that_contradict_a_proof_modulo_are_an_error_too(precision):
    assert compared(MODULO, grade="refuted", precision=precision).grade == "error"


def test_a_native_run_out_of_budget_stays_refused_under_a_proof_modulo():
    found = compared(MODULO, grade="refuted", precision="native", note="too far")
    assert found.grade == "refuted"
    assert found.note == f"too far; proved the same function modulo {PRODUCTS}"


@pytest.mark.parametrize("proof", [PROOF, MODULO])
def test_a_proof_does_not_mend_an_error(proof):
    assert compared(proof, grade="error", note="broke") == Finding(PLACE, "error", error=1.0, probe="0", note="broke")


@pytest.mark.parametrize("proof", [PROOF, MODULO])
def test_a_refusal_by_shape_or_dtype_stands_beside_a_proof(proof):
    """A lifted program has lost its casts: it proves nothing about a dtype."""
    assert compared(proof, grade="refuted", error=None, note="dtype differs").note == "dtype differs"


@pytest.mark.parametrize("grade", ["exact", "float64", "rounding", "vacuous", "unidentifiable"])
def test_a_proof_gives_its_grade_and_rewrites(grade):
    assert compared(PROOF, grade=grade).grade == "proved"
    assert (compared(MODULO, grade=grade).grade, compared(MODULO, grade=grade).note) == ("proved modulo", PRODUCTS)
    assert compared(None, grade=grade).grade == grade


def test_a_proof_of_the_warm_run_says_nothing_of_the_cold_one():
    assert compared(PROOF, grade="exact", probe="cold").grade == "exact"


# Proofs alone.


@cache
def proved_only(name):
    loaded = helpers.loaded(name)
    return run_case(LoadedCase(loaded.name, loaded.lesson, loaded.case), prove_only=True)


def test_proofs_alone_are_enough_for_a_case_that_is_one_program():
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
    assert {item.note for item in open_} == {"not proved; only proofs were asked for. Run without --prove-only."}
    for check in result.checks:
        assert check.grade == weakest(check.findings)


def test_a_fault_is_never_the_same_by_proof_alone():
    case = helpers.with_candidate(
        "counter", "nnx", helpers.patched("counter", ("x + self.multiplier", "x - self.multiplier"))
    )
    result = run_case(LoadedCase("counter", "A lesson.", case), prove_only=True)
    assert result.verdicts == {"nnx": "inconclusive"}


@pytest.mark.parametrize(("name", "code", "verdict"), [("counter", 0, "same"), ("batch_norm", 3, "inconclusive")])
def test_the_command_line_proves_only_when_asked_to(tmp_path, name, code, verdict):
    path = helpers.CASES / f"{name}.py"
    result = CliRunner().invoke(main, ["run", str(path), "--prove-only", "--json", "--reports", str(tmp_path)])
    assert result.exit_code == code
    written = decode((tmp_path / "results.json").read_bytes(), "results.json")
    assert written.verdict == verdict
    assert [case.name for case in written.cases] == [CaseFile(name, path).name]
