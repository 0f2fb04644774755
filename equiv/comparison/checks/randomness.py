"""Do both ports draw the same number and shape of random bits, and, without replay, from new keys at the same draws?"""

from collections.abc import Iterator
from dataclasses import replace

from equiv.comparison.checks.coverage import CheckAnswer
from equiv.comparison.observation import Comparison, PortOutputs
from equiv.core.output_name import OutputName, ProgramName
from equiv.core.results import Finding
from equiv.programs.program import Draw, iteration_numbers


def check(comparison: Comparison) -> CheckAnswer | None:
    """Compare the draws of every program; refute a key that only one port uses twice. None where nothing is drawn."""
    reference, candidate = comparison.reference, comparison.candidate
    findings: list[Finding] = []
    for program in {**reference.draws, **candidate.draws}:
        findings += _compare_draws(program, reference.draws.get(program, ()), candidate.draws.get(program, ()))
    for side, other in ((reference, candidate), (candidate, reference)):
        findings += _compare_keys(side, other)
    if not findings:
        return None
    replayed = sum(map(len, reference.draws.values()))
    summary = f"{replayed} draws replayed; {candidate.drawn} keys looked at, {len(candidate.reused)} of them used again"
    return CheckAnswer(tuple(findings), summary)


def _compare_keys(side: PortOutputs, other: PortOutputs) -> Iterator[Finding]:
    """Yield what one port's keys show. Keys that both ports use twice at the same draws are how the model is."""
    if not side.drawn:
        return
    place, known = f"{side.table.port} draws new bits", {pair.places for pair in other.reused}
    alone = [pair for pair in side.reused if pair.places not in known]
    if alone:
        first, *more = alone
        others = f", and {len(more)} more" if more else ""
        yield Finding(place, "refuted", note=f"one key twice: {first.program}: {first.text}{others}")
        return
    shared = f"{len(side.reused)} of them used again, as in {other.table.port}" if side.reused else "no two equal"
    yield Finding(place, "statistical", note=f"{side.drawn} keys over draws, layers and steps, {shared}")


def _unroll(draws: tuple[Draw, ...]) -> list[Draw]:
    """Give the draws of every loop iteration: a scan over layers and an unrolled loop make the same draws."""
    found = {
        number: replace(draw, shape=draw.shape[1:]) if draw.loop else draw
        for draw, numbers in zip(draws, iteration_numbers(draws), strict=True)
        for number in numbers
    }
    return [found[number] for number in sorted(found)]


def _compare_draws(program: ProgramName, one: tuple[Draw, ...], other: tuple[Draw, ...]) -> list[Finding]:
    findings, left, right = [], _unroll(one), _unroll(other)
    for index in range(max(len(left), len(right))):
        output = OutputName(program, "draw", str(index))
        ours, theirs = (side[index] if index < len(side) else None for side in (left, right))
        if ours is None or theirs is None:
            note = f"{len(left)} draws in the reference, {len(right)} in the candidate"
        elif (ours.shape, ours.bit_width) != (theirs.shape, theirs.bit_width):
            note = "shape or bit width differs"
        else:
            note = ""
        findings.append(
            Finding(
                str(output),
                "refuted" if note else "exact",
                reference=_draw_text(ours),
                candidate=_draw_text(theirs),
                note=note,
                output=output,
            )
        )
    return findings


def _draw_text(draw: Draw | None) -> str:
    return "none" if draw is None else f"uint{draw.bit_width}{list(draw.shape)} {draw.where}".strip()
