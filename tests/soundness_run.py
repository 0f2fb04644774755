"""Is the prover ever wrong? Random changes of the cases' programs; what it calls equal must have equal numbers.

Run it with `python tests/soundness_run.py [MUTATIONS]`; a shorter run is a test (`test_mutate.py`). Every value that a
program computes is numbered, not only its outputs: values of one name, in the original and in the mutant, must agree
to 1e-9 of their scale, beyond what rounding does to them. That is measured: every operation is disturbed by 1e-13.
Values that are not finite, and what is made of them, are left out: no rewrite speaks of them.
"""

import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace

import jax
import numpy as np
from helpers import CASES, loaded
from jax.extend import core

from equiv.evidence import eager
from equiv.evidence.algebra import CONDITIONS, Algebra
from equiv.evidence.draws import equations, opened
from equiv.evidence.faults.splice import reclosed
from equiv.evidence.mutate import random_mutation
from equiv.evidence.number import Numbering, number_program
from equiv.evidence.prove import every
from equiv.program import Program
from equiv.trial import open_trial
from equiv.workshop import open_workshop

RULES = (frozenset(), frozenset(CONDITIONS))
TOLERANCE, DISTURBANCE = 1e-9, 1e-13


@dataclass(frozen=True, eq=False)
class Subject:
    """A program with every value as an output, its inputs, and what is known of each value."""

    program: Program
    arrays: tuple
    names: tuple
    values: list
    spread: list
    unsound: list


@contextmanager
def disturbed(seed):
    """Every operation gives its result times 1 plus a random number of the size of the disturbance."""
    rng, plain = np.random.default_rng(seed), eager._equation

    def noisy(eqn, ins):
        outs = [np.asarray(out) for out in plain(eqn, ins)]
        return [out * (1 + DISTURBANCE * rng.normal(size=out.shape)) if out.dtype == "f8" else out for out in outs]

    eager._equation = noisy
    try:
        yield
    finally:
        eager._equation = plain


def with_all_values(program):
    """The program that gives every value it computes, and its own outputs last."""
    jaxpr, _ = opened(program.jaxpr)
    made = [var for eqn in jaxpr.eqns for var in eqn.outvars if not isinstance(var, core.DropVar)]
    outvars = [*made, *jaxpr.outvars]
    info = jaxpr.debug_info._replace(result_paths=None)
    changed = jaxpr.replace(outvars=outvars, debug_info=info)
    names = (*(f"value {index}" for index in range(len(made))), *program.outputs)
    return replace(program, jaxpr=reclosed(program.jaxpr, changed), outputs=names)


def tainted(program, values):
    """For every output: whether it is made of a value that is not finite."""
    jaxpr, _ = opened(program.jaxpr)
    known = {var: value for var, value in zip(jaxpr.outvars, values, strict=True) if isinstance(var, core.Var)}
    bad = set()
    for eqn in jaxpr.eqns:
        own = any(isinstance(atom, core.Var) and atom in bad for atom in eqn.invars)
        for var in eqn.outvars:
            if own or (var in known and not np.all(np.isfinite(known[var].astype("f8")))):
                bad.add(var)
    return [isinstance(atom, core.Var) and atom in bad for atom in jaxpr.outvars]


def subject(program, arrays):
    """Number and run a program."""
    whole = with_all_values(program)
    names = tuple(number_program(whole, Numbering(Algebra(rules))) for rules in RULES)
    with jax.enable_x64(True), np.errstate(all="ignore"):
        values = eager.evaluate(whole.jaxpr, arrays)
        with disturbed(0):
            moved = eager.evaluate(whole.jaxpr, arrays)
        spread = [np.abs(one - other) if one.dtype == "f8" else None for one, other in zip(values, moved, strict=True)]
    return Subject(whole, arrays, names, values, spread, tainted(whole, values))


def agree(one, other, spread):
    """Whether two arrays are equal to the tolerance and what rounding does."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype != "f8":
        return bool(np.array_equal(one, other))
    scale = max(np.max(np.abs(one), initial=0.0), np.max(np.abs(other), initial=0.0))
    return bool(np.max(np.abs(one - other), initial=0.0) <= TOLERANCE * scale + 10 * np.max(spread, initial=0.0))


def compare(original, mutant, counts):
    """Every value of a mutant beside the first value of the same name; the wrong ones, by rewrites and place."""
    wrong = []
    for number, rules in enumerate(RULES):
        seen = {}
        for side in (original, mutant):
            for index, output in enumerate(side.program.outputs):
                value = side.names[number][output]
                if side.unsound[index]:
                    continue
                if value.constant is not None and side is mutant:
                    counts["constants"] += 1
                    whole = np.full(side.values[index].shape, value.constant, side.values[index].dtype)
                    if not agree(side.values[index], whole, side.spread[index]):
                        wrong.append((sorted(rules), output, "is not the constant", value.constant))
                first = seen.setdefault(value.name, (side, index))
                if side is original or first == (side, index):
                    continue
                counts["equal names"] += 1
                there, at = first
                one, other = there.values[at], side.values[index]
                counts["of those not bit for bit"] += one.tobytes() != other.tobytes()
                spread = side.spread[index] if there.spread[at] is None else there.spread[at] + side.spread[index]
                if not agree(one, other, spread):
                    wrong.append((sorted(rules), output, there.program.outputs[at], first[0] is original))
        for output in original.program.outputs:
            if not output.startswith("value "):
                counts["outputs"] += 1
                counts["outputs of equal name"] += (
                    original.names[number][output].name == mutant.names[number][output].name
                )
    return wrong


def case_programs(name, largest=10**9):
    """Every program of a case's candidates in float64, with inputs of the first probe."""
    workshop = open_workshop(loaded(name).case)
    found = []
    for backend in list(workshop.case.models)[1:]:
        trial = open_trial(workshop, backend, fresh=False)
        inputs = trial.inputs(trial.probes["0"])
        for program in every(trial.programs):
            if 0 < equations(program.jaxpr) <= largest:
                found.append((f"{name} {backend} {program.name}", program, given(trial, program, inputs)))
    return found


def given(trial, program, inputs):
    """What a program is run on; what training carries starts as numbers like any other."""
    first = {f"batch/{name}": array[0] for name, array in inputs["batches"].items()}
    draws = inputs["draws"].get(program.name, [])
    training = program.name == "step"
    named = {**inputs["variables"], **first}
    named |= {f"draw/{index}": bits[0] if training else bits for index, bits in enumerate(draws)}
    for name, array in inputs["cotangents"].items():
        if name.startswith(f"{program.name}: "):
            named[name.removeprefix(f"{program.name}: ")] = array
    rng = np.random.default_rng(5)
    for name, aval in zip(program.inputs, program.jaxpr.in_avals, strict=True):
        if name not in named:
            whole = rng.integers(3, 9, size=aval.shape)
            named[name] = (rng.uniform(0.3, 2, size=aval.shape) if "float" in str(aval.dtype) else whole).astype(
                aval.dtype
            )
    return tuple(named[name] for name in program.inputs)


def main():
    """Print the counts, and every wrong proof."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    names = sorted(path.stem for path in CASES.glob("*.py"))
    counts, wrong, started = Counter(), [], time.perf_counter()
    for place, name in enumerate(names):
        programs = case_programs(name)
        share = wanted * (place + 1) // len(names) - wanted * place // len(names)
        for number, (label, program, arrays) in enumerate(programs):
            original = subject(program, arrays)
            for seed in range(share * number // len(programs), share * (number + 1) // len(programs)):
                found = run_one(program, original, 1000 * place + seed, counts)
                wrong += [(label, *one) for one in found]
                for one in found[:1]:
                    print("WRONG", label, *one, sep=" | ", flush=True)
        print(f"{name}: {dict(counts)}, {len(wrong)} wrong, {time.perf_counter() - started:.0f} s", flush=True)
    print(f"{dict(counts)}; {len(wrong)} wrong")
    sys.exit(bool(wrong))


def run_one(program, original, seed, counts):
    """One mutant of a program by one to three random changes, against the program itself."""
    kinds, mutant = [], program
    for turn in range(1 + seed % 3):
        mutation, mutant = random_mutation(mutant, seed * 7 + turn)
        kinds.append(f"{mutation.kind}, {mutation.site}")
    counts["mutations"] += 1
    return [(kinds, *found) for found in compare(original, subject(mutant, original.arrays), counts)]


if __name__ == "__main__":
    main()
