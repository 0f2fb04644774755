"""Do both ports draw the same number and shape of random bits, and, without replay, anew every time?"""

from dataclasses import replace

from equiv.compare.observation import Comparison
from equiv.core.results import CheckResult, Finding
from equiv.core.verdict import weakest
from equiv.programs.program import Draw, turns

NAME = "randomness"


def check(comparison: Comparison) -> CheckResult | None:
    """Compare the draws of every program; refuse a draw that comes out twice. None where nothing is drawn."""
    reference, candidate = comparison.reference, comparison.candidate
    findings: list[Finding] = []
    for program, left in reference.draws.items():
        findings += _draws(program, left, candidate.draws.get(program, ()))
    for side in (reference, candidate):
        backend = side.table.backend
        if side.reused:
            findings += [
                Finding(f"{backend} draws anew", "refuted", note=f"the same bits twice: {pair}") for pair in side.reused
            ]
        elif side.drawn:
            note = f"{side.drawn} draws over layers and steps, no two alike"
            findings.append(Finding(f"{backend} draws anew", "statistical", note=note))
    if not findings:
        return None
    result = tuple(findings)
    replayed = sum(map(len, reference.draws.values()))
    summary = f"{replayed} draws replayed; {candidate.drawn} native draws looked at, {len(candidate.reused)} repeated"
    return CheckResult(NAME, candidate.table.backend, weakest(result), summary, result)


def _written_out(draws: tuple[Draw, ...]) -> list[Draw]:
    """The draws turn by turn: a scan over layers and a loop that is written out draw alike."""
    found = {
        number: replace(draw, shape=draw.shape[1:]) if draw.loop else draw
        for draw, numbers in zip(draws, turns(draws), strict=True)
        for number in numbers
    }
    return [found[number] for number in sorted(found)]


def _draws(program: str, one: tuple[Draw, ...], other: tuple[Draw, ...]) -> list[Finding]:
    findings, left, right = [], _written_out(one), _written_out(other)
    for index in range(max(len(left), len(right))):
        place = f"{program}: draw/{index}"
        ours, theirs = (side[index] if index < len(side) else None for side in (left, right))
        if ours is None or theirs is None:
            note = f"{len(left)} draws in the reference, {len(right)} in the candidate"
            findings.append(Finding(place, "refuted", reference=_shown(ours), candidate=_shown(theirs), note=note))
        elif (ours.shape, ours.bit_width) != (theirs.shape, theirs.bit_width):
            note = "another shape is drawn"
            findings.append(Finding(place, "refuted", reference=_shown(ours), candidate=_shown(theirs), note=note))
        else:
            findings.append(Finding(place, "exact", reference=_shown(ours), candidate=_shown(theirs)))
    return findings


def _shown(draw: Draw | None) -> str:
    return "none" if draw is None else f"uint{draw.bit_width}{list(draw.shape)} {draw.where}".strip()
