"""The suite's own cases: what of them is proved, and by which rewrites."""

import dataclasses
from functools import cache

import helpers
import pytest

from equiv.comparison.proofs import needed_in_float64, prove_all, prover_side
from equiv.core.output_name import TRAINING
from equiv.programs.built_case import build_case
from equiv.programs.prover.conditions import MASKS, REORDERED_PRODUCTS
from equiv.programs.prover.proof import Proof
from equiv.programs.traced_port import trace_port


@cache
def suite(name):
    """A case's ports, traced, and the proofs of every candidate."""
    built_case = build_case(helpers.loaded(name).case)
    assert not built_case.problems
    reference, *candidates = (trace_port(built_case, backend) for backend in built_case.case.models)
    return reference, prove_all(prover_side(reference), {one.port.name: prover_side(one) for one in candidates})


def wanted_places(reference):
    """Everything that a port gives on its first probe, without what only its library has."""
    own = {one.name for one in reference.table.leaves if one.library_only}
    programs = reference.programs
    outputs = {output for part in programs.parts for output in part.outputs}
    outputs |= {output.of(TRAINING) for output in programs.step.outputs}
    return {output for output in outputs if output.leaf not in own}


@pytest.mark.quick(6)
@pytest.mark.parametrize("candidate", ["linen", "nnx"])
@pytest.mark.parametrize("name", ["counter", "custom_linear", "rnn_scan", "auto_encoder", "stateful_linear"])
def test_cases_that_are_one_program_are_proved_without_rewrites(name, candidate):
    reference, proofs = suite(name)
    found = {place for place, _, cold in proofs[candidate] if not cold}
    assert wanted_places(reference) <= found
    assert set(proofs[candidate].values()) == {Proof("proved")}
    assert needed_in_float64(reference.table, reference.programs, proofs)[candidate] == frozenset()


@pytest.mark.quick(2)
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


@pytest.mark.quick(3)
@pytest.mark.parametrize("name", NAMES)
def test_linen_and_nnx_are_one_program_in_every_case(name):
    case = helpers.loaded(name).case
    models = {backend: case.models[backend] for backend in ("linen", "nnx")}
    known = tuple(one for one in case.known_differences if one.backend in models)
    built_case = build_case(dataclasses.replace(case, models=models, known_differences=known))
    left, right = (trace_port(built_case, backend) for backend in models)
    proofs = prove_all(prover_side(left), {"nnx": prover_side(right)})["nnx"]
    assert wanted_places(left) <= {place for place, _, cold in proofs if not cold}
    assert set(proofs.values()) == {Proof("proved")}
