"""Proofs that outputs of two ports are equal for every input, not only on probes.

Both ports' programs are numbered (`value_numbering.py`); outputs of equal name are the same computation. Outputs that
stay unequal are tried under the named rewrites (`algebra.py`), in the ports' own precision and then in float64, where
constants are not rounded yet; only the rewrites that a proof needs are reported.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jax.extend import core

from equiv.core.leaves import LeafTable
from equiv.programs.jaxpr import CALL_PRIMITIVES, open_jaxpr, scan_operand_bounds
from equiv.programs.program import Program, Programs
from equiv.programs.prover.algebra import CONDITIONS, Algebra
from equiv.programs.prover.proof import FLOAT64_CONSTANTS, Proof, Proofs
from equiv.programs.prover.value_numbering import Numbering, number_program

ALL_REWRITES = frozenset(CONDITIONS)

EMPTY_SET: frozenset[str] = frozenset()


@dataclass
class NumberedPort:
    """One port's programs, with the names of their outputs under every set of rewrites tried so far.

    Attributes:
        programs: in the port's own precision.
        table: its leaf table.
        float64_program: gives a program in float64 by name; None where there is none.
        known: whether in float64, rewrites and program to the names of its outputs.
        applied: whether in float64, and program, to the rewrites that applied in it.
        needs: program to output to the inputs that it can depend on.
        frozen: all names come from a frozen reference; there is nothing to number.
    """

    programs: Programs
    table: LeafTable
    float64_program: Callable[[str], Program | None]
    known: dict[tuple[bool, frozenset[str], str], dict[str, str]] = field(default_factory=dict)
    applied: dict[tuple[bool, str], set[str]] = field(default_factory=dict)
    needs: dict[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)
    frozen: bool = False

    def name(self, place: str, float64: bool, rules: frozenset[str]) -> str | None:
        """The name of one `program: output`; None where there is no such program."""
        program, _, output = place.partition(": ")
        if self.frozen:
            rules &= self.applied.get((float64, program), EMPTY_SET)
            return self.known.get((float64, rules, program), {}).get(output)
        if (float64, rules, program) not in self.known:
            self.known[float64, rules, program] = self._number(program, float64, rules)
        return self.known[float64, rules, program].get(output)

    def dependencies(self, program: Program) -> Mapping[str, frozenset[str]]:
        """Output to the inputs that it can depend on."""
        if program.name not in self.needs:
            self.needs[program.name] = input_dependencies(program)
        return self.needs[program.name]

    def _number(self, program: str, float64: bool, rules: frozenset[str]) -> dict[str, str]:
        own = (part for part in all_programs(self.programs) if part.name == program)
        part = self.float64_program(program) if float64 else next(own, None)
        if part is None:
            return {}
        # A library-only leaf whose formula has converged equals the leaf that it mirrors.
        aliases = {leaf.name: leaf.mirrors for leaf in self.table.leaves if leaf.mirrors}
        algebra = Algebra(rules)
        values = number_program(part, Numbering(algebra), aliases)
        if rules == ALL_REWRITES:
            self.applied[float64, program] = algebra.applied
        return {output: value.name for output, value in values.items()}


def all_programs(programs: Programs) -> tuple[Program, ...]:
    """All programs of a port."""
    return (*programs.parts, *(part for part in (programs.begin, programs.step) if part is not None))


def prove(left: NumberedPort, right: NumberedPort, same_initial_state: frozenset[str]) -> Proofs:
    """Prove what can be proved; the result maps pairs of outputs to proofs.

    Args:
        left: the reference.
        right: the candidate.
        same_initial_state: state leaves that both libraries initialise to the same value.
    """
    single = _prove_programs(left, right)
    proofs: dict[tuple[str, str, bool], Proof] = {}
    for (ours, theirs), proof in single.items():
        if not ours.startswith(("begin: ", "step: ")):
            proofs[ours, theirs, False] = proof
    state = frozenset(left.table.names("state"))
    for cold in (False, True):
        trained = _prove_training(left, single, state - same_initial_state if cold else frozenset())
        for name, proof in trained.items():
            proofs[f"train: {name}", f"train: {name}", cold] = proof
        for part in left.programs.parts:
            for output, needs in left.dependencies(part).items():
                place = f"{part.name}: {output}"
                variables = [name for name in needs if name in left.table.names()]
                if (place, place) in single and all(name in trained for name in variables):
                    after = f"after training, {place}"
                    used = _combine_proofs([single[place, place], *(trained[name] for name in variables)])
                    proofs[after, after, cold] = used
    return proofs


def _prove_programs(left: NumberedPort, right: NumberedPort) -> dict[tuple[str, str], Proof]:
    """Prove outputs of single programs: first without rewrites, then with them, last in float64."""
    pairs = _output_pairs(left, right)
    found: dict[tuple[str, str], Proof] = {}
    for float64, rules in ((False, frozenset[str]()), (False, ALL_REWRITES), (True, ALL_REWRITES)):
        open_pairs = [pair for pair in pairs if pair not in found]
        if not open_pairs:
            break
        sets: dict[frozenset[str], None] = {}
        for pair in _equal_pairs(left, right, open_pairs, float64, rules):
            needed = _minimal_rewrites(left, right, pair, float64, tuple(sets)) if rules else EMPTY_SET
            sets.setdefault(needed)
            named = (*sorted(needed), *((FLOAT64_CONSTANTS,) if float64 else ()))
            found[pair] = Proof("proved modulo", named) if rules else Proof("proved")
    return found


def _output_pairs(left: NumberedPort, right: NumberedPort) -> list[tuple[str, str]]:
    """Pair the reference's outputs with the candidate's; a reference-only leaf is paired with the leaf it mirrors."""
    theirs = {f"{part.name}: {output}" for part in all_programs(right.programs) for output in part.outputs}
    copies = {leaf.name: leaf.mirrors for leaf in left.table.leaves if leaf.mirrors}
    pairs = []
    for part in all_programs(left.programs):
        for output in part.outputs:
            leaf = output.removeprefix("state ")
            other = output.replace(leaf, copies[leaf]) if leaf in copies and part.name != "step" else output
            if f"{part.name}: {other}" in theirs:
                pairs.append((f"{part.name}: {output}", f"{part.name}: {other}"))
    return pairs


def _equal_pairs(
    left: NumberedPort, right: NumberedPort, pairs: Iterable[tuple[str, str]], float64: bool, rules: frozenset[str]
) -> list[tuple[str, str]]:
    names = [(pair, left.name(pair[0], float64, rules), right.name(pair[1], float64, rules)) for pair in pairs]
    return [pair for pair, one, other in names if one is not None and one == other]


def _minimal_rewrites(
    left: NumberedPort, right: NumberedPort, pair: tuple[str, str], float64: bool, before: Iterable[frozenset[str]]
) -> frozenset[str]:
    """A minimal set of rewrites for a proof: none of them can be removed.

    Args:
        left: the reference.
        right: the candidate.
        pair: the two outputs.
        float64: whether in float64.
        before: minimal sets of other pairs, tried first because they are likely to suffice.
    """

    def enough(rules: frozenset[str]) -> bool:
        return bool(_equal_pairs(left, right, [pair], float64, rules))

    for rules in before:
        if enough(rules) and not any(enough(rules - {rule}) for rule in rules):
            return rules
    sides = zip((left, right), pair, strict=True)
    needed = frozenset[str]().union(*(side.applied[float64, place.partition(": ")[0]] for side, place in sides))
    for rule in sorted(needed):
        if enough(needed - {rule}):
            needed -= {rule}
    return needed


def _prove_training(
    left: NumberedPort, single: Mapping[tuple[str, str], Proof], different: frozenset[str]
) -> dict[str, Proof]:
    """Prove by induction what stays equal over all steps: equal initially, and computed from what stays equal.

    Args:
        left: the reference.
        single: proofs of outputs of single programs.
        different: carried leaves whose initial values differ.
    """
    begin, step = left.programs.begin, left.programs.step
    if begin is None or step is None:
        return {}
    needs = left.dependencies(step)
    starts = {output for output in begin.outputs if (f"begin: {output}",) * 2 in single} - different
    carried = [name for name in step.inputs if not name.startswith(("batch/", "draw/"))]
    kept = {name for name in needs if (f"step: {name}",) * 2 in single and (name in starts or name not in carried)}
    while True:
        lost = {name for name in kept if any(need in carried and need not in kept for need in needs[name])}
        if not lost:
            break
        kept -= lost
    used = {name: single[f"step: {name}", f"step: {name}"] for name in kept}
    begun = {name: single[f"begin: {name}", f"begin: {name}"] for name in kept if name in starts}
    return {name: _combine_proofs([*used.values(), *begun.values()]) for name in kept} if kept else {}


def _combine_proofs(proofs: Iterable[Proof]) -> Proof:
    rewrites = sorted({rewrite for proof in proofs for rewrite in proof.rewrites})
    return Proof("proved modulo", tuple(rewrites)) if rewrites else Proof("proved")


def input_dependencies(program: Program) -> dict[str, frozenset[str]]:
    """Map each output to the inputs that it can depend on; results of `while` and `cond` depend on all operands."""
    jaxpr, _ = open_jaxpr(program.jaxpr)
    inputs = [frozenset((name,)) for name in program.inputs]
    return dict(zip(program.outputs, _jaxpr_dependencies(jaxpr, inputs), strict=True))


def _jaxpr_dependencies(jaxpr: Any, inputs: list[frozenset[str]]) -> list[frozenset[str]]:
    known: dict[Any, frozenset[str]] = dict.fromkeys(jaxpr.constvars, EMPTY_SET)
    known.update(zip(jaxpr.invars, inputs, strict=True))
    for eqn in jaxpr.eqns:
        ins: list[frozenset[str]] = [
            known.get(atom, EMPTY_SET) if isinstance(atom, core.Var) else EMPTY_SET for atom in eqn.invars
        ]
        if eqn.primitive.name in CALL_PRIMITIVES:
            body, _ = open_jaxpr(eqn.params[CALL_PRIMITIVES[eqn.primitive.name]])
            outs = _jaxpr_dependencies(body, ins[len(ins) - len(body.invars) :])
        elif eqn.primitive.name == "scan":
            outs = _scan_dependencies(eqn, ins)
        else:
            outs = [EMPTY_SET.union(*ins)] * len(eqn.outvars)
        known.update(zip(eqn.outvars, outs, strict=True))
    return [EMPTY_SET if isinstance(atom, core.Literal) else known[atom] for atom in jaxpr.outvars]


def _scan_dependencies(eqn: Any, ins: list[frozenset[str]]) -> list[frozenset[str]]:
    """A carry depends on its initial value and on what any iteration adds to it."""
    body, _ = open_jaxpr(eqn.params["jaxpr"])
    fixed, carried = scan_operand_bounds(eqn)
    carry = ins[fixed:carried]
    while True:
        outs = _jaxpr_dependencies(body, [*ins[:fixed], *carry, *ins[carried:]])
        grown = [before | after for before, after in zip(carry, outs, strict=False)]
        if grown == carry:
            return [*carry, *outs[len(carry) :]]
        carry = grown
