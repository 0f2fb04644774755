"""A proof notices: a changed equation breaks it, and a change that breaks nothing is said to have broken nothing."""

import helpers
import pytest
from named import output_named

from equiv.comparison.proofs import prove_all, prover_side
from equiv.comparison.sensitivity.proof_mutation import mutate_proofs
from equiv.programs.prover.proof import Proof
from equiv.programs.traced_port import trace_port


def test_every_proof_breaks_when_an_equation_is_changed() -> None:
    """Forward, gradient, begin and step of both candidates."""
    workshop = helpers.workshop_of("rnn_scan")
    left = trace_port(workshop, "haiku")
    sides = {name: prover_side(trace_port(workshop, name)) for name in ("linen", "nnx")}
    found = mutate_proofs(sides, prove_all(prover_side(left), sides))
    assert {trial.subject for trial in found} >= {
        (name, part) for name in sides for part in ("call __call__", "gradient __call__", "step")
    }
    assert {(trial.kind, trial.detected) for trial in found} == {("mutated proof", True)}
    assert all(trial.note for trial in found)


def test_a_change_that_breaks_no_proof_is_reported_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listed as not detected, never passed over."""
    side = prover_side(trace_port(helpers.workshop_of("rnn_scan"), "linen"))
    monkeypatch.setattr("equiv.comparison.sensitivity.proof_mutation.mutate_randomly", lambda part, seed: (None, part))
    place = output_named("call __call__: output")
    (trial,) = mutate_proofs({"linen": side}, {"linen": {(place, place, False): Proof("proved")}})
    assert (trial.detected, trial.note) == (False, "none of 5 changed equations broke the proof")
    assert trial.title == "mutated proof linen, call __call__"


def test_a_program_without_a_proof_is_not_mutated() -> None:
    """There is nothing to break."""
    side = prover_side(trace_port(helpers.workshop_of("rnn_scan"), "linen"))
    assert mutate_proofs({"linen": side}, {"linen": {}}) == ()
