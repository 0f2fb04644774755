"""Measure which share of deep models is proved: `python tests/proof_share.py [DEPTH] [MODEL ..]`.

For every model of `deep_models.py` and every pair of libraries: how many outputs, gradients, state and results of the
train step are proved, modulo which rewrites, and in how many seconds. Where one is not, the first difference of each
program that has it. What a known difference says is another is not counted. Fails where anything else is not proved.
`gpt_scanned` has a loop over its blocks in two libraries and a list of them in the third.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from deep_models import DEEP_CASES

from equiv.comparison.prove_only import check_by_proof
from equiv.comparison.stages import check_structure, open_case, prove_ports, trace_ports
from equiv.comparison.state import STRUCTURE, CaseState
from equiv.core.case import Case
from equiv.core.output_name import STEP, TRAINING
from equiv.core.results import Finding
from equiv.programs.prover.first_difference import find_first_differences
from equiv.programs.prover.numbered_port import all_programs, mirrored_inputs


def prove_ports_of(case: Case, ports: Sequence[str]) -> tuple[CaseState, float]:
    """Prove what can be proved of these ports of a case, and the seconds that proving alone took."""
    own = tuple(one for one in case.known_differences if one.backend in ports)
    models = {name: case.models[name] for name in ports}
    state = trace_ports(check_structure(open_case(replace(case, models=models, known_differences=own))))
    clock = time.perf_counter()
    state = prove_ports(state)
    return check_by_proof(state), time.perf_counter() - clock


def wanted(state: CaseState) -> Iterator[tuple[str, Finding]]:
    """Every finding whose proof is wanted, with its check."""
    known = {one.leaf for one in state.built_case.case.known_differences}
    for check in state.checks:
        for finding in check.findings if check.check != STRUCTURE else ():
            output = finding.output
            if output is None or not (output.is_leaf and output.leaf in known):
                yield check.check, finding


def shares(state: CaseState) -> dict[str, tuple[int, int]]:
    """Check to how many of its findings are proved, and how many it has."""
    found: dict[str, tuple[int, int]] = {}
    for check, finding in wanted(state):
        proved, number = found.get(check, (0, 0))
        found[check] = proved + (finding.grade in ("proved", "proved modulo")), number + 1
    return found


def first_differences(state: CaseState) -> Iterator[str]:
    """The first difference in every program of which something is not proved, in words."""
    (candidate,) = state.candidates
    left, right = state.traced[state.reference], state.traced[candidate]
    unproved = {finding.output for _, finding in wanted(state) if finding.grade == "not run" and finding.output}
    programs = {STEP if output.program == TRAINING else output.program for output in unproved}
    theirs = {part.name: part for part in all_programs(right.programs)}
    for part in all_programs(left.programs):
        if part.name in programs:
            names = state.reference, candidate
            found = find_first_differences(part, theirs[part.name], mirrored_inputs(left.table), names)
            yield f"{part.name}: " + (" | ".join(map(str, found)) or "none")


def main() -> None:
    """Print the shares of every model and pair."""
    depth, *names = sys.argv[1:] or ["12"]
    complete = True
    for name in names or DEEP_CASES:
        case = DEEP_CASES[name](int(depth))
        for pair in combinations(case.models, 2):
            state, seconds = prove_ports_of(case, pair)
            said = {check: f"{proved}/{number}" for check, (proved, number) in shares(state).items()}
            print(name, *pair, f"{seconds:.1f} s", said, flush=True)
            rewrites = Counter(finding.rewrites for _, finding in wanted(state) if finding.rewrites)
            for used, number in rewrites.items():
                print(f"    {number} modulo", "; ".join(used))
            for line in first_differences(state):
                print("   ", line, flush=True)
            complete &= all(proved == number for proved, number in shares(state).values())
    sys.exit(not complete)


if __name__ == "__main__":
    main()
