"""Tampered certificates, and an oracle that says of those that are accepted whether they are true all the same.

A tampering changes one thing and renews the digests, as who knows the format would. What is accepted is true if it
claims no more than the certificate did, of the same programs; or if both programs, evaluated operation by operation on
random inputs, give the same numbers.
"""

import copy
import json
from dataclasses import dataclass, field, replace
from functools import cached_property

import jax
import numpy as np

from equiv.certificates.checker.check import check, digest
from equiv.certificates.checker.reals import FLOAT64, RULES
from equiv.certificates.checker.terms import Refused, to_text
from equiv.certificates.program_data import (
    describe_constant,
    describe_input,
    describe_operation,
    describe_output,
    describe_program,
)
from equiv.certificates.write import find_program, write_certificate, write_proof
from equiv.comparison.certify import describe_fresh
from equiv.comparison.proofs import prove_all, prover_side
from equiv.comparison.stages import check_structure, open_case, trace_ports
from equiv.core.output_name import ProgramName
from equiv.errors import EquivError
from equiv.programs.jaxpr import inner_jaxprs, open_jaxpr
from equiv.programs.mutation.catalogue import FAULTS
from equiv.programs.mutation.mutate import mutate_randomly
from equiv.programs.mutation.random_edits import RANDOM_FAULTS
from equiv.programs.primitives import CALLS
from equiv.programs.prover.dependencies import input_dependencies
from equiv.programs.prover.prove import mirrored_inputs

TOLERANCE = {False: 1e-4, True: 1e-9}
"""How far numbers of equal programs may be apart, of their scale, by whether they are float64."""


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
    proofs = prove_all(sides[0], {candidate: state.traced[candidate]})[candidate]
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


def evaluate(known, jaxpr, arrays):
    """Evaluate a program as a certificate describes it.

    Raises:
        KeyError: it has an operation that no original has.
    """

    def read(atom, values):
        if not isinstance(atom, list):
            return values[atom]
        kind, text, shape, dtype = atom
        if kind != "number":
            return known[to_text(atom)]
        return (
            np.broadcast_to(np.frombuffer(bytes.fromhex(text), dtype), shape)
            if shape
            else np.frombuffer(bytes.fromhex(text), dtype)[0]
        )

    values = [read(one, []) for one in jaxpr["constants"]] + list(arrays)
    for eqn in jaxpr["equations"]:
        ins = [read(atom, values) for atom in eqn["in"]]
        values += [
            np.asarray(one) if not jax.dtypes.issubdtype(one.dtype, jax.dtypes.extended) else one
            for one in apply(known, eqn, ins)
        ]
    return [read(atom, values) for atom in jaxpr["outputs"]]


def apply(known, eqn, ins):
    """The results of one equation."""
    kind, op, data, bodies = eqn["kind"], eqn["op"], eqn["data"], eqn["bodies"]
    if kind == "cond":
        return evaluate(known, bodies[int(ins[0])], ins[1:])
    if kind == "while":
        first, second = data["test"], data["test"] + data["body"]
        carry = ins[second:]
        while evaluate(known, bodies[0], [*ins[:first], *carry])[0]:
            carry = evaluate(known, bodies[1], [*ins[first:second], *carry])
        return carry
    if kind == "scan":
        first, second = data["constants"], data["constants"] + data["carries"]
        carry, stacked = ins[first:second], []
        for index in range(data["length"])[:: -1 if data["reverse"] else 1]:
            outs = evaluate(known, bodies[0], [*ins[:first], *carry, *(one[index] for one in ins[second:])])
            carry, stacked = outs[: len(carry)], [*stacked, outs[len(carry) :]]
        ordered = stacked[:: -1 if data["reverse"] else 1]
        return [*carry, *(np.stack(one) for one in zip(*ordered, strict=True))]
    if kind == "view":
        return [look(ins[number], data[number], shape) for number, (shape, _) in enumerate(eqn["out"])]
    if op == "convert_element_type":
        return [jax.lax.convert_element_type(ins[0], eqn["out"][0][1])]
    if kind == "meeting":
        return [meet(op, data[2], ins, eqn["out"][0])]
    original = known.get(to_text([op, data]))
    if original is None and kind == "elementwise" and data == "{}" and op in SIBLINGS:
        return [getattr(jax.lax, {"div": "div", "neg": "neg"}.get(op, op))(*np.broadcast_arrays(*ins))]
    if original is None:
        raise KeyError(op)
    if kind == "elementwise":
        ins = [np.broadcast_to(one, eqn["out"][0][0]) for one in ins]
    outs = original.primitive.bind(*ins, **original.primitive.get_bind_params(original.params))
    return outs if original.primitive.multiple_results else [outs]


def look(array, view, shape):
    """An array through a view: each axis of it at a number made from the axes of the result."""
    places, sizes = np.indices(shape), [1] * len(view)
    indices = [np.zeros(shape, int) for _ in view]
    for axis, digits in enumerate(view):
        for place, divisor, size in digits:
            indices[axis] = indices[axis] * size + places[place] // divisor % size
            sizes[axis] *= size
    array = np.asarray(array)
    if tuple(sizes) != array.shape:
        raise ValueError("a view of another shape")
    return np.broadcast_to(array[tuple(indices)], shape)


def meet(op, labels, ins, out):
    """A reduction or contraction by the names of the axes."""
    letters = ["".join(chr(97 + label) for label in one) for one in labels]
    result = "".join(chr(97 + axis) for axis in range(len(out[0])))
    if op == "dot_general":
        return np.asarray(np.einsum(f"{','.join(letters)}->{result}", *map(np.asarray, ins)), out[1])
    order = [*map(letters[0].index, result), *(n for n, one in enumerate(letters[0]) if one not in result)]
    rows = np.transpose(np.asarray(ins[0]), order)
    over = tuple(range(len(result), rows.ndim))
    return getattr(jax.lax, f"{op}_p").bind(rows, axes=over, **({"out_sharding": None} if op == "reduce_sum" else {}))


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
            floats = [np.abs(one[np.isfinite(one)]) for one in map(np.asarray, outs) if "float" in str(one.dtype)]
            largest = max((float(np.max(one, initial=0)) for one in floats), default=0.0)
            ends.append((np.asarray(outs[list(map(to_text, program["outputs"])).index(to_text(pair[side]))]), largest))
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
    """`refused`, `true` or `wrong`."""
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
    except (KeyError, TypeError, ValueError, IndexError):
        return "not judged"  # it has an operation that cannot be evaluated


# What is changed. Each takes a copy of the data and a generator of random numbers, and says what it did.


def places(data, path=()):
    """Every place in plain data: its container and key."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in list(items):
        yield data, key, (*path, key)
        yield from places(value, (*path, key))


def pick(rng, values):
    values = list(values)
    return values[int(rng.integers(len(values)))]


def change_anything(data, rng):
    """Change, drop, repeat or exchange something at a random place of a random section."""
    section = pick(
        rng, [key for key in ("programs", "proofs", "training", "aliases", "conditions", "fresh") if data[key]]
    )
    container, key, path = pick(rng, places(data[section]))
    value = container[key]
    if isinstance(container, list) and rng.random() < 0.4:
        change = pick(rng, ("drop", "repeat", "exchange"))
        other = int(rng.integers(len(container)))
        if change == "drop":
            del container[key]
        elif change == "repeat":
            container.insert(other, copy.deepcopy(value))
        else:
            container[key], container[other] = container[other], container[key]
        return f"{change} {section} {path}"
    container[key] = changed(value, rng)
    return f"change {section} {path}"


def changed(value, rng):
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + pick(rng, (-2, -1, 1, 2, 5))
    if isinstance(value, float):
        return pick(rng, (value * 1.5, -value, value + 1, value * (1 + 1e-6)))
    if isinstance(value, str):
        return pick(rng, ("mul", "add", "float64", "int32", "sum", "input", "1" + value[1:], value + "x", value[::-1]))
    if isinstance(value, list):
        return pick(rng, ([], value[::-1], [*value, *value[:1]], value[:-1], None))
    return pick(rng, (0, [], "mul", 1.5)) if value is None else {}


def some_equation(data, rng):
    """A random equation of a random program, in loops too, and how many variables it can read."""
    jaxpr = pick(rng, data["programs"])["jaxpr"]
    while True:
        number = int(rng.integers(len(jaxpr["equations"]))) if jaxpr["equations"] else None
        if number is None:
            return None, 0
        eqn = jaxpr["equations"][number]
        if not eqn["bodies"] or rng.random() < 0.3:
            made = sum(len(one["out"]) for one in jaxpr["equations"][:number])
            return eqn, len(jaxpr["constants"]) + len(jaxpr["inputs"]) + made
        jaxpr = pick(rng, eqn["bodies"])


SIBLINGS = ("add", "sub", "mul", "div", "max", "min", "tanh", "sin", "exp", "log", "sqrt", "rsqrt", "square", "neg")


def change_equation(data, rng):
    """Another operand, operation, result, number or parameter in one program."""
    eqn, variables = some_equation(data, rng)
    what = pick(rng, ("operand", "operation", "shape", "dtype", "parameter", "exchange"))
    if eqn is None or not eqn["in"]:
        return change_anything(data, rng)
    place = int(rng.integers(len(eqn["in"])))
    atom = eqn["in"][place]
    if what == "operand" and isinstance(atom, list):
        atom[1] = np.asarray(rng.normal(), "float64" if atom[3] == "float64" else "float32").tobytes().hex()
    elif what == "operand":
        eqn["in"][place] = int(rng.integers(variables))
    elif what == "operation":
        eqn["op"] = pick(rng, SIBLINGS)
    elif what == "shape" and eqn["out"][0][0]:
        eqn["out"][0][0][0] += 1
    elif what == "dtype":
        eqn["out"][0][1] = "float64" if eqn["out"][0][1] != "float64" else "float32"
    elif what == "exchange":
        eqn["in"].reverse()
    elif isinstance(eqn["data"], str):
        eqn["data"] = changed(eqn["data"], rng)
    elif eqn["data"]:
        container, key, _ = pick(rng, places(eqn["data"]))
        container[key] = changed(container[key], rng)
    return f"{what} of {eqn['op']}"


def change_step(data, rng):
    """Another rule, term or view of one step."""
    proof = pick(rng, data["proofs"])
    steps = pick(rng, [one for one in proof["steps"] if one] or [[["view", []]]])
    step, what = pick(rng, steps), pick(rng, ("rule", "term", "view", "other", "swap"))
    if what == "rule" or not step[1]:
        step[0] = pick(rng, RULES)
    elif what == "term":
        step[1][0][0] = int(rng.integers(len(proof["terms"])))
    elif what == "view":
        step[1][0][1] = list(map(int, rng.permutation(step[1][0][1])))
    elif what == "other":
        step[1] = copy.deepcopy(pick(rng, steps)[1])
    else:
        one, other = rng.integers(len(steps), size=2)
        steps[one], steps[other] = steps[other], steps[one]
    return f"step: {what}"


def change_definition(data, rng):
    """Another weight, power, operand, number or shape in one definition."""
    proof = pick(rng, data["proofs"])
    row, what = pick(rng, proof["terms"]), pick(rng, ("operand", "axes", "data", "kind", "shape"))
    if what == "operand" and row[2]:
        pick(rng, row[2])[0] = int(rng.integers(len(proof["terms"])))
    elif what == "axes" and row[2]:
        part = pick(rng, row[2])
        part[1] = list(map(int, rng.permutation(part[1])))
    elif what == "kind":
        row[0] = pick(
            rng, ("elementwise", "sum", "product", "meeting", "operation", "number", "input", "carry", "slice")
        )
    elif what == "shape" and row[3]:
        row[3][0] += 1
    elif isinstance(row[1], list) and row[1]:
        container, key, _ = pick(rng, places(row[1]))
        container[key] = changed(container[key], rng)
    else:
        row[1] = changed(row[1], rng)
    return f"definition: {what}"


def change_claim(data, rng):
    """Another pair of outputs, other rewrites, more that training keeps."""
    proof, what = pick(rng, data["proofs"]), pick(rng, ("pair", "rewrites", "precision", "kept", "cold", "after"))
    outputs = [one for program in data["programs"] for one in program["outputs"]]
    if what == "rewrites" and proof["rewrites"]:
        del proof["rewrites"][int(rng.integers(len(proof["rewrites"])))]
    elif what == "precision":
        proof["precision"] = pick(rng, ("native", "kept", "float64"))
        proof["rewrites"] = sorted({*proof["rewrites"]} ^ {FLOAT64})
    elif what in ("kept", "after", "cold") and data["training"]:
        claim = pick(rng, data["training"])
        if what == "kept":
            claim["kept"].append(pick(rng, outputs))
        elif what == "after":
            claim["after"].append([pick(rng, data["programs"])["name"], pick(rng, outputs)])
        else:
            claim["cold"] = not claim["cold"]
    else:
        pair = pick(rng, proof["pairs"])
        pair[int(rng.integers(2))] = pick(rng, outputs)
    return f"claim: {what}"


TAMPERINGS = (change_anything, change_equation, change_step, change_definition, change_claim)


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
    """Change a program of the candidate at random and let the writer make the proof anew: what becomes of it.

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
        anew, _ = write_proof(tuple(both), programs, tuple(proof["rewrites"]), proof["pairs"], mirrored)
    except (EquivError, Refused):
        return said, "refused"  # by the checker's own walk, which the writer uses
    data = {**original.data, "programs": programs, "proofs": [anew], "training": []}
    return said, judge(original, data, known)
