"""True certificates, with the ports that they are of and what evaluates the operations of their programs."""

import json
from dataclasses import dataclass, field, replace
from functools import cached_property

import jax

from equiv.certificates.checker.terms import to_text
from equiv.certificates.program_data import (
    describe_constant,
    describe_operation,
)
from equiv.certificates.write import find_program, write_certificate
from equiv.comparison.certify import describe_fresh
from equiv.comparison.proofs import prove_all, prover_side
from equiv.comparison.stages import check_structure, open_case, trace_ports
from equiv.core.output_name import ProgramName
from equiv.programs.jaxpr import inner_jaxprs, open_jaxpr
from equiv.programs.primitives import CALLS


@dataclass(frozen=True)
class Original:
    """A true certificate, the ports that it is of, and what evaluates the operations of their programs."""

    data: dict
    sides: tuple
    proved: int
    left_out: dict
    known: dict = field(default_factory=dict)

    @cached_property
    def text(self):
        return json.dumps(self.data)

    def copy(self):
        return json.loads(self.text)

    @cached_property
    def claims(self):
        return list(claims_of(self.data))


def certify(loaded, candidate):
    """The certificate of one candidate of a case."""
    state = trace_ports(replace(check_structure(open_case(loaded.case)), candidates=(candidate,)))
    sides = [prover_side(state.traced[name]) for name in (state.reference, candidate)]
    proofs = prove_all(sides[0], {candidate: sides[1]})[candidate]
    return certify_ports(*(side.numbered for side in sides), proofs, describe_fresh(*sides))


def certify_ports(left, right, proofs, fresh):
    """The certificate of what is proved of two ports."""
    about = {"case": "a", "reference": "b", "candidate": "c", "equiv": "", "jax": jax.__version__, "default_rate": ""}
    found = write_certificate(about, left, right, proofs, fresh)
    known = {}
    for program in found.data["programs"]:
        learn(known, program_of((left, right), program).jaxpr)
    return Original(found.data, (left, right), found.proved, dict(found.left_out), known)


def program_of(sides, program):
    """The program of a port that a certificate describes."""
    return find_program(sides[program["side"]], ProgramName(*program["name"]), program["precision"])


def learn(known, closed):
    """Note every operation and constant of a jaxpr by what a certificate says of it."""
    jaxpr, consts = open_jaxpr(closed)
    known.update((to_text(describe_constant(one)), one) for one in consts)
    for eqn in jaxpr.eqns:
        if eqn.primitive.name not in CALLS:
            _, op, data, _ = describe_operation(eqn)
            known.setdefault(to_text([op, data]), eqn)
        for inner in inner_jaxprs(eqn):
            learn(known, inner)


def claims_of(data):
    """What a certificate claims: programs and a pair of their outputs, with the rewrites; what training keeps."""
    digests = {to_text([one["side"], one["name"], one["precision"]]): one["digest"] for one in data["programs"]}
    for proof in data["proofs"]:
        own = [digests[to_text([side, name, proof["precision"]])] for side, name in enumerate(proof["programs"])]
        for pair in proof["pairs"]:
            yield to_text([own, pair, sorted(data["aliases"])]), set(proof["rewrites"]), (proof, pair)
