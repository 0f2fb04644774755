"""Check a certificate: walk both programs step by step, then compare the ends with what is claimed."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from equiv.certificates.checker.reals import CONDITIONS, FLOAT64, FLOAT64_CASTS, RULES
from equiv.certificates.checker.rules import Step, is_repeated
from equiv.certificates.checker.terms import Refused, Terms, Value, as_new, need, read_view, through, to_text, whole

CARRIED = ("leaf", "optimizer", "bookkeeping", "random")
"""Kinds of inputs that a train step gives to the next one."""
ENDLESS = 2**61 - 1
"""How often a `while` may turn: more often than any axis is long."""
Proved = dict[str, tuple[set[str], set[str]]]
"""Two programs and an output of each to the inputs on which these depend, and the rewrites of the proof."""


class Walk:
    """A walk over the programs of one proof.

    `loops` has how often the loops around turn; `carries` of each carry its loop, start and what a turn makes of it.
    """

    def __init__(self, rewrites: set[str]) -> None:
        self.terms, self.rewrites, self.loops = Terms(), rewrites, list[int]()
        self.steps: Iterator[Any] = iter(())
        self.carries: dict[int, tuple[Any, Value, Value]] = {}

    def value(self, claim: Any, shape: Any, dtype: str) -> Value:
        """A claimed view of a term as a value of a program, if it can be one."""
        value = Value(claim[0], read_view(claim[1]), tuple(shape), dtype)
        fits = self.terms.is_view(*value[:2], -len(self.loops)) and self.terms.terms[value.term].dtype == dtype
        fits = fits and all(axis < len(shape) for one in value.view for axis, _, _ in one)
        need(fits, f"term {value.term} cannot be what it is claimed for")
        return value

    def read(self, atom: Any, values: list[Value]) -> Value:
        """An operand: a variable by its number, or a literal."""
        if isinstance(atom, list):
            need(atom[0] != "input", "a literal is no input")
            return self.terms.leaf(*atom)
        need(type(atom) is int and 0 <= atom < len(values), f"there is no variable {atom}")
        return values[atom]

    def run(self, jaxpr: Any, inputs: Sequence[Value]) -> list[Value]:
        """The values of a program's outputs, each step checked."""
        given = [[list(one.shape), one.dtype] for one in inputs]
        need(given == jaxpr["inputs"], "a program is given other shapes or dtypes than its own")
        values = [*(self.read(list(one), []) for one in jaxpr["constants"]), *inputs]
        for eqn in jaxpr["equations"]:
            ins, step = [self.read(atom, values) for atom in eqn["in"]], next(self.steps, None)
            if step is None:
                raise Refused("there are fewer steps than equations")
            outs = [self.value(claim, *one) for claim, one in zip(step[1], eqn["out"], strict=True)]
            need(self.follows(step, eqn, ins, outs), f"{eqn['op']}: its result does not follow by the rule '{step[0]}'")
            values += outs
        return [self.read(atom, values) for atom in jaxpr["outputs"]]

    def follows(self, step: Any, eqn: Any, ins: list[Value], outs: list[Value]) -> bool:
        """Whether the results of an equation are what its step claims."""
        kind, op, data = eqn["kind"], eqn["op"], eqn["data"]
        if kind in ("scan", "while", "cond"):
            return getattr(self, f"{kind}_")(data, eqn["bodies"], ins, outs, step[2])
        holds, ops, needed = RULES[step[0]]
        fits = not ops or (op in ops and kind in ("elementwise", "meeting"))
        fits = fits and self.rewrites.issuperset(needed)
        if kind == "elementwise":
            fits = fits and all(is_repeated(one.shape, out.shape) for one in ins for out in outs)
        with np.errstate(all="ignore"):
            steps = [Step(kind, op, data, ins, out, number, step[2]) for number, out in enumerate(outs)]
            return fits and all(holds(self.terms, one) for one in steps)

    def defines(self, out: Value, kind: str, of: list[Value], *bound: Any) -> bool:
        """Whether a value is what a term of a kind is of values of its shape, or of scalars."""
        term, fits = self.terms.terms[out.term], all(is_repeated(one.shape, out.shape) for one in of)
        return fits and term.kind == kind and self.terms.are(term.of, dict(enumerate((*out.view, *bound))), of)

    def cond_(self, _: Any, bodies: Any, ins: list[Value], outs: list[Value], __: Any) -> bool:
        """A choice by the same index from the same values."""
        cases = list(zip(*(self.run(body, ins[1:]) for body in bodies), strict=True))
        return all(self.defines(out, "cond", [ins[0], *case]) for out, case in zip(outs, cases, strict=True))

    def turn(self, kind: Any, start: list[Value], claims: Any, body: Callable[[list[Value]], list[Value]]) -> Any:
        """One turn of a loop: carries of one term start equal, and the body keeps them equal."""
        carry = [self.value(claim, one.shape, one.dtype) for claim, one in zip(claims, start, strict=True)]
        made, turns = body(carry), tuple(whole(-1 - n, size) for n, size in enumerate(self.loops) if size != 1)
        for begin, now, then in zip(start, carry, made, strict=False):
            record = (kind, tuple(self.loops)), begin, then
            changes = (
                begin[2:] == then[2:]
                and self.terms.terms[now.term].kind == "carry"
                and now.view == (*turns, *as_new(now.shape))
            )
            right = then == begin if now == begin else changes and self.carries.setdefault(now.term, record) == record
            need(right, "carries of one term do not start equal and stay equal")
        return carry, made

    def ended(self, kind: str, start: list[Value], carry: list[Value], outs: list[Value], *stop: Value) -> bool:
        """Whether results are the carries after the innermost loop, which is left."""
        turn = whole(-len(self.loops), self.loops.pop())
        return all(
            out == begin if now == begin else self.defines(out, kind, [now, *stop], turn)
            for begin, now, out in zip(start, carry, outs, strict=True)
        )

    def scan_(self, data: Any, bodies: Any, ins: list[Value], outs: list[Value], claims: Any) -> bool:
        """A loop over slices; inside of it a turn is an axis of every value that changes."""
        length, first, scanned = data["length"], data["constants"], data["constants"] + data["carries"]
        self.loops.append(length)
        turn, slices = -len(self.loops), list[Value]()
        for one in ins[scanned:]:
            env = {axis: whole(axis - 1 if axis else turn, size) for axis, size in enumerate(one.shape)}
            slices.append(Value(one.term, through(one.view, env), one.shape[1:], one.dtype))
            need(one.shape[0] == length, "a slice of something shorter")
        carry, made = self.turn(
            ("scan", data["reverse"]),
            ins[first:scanned],
            claims,
            lambda now: self.run(bodies[0], [*ins[:first], *now, *slices]),
        )
        for one, out in zip(made[len(carry) :], outs[len(carry) :], strict=True):
            env = {axis: whole(axis + 1, size) for axis, size in enumerate(one.shape)} | {turn: whole(0, length)}
            need(
                out == Value(one.term, through(one.view, env), (length, *one.shape), one.dtype),
                "it is stacked otherwise",
            )
        return self.ended("last", ins[first:scanned], carry, outs[: len(carry)])

    def while_(self, data: Any, bodies: Any, ins: list[Value], outs: list[Value], claims: Any) -> bool:
        """A loop until a test of its carries."""
        first, second = data["test"], data["test"] + data["body"]
        self.loops.append(ENDLESS)
        carry, _ = self.turn("while", ins[second:], claims, lambda now: self.run(bodies[1], [*ins[first:second], *now]))
        (stop,) = self.run(bodies[0], [*ins[:first], *carry])
        return self.ended("until", ins[second:], carry, outs, stop)

    def reachable(self, term: int) -> set[int]:
        """The terms that a term depends on, itself among them."""
        found, ahead = {term}, [term]
        while ahead:
            now = ahead.pop()
            ends = [one.term for one in self.carries.get(now, ())[1:]]
            fresh = {*ends, *(one for one, _ in self.terms.terms[now].of)} - found
            found |= fresh
            ahead += fresh
        return found


def digest(program: Any) -> str:
    """The digest of a program as a certificate holds it."""
    said = {key: value for key, value in program.items() if key != "digest"}
    return hashlib.sha256(to_text(said).encode()).hexdigest()


def check_proof(proof: Any, programs: dict[str, Any], aliases: dict[str, Any], kind: type[Walk] = Walk) -> Proved:
    """Check the proof of some outputs of two programs, and that it names what its precision is: a float64 reading."""
    rewrites, precision = set(proof["rewrites"]), proof["precision"]
    fits = (FLOAT64 in rewrites) == (precision != "native") and (
        precision == "float64" or FLOAT64_CASTS not in rewrites
    )
    need(fits and rewrites <= CONDITIONS.keys(), f"{sorted(rewrites)} are not known, or not those of this precision")
    if precision == "float64" and FLOAT64_CASTS not in rewrites:
        keys = [to_text([side, name, "native"]) for side, name in enumerate(proof["programs"])]
        text = to_text([programs[key]["jaxpr"] for key in keys])
        casts = len(set(re.findall(r'"(b?float\d\w*)"', text))) > 1 or "reduce_precision" in text
        need(not casts, "there are casts that are not named")
    walk, ends, names, found = kind(rewrites), [], dict[int, set[str]](), Proved()
    for one in proof["terms"]:
        walk.terms.define(*one)
    for side, (name, steps) in enumerate(zip(proof["programs"], proof["steps"], strict=True)):
        program, inputs, walk.steps = programs[to_text([side, name, precision])], [], iter(steps)
        for one, own in zip(program["inputs"], program["jaxpr"]["inputs"], strict=True):
            inputs.append(walk.terms.leaf("input", aliases.get(to_text([side, one]), one), *own))
            names.setdefault(inputs[-1].term, set()).add(to_text(one))
        outs = walk.run(program["jaxpr"], inputs)
        ends.append(dict(zip(map(to_text, program["outputs"]), outs, strict=True)))
        need(next(walk.steps, None) is None, "there are more steps than equations")
    for ours, theirs in proof["pairs"]:
        one, other = ends[0][to_text(ours)], ends[1][to_text(theirs)]
        need(one == other, f"{ours} ends at term {one.term}, {theirs} at term {other.term}, or in another view")
        reached = {name for term in walk.reachable(one.term) for name in names.get(term, ())}
        found[to_text([*proof["programs"], ours, theirs])] = reached, rewrites
    return found


def check_training(claim: Any, proved: Proved, fresh: Any) -> None:
    """Check by induction: what is kept starts equal, and one step computes it from nothing but what is kept."""
    kept, used = set(map(to_text, claim["kept"])), set[str]()
    (ours, theirs), leaves = fresh, {*fresh[0], *fresh[1]} if claim["cold"] else ()
    different = {to_text(["leaf", "", leaf]) for leaf in leaves if ours.get(leaf) != theirs.get(leaf)}

    def look(program: Any, name: Any) -> set[str]:
        pair = to_text([program, program, name, name])
        need(pair in proved, f"{name} of {program} is not proved")
        used.update(proved[pair][1])
        return {one for one in proved[pair][0] if json.loads(one)[0] in CARRIED}

    read = set[str]().union(*(look(["step", ""], name) for name in claim["kept"]))
    need(read <= kept, f"a train step reads what is not kept equal: {sorted(read - kept)}")
    started = set[str]().union(*(look(["begin", ""], json.loads(name)) for name in read))
    need(not started & different, f"training starts from what is different: {sorted(started & different)}")
    for program, name in claim["after"]:
        need(look(program, name) <= kept, f"{name} of {program} reads what is not kept equal")
    need(used <= set(claim["rewrites"]), "training uses a rewrite that it does not name")


def check(certificate: Any) -> None:
    """Check a certificate.

    Raises:
        Refused: something in it does not follow.
        Exception: any other: it is no certificate.
    """
    programs = {to_text([one["side"], one["name"], one["precision"]]): one for one in certificate["programs"]}
    aliases = {to_text([side, name]): other for side, name, other in certificate["aliases"]}
    said, found = certificate["conditions"], dict[str, Proved](native={}, kept={}, float64={})
    right = all(one["digest"] == digest(one) for one in certificate["programs"])
    need(right and len(programs) == len(certificate["programs"]), "a program has another digest, or stands twice")
    need(all(CONDITIONS[name] == text for name, text in said.items()), "a rewrite has another condition")
    for proof in certificate["proofs"]:
        need(said.keys() >= set(proof["rewrites"]), "a proof uses a rewrite whose condition is not said")
        found[proof["precision"]] |= check_proof(proof, programs, aliases)
    for pair, (_, named) in found["kept"].items():
        also = pair in found["float64"] and found["float64"][pair][1] <= {*named, FLOAT64_CASTS}
        need(also, "what has the same casts is not said to be the same function")
    proved = found["float64"] | found["kept"] | found["native"]
    for claim in certificate["training"]:
        check_training(claim, proved, certificate["fresh"])
