"""Certificates of a case: write those of its proofs, and compare one with the programs of a case."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import jax

from equiv.backends.build import DefaultSgd
from equiv.certificates.checker.terms import to_text
from equiv.certificates.program_data import (
    describe_constant,
    describe_output,
    describe_program,
    describe_program_name,
)
from equiv.certificates.write import Certificate, find_program, write_certificate
from equiv.comparison.proofs import ProverSide, prover_side
from equiv.comparison.stages import check_structure, open_case, trace_ports
from equiv.comparison.state import CaseState
from equiv.core.case_files import LoadedCase
from equiv.core.output_name import ProgramName
from equiv.errors import EquivError
from equiv.programs.prover.numbered_port import NumberedPort, mirrored_inputs
from equiv.programs.prover.prove import output_pairs


def certify_proofs(name: str, state: CaseState) -> Iterator[tuple[str, Certificate]]:
    """Write the certificate of each candidate.

    Args:
        name: of the case.
        state: the case, its candidates proved.
    """
    for candidate in state.candidates if state.prover_side else ():
        assert state.prover_side is not None, "there are no proofs without the reference's side"
        left, right = state.prover_side, prover_side(state.traced[candidate])
        about = {"case": name, "reference": state.reference, "candidate": candidate, **_describe_setting(state)}
        fresh = describe_fresh(left, right)
        yield candidate, write_certificate(about, left.numbered, right.numbered, state.proofs[candidate], fresh)


def _describe_setting(state: CaseState) -> dict[str, str]:
    optimizer = state.built_case.case.optimizer or DefaultSgd()
    rate = repr(optimizer.rate) if isinstance(optimizer, DefaultSgd) else ""
    return {"equiv": version("equiv"), "jax": jax.__version__, "default_rate": rate}


def describe_fresh(left: ProverSide, right: ProverSide) -> list[dict[str, str]]:
    """Of both ports the digests of the state leaves as their libraries initialise them."""
    return [
        {leaf: to_text(describe_constant(side.fresh[leaf])) for leaf in side.numbered.table.names("state")}
        for side in (left, right)
    ]


def compare_with_case(data: Mapping[str, Any], loaded: LoadedCase) -> tuple[str, list[str]]:
    """Trace a case and compare it with a certificate.

    Returns:
        Where the certificate is not of the case's programs, empty if it is; the outputs that the case compares and the
        certificate claims nothing of.

    Raises:
        EquivError: the case cannot be traced.
    """
    about, case = data["about"], loaded.case
    if about["default_rate"] and (case.optimizer is None or isinstance(case.optimizer, DefaultSgd)):
        case = replace(case, optimizer=DefaultSgd(float(about["default_rate"])))
    names = (about["reference"], about["candidate"])
    if missing := [name for name in names if name not in case.models]:
        return f"the case has no model {missing[0]!r}", []
    opened = open_case(case)
    if opened.reference != names[0]:
        return f"the reference of the case is {opened.reference}, not {names[0]}", []
    traced = trace_ports(check_structure(replace(opened, candidates=(names[1],)))).traced
    if names[1] not in traced:
        raise EquivError(f"{names[1]} cannot be traced: run the case.", port=names[1])
    sides = prover_side(traced[names[0]]), prover_side(traced[names[1]])
    aliases = sorted(
        to_text([number, [one.kind, one.path, one.leaf], [other.kind, other.path, other.leaf]])
        for number, side in enumerate(sides)
        for one, other in mirrored_inputs(side.numbered.table).items()
    )
    if sorted(map(to_text, data["aliases"])) != aliases:
        return "the leaves that one library alone has are other ones in the layer table of the case", []
    if describe_fresh(*sides) != data["fresh"]:
        return "the libraries initialise the state of the case otherwise", []
    changed = [one for one in data["programs"] if _describe_anew(sides, one)["digest"] != one["digest"]]
    for one in changed:
        versions = (
            "" if about["jax"] == jax.__version__ else f" (traced with jax {about['jax']}, now {jax.__version__})"
        )
        precision = "" if one["precision"] == "native" else ", float64 reading"
        return f"{names[one['side']]}: {' '.join(one['name'])}{precision} is another program in the case{versions}", []
    return "", list(_find_missing(data, sides[0].numbered, sides[1].numbered))


def _find_missing(data: Mapping[str, Any], left: NumberedPort, right: NumberedPort) -> Iterator[str]:
    """The outputs that two ports have in common, and values that training could keep, that are in no claim."""
    claimed = {to_text([*proof["programs"], *pair]) for proof in data["proofs"] for pair in proof["pairs"]}
    for pair in output_pairs(left, right):
        names = [describe_program_name(one.program) for one in pair]
        if to_text([*names, *map(describe_output, pair)]) not in claimed:
            yield str(pair[0])
    kept = {to_text(name) for claim in data["training"] for name in claim["kept"] if not claim["cold"]}
    for output in left.programs.step.outputs if left.programs.step and right.programs.step else ():
        if to_text(describe_output(output)) not in kept:
            yield f"{output} after any number of train steps"


def _describe_anew(sides: Sequence[ProverSide], one: Mapping[str, Any]) -> dict[str, Any]:
    """The program of a port that a certificate has a program of."""
    found = find_program(sides[one["side"]].numbered, ProgramName(*one["name"]), one["precision"])
    return describe_program(found, one["side"], one["precision"])
