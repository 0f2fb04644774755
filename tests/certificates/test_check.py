"""The second checker: small and on its own; it accepts what is proved, and nothing that is not."""

import ast
import io
import json
import subprocess
import sys
import tokenize
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import small_ports
import tampering
from helpers import loaded
from named import make_program
from small_ports import small

from equiv.certificates import checker
from equiv.certificates.checker.check import check
from equiv.certificates.checker.rewrites import ALL_RULES, CONDITIONS, FLOAT64, FLOAT64_CASTS
from equiv.certificates.checker.rules import RULES
from equiv.certificates.checker.terms import Refused
from equiv.certificates.program_data import NotCertified, describe_program
from equiv.certificates.write import write_proof
from equiv.comparison.pipeline import CONSTANTS_CONDITION
from equiv.programs.prover import algebra, proof
from equiv.programs.prover.prove import prove

FOLDER = Path(str(checker.__file__)).parent
MOST_LINES, MOST_LINES_OF_REWRITES = 400, 230


def code_lines(source):
    """The lines of a file that are neither blank, nor comment or docstring."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr)]
    texts = [node for node in nodes if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)]
    lines = {line for node in texts for line in range(node.lineno, node.end_lineno + 1)}
    blank = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = [one for one in tokenize.generate_tokens(io.StringIO(source).readline) if one.type not in blank]
    return {line for one in tokens for line in range(one.start[0], one.end[0] + 1)} - lines


def test_the_checker_is_small_enough_to_be_read():
    """What an exact proof needs, and what one that names rewrites needs besides."""
    sizes = {path.stem: len(code_lines(path.read_text())) for path in FOLDER.glob("*.py")}
    assert sizes.pop("rewrites") <= MOST_LINES_OF_REWRITES
    assert sum(sizes.values()) <= MOST_LINES


def test_an_exact_proof_is_checked_without_real_arithmetic(tmp_path):
    exact = [one for one in small().data["proofs"] if not one["rewrites"]]
    data = {**small().data, "proofs": exact, "training": [], "conditions": {}}
    (tmp_path / "exact.json").write_text(json.dumps(data))
    code = (
        "import json, sys\nfrom equiv.certificates.checker.check import check\n"
        "check(json.load(open(sys.argv[1])))\nprint(*sorted(n for n in sys.modules if n.startswith('equiv.')))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "exact.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    parts = ("", ".checker", ".checker.check", ".checker.rules", ".checker.terms")
    assert done.stdout.split() == [f"equiv.certificates{part}" for part in parts]


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
    known = algebra.CONDITIONS | {FLOAT64: CONSTANTS_CONDITION, FLOAT64_CASTS: CONDITIONS[FLOAT64_CASTS]}
    assert {name: known[name] for name in CONDITIONS} == CONDITIONS
    assert (FLOAT64, FLOAT64_CASTS) == (proof.FLOAT64_CONSTANTS, proof.FLOAT64_CASTS)


def test_everything_proved_of_two_small_ports_is_certified():
    assert (small().proved, small().left_out) == (40, {})


def test_every_rule_is_needed_for_two_small_ports():
    steps = [step for one in small().data["proofs"] for side in one["steps"] for step in side]
    assert {step[0] for step in steps} == {*ALL_RULES, "call", "scan", "while", "cond"}


@pytest.mark.parametrize(("case", "proved"), [("counter", 21), ("rnn_scan", 21)])
def test_everything_proved_of_a_case_is_certified(case, proved):
    """Of all cases: `tests/tamper_run.py`."""
    found = tampering.certify(loaded(case), "nnx")
    assert (found.proved, found.left_out) == (proved, {})


def test_no_tampered_certificate_is_accepted():
    """Each claims what does not follow, or is true by an oracle that the checker does not know."""
    results = Counter(tampering.tamper(small(), seed)[1] for seed in range(60))
    assert not {"wrong", "not judged"} & results.keys()
    assert results["refused"] > 30


def test_no_proof_of_a_changed_program_is_accepted():
    """The writer makes the best proof that it can of a program that was changed at random."""
    results = Counter(tampering.forge(small(), seed)[1] for seed in range(3))
    assert results.keys() <= {"refused", "true", "nothing"}
    assert results["refused"]


def test_a_checker_that_accepts_every_step_would_be_caught(monkeypatch):
    """By the oracle, which evaluates both programs: one has a sine where the other has a hyperbolic tangent."""
    changed = json.loads(small().text.replace('"op": "tanh"', '"op": "sin"'))
    pairs = zip(changed["programs"], small().copy()["programs"], strict=True)
    data = {**changed, "programs": [one if one["side"] else other for one, other in pairs]}
    assert tampering.judge(small(), data) == "refused"
    for rules in (RULES, ALL_RULES):
        for rule, (_, *rest) in rules.items():
            monkeypatch.setitem(rules, rule, (lambda *_: True, *rest))
    assert tampering.judge(small(), data) == "wrong"


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

    assert write(one, other, [algebra.REORDERED_SUMS, algebra.REORDERED_PRODUCTS])["terms"]
    with pytest.raises(Refused, match=r"ends at term \d+"):
        write(one, other)


def test_equal_casts_are_proved_with_and_without_them():
    """Constants of a program with its casts are guessed, so that one of the two does not suffice."""
    left, right = (
        small_ports.port(one, small_ports.step) for one in (small_ports.narrow, small_ports.narrow_otherwise)
    )
    found = tampering.certify_ports(left, right, prove(left, right, frozenset(("d",))), [{"d": "the same"}] * 2)
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
