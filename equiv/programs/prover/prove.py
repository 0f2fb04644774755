"""Which outputs of two ports are proved equal: for every input, not only on probes.

Both ports' programs are numbered (`number.py`); outputs of equal name are the same computation. What is not the same
is tried again under the named rewrites (`algebra.py`), in the ports' own precision and then as traced in float64,
where constants are not yet rounded; of those rewrites only the ones that are needed are reported.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jax.extend import core

from equiv.core.leaves import LeafTable
from equiv.programs.jaxpr import CALLS, opened, scan_parts
from equiv.programs.program import Program, Programs
from equiv.programs.prover.algebra import CONDITIONS, Algebra
from equiv.programs.prover.proof import WIDE, Proof, Proofs
from equiv.programs.prover.value_numbering import Numbering, number_program

ALL = frozenset(CONDITIONS)


NOTHING: frozenset[str] = frozenset()


@dataclass
class Side:
    """One port's programs, and their names under every set of rewrites asked for so far.

    Attributes:
        programs: in the port's own precision.
        table: its leaf table.
        lift: gives a program in float64 by its name, or None where there is none.
        known: whether in float64, rewrites and program to the names of its outputs.
        applied: whether in float64, and program, to the rewrites that had something to do in it.
        needs: program to output to the inputs that it can depend on.
        frozen: all names are known beforehand; there is nothing to number.
    """

    programs: Programs
    table: LeafTable
    lift: Callable[[str], Program | None]
    known: dict[tuple[bool, frozenset[str], str], dict[str, str]] = field(default_factory=dict)
    applied: dict[tuple[bool, str], set[str]] = field(default_factory=dict)
    needs: dict[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)
    frozen: bool = False

    def name(self, place: str, lifted: bool, rules: frozenset[str]) -> str | None:
        """The name of one `program: output`; None where there is no such program."""
        program, _, output = place.partition(": ")
        if self.frozen:
            rules &= self.applied.get((lifted, program), NOTHING)
            return self.known.get((lifted, rules, program), {}).get(output)
        if (lifted, rules, program) not in self.known:
            self.known[lifted, rules, program] = self._number(program, lifted, rules)
        return self.known[lifted, rules, program].get(output)

    def depends(self, program: Program) -> Mapping[str, frozenset[str]]:
        """Output to the inputs that it can depend on."""
        if program.name not in self.needs:
            self.needs[program.name] = dependencies(program)
        return self.needs[program.name]

    def _number(self, program: str, lifted: bool, rules: frozenset[str]) -> dict[str, str]:
        own = (part for part in every(self.programs) if part.name == program)
        part = self.lift(program) if lifted else next(own, None)
        if part is None:
            return {}
        # A leaf that only this library has is, where its formula has settled, the leaf that it repeats.
        aliases = {leaf.name: leaf.copies for leaf in self.table.leaves if leaf.copies}
        algebra = Algebra(rules)
        values = number_program(part, Numbering(algebra), aliases)
        if rules == ALL:
            self.applied[lifted, program] = algebra.applied
        return {output: value.name for output, value in values.items()}


def every(programs: Programs) -> tuple[Program, ...]:
    """All programs of a port."""
    return (*programs.parts, *(part for part in (programs.begin, programs.step) if part is not None))


def prove(left: Side, right: Side, start_alike: frozenset[str]) -> Proofs:
    """Proofs by pair of places, for everything that could be proved.

    Args:
        left: the reference.
        right: the candidate.
        start_alike: state leaves that both libraries start with the same value.
    """
    single = _programs(left, right)
    proofs: dict[tuple[str, str, bool], Proof] = {}
    for (ours, theirs), proof in single.items():
        if not ours.startswith(("begin: ", "step: ")):
            proofs[ours, theirs, False] = proof
    state = frozenset(left.table.names("state"))
    for cold in (False, True):
        trained = _trained(left, single, state - start_alike if cold else frozenset())
        for name, proof in trained.items():
            proofs[f"train: {name}", f"train: {name}", cold] = proof
        for part in left.programs.parts:
            for output, needs in left.depends(part).items():
                place = f"{part.name}: {output}"
                variables = [name for name in needs if name in left.table.names()]
                if (place, place) in single and all(name in trained for name in variables):
                    after = f"after training, {place}"
                    used = _together([single[place, place], *(trained[name] for name in variables)])
                    proofs[after, after, cold] = used
    return proofs


def _programs(left: Side, right: Side) -> dict[tuple[str, str], Proof]:
    """Proofs of single programs: first without rewrites, then with them, last in float64."""
    pairs = _pairs(left, right)
    found: dict[tuple[str, str], Proof] = {}
    for lifted, rules in ((False, frozenset[str]()), (False, ALL), (True, ALL)):
        open_pairs = [pair for pair in pairs if pair not in found]
        if not open_pairs:
            break
        sets: dict[frozenset[str], None] = {}
        for pair in _equal(left, right, open_pairs, lifted, rules):
            needed = _minimal(left, right, pair, lifted, tuple(sets)) if rules else NOTHING
            sets.setdefault(needed)
            named = (*sorted(needed), *((WIDE,) if lifted else ()))
            found[pair] = Proof("proved modulo", named) if rules else Proof("proved")
    return found


def _pairs(left: Side, right: Side) -> list[tuple[str, str]]:
    """Places of the reference beside the candidate's; a leaf of the reference's own beside the one it repeats."""
    theirs = {f"{part.name}: {output}" for part in every(right.programs) for output in part.outputs}
    copies = {leaf.name: leaf.copies for leaf in left.table.leaves if leaf.copies}
    pairs = []
    for part in every(left.programs):
        for output in part.outputs:
            leaf = output.removeprefix("state ")
            other = output.replace(leaf, copies[leaf]) if leaf in copies and part.name != "step" else output
            if f"{part.name}: {other}" in theirs:
                pairs.append((f"{part.name}: {output}", f"{part.name}: {other}"))
    return pairs


def _equal(
    left: Side, right: Side, pairs: Iterable[tuple[str, str]], lifted: bool, rules: frozenset[str]
) -> list[tuple[str, str]]:
    names = [(pair, left.name(pair[0], lifted, rules), right.name(pair[1], lifted, rules)) for pair in pairs]
    return [pair for pair, one, other in names if one is not None and one == other]


def _minimal(
    left: Side, right: Side, pair: tuple[str, str], lifted: bool, before: Iterable[frozenset[str]]
) -> frozenset[str]:
    """Rewrites that a proof cannot do without: not one of them can be left out.

    Args:
        left: the reference.
        right: the candidate.
        pair: the places.
        lifted: whether in float64.
        before: what other pairs could not do without, which is likely to be the same.
    """

    def enough(rules: frozenset[str]) -> bool:
        return bool(_equal(left, right, [pair], lifted, rules))

    for rules in before:
        if enough(rules) and not any(enough(rules - {rule}) for rule in rules):
            return rules
    sides = zip((left, right), pair, strict=True)
    needed = frozenset[str]().union(*(side.applied[lifted, place.partition(": ")[0]] for side, place in sides))
    for rule in sorted(needed):
        if enough(needed - {rule}):
            needed -= {rule}
    return needed


def _trained(left: Side, single: Mapping[tuple[str, str], Proof], apart: frozenset[str]) -> dict[str, Proof]:
    """What stays equal over any number of steps, by induction: equal at the start, and made of what stays equal.

    Args:
        left: the reference.
        single: proofs of single programs.
        apart: carried leaves that do not start alike.
    """
    begin, step = left.programs.begin, left.programs.step
    if begin is None or step is None:
        return {}
    needs = left.depends(step)
    starts = {output for output in begin.outputs if (f"begin: {output}",) * 2 in single} - apart
    carried = [name for name in step.inputs if not name.startswith(("batch/", "draw/"))]
    kept = {name for name in needs if (f"step: {name}",) * 2 in single and (name in starts or name not in carried)}
    while True:
        lost = {name for name in kept if any(need in carried and need not in kept for need in needs[name])}
        if not lost:
            break
        kept -= lost
    used = {name: single[f"step: {name}", f"step: {name}"] for name in kept}
    begun = {name: single[f"begin: {name}", f"begin: {name}"] for name in kept if name in starts}
    return {name: _together([*used.values(), *begun.values()]) for name in kept} if kept else {}


def _together(proofs: Iterable[Proof]) -> Proof:
    rewrites = sorted({rewrite for proof in proofs for rewrite in proof.rewrites})
    return Proof("proved modulo", tuple(rewrites)) if rewrites else Proof("proved")


def dependencies(program: Program) -> dict[str, frozenset[str]]:
    """Output to the inputs that it can depend on; a loop's results depend on all that goes into it."""
    jaxpr, _ = opened(program.jaxpr)
    inputs = [frozenset((name,)) for name in program.inputs]
    return dict(zip(program.outputs, _depend(jaxpr, inputs), strict=True))


def _depend(jaxpr: Any, inputs: list[frozenset[str]]) -> list[frozenset[str]]:
    known: dict[Any, frozenset[str]] = dict.fromkeys(jaxpr.constvars, NOTHING)
    known.update(zip(jaxpr.invars, inputs, strict=True))
    for eqn in jaxpr.eqns:
        ins: list[frozenset[str]] = [
            known.get(atom, NOTHING) if isinstance(atom, core.Var) else NOTHING for atom in eqn.invars
        ]
        if eqn.primitive.name in CALLS:
            body, _ = opened(eqn.params[CALLS[eqn.primitive.name]])
            outs = _depend(body, ins[len(ins) - len(body.invars) :])
        elif eqn.primitive.name == "scan":
            outs = _depend_scan(eqn, ins)
        else:
            outs = [NOTHING.union(*ins)] * len(eqn.outvars)
        known.update(zip(eqn.outvars, outs, strict=True))
    return [NOTHING if isinstance(atom, core.Literal) else known[atom] for atom in jaxpr.outvars]


def _depend_scan(eqn: Any, ins: list[frozenset[str]]) -> list[frozenset[str]]:
    """A carry depends on what it starts from and on what any turn puts into it."""
    body, _ = opened(eqn.params["jaxpr"])
    fixed, carried = scan_parts(eqn)
    carry = ins[fixed:carried]
    while True:
        outs = _depend(body, [*ins[:fixed], *carry, *ins[carried:]])
        grown = [before | after for before, after in zip(carry, outs, strict=False)]
        if grown == carry:
            return [*carry, *outs[len(carry) :]]
        carry = grown
