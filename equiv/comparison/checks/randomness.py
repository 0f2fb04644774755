"""Do both ports draw the same number and shape of random bits, and, without replay, new bits every time?"""

from dataclasses import replace

from equiv.comparison.checks.coverage import CheckAnswer
from equiv.comparison.observation import Comparison
from equiv.core.output_name import OutputName, ProgramName
from equiv.core.results import Finding
from equiv.programs.program import Draw, iteration_numbers


def check(comparison: Comparison) -> CheckAnswer | None:
    """Compare the draws of every program; refute a draw that gives the same bits twice. None where nothing is drawn."""
    reference, candidate = comparison.reference, comparison.candidate
    findings: list[Finding] = []
    for program, left in reference.draws.items():
        findings += _compare_draws(program, left, candidate.draws.get(program, ()))
    for side in (reference, candidate):
        backend = side.table.port
        if side.reused:
            findings += [
                Finding(f"{backend} draws new bits", "refuted", note=f"the same bits twice: {pair}")
                for pair in side.reused
            ]
        elif side.drawn:
            note = f"{side.drawn} draws over layers and steps, no two equal"
            findings.append(Finding(f"{backend} draws new bits", "statistical", note=note))
    if not findings:
        return None
    replayed = sum(map(len, reference.draws.values()))
    summary = f"{replayed} draws replayed; {candidate.drawn} native draws looked at, {len(candidate.reused)} repeated"
    return CheckAnswer(tuple(findings), summary)


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
