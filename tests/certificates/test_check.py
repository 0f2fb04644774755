"""The second checker: small and on its own; it accepts what is proved, and nothing that is not."""

import ast
import json
import sys
import tokenize
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import small_ports
from helpers import loaded
from named import make_program
from small_ports import small
from tampering.certificates import certify, certify_ports
from tampering.oracle import judge
from tampering.tamper import forge, tamper

from equiv.certificates import checker
from equiv.certificates.checker.check import check, digest
from equiv.certificates.checker.reals import CONDITIONS, FLOAT64, FLOAT64_CASTS, RULES
from equiv.certificates.checker.rules import Step, identity
from equiv.certificates.checker.terms import Refused, Terms, Value, read_view
from equiv.certificates.program_data import NotCertified, describe_program
from equiv.certificates.write import write_proof
from equiv.comparison.pipeline import CONSTANTS_CONDITION
from equiv.programs.prover import conditions, proof
from equiv.programs.prover.prove import prove

FOLDER = Path(str(checker.__file__)).parent
MOST_EXACT, MOST_REAL, MOST_LINES = 400, 160, 740
"""Lines of code that check exact steps, those for real arithmetic, and all lines with docstrings and blank ones."""


def code_lines(path):
    """The lines of a file that are code: no docstring, no comment, not blank."""
    source = path.read_text()
    kept = (ast.Module, ast.ClassDef, ast.FunctionDef)
    owners = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kept) and ast.get_docstring(node)]
    texts = [node.body[0] for node in owners]
    docstrings = {line for one in texts for line in range(one.lineno, one.end_lineno + 1)}
    tokens = tokenize.generate_tokens(iter(source.splitlines(keepends=True)).__next__)
    kinds = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    code = {line for one in tokens if one.type not in kinds for line in range(one.start[0], one.end[0] + 1)}
    return len(code - docstrings)


def test_the_checker_is_small_enough_to_be_read():
    lines = {path.stem: code_lines(path) for path in FOLDER.glob("*.py")}
    assert lines["check"] + lines["rules"] + lines["terms"] <= MOST_EXACT
    assert lines["reals"] <= MOST_REAL
    assert sum(len(path.read_text().splitlines()) for path in FOLDER.glob("*.py")) <= MOST_LINES


def test_the_checker_imports_numpy_and_the_standard_library_alone():
    """And itself; what `equiv.certificates` imports before it is nothing."""
    trees = [ast.parse(path.read_text()) for path in FOLDER.glob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    own = {name for name in found if name.startswith("equiv.certificates.checker")}
    assert {name.partition(".")[0] for name in found - own} <= sys.stdlib_module_names | {"numpy"}
    assert len(ast.parse((FOLDER.parent / "__init__.py").read_text()).body) == 1


def test_conditions_are_those_of_the_prover():
    """Where the prover has a rewrite that the checker does not know, its proofs are not certified."""
    known = conditions.CONDITIONS | {FLOAT64: CONSTANTS_CONDITION, FLOAT64_CASTS: CONDITIONS[FLOAT64_CASTS]}
    assert {name: known[name] for name in CONDITIONS} == CONDITIONS
    assert (FLOAT64, FLOAT64_CASTS) == (proof.FLOAT64_CONSTANTS, proof.FLOAT64_CASTS)


def test_everything_proved_of_two_small_ports_is_certified():
    assert (small().proved, small().left_out) == (40, {})


def test_every_rule_is_needed_for_two_small_ports():
    steps = [step for one in small().data["proofs"] for side in one["steps"] for step in side]
    assert {step[0] for step in steps} == {*RULES, "scan", "while", "cond"} - {"centred"}


@pytest.mark.quick(2)
@pytest.mark.parametrize(("case", "proved"), [("counter", 21), ("rnn_scan", 21), ("train_state_dropout", 70)])
def test_everything_proved_of_a_case_is_certified(case, proved):
    """Of all cases: `tests/tamper_run.py`."""
    found = certify(loaded(case), "nnx")
    assert (found.proved, found.left_out) == (proved, {})


EXPONENTIALS = {
    "an exponential": (["elementwise", ["exp", "{}"], 0], True),
    "a sum of exponentials": (["meeting", ["reduce_sum", "{}", [3]], 2], True),
    "half an exponential under a mask": (["product", [0.5, [1.0, 1.0]], 2, 1], True),
    "an input": (["elementwise", ["sin", "{}"], 0], False),
    "the largest exponential": (["meeting", ["reduce_max", "{}", [3]], 2], False),
    "a negative multiple": (["product", [-0.5, [1.0, 1.0]], 2, 1], False),
    "a product with an input": (["product", [0.5, [1.0, 1.0]], 2, 0], False),
    "a root of an exponential": (["product", [0.5, [0.5, 1.0]], 2, 1], False),
    "a difference of exponentials": (["sum", [0.0, [1.0, -1.0]], 2, 2], False),
}
"""Definition of a term over an input, a mask and an exponential, and whether it is its own absolute value."""


@pytest.mark.parametrize(("definition", "known"), EXPONENTIALS.values(), ids=EXPONENTIALS)
def test_the_absolute_value_of_an_exponential_alone_is_itself(definition, known):
    (kind, data, *of), terms, own = definition, Terms(), [[[0, 1, 3]]]
    terms.define("input", ["leaf", "", "x"], [], [3], "float32")
    terms.define("input", ["batch", "mask", ""], [], [3], "bool")
    terms.define("elementwise", ["exp", "{}"], [[0, own]], [3], "float32")
    terms.define(kind, data, [[one, own] for one in of], [] if kind == "meeting" else [3], "float32")
    view = () if kind == "meeting" else read_view(own)
    value = Value(3, view, () if kind == "meeting" else (3,), "float32")
    assert identity(terms, Step("elementwise", "abs", "{}", [value], value, 0, None)) is known


def test_the_absolute_value_of_a_complex_exponential_is_another():
    terms = Terms()
    terms.define("input", ["leaf", "", "x"], [], [], "complex64")
    terms.define("elementwise", ["exp", "{}"], [[0, []]], [], "complex64")
    value = Value(1, (), (), "complex64")
    assert not identity(terms, Step("elementwise", "abs", "{}", [value], value, 0, None))


def test_no_tampered_certificate_is_accepted():
    """Each claims what does not follow, or is true by an oracle that the checker does not know."""
    results = Counter(tamper(small(), seed)[1] for seed in range(60))
    assert not {"wrong", "not judged"} & results.keys()
    assert results["refused"] > 30


def test_no_proof_of_a_changed_program_is_accepted():
    """The writer makes the best proof that it can of a program that was changed at random."""
    results = Counter(forge(small(), seed)[1] for seed in range(3))
    assert results.keys() <= {"refused", "true", "nothing"}
    assert results["refused"]


def test_a_checker_that_accepts_every_step_would_be_caught(monkeypatch):
    """By the oracle, which evaluates both programs: one has a sine where the other has a hyperbolic tangent."""
    changed = json.loads(small().text.replace('"op": "tanh"', '"op": "sin"'))
    pairs = zip(changed["programs"], small().copy()["programs"], strict=True)
    data = {**changed, "programs": [one if one["side"] else other for one, other in pairs]}
    assert judge(small(), data) == "refused"
    for rule, (_, *rest) in RULES.items():
        monkeypatch.setitem(RULES, rule, (lambda *_: True, *rest))
    assert judge(small(), data) == "wrong"


def step_of(data, rule):
    """The first step by a rule, and its proof."""
    pairs = ((step, proof) for proof in data["proofs"] for side in proof["steps"] for step in side)
    return next((step, proof) for step, proof in pairs if step[0] == rule)


def loop_of(data, kind):
    """The first loop of a kind in the programs."""
    eqns = (eqn for program in data["programs"] for eqn in program["jaxpr"]["equations"])
    return next(eqn for eqn in eqns if eqn["kind"] == kind)


def row_of(data, kind, operation=None):
    """The first definition of a kind."""
    rows = (row for proof in data["proofs"] for row in proof["terms"])
    return next(row for row in rows if row[0] == kind and (operation is None or row[1][0] == operation))


FAULTS = {
    "a later term": (lambda data: row_of(data, "product")[2][0].__setitem__(0, 9999), r"there is no term 9999"),
    "another operand": (lambda data: row_of(data, "elementwise", "tanh")[2][0].__setitem__(0, 0), r"no view|rule"),
    "a larger view": (lambda data: row_of(data, "meeting")[2][0][1][0][0].__setitem__(2, 7), r"is of what is no view"),
    "another function": (
        lambda data: row_of(data, "elementwise", "tanh")[1].__setitem__(0, "sin"),
        r"tanh: its result",
    ),
    "another coefficient": (lambda data: row_of(data, "product")[1].__setitem__(0, 1.5), r"its result does not follow"),
    "no rewrite": (lambda data: step_of(data, "masks")[1].__setitem__("rewrites", []), r"its result does not follow"),
    "another sum": (lambda data: step_of(data, "linear")[0].__setitem__(2, [[], []]), r"its result does not follow"),
    "a negative variance": (
        lambda data: step_of(data, "positive")[0][2].__setitem__(0, -1.0),
        r"by the rule 'positive'",
    ),
    "another length": (
        lambda data: loop_of(data, "scan")["data"].__setitem__("length", 5),
        r"a slice of something shorter",
    ),
    "the other direction": (lambda data: loop_of(data, "scan")["data"].__setitem__("reverse", True), r"carries of one"),
    "a carry that starts otherwise": (
        lambda data: loop_of(data, "while")["in"].reverse(),
        r"carries of one|shapes or dtypes|does not follow",
    ),
    "a branch fewer": (lambda data: loop_of(data, "cond")["bodies"].pop(), r"cond: its result does not follow|steps"),
    "a step more": (
        lambda data: data["proofs"][0]["steps"][0].append(["view", [], None]),
        r"more steps than equations",
    ),
    "a step less": (lambda data: data["proofs"][0]["steps"][0].pop(), r"fewer steps than equations"),
    "another condition": (
        lambda data: data["conditions"].__setitem__(conditions.MASKS, "always"),
        r"a rewrite has another condition",
    ),
    "a condition not said": (lambda data: data["conditions"].pop(conditions.MASKS), r"whose condition is not said"),
    "another pair": (
        lambda data: data["proofs"][0]["pairs"][0].__setitem__(0, data["proofs"][0]["pairs"][1][0]),
        r"ends at term \d+",
    ),
    "training uses more": (lambda data: data["training"][0].__setitem__("rewrites", []), r"training uses a rewrite"),
    "training reads more": (
        lambda data: data["training"][0]["kept"].remove(["leaf", "", "a"]),
        r"reads what is not kept equal",
    ),
    "another start": (
        lambda data: (data["fresh"][0].update(d="another"), data["training"][0].update(cold=True)),
        r"training starts from what is different",
    ),
}


@pytest.mark.parametrize(("plant", "message"), FAULTS.values(), ids=[name.replace(" ", "_") for name in FAULTS])
def test_a_planted_fault_is_refused_for_its_reason(plant, message):
    data = small().copy()
    plant(data)
    for program in data["programs"]:
        program["digest"] = digest(program)
    with pytest.raises(Refused, match=message):
        check(data)


def test_a_large_number_does_not_hide_a_summand():
    """Sums are compared at numbers that are far apart, so that each summand is the largest somewhere."""
    rewrites = [conditions.REORDERED_SUMS, conditions.REORDERED_PRODUCTS]
    assert write(lambda x: x * 1e30 + x.T, lambda x: x.T + 1e30 * x, rewrites)["terms"]
    with pytest.raises(Refused):
        write(lambda x: x * 1e30 + x.T, lambda x: x * 1e30 + jnp.sin(x), rewrites)


def test_a_variance_is_never_equal_to_zero():
    def one(x):
        mean = x.mean(0)
        return ((x * x).mean(0) - mean * mean) == 0

    rewrites = [conditions.POSITIVE, conditions.REORDERED_SUMS, conditions.REORDERED_PRODUCTS]
    assert write(lambda x: one(x), lambda x: ~(one(x) | True), rewrites)["terms"]
    with pytest.raises(Refused):
        write(one, lambda x: one(x) | True, rewrites)


def write(one, other, rewrites=()):
    """The proof that two functions of a 3 x 3 array are equal."""
    specs = jax.ShapeDtypeStruct((3, 3), "float32")
    both = [make_program("pair", jax.make_jaxpr(function)(specs), ("x",), ("output",)) for function in (one, other)]
    described = [describe_program(program, side, "native") for side, program in enumerate(both)]
    outputs = [described[0]["outputs"][0], described[1]["outputs"][0]]
    return write_proof(tuple(both), tuple(described), tuple(rewrites), [outputs], ({}, {}))[0]


NOT_KNOWN = {
    "a host function": lambda x: jax.pure_callback(lambda y: y, jax.ShapeDtypeStruct((3, 3), "float32"), x),
    "effects": lambda x: jax.debug.callback(lambda _: None, x) or x,
}


@pytest.mark.parametrize("function", NOT_KNOWN.values(), ids=[name.replace(" ", "_") for name in NOT_KNOWN])
def test_what_a_program_does_outside_is_not_certified(function):
    with pytest.raises(NotCertified, match=r"a parameter is a \w+, which only this process has|has effects"):
        write(function, function)


def test_a_rewrite_that_is_not_named_is_not_used():
    def one(x):
        return x * 2 + x * 3

    def other(x):
        return x * 5

    assert write(one, other, [conditions.REORDERED_SUMS, conditions.REORDERED_PRODUCTS])["terms"]
    with pytest.raises(Refused, match=r"ends at term \d+"):
        write(one, other)


def test_equal_casts_are_proved_with_and_without_them():
    """Constants of a program with its casts are guessed, so that one of the two does not suffice."""
    left, right = (
        small_ports.port(one, small_ports.step) for one in (small_ports.narrow, small_ports.narrow_otherwise)
    )
    found = certify_ports(left, right, prove(left, right, frozenset(("d",))), [{"d": "the same"}] * 2)
    assert found.left_out == {}
    assert [one["precision"] for one in found.data["proofs"] if one["rewrites"]] == ["kept", "float64"]
    data = found.copy()
    wide = data["proofs"].pop()
    with pytest.raises(Refused, match=r"what has the same casts is not said to be the same function"):
        check(data)
    wide["rewrites"].remove(FLOAT64_CASTS)
    with pytest.raises(Refused, match=r"there are casts that are not named"):
        check({**data, "proofs": [*data["proofs"], wide]})


def test_equal_programs_with_another_constant_are_refused():
    with pytest.raises(Refused, match=r"ends at term \d+"):
        write(lambda x: jnp.sin(x) * 0.5, lambda x: jnp.sin(x) * 0.25)
