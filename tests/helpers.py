"""Shared by the tests: cases of the suite, their compiled references (cached), and checks of a changed candidate."""

import importlib.util
import itertools
import os
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

from equiv.comparison.numeric.run_port import CompiledPort
from equiv.comparison.stages import (
    check_candidates,
    check_structure,
    open_case,
    prove_ports,
    run_reference,
    start_compiling,
    trace_ports,
)
from equiv.comparison.state import CaseState, Reference, advance
from equiv.core.case import Case
from equiv.core.case_files import CaseFile, LoadedCase, load_case
from equiv.core.results import CheckResult, Finding
from equiv.programs.built_case import BuiltCase

CASES = Path(__file__).parent.parent / "cases"
COUNTER = itertools.count()


def just(*checks: str) -> tuple[str, ...] | None:
    """These checks, for a comparison that is about them: what the others need is not traced or compiled.

    `nox -s slow` sets `EQUIV_EVERY_CHECK`, and makes the same comparisons with every check.
    """
    return None if os.environ.get("EQUIV_EVERY_CHECK") else checks


@cache
def loaded(name: str) -> LoadedCase:
    """Load a case of the suite, once."""
    return load_case(CaseFile(name, CASES / f"{name}.py"))


def patched(name: str, *replacements: tuple[str, str]) -> Case:
    """Load a case of the suite with changed source.

    Args:
        name: case file.
        replacements: `(old, new)`; every occurrence of `old` is replaced, there must be at least one.
    """
    source = (CASES / f"{name}.py").read_text()
    for old, new in replacements:
        assert old in source, f"{name}: {old!r} does not occur"
        source = source.replace(old, new)
    return case_from(source, name)


def case_from(source: str, name: str) -> Case:
    """Run the source of a case file and return its `CASE`."""
    module_name = f"patched_{name}_{next(COUNTER)}"
    spec = importlib.util.spec_from_loader(module_name, loader=None)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    exec(compile(source, f"{name}.py (patched)", "exec"), module.__dict__)
    return module.CASE


@cache
def opened(name: str) -> CaseState:
    """Build a case of the suite, and trace its reference, once for all tests."""
    return trace_ports(replace(open_case(loaded(name).case), candidates=()))


def workshop_of(name: str) -> BuiltCase:
    """The built ports of a case of the suite."""
    return opened(name).built_case


@cache
def compiled_reference(name: str) -> CompiledPort:
    """Compile the reference of a case of the suite, once for all tests."""
    state = opened(name)
    return start_compiling(state).compiling[state.reference]()


@cache
def reference(name: str, seed: int = 0) -> Reference:
    """Run the reference of a case of the suite on the probes of a seed (0: those of a run)."""
    seeds = {"0": 1, "1": 2} if seed == 0 else {"0": 1000 + 2 * seed, "1": 1001 + 2 * seed}
    state = opened(name)
    compiling = {state.reference: lambda: compiled_reference(name)}
    observed = run_reference(replace(state, compiling=compiling, seeds=seeds)).observed
    assert observed is not None
    return observed


def with_candidate(name: str, candidate: str, case: Case) -> Case:
    """A case of two ports: the suite's reference and the candidate of a changed case, with the latter's layer table."""
    ours = loaded(name).case
    first = next(iter(ours.models))
    return replace(case, models={first: ours.models[first], candidate: case.models[candidate]})


def judge(name: str, candidate: str, case: Case, seeds: tuple[int, ...] = (0,)) -> dict[str, CheckResult]:
    """Check a changed candidate against the suite's reference: check name to result; over several seeds the worst.

    Where structure refutes a leaf, it is the only check.
    """
    state = check_structure(open_case(with_candidate(name, candidate, case)))
    if problem := state.built_case.problems.get(candidate):
        raise problem
    results = {check.check: check for check in state.checks if check.grade != "blocked"}
    if not state.candidates:
        return results
    known = replace(state, traced=opened(name).traced, observed=reference(name, seeds[0]), checks=())
    known = replace(known, compiled_reference=compiled_reference(name))
    ready = advance(known, (trace_ports, prove_ports, start_compiling))
    for seed in seeds:
        for result in check_candidates(replace(ready, observed=reference(name, seed))).checks:
            if result.check not in results or result.grade in ("refuted", "error"):
                results[result.check] = result
    return results


def refuted(results: dict[str, CheckResult]) -> dict[str, list[Finding]]:
    """Check name to its findings that are `refuted` or `error`; checks without any are left out."""
    found = {name: [f for f in result.findings if f.grade in ("refuted", "error")] for name, result in results.items()}
    return {name: findings for name, findings in found.items() if findings}
