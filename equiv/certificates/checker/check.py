"""Check a certificate: walk both programs step by step, then compare the ends with what is claimed."""

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from equiv.certificates.checker.rules import RULES, dtype_fits
from equiv.certificates.checker.terms import Refused, Terms, Value, need, to_text

CARRIED = ("leaf", "optimizer", "bookkeeping", "random")
"""Kinds of inputs that a train step gives to the next one."""

Proved = dict[str, tuple[set[str], set[str]]]
"""Two programs and an output of each to the inputs on which these depend, and the rewrites of the proof."""


def real_arithmetic() -> Any:
    """The rules that need a rewrite. Proofs that name none are checked without them, and do not trust them."""
    from equiv.certificates.checker import rewrites

    return rewrites


class Walk:
    """A walk over the programs of one proof: with its terms and rewrites, and the steps that are left.

    `classes` has, of each carry of a loop, the loop, the start and what the body makes of it; `depth` is the number of
    loops around the current equation.
    """

    def __init__(self, rewrites: set[str]) -> None:
        self.terms, self.rewrites, self.depth = Terms(), rewrites, 0
        self.rules = real_arithmetic().ALL_RULES if rewrites else RULES
        self.sums = real_arithmetic().Sums(self.terms) if rewrites else None
        self.steps: Iterator[Any] = iter(())
        self.classes: dict[int, tuple[Any, Value, Value]] = {}

    def value(self, claim: Any, shape: Any, dtype: str) -> Value:
        """A claimed view of a term as a value of a program, if it can be one."""
        (term, axes), terms = claim, self.terms.terms
        need(type(term) is int and 0 <= term < len(terms), f"there is no term {term}")
        fits = terms[term].dtype == dtype and self.terms.is_view(term, axes, shape)
        need(fits and terms[term].level <= self.depth, f"term {term} cannot be what it is claimed for")
        return Value(term, tuple(axes), tuple(shape), dtype)

    def read(self, atom: Any, values: list[Value]) -> Value:
        """An operand: a variable by its number, or a literal."""
        if isinstance(atom, list):
            need(atom[0] != "input", "a literal is no input")
            return self.terms.leaf(*atom)
        need(type(atom) is int and 0 <= atom < len(values), f"there is no variable {atom}")
        return values[atom]

    def run(self, jaxpr: Any, inputs: list[Value]) -> list[Value]:
        """The values of a program's outputs, each step checked."""
        given = [[list(one.shape), one.dtype] for one in inputs]
        need(given == jaxpr["inputs"], "a program is given other shapes or dtypes than its own")
        values = [self.read(list(one), []) for one in jaxpr["constants"]] + inputs
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
        op, params, bodies = eqn["op"], eqn["params"], eqn["bodies"]
        walks = {"call": self.call, "scan": self.scan, "while": self.while_loop, "cond": self.cond}
        if op in walks or bodies:
            return step[0] == op and walks[op](params, bodies, ins, outs, *step[2:])
        holds, ops, needed = self.rules[step[0]]
        right = (not ops or op in ops) and self.rewrites.issuperset(needed) and len(step) == 2
        right = right and all(dtype_fits(op, params, one.dtype) for one in outs)
        given = self.sums if needed else self.terms
        return right and all(holds(given, op, params, ins, one, number) for number, one in enumerate(outs))

    def is_new(self, out: Value, kind: str, data: Any, *of: Any) -> bool:
        """Whether a value is a term of this definition, seen as it is."""
        return self.terms.terms[out.term][:3] == (kind, data, of) and out == out.as_new()

    def call(self, _: Any, bodies: Any, ins: list[Value], outs: list[Value]) -> bool:
        """A call is what it calls; the body's inputs are the last operands."""
        (body,) = bodies
        return self.run(body, ins[len(ins) - len(body["inputs"]) :]) == outs

    def cond(self, _: Any, bodies: Any, ins: list[Value], outs: list[Value]) -> bool:
        """The same index, and the same value in every branch."""
        cases = list(zip(*(self.run(body, ins[1:]) for body in bodies), strict=True))
        alike = all(one[2:] == out[2:] for case, out in zip(cases, outs, strict=True) for one in case)
        return alike and all(
            self.is_new(out, "cond", [], *(one[:2] for one in (ins[0], *case)))
            for out, case in zip(outs, cases, strict=True)
        )

    def turn(self, kind: Any, start: list[Value], claims: Any, body: Callable[[list[Value]], list[Value]]) -> Any:
        """One turn of a loop: carries of one term start equal, and the body keeps them equal."""
        carry = [self.value(claim, one.shape, one.dtype) for claim, one in zip(claims, start, strict=True)]
        outs = body(carry)
        for begin, now, out in zip(start, carry, outs, strict=False):
            record = (kind, self.depth), begin, out
            changes = self.is_new(now, "carry", [self.depth]) and self.classes.setdefault(now.term, record) == record
            need(out == begin if now == begin else changes, "carries of one term do not start equal and stay equal")
        return carry, outs

    def ended(self, kind: str, start: list[Value], carry: list[Value], outs: list[Value], *of: Any) -> bool:
        """Whether results are the carries after the loop."""
        return all(
            out == begin if now == begin else self.is_new(out, kind, [], (now.term, ()), *of)
            for begin, now, out in zip(start, carry, outs, strict=True)
        )

    def scan(self, params: Any, bodies: Any, ins: list[Value], outs: list[Value], carries: Any, slices: Any) -> bool:
        """A loop over slices: its carries by one turn, and each slice against what it is a slice of."""
        length, first, scanned = params["length"], params["constants"], params["constants"] + params["carries"]
        self.depth += 1
        parts = [self.value(one, v.shape[1:], v.dtype) for one, v in zip(slices, ins[scanned:], strict=True)]
        right = all(self.is_slice(*pair, length, True) for pair in zip(parts, ins[scanned:], strict=True))
        kind, (body,) = ("scan", length, params["reverse"]), bodies
        carry, made = self.turn(
            kind, ins[first:scanned], carries, lambda now: self.run(body, [*ins[:first], *now, *parts])
        )
        stacks = zip(made[len(carry) :], outs[len(carry) :], strict=True)
        right = right and all(self.is_slice(*pair, length, False) for pair in stacks)
        self.depth -= 1
        return right and self.ended("last", ins[first:scanned], carry, outs[: len(carry)])

    def is_slice(self, one: Value, whole: Value, length: int, given: bool) -> bool:
        """Whether a value is the slice of another one in each turn of the current loop; `given`: of an operand."""
        axis, part, stack = whole.axes[0], self.terms.terms[one.term], self.terms.terms[whole.term]
        if whole.shape != (length, *one.shape) or whole.dtype != one.dtype:
            return False
        if given and axis < 0:
            first = length == 1 and self.is_new(one, "first", [list(whole.shape)], whole[:2])
            return first or one[:2] == (whole.term, whole.axes[1:])
        if part[:3] == ("slice", [self.depth, length], ((whole.term, (axis,)),)):
            return one.axes == tuple(a - (a > axis) for a in whole.axes[1:])
        axes = (-1, *one.axes) if length == 1 else (0, *(a + (a >= 0) for a in one.axes))
        return stack[:3] == ("stack", [self.depth, length], ((one.term, ()),)) and whole.axes == axes

    def while_loop(self, params: Any, bodies: Any, ins: list[Value], outs: list[Value], carries: Any, _: Any) -> bool:
        """A loop until a test of its carries."""
        (test, body), first, second = bodies, params["test"], params["test"] + params["body"]
        self.depth += 1
        carry, _ = self.turn("while", ins[second:], carries, lambda now: self.run(body, [*ins[first:second], *now]))
        (stop,) = self.run(test, [*ins[:first], *carry])
        self.depth -= 1
        return self.ended("until", ins[second:], carry, outs, stop[:2])

    def reachable(self, term: int) -> set[int]:
        """The terms that a term depends on, itself among them."""
        found, ahead = {term}, [term]
        while ahead:
            now = ahead.pop()
            ends = [one.term for one in self.classes.get(now, ())[1:]]
            fresh = {*ends, *(one for one, _ in self.terms.terms[now].of)} - found
            found |= fresh
            ahead += fresh
        return found


def digest(program: Any) -> str:
    """The digest of a program as a certificate holds it."""
    said = {key: value for key, value in program.items() if key != "digest"}
    return hashlib.sha256(to_text(said).encode()).hexdigest()


def check_proof(proof: Any, programs: dict[str, Any], aliases: dict[str, Any], kind: type[Walk] = Walk) -> Proved:
    """Check the proof of some outputs of two programs."""
    rewrites = set(proof["rewrites"])
    if rewrites or proof["precision"] != "native":
        real_arithmetic().check_precision(proof, programs)
    walk, ends, names = kind(rewrites), [], dict[int, set[str]]()
    for one in proof["terms"]:
        walk.terms.define(*one)
    for side, (name, steps) in enumerate(zip(proof["programs"], proof["steps"], strict=True)):
        program, inputs, walk.steps = programs[to_text([side, name, proof["precision"]])], [], iter(steps)
        for one, own in zip(program["inputs"], program["jaxpr"]["inputs"], strict=True):
            inputs.append(walk.terms.leaf("input", aliases.get(to_text([side, one]), one), *own))
            names.setdefault(inputs[-1].term, set()).add(to_text(one))
        outs = walk.run(program["jaxpr"], inputs)
        ends.append(dict(zip(map(to_text, program["outputs"]), outs, strict=True)))
        need(next(walk.steps, None) is None, "there are more steps than equations")
    found: Proved = {}
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
    said, found = certificate["conditions"], []
    right = all(one["digest"] == digest(one) for one in certificate["programs"])
    need(right and len(programs) == len(certificate["programs"]), "a program has another digest, or stands twice")
    for proof in certificate["proofs"]:
        need(said.keys() >= set(proof["rewrites"]), "a proof uses a rewrite whose condition is not said")
        found.append((proof["precision"], check_proof(proof, programs, aliases)))
    if said:
        real_arithmetic().check_claims(said, found)
    proved = {pair: one for _, pairs in reversed(found) for pair, one in pairs.items()}
    for claim in certificate["training"]:
        check_training(claim, proved, certificate["fresh"])
