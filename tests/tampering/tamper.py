"""Tamper with a certificate, or forge one of a changed program, and see what becomes of it."""

import jax
import numpy as np

from equiv.certificates.checker.terms import Refused
from equiv.certificates.program_data import (
    describe_program,
)
from equiv.certificates.write import write_proof
from equiv.errors import EquivError
from equiv.programs.mutation.catalogue import FAULTS
from equiv.programs.mutation.mutate import mutate_randomly
from equiv.programs.mutation.random_edits import RANDOM_FAULTS
from equiv.programs.prover.numbered_port import mirrored_inputs
from tampering.certificates import learn, program_of
from tampering.changes import TAMPERINGS, pick
from tampering.oracle import judge


def tamper(original, seed):
    """Tamper with a certificate once or twice: what was done, and what becomes of it."""
    rng = np.random.default_rng(seed)
    data, said = original.copy(), []
    for _ in range(1 + (seed % 5 == 0)):
        try:
            said.append(pick(rng, TAMPERINGS)(data, rng))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            said.append("nothing")  # what was changed before has broken the place
    if data == original.data:
        return said, "nothing"
    return said, judge(original, data)


def forge(original, seed):
    """Change a program of the candidate at random and let the writer make the proof again: what becomes of it.

    The steps are those of the changed programs, as far as the prover knows them; the claims are as before.
    """
    rng = np.random.default_rng(seed)
    proof = pick(rng, original.copy()["proofs"])
    described = [
        next(one for one in original.data["programs"] if [one["side"], one["name"], one["precision"]] == key)
        for key in ([side, name, proof["precision"]] for side, name in enumerate(proof["programs"]))
    ]
    both = [program_of(original.sides, one) for one in described]
    try:
        faults = RANDOM_FAULTS if seed % 3 else FAULTS
        mutation, both[1] = mutate_randomly(both[1], seed, faults)
    except EquivError:
        return ["nothing"], "nothing"
    said = [f"{mutation.kind}: {mutation.site}"]
    known, mirrored = dict(original.known), tuple(mirrored_inputs(side.table) for side in original.sides)
    with jax.enable_x64(proof["precision"] != "native"):
        learn(known, both[1].jaxpr)
    try:
        programs = [describe_program(one, side, proof["precision"]) for side, one in enumerate(both)]
        names = [[one["side"], one["name"], "native"] for one in programs if proof["precision"] != "native"]
        programs += [one for one in original.data["programs"] if [one["side"], one["name"], one["precision"]] in names]
        again, _ = write_proof(tuple(both), programs, tuple(proof["rewrites"]), proof["pairs"], mirrored)
    except (EquivError, Refused):
        return said, "refused"  # by the checker's own walk, which the writer uses
    data = {**original.data, "programs": programs, "proofs": [again], "training": []}
    return said, judge(original, data, known)
