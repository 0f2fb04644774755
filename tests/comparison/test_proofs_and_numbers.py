"""What proofs may decide: together with what was run, and alone."""

from functools import cache

import helpers
import pytest
from click.testing import CliRunner
from named import output_named

from equiv.comparison.numeric.difference import ROUNDS_MORE, apply_proof
from equiv.comparison.observation import Comparison, PortOutputs, RoundingNoise, Sample
from equiv.comparison.pipeline import RunOptions, run_case
from equiv.comparison.proofs import prove_all
from equiv.core.case_files import CaseFile, LoadedCase
from equiv.core.leaves import LeafTable
from equiv.core.results import Finding
from equiv.core.results_json import decode_results
from equiv.core.verdict import check_grade
from equiv.frontends.cli.main import main
from equiv.programs.compiled import by_operation
from equiv.programs.prover.conditions import REORDERED_PRODUCTS
from equiv.programs.prover.proof import Proof

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


@pytest.mark.quick(1)
@pytest.mark.parametrize("equations", [0, 4000])
def test_a_wrong_proof_of_a_whole_port_is_noticed(monkeypatch, equations):
    """Where all is proved, the run that follows is compiled, or operation by operation where the programs are large."""
    monkeypatch.setattr("equiv.comparison.numeric.run_port.COMPILED_EQUATIONS", equations)
    monkeypatch.setenv("EQUIV_COMPILED", "0")
    honest = helpers.with_candidate("counter", "nnx", helpers.loaded("counter").case)
    proofs = []
    monkeypatch.setattr(
        "equiv.comparison.stages.prove_all", lambda *ports: proofs.append(prove_all(*ports)) or proofs[0]
    )
    evaluated = []
    monkeypatch.setattr(
        "equiv.comparison.numeric.run_port.by_operation",
        lambda *given: evaluated.append(given) or by_operation(*given),
    )
    assert run_case(LoadedCase("counter", "A lesson.", honest)).verdicts == {"nnx": "same"}
    faulty = helpers.with_candidate(
        "counter", "nnx", helpers.patched("counter", ("x + self.multiplier", "x - self.multiplier"))
    )
    found = run_case(LoadedCase("counter", "A lesson.", faulty))
    assert found.verdicts == {"nnx": "error"}
    assert any("an error of equiv" in one.note for check in found.checks for one in check.findings)
    assert bool(evaluated) == (equations == 0)


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
