"""What is changed in a certificate: each takes a copy of its data and random numbers, and says what it did."""

import copy

import numpy as np

from equiv.certificates.checker.reals import FLOAT64, RULES
from tampering.evaluate import SIBLINGS


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
