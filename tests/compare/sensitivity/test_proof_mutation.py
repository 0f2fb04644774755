"""A proof notices: a changed equation breaks it, and a change that breaks nothing is said to have broken nothing."""

import helpers
import pytest
from named import output_named

from equiv.compare.proofs import prove_all
from equiv.compare.sensitivity.proof_mutation import mutate_proofs
from equiv.programs.prover.proof import Proof
from equiv.programs.traced_port import trace_port


def test_every_proof_breaks_when_an_equation_is_changed() -> None:
    """Forward, gradient, begin and step of both candidates."""
    workshop = helpers.workshop_of("rnn_scan")
    left = trace_port(workshop, "haiku")
    traced = {name: trace_port(workshop, name) for name in ("linen", "nnx")}
    found = mutate_proofs(traced, prove_all(left, traced))
    assert {finding.place for finding in found} >= {
        f"tampering with {name}, {part}" for name in traced for part in ("call __call__", "gradient __call__", "step")
    }
    assert {finding.grade for finding in found} == {"exact"}
    assert all(finding.note for finding in found)


def test_a_change_that_breaks_no_proof_is_reported_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said as `unidentifiable`, never passed over."""
    traced = trace_port(helpers.workshop_of("rnn_scan"), "linen")
    monkeypatch.setattr("equiv.compare.sensitivity.proof_mutation.mutate_randomly", lambda part, seed: (None, part))
    place = output_named("call __call__: output")
    (finding,) = mutate_proofs({"linen": traced}, {"linen": {(place, place, False): Proof("proved")}})
    assert (finding.grade, finding.note) == ("unidentifiable", "none of 5 changed equations broke the proof")


def test_a_program_without_a_proof_is_not_tampered_with() -> None:
    """There is nothing to break."""
    traced = trace_port(helpers.workshop_of("rnn_scan"), "linen")
    assert mutate_proofs({"linen": traced}, {"linen": {}}) == ()
