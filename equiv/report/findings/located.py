"""Where a case differs, in sentences: the whole walk that `equiv locate` prints."""

from collections.abc import Iterator

from equiv.core.divergence import Divergence
from equiv.core.located import LocatedCandidate, LocatedCase, LocatedProgram
from equiv.report.findings.divergences import describe_divergence, explains_all

LEFT_OUT = (
    "edge probes, a longer batch, invariances, sharding and what users run are not looked at: equiv run does that"
)


def describe_located(case: LocatedCase) -> list[str]:
    """Describe every divergence of every refuted program of a case; lines are indented by what they belong to."""
    return [line for candidate in case.candidates for line in _describe_candidate(case, candidate)]


def _describe_candidate(case: LocatedCase, candidate: LocatedCandidate) -> Iterator[str]:
    yield f"{case.name}: {candidate.name} / {case.reference}: {candidate.verdict}"
    if candidate.verdict == "same":
        yield f"  nothing to locate; {LEFT_OUT}"
        return
    if candidate.reason:
        yield f"  {candidate.reason}"
    known: dict[tuple[object, ...], str] = {}
    for program in candidate.programs:
        yield from (f"  {line}" for line in _describe_program(program, case, candidate, known))
    if not candidate.programs and not candidate.reason:
        yield f"  no program is refuted by its values; {LEFT_OUT}"
    for remark in candidate.remarks:
        yield f"  {remark}"


def _describe_worst(program: LocatedProgram, case: LocatedCase, candidate: LocatedCandidate) -> str:
    worst = program.worst
    if worst is None or worst.ratio is None:
        return ""
    at = f" at {list(worst.index)}" if worst.index else ""
    values = f"{case.reference} {worst.reference}, {candidate.name} {worst.candidate}, "
    return f", worst {worst.place}{at}: {values if worst.reference else ''}error / budget {worst.ratio:.3g}"


def _describe_program(
    program: LocatedProgram, case: LocatedCase, candidate: LocatedCandidate, known: dict[tuple[object, ...], str]
) -> Iterator[str]:
    outputs = f"{program.outputs} {'output' if program.outputs == 1 else 'outputs'}"
    yield f"{program.program}: {outputs} refuted{_describe_worst(program, case, candidate)}"
    key = tuple(_place_of(one) for one in program.divergences)
    if key and key in known:
        yield f"  the same places as in {known[key]}"
        return
    known[key] = str(program.program)
    for number, one in enumerate(program.divergences):
        for at, line in enumerate(describe_divergence(one, number)):
            yield f"  {f'{number + 1}.' if at == 0 else '  '} {line}"
    if len(program.divergences) > 1 and explains_all(program.divergences):
        yield "  with all of these together: same"
    if program.remark:
        yield f"  {program.remark}"
    if not program.divergences and program.worst is not None and program.worst.first_differences:
        yield f"  first different: {'; '.join(map(str, program.worst.first_differences))}"


def _place_of(one: Divergence) -> tuple[object, ...]:
    """What a divergence has in common with the same one in another program."""
    sites = ((site.port, site.primitive, site.layer, site.user_line) for site in one.sites)
    return (*sites, *(cause.text for cause in one.causes))
