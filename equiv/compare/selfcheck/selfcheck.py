"""Would a fault be noticed? Faults planted in every candidate, one at a time, judged as a port is judged.

Planted in its programs, equation by equation, and in its builder, hyperparameter by hyperparameter.
"""

import time
from collections.abc import Iterator, Sequence
from functools import cache, partial

from equiv.compare.observation import Noise
from equiv.compare.selfcheck.detection import Oracle, explained, looked_at, open_oracle
from equiv.compare.selfcheck.eager_trial import noise_of, open_trial
from equiv.compare.selfcheck.hyperparameter_faults import builder_kills
from equiv.compare.selfcheck.wrong_values import RULES, Rule
from equiv.core.case_files import LoadedCase
from equiv.core.selfcheck_results import Kill, SelfcheckResult
from equiv.errors import EquivError
from equiv.programs.built_case import Workshop, open_workshop
from equiv.programs.mutation.equations import spots
from equiv.programs.mutation.mutate import FAULTS, Fault, Mutation, applied
from equiv.programs.program import Program
from equiv.programs.prover.prove import every

TRIES = 3
"""How many places of one kind in one program are tried until one is noticed; all that are tried are reported."""


SEED = 0
"""Decides which places those are."""


def selfcheck(
    loaded: LoadedCase, faults: Sequence[Fault] = FAULTS, fresh: bool = False, rules: Sequence[Rule] = RULES
) -> SelfcheckResult:
    """Plant faults in every candidate of a case.

    Args:
        loaded: the case.
        faults: kinds of fault in a program.
        fresh: with leaves as freshly initialised and a batch of ones, to see how many fewer are noticed.
        rules: kinds of fault in a builder.
    """
    started = time.perf_counter()
    kills: list[Kill] = []
    problems: list[str] = []
    workshop = open_workshop(loaded.case)
    reference, *candidates = loaded.case.models

    @cache
    def noise(lifted: bool) -> Noise:
        return noise_of(open_trial(workshop, reference, fresh, lifted))

    def oracle(candidate: str, lifted: bool) -> Oracle:
        return open_oracle(open_trial(workshop, candidate, fresh, lifted), workshop, noise(lifted))

    try:
        noise(True)
    except EquivError as error:
        return SelfcheckResult(loaded.name, fresh, problem=str(error))
    for candidate in candidates:
        try:
            kills += _kills(workshop, partial(oracle, candidate), faults, rules)
        except EquivError as error:
            problems.append(str(error))
    kinds = tuple(dict.fromkeys(kind.kind for kind in (*faults, *rules)))
    seconds = round(time.perf_counter() - started, 3)
    return SelfcheckResult(loaded.name, fresh, tuple(kills), kinds, "; ".join(problems), seconds)


def _kills(workshop: Workshop, oracle: "partial[Oracle]", faults: Sequence[Fault], rules: Sequence[Rule]) -> list[Kill]:
    lifted = oracle(True)
    native = cache(partial(oracle, False))
    return [*_program_kills(lifted, faults), *builder_kills(workshop, lifted, native, rules)]


def _program_kills(oracle: Oracle, faults: Sequence[Fault]) -> Iterator[Kill]:
    for program in every(oracle.trial.programs):
        places = list(spots(program))
        for fault in faults:
            for tried, (mutation, mutant) in enumerate(applied(program, fault, SEED, places)):
                kill = _kill(oracle, mutation, mutant)
                yield kill
                if kill.outcome == "noticed" or tried + 1 == TRIES:
                    break


def _kill(oracle: Oracle, mutation: Mutation, mutant: Program) -> Kill:
    """What becomes of one fault: noticed by some output, else proved to be none, else the reason."""
    backend = oracle.trial.traced.port.backend
    planted = partial(Kill, backend, mutation.kind, mutation.program, mutation.site)
    where, unnoticed = looked_at(oracle, mutant)
    if where:
        return planted("noticed", **where)
    outcome, reason = explained(oracle, mutant, unnoticed)
    return planted(outcome, reason=reason)
