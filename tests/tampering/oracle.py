"""What becomes of a certificate that was tampered with: refused, or accepted and, by an oracle, true or wrong."""

import jax
import numpy as np

from equiv.certificates.checker.check import check, digest
from equiv.certificates.checker.terms import Refused, to_text
from equiv.certificates.program_data import (
    describe_input,
    describe_output,
)
from equiv.programs.prover.dependencies import input_dependencies
from tampering.certificates import claims_of, program_of
from tampering.evaluate import NEVER, Endless, evaluate

TOLERANCE = {False: 1e-4, True: 1e-9}
"""How far numbers of equal programs may differ, of their scale, by whether they are float64."""


def random_arrays(program, aliases, seed):
    """Inputs of a program by name, the same for both ports."""
    found = []
    for name, (shape, dtype) in zip(program["inputs"], program["jaxpr"]["inputs"], strict=True):
        name = aliases.get(to_text([program["side"], name]), name)
        rng = np.random.default_rng([seed, *to_text(name).encode()])
        numbers = rng.integers(0, 3, shape) if "int" in dtype or dtype == "bool" else rng.uniform(0.3, 2, shape)
        found.append(np.asarray(numbers, dtype))
    return found


def agree(known, data, proof, pair):
    """Whether two claimed outputs have the same numbers on random inputs."""
    aliases = {to_text([side, name]): other for side, name, other in data["aliases"]}
    ends = []
    with jax.enable_x64(proof["precision"] != "native"), np.errstate(all="ignore"):
        for side, name in enumerate(proof["programs"]):
            program = next(
                one
                for one in data["programs"]
                if [one["side"], one["name"], one["precision"]] == [side, name, proof["precision"]]
            )
            outs = evaluate(known, program["jaxpr"], random_arrays(program, aliases, 7))
            wanted = outs[list(map(to_text, program["outputs"])).index(to_text(pair[side]))]
            outs = [one for one in outs if one is not NEVER]
            if wanted is NEVER:
                ends.append(None)
                continue
            floats = [np.abs(one[np.isfinite(one)]) for one in map(np.asarray, outs) if "float" in str(one.dtype)]
            largest = max((float(np.max(one, initial=0)) for one in floats), default=0.0)
            ends.append((np.asarray(wanted), largest))
    if ends == [None, None]:
        raise Endless
    if None in ends:
        return False
    (one, largest), (other, _) = ends
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if "float" not in str(one.dtype):
        return bool(np.array_equal(one, other))
    # What cancels, as the gradient of a bias before a normalisation, has the rounding of larger values.
    scale = max(float(np.max(np.abs(one[np.isfinite(one)]), initial=0)), 0.01 * largest)
    return bool(np.allclose(one, other, rtol=0, atol=TOLERANCE[proof["precision"] != "native"] * scale, equal_nan=True))


def is_true(original, data, known):
    """Whether an accepted certificate claims no more than the original did, or what numbers show to be so."""
    before = {}
    for claim, rewrites, _ in original.claims:
        before.setdefault(claim, []).append(rewrites)
    for claim, rewrites, (proof, pair) in claims_of(data):
        if claim in before and not any(needed <= rewrites for needed in before[claim]):
            return False  # with fewer rewrites than the prover needs
        if claim not in before and not agree(known, data, proof, pair):
            return False
    for claim in data["training"]:
        same = [one for one in original.data["training"] if one["cold"] == claim["cold"]] or original.data["training"]
        if not any(is_weaker(original, claim, one) for one in same):
            return False
    return data["conditions"].items() <= original.data["conditions"].items()


def is_weaker(original, claim, before):
    """Whether what training is claimed to keep follows from what was claimed before.

    Of more outputs of trained models it is asked what the prover knows of their inputs.
    """
    kept = set(map(to_text, before["kept"]))
    fewer = set(map(to_text, claim["kept"])) <= kept and set(claim["rewrites"]) >= set(before["rewrites"])
    for program, name in claim["after"]:
        if [program, name] not in before["after"]:
            described = {"side": 0, "name": program, "precision": "native"}
            needs = input_dependencies(program_of(original.sides, described))
            inputs = next(found for output, found in needs.items() if describe_output(output) == name)
            fewer &= {to_text(describe_input(one)) for one in inputs if one.is_carried} <= kept
    return fewer


def judge(original, data, known=None):
    """`refused`, `true` or `wrong`; `endless` where neither program ends."""
    for program in data["programs"]:
        if isinstance(program, dict):
            program["digest"] = digest(program)
    try:
        check(data)
    except Refused:
        return "refused"
    except Exception:  # noqa: BLE001 - what is no certificate may break the checker in any way
        return "no certificate"
    try:
        return "true" if is_true(original, data, known or original.known) else "wrong"
    except Endless:
        return "endless"
    except (KeyError, TypeError, ValueError, IndexError):
        return "not judged"  # it has an operation that cannot be evaluated
