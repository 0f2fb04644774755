"""Search for wrong proofs: random changes of the cases' programs; values proved equal must have equal numbers.

Run it with `python tests/soundness_run.py [MUTATIONS] [FIRST_SEED]`; a shorter run is a test (`test_mutate.py`).

Every value that a program computes is numbered, not only its outputs: values of one name, in the mutant, in its
original and in the reference's program, must agree to 1e-9 of their scale, beyond what rounding does to them. That is
measured: every rounded result is disturbed by 1e-13; a comparison that this reverses is decided by rounding alone.
Values that are not finite, and what is made of them, are left out: no rewrite speaks of them. So is, under the two
rewrites whose conditions exclude it, what a variance of exactly 0 decides, and what an index out of range looks up.
"""

import sys
import time
import zlib
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace

import jax
import numpy as np
from helpers import CASES, loaded
from jax.extend import core
from soundness_programs import ALL_STEPS, LOOKUP_STEPS, PIECE_STEPS, STEPS, random_inputs, random_program

from equiv.comparison.selfcheck.eager_port import open_eager_port
from equiv.core.grades import IN_RANGE
from equiv.core.output_name import STEP, OutputName
from equiv.errors import EquivError
from equiv.programs import eager
from equiv.programs.built_case import build_case
from equiv.programs.content import is_key
from equiv.programs.jaxpr import count_equations, inner_jaxprs, open_jaxpr
from equiv.programs.joined_programs import part_inputs
from equiv.programs.mutation.catalogue import FAULTS
from equiv.programs.mutation.mutate import mutate_randomly
from equiv.programs.mutation.random_edits import RANDOM_FAULTS
from equiv.programs.mutation.splice import close_like
from equiv.programs.primitives import EXACT
from equiv.programs.program import Program
from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.conditions import CONDITIONS, POSITIVE
from equiv.programs.prover.numbered_port import all_programs
from equiv.programs.prover.value_numbering import Numbering, number_program
from equiv.programs.traced_port import trace_port

RULES = (frozenset(), frozenset(CONDITIONS) - {POSITIVE, IN_RANGE}, frozenset(CONDITIONS))
FORMS = ((frozenset(), False), (frozenset((2, 3, 4, 5)), False), (frozenset(), True))
"""Lengths of the loops that are numbered turn by turn, and whether slices are computed from slices.

Names of all forms say the same.
"""
COMPARISONS = ("eq", "ne", "gt", "ge", "lt", "le", "max", "min")
VALUE = "value"
"""The kind of an output that is only a value in a program."""

TOLERANCE, DISTURBANCE = 1e-9, 1e-13
KINDS = (FAULTS, RANDOM_FAULTS, RANDOM_FAULTS[-1:], RANDOM_FAULTS[-1:])
"""Where a change is drawn from; half of them should change nothing, so that there is something to prove."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A program with every value as an output: what each is called, its number, and what rounding does to it.

    `names` has for every set of rewrites the names in every form. `left_out` says for every
    set, and output, whether a condition of theirs does not hold.
    """

    program: Program
    arrays: tuple
    names: tuple
    values: list
    spread: list
    left_out: tuple


@contextmanager
def each_operation(change):
    """Within the context every equation, in loops too, returns `change(equation, operands, results)`."""
    plain = eager.EagerEvaluation.step

    def step(self, eqn, ins):
        outs = plain(self, eqn, ins)
        # Keys are no numbers: they count by what is drawn with them.
        return outs if any(map(is_key, (*ins, *outs))) else change(eqn, ins, [np.asarray(out) for out in outs])

    eager.EagerEvaluation.step = step
    try:
        yield
    finally:
        eager.EagerEvaluation.step = plain


def disturb(seed):
    """Multiply every rounded result by 1 plus a random number of the size of `DISTURBANCE`."""
    rng = np.random.default_rng(seed)

    def change(eqn, _, outs):
        if eqn.primitive.name in EXACT or inner_jaxprs(eqn):
            return outs
        return [out * (1 + DISTURBANCE * rng.normal(size=out.shape)) if out.dtype == "f8" else out for out in outs]

    return change


def watch(broken, tied, outside):
    """Collects the equations that give a value that is not finite, compare with exactly 0, or look up out of range."""

    def look(eqn, ins, outs):
        others = [id(other) for body in inner_jaxprs(eqn) for other in open_jaxpr(body)[0].eqns]
        if not broken.isdisjoint(others) or not all(np.isfinite(out.astype("f8")).all() for out in outs):
            broken.add(id(eqn))
        at_zero = eqn.primitive.name in COMPARISONS and np.any((np.asarray(ins[0]) == 0) & (np.asarray(ins[1]) == 0))
        if at_zero or not tied.isdisjoint(others):
            tied.add(id(eqn))
        if not outside.isdisjoint(others) or is_outside(eqn, ins, outs):
            outside.add(id(eqn))
        return outs

    return look


def is_outside(eqn, ins, outs):
    """Whether an index is out of range, or found negative: `where(i < 0, i + n, i)`."""
    name, params = eqn.primitive.name, eqn.params
    if name == "lt" and np.issubdtype(np.asarray(ins[0]).dtype, np.integer):
        return bool(np.any(outs[0]))
    if name.startswith("dynamic_"):
        sizes = outs[0].shape if name == "dynamic_slice" else np.shape(ins[1])
        starts = ins[1:] if name == "dynamic_slice" else ins[2:]
        limits = np.shape(ins[0])
        return any(not 0 <= int(at) <= most - size for at, size, most in zip(starts, sizes, limits, strict=True))
    if name != "gather" and not name.startswith("scatter"):
        return False
    numbers, index = params["dimension_numbers"], np.asarray(ins[1])
    if name == "gather":
        places, sizes = numbers.start_index_map, params["slice_sizes"]
    else:
        places = numbers.scatter_dims_to_operand_dims
        window = iter(np.shape(ins[2])[axis] for axis in numbers.update_window_dims)
        gone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
        sizes = [1 if axis in gone else next(window) for axis in range(np.ndim(ins[0]))]
    most = np.asarray([np.shape(ins[0])[axis] - sizes[axis] for axis in places])
    return bool(np.any((index < 0) | (index > most)))


def with_all_values(program):
    """The program with every value it computes as an output, and its own outputs last."""
    jaxpr, _ = open_jaxpr(program.jaxpr)
    made = [
        var for eqn in jaxpr.eqns for var in eqn.outvars if not isinstance(var, core.DropVar) and not is_key(var.aval)
    ]
    changed = jaxpr.replace(outvars=[*made, *jaxpr.outvars], debug_info=jaxpr.debug_info._replace(result_paths=None))
    values = (OutputName(program.name, VALUE, str(index)) for index in range(len(made)))
    names = (*values, *program.outputs)
    return replace(program, jaxpr=close_like(program.jaxpr, changed), outputs=names)


def made_of(program, broken):
    """For every output: whether it depends on a result of one of these equations."""
    jaxpr, _ = open_jaxpr(program.jaxpr)
    bad = set()
    for eqn in jaxpr.eqns:
        if id(eqn) in broken or any(isinstance(atom, core.Var) and atom in bad for atom in eqn.invars):
            bad.update(eqn.outvars)
    return [isinstance(atom, core.Var) and atom in bad for atom in jaxpr.outvars]


def subject(program, arrays):
    """Number and run a program."""
    whole = with_all_values(program)
    names = tuple(
        tuple(
            number_program(whole, Numbering(Algebra(rules, far_slices=far), unrolled=lengths)) for lengths, far in FORMS
        )
        for rules in RULES
    )
    with jax.enable_x64(True), np.errstate(all="ignore"):
        with each_operation(watch(broken := set(), tied := set(), outside := set())):
            values = eager.evaluate_eagerly(whole.jaxpr, arrays)
        with each_operation(disturb(0)):
            moved = eager.evaluate_eagerly(whole.jaxpr, arrays)
        pairs = zip(values, moved, strict=True)
        apart = [
            np.abs(one - other) if one.dtype == "f8" else np.where(one == other, 0, np.inf) for one, other in pairs
        ]
    spread = [float(np.max(one[~np.isnan(one)], initial=0.0)) for one in apart]
    left_out = (made_of(whole, broken), made_of(whole, broken), made_of(whole, broken | tied | outside))
    return Subject(whole, arrays, names, values, spread, left_out)


def agree(one, other, spread):
    """Whether two arrays are equal to the tolerance and what rounding does."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype != "f8":
        return spread == np.inf or bool(np.array_equal(one, other))
    scale = max(np.max(np.abs(one), initial=0.0), np.max(np.abs(other), initial=0.0))
    return bool(np.max(np.abs(one - other), initial=0.0) <= TOLERANCE * scale + 10 * spread)


def wrong_proofs(sides, counts):
    """Values of one number that differ, and values wrongly numbered as constants: rewrites and both places."""
    wrong = []
    for number, rules in enumerate(RULES):
        seen = {}
        for side in sides:
            variables = open_jaxpr(side.program.jaxpr)[0].outvars
            for index, (output, array) in enumerate(zip(side.program.outputs, side.values, strict=True)):
                if side.left_out[number][index] or any(variables[index] is other for other in variables[:index]):
                    continue
                here = str(output)
                # One name where loops change nothing.
                for value in {named[output].name: named[output] for named in side.names[number]}.values():
                    if value.constant is not None:
                        counts["known constants"] += 1
                        if not agree(array, np.full(array.shape, value.constant, array.dtype), side.spread[index]):
                            wrong.append((len(rules), here, f"is not {value.constant}"))
                    if value.name not in seen:
                        seen[value.name] = here, array, side.spread[index]
                        continue
                    there, other, spread = seen[value.name]
                    counts["comparisons of equal name"] += 1
                    counts["of those not bit for bit"] += other.tobytes() != array.tobytes()
                    if not agree(other, array, side.spread[index] + spread):
                        wrong.append((len(rules), here, there))
    return wrong


def compare(known, mutant, counts):
    """Compare a mutant with its original and the reference's program; the wrong proofs."""
    original = known[0]
    for number, _ in enumerate(RULES):
        for output in original.program.outputs:
            if output.kind != VALUE:
                same = original.names[number][0][output].name == mutant.names[number][0][output].name
                counts["outputs"] += 1
                counts["outputs of equal name"] += same
    return wrong_proofs((*known, mutant), counts)


def case_programs(name, largest=10**9):
    """Every float64 program of a case's candidates with its inputs, and the reference's program of the same name."""
    workshop = build_case(loaded(name).case)
    trials = [open_eager_port(workshop, trace_port(workshop, backend), fresh=False) for backend in workshop.case.models]
    found = []
    for trial in trials[1:]:
        for program in all_programs(trial.programs):
            if 0 < count_equations(program.jaxpr) <= largest:
                other = next(part for part in all_programs(trials[0].programs) if part.name == program.name)
                both = tuple((part, given(whose, part)) for whose, part in ((trial, program), (trials[0], other)))
                found.append((f"{name} {trial.traced.port.name} {program.name}", *both))
    return found


def given(trial, program):
    """The inputs of a program; a training carry starts as random numbers, the same for every port."""
    inputs = trial.inputs(trial.probes["0"])
    inputs["draws"].setdefault(program.name, [])
    named = part_inputs(program, inputs)
    if program.name == STEP:
        named |= {name: bits[0] for name, bits in named.items() if name.kind == "draw"}
    for name, aval in zip(program.inputs, program.jaxpr.in_avals, strict=True):
        if name not in named:
            rng = np.random.default_rng(zlib.crc32(str(name).encode()))
            whole, broken = rng.integers(3, 9, size=aval.shape), rng.uniform(0.3, 2, size=aval.shape)
            named[name] = (broken if "float" in str(aval.dtype) else whole).astype(aval.dtype)
    return tuple(named[name] for name in program.inputs)


def run_one(known, program, seed, counts):
    """Make one mutant by one to three random changes; compare it with the program itself and the reference's."""
    kinds, mutant = [], program
    for turn in range(1 + seed % 3):
        try:
            mutation, mutant = mutate_randomly(mutant, seed * 7 + turn, KINDS[(seed + turn) % len(KINDS)])
        except EquivError:  # too small a program for those: any change will do
            mutation, mutant = mutate_randomly(mutant, seed * 7 + turn)
        kinds.append(f"{mutation.kind}, {mutation.site}")
    counts["mutations"] += 1
    return [(kinds, *found) for found in compare(known, subject(mutant, known[0].arrays), counts)]


def run_random(seed, counts, steps=STEPS):
    """Check one small random program, most of whose operations have a twin that differs in one choice."""
    program = random_program(seed, steps=steps)
    counts["random programs"] += 1
    return [([str(program.name)], *found) for found in wrong_proofs((subject(program, random_inputs()),), counts)]


def main():
    """Run the search; print the counts and every wrong proof."""
    wanted, first = (int(text) for text in (*sys.argv[1:], *("5000", "0")[len(sys.argv) - 1 :]))
    names = sorted(path.stem for path in CASES.glob("*.py"))
    counts, wrong, started = Counter(), [], time.perf_counter()

    def tell(label, found):
        wrong.extend(found)
        for one in found[:1]:
            print("WRONG", label, *one, sep=" | ", flush=True)

    def say(what):
        print(f"{what}: {dict(counts)}, {len(wrong)} wrong, {time.perf_counter() - started:.0f} s", flush=True)

    for seed in range(first, first + wanted // 2):
        tell(seed, run_random(seed, counts, (STEPS, ALL_STEPS, PIECE_STEPS, LOOKUP_STEPS)[seed % 4]))
    say("random programs")
    counts.clear()
    for place, name in enumerate(names):
        programs = case_programs(name)
        share = wanted * (place + 1) // len(names) - wanted * place // len(names)
        for number, (label, ours, theirs) in enumerate(programs):
            known = (subject(*ours), subject(*theirs))
            for seed in range(share * number // len(programs), share * (number + 1) // len(programs)):
                tell(f"{label} {seed}", run_one(known, ours[0], first + 100_000 * place + seed, counts))
        say(name)
    print(f"{len(wrong)} wrong proofs")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
