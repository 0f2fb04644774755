"""Write certificates: what the prover found, with every step, in the form that the checker reads."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from equiv.certificates.checker.check import Proved, check, check_proof, check_training
from equiv.certificates.checker.reals import CONDITIONS
from equiv.certificates.checker.terms import Refused, to_text
from equiv.certificates.derivation import Labelling, derive
from equiv.certificates.program_data import (
    NotCertified,
    describe_input,
    describe_output,
    describe_program,
    describe_program_name,
)
from equiv.certificates.verify import SCHEMA_VERSION
from equiv.core.output_name import TRAINING, InputName, ProgramName
from equiv.errors import EquivError, error_summary
from equiv.programs.program import Program
from equiv.programs.prover.numbered_port import NumberedPort, all_programs, mirrored_inputs
from equiv.programs.prover.proof import FLOAT64_CASTS, FLOAT64_CONSTANTS, Precision, Proofs
from equiv.programs.prover.prove import OutputPair, prove_programs

Fresh = list[dict[str, str]]
"""Of the reference and of the candidate: state leaf to the digest of its initial value."""


@dataclass(frozen=True)
class Certificate:
    """The certificate of a candidate's proofs.

    Attributes:
        data: what is written to the file.
        proved: how many proofs the prover has.
        left_out: those that are not certified, by what they are of, with the reason.
    """

    data: dict[str, Any]
    proved: int
    left_out: Mapping[str, str]

    @property
    def encoded(self) -> bytes:
        """The file."""
        return json.dumps(self.data, separators=(",", ":"), allow_nan=False).encode()


def write_certificate(
    about: Mapping[str, str], left: NumberedPort, right: NumberedPort, proofs: Proofs, fresh: Fresh
) -> Certificate:
    """Write the certificate of a candidate, and check it.

    Args:
        about: what it is of: names of case, ports and versions.
        left: the reference.
        right: the candidate.
        proofs: what the prover has proved of them.
        fresh: of both ports the state as its library initialises it.
    """
    single = prove_programs(left, right)
    found = _Sections(left, right)
    groups: dict[tuple[ProgramName, ProgramName, tuple[str, ...]], list[OutputPair]] = {}
    for pair, proof in single.items():
        groups.setdefault((pair[0].program, pair[1].program, proof.rewrites), []).append(pair)
    for (ours, theirs, rewrites), pairs in groups.items():
        found.prove((ours, theirs), rewrites, pairs)
    training = [claim for cold in (False, True) if (claim := found.claim_training(proofs, cold, fresh))]
    used = sorted({name for one in (*found.proofs, *training) for name in one["rewrites"]})
    data = {
        "schema": SCHEMA_VERSION,
        "about": dict(about),
        "aliases": found.aliases,
        "conditions": {name: CONDITIONS[name] for name in used},
        "programs": list(found.programs.values()),
        "proofs": found.proofs,
        "training": training,
        "fresh": fresh,
        "left_out": [[what, reason] for what, reason in found.left_out.items()],
    }
    data = json.loads(json.dumps(data))
    check(data)
    return Certificate(data, len(proofs), found.left_out)


def find_program(side: NumberedPort, name: ProgramName, precision: Precision) -> Program:
    """A program of a port in one precision.

    Raises:
        NotCertified: there is none.
    """
    own = (one for one in all_programs(side.programs) if one.name == name)
    lifted = {"kept": side.kept_program, "float64": side.float64_program}
    found = next(own, None) if precision == "native" else lifted[precision](name)
    if found is None:
        raise NotCertified(f"there is no program {name} in this precision")
    return found


def write_proof(
    both: tuple[Program, Program],
    described: Sequence[dict[str, Any]],
    rewrites: tuple[str, ...],
    pairs: list[list[Any]],
    mirrored: tuple[Mapping[InputName, InputName], Mapping[InputName, InputName]],
    bounds: Mapping[str, int] | None = None,
) -> tuple[dict[str, Any], Proved]:
    """Write the proof that outputs of two programs are equal, and check it.

    Args:
        both: the programs.
        described: the programs as a certificate has them, in one precision; then those as traced.
        rewrites: what the proof may use.
        pairs: of outputs, as a certificate has them.
        mirrored: see `mirrored_inputs`; of both ports.

    Raises:
        NotCertified: the checker has no rule for something in it.
        Refused: it does not follow.
    """
    derivation = derive(both, frozenset(rewrites) - {FLOAT64_CONSTANTS, FLOAT64_CASTS}, mirrored, bounds or {})
    proof = {
        "programs": [one["name"] for one in described[:2]],
        "precision": described[0]["precision"],
        "rewrites": sorted(rewrites),
        "pairs": pairs,
        "terms": derivation.rows,
        "steps": derivation.steps,
    }
    proof = json.loads(json.dumps(proof))  # as the checker gets it
    programs = {to_text([one["side"], one["name"], one["precision"]]): one for one in described}
    aliases = {
        to_text([side, describe_input(name)]): describe_input(other)
        for side, names in enumerate(mirrored)
        for name, other in names.items()
    }
    # The checker's own walk, which writes the rule of each step down.
    return proof, check_proof(proof, programs, aliases, Labelling)


class _Sections:
    """The sections of a certificate, which is of two ports."""

    def __init__(self, left: NumberedPort, right: NumberedPort) -> None:
        self.sides = (left, right)
        self.mirrored = mirrored_inputs(left.table), mirrored_inputs(right.table)
        self.aliases = [
            [side, describe_input(name), describe_input(other)]
            for side, mirrored in enumerate(self.mirrored)
            for name, other in mirrored.items()
        ]
        self.programs: dict[tuple[int, ProgramName, Precision], dict[str, Any]] = {}
        self.proofs: list[dict[str, Any]] = []
        self.reached: Proved = {}
        self.left_out: dict[str, str] = {}
        self.reasons: list[str] = []

    def prove(self, names: tuple[ProgramName, ProgramName], rewrites: tuple[str, ...], pairs: list[OutputPair]) -> None:
        """Add the proof of some pairs of outputs of two programs, or the reason why there is none."""
        lifted = FLOAT64_CONSTANTS in rewrites
        rounded = FLOAT64_CASTS in rewrites and not lifted
        precision: Precision = "float64" if lifted else "native"
        wanted: list[tuple[Precision, tuple[str, ...]]] = [(precision, rewrites)]
        if lifted and FLOAT64_CASTS not in rewrites and any(map(NumberedPort.has_casts, self.sides, names)):
            # Constants of a program with its casts are guessed, so that it is proved without them too.
            wanted = [("kept", rewrites), ("float64", (*rewrites, FLOAT64_CASTS))]
        try:
            if rounded:
                raise NotCertified(
                    "the checker has no programs without casts with numbers as rounded, or read as others"
                )
            found = [self._prove(names, *one, pairs) for one in wanted]
        except Exception as error:  # noqa: BLE001 - what cannot be certified is said, and breaks no run
            known = isinstance(error, EquivError | Refused)
            reason = str(error) if known else f"the checker fails with {error_summary(error)}"
            # Of a train step alone nothing is claimed: what follows from it is, and is left out with it.
            self.left_out |= {str(ours): reason for ours, _ in pairs if not ours.program.is_training}
            self.reasons += [reason] if pairs[0][0].program.is_training else []
            return
        for proof, programs, reached in found:
            self.proofs.append(proof)
            self.programs |= programs
            self.reached = reached | self.reached

    def _prove(
        self,
        names: tuple[ProgramName, ProgramName],
        precision: Precision,
        rewrites: tuple[str, ...],
        pairs: list[OutputPair],
    ) -> tuple[dict[str, Any], dict[tuple[int, ProgramName, Precision], dict[str, Any]], Proved]:
        if unknown := set(rewrites) - CONDITIONS.keys():
            raise NotCertified(f"the checker does not know the rewrite {min(unknown)!r}")
        both = [find_program(side, name, precision) for side, name in zip(self.sides, names, strict=True)]
        data = self._describe(names, precision)
        if precision != "native":
            data |= self._describe(names, "native")
        described = [list(map(describe_output, pair)) for pair in pairs]
        proof, reached = write_proof(
            (both[0], both[1]), list(data.values()), rewrites, described, self.mirrored, self.sides[0].bounds
        )
        return proof, data, reached

    def _describe(
        self, names: tuple[ProgramName, ProgramName], precision: Precision
    ) -> dict[tuple[int, ProgramName, Precision], dict[str, Any]]:
        found: dict[tuple[int, ProgramName, Precision], dict[str, Any]] = {}
        for number, (side, name) in enumerate(zip(self.sides, names, strict=True)):
            known = self.programs.get((number, name, precision))
            program = known or describe_program(find_program(side, name, precision), number, precision)
            found[number, name, precision] = program
        return found

    def claim_training(self, proofs: Proofs, cold: bool, fresh: Fresh) -> dict[str, Any] | None:
        """Claim what stays equal in training, where all that this takes is certified."""
        own = {output: proof for (output, _, from_fresh), proof in proofs.items() if from_fresh is cold}
        kept = [output for output in own if output.program == TRAINING]
        after = [output for output in own if output.after_training]
        own_training = (*kept, *after)
        if not own_training:
            return None
        claim = {
            "cold": cold,
            "kept": [describe_output(output) for output in kept],
            "after": [[describe_program_name(output.program), describe_output(output)] for output in after],
            "rewrites": sorted({name for output in own_training for name in own[output].rewrites}),
        }
        try:
            check_training(claim, self.reached, fresh)
        except Refused as error:
            reason = "; ".join(dict.fromkeys((str(error), *self.reasons)))
            self.left_out |= {f"{output}{', from fresh state' if cold else ''}": reason for output in own_training}
            return None
        return claim
