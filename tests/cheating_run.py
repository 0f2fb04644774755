"""Judge every cheating port, and every right one: no cheat may be called `same` without its limit being said.

Run it with `python tests/cheating_run.py [TEXT]`, where TEXT is part of a name or family, or `right`; some are tests.
"""

import sys
import time
from collections import Counter

from cheating import draws, functions, training
from cheating.cheat import Cheat, is_caught, judge
from cheating.right import Right, all_right

from equiv.errors import EquivError

FAMILIES = (
    *(functions.rare_places, functions.large_inputs, functions.epsilons, functions.constants, functions.ties),
    *(draws.rows, draws.keys, draws.distributions, draws.gradients),
    *(training.optimizers, training.schedules, training.hidden),
)


def all_cheats() -> list[Cheat]:
    """Every cheat, by family."""
    return [cheat for family in FAMILIES for cheat in family()]


def judge_cheats(chosen: list[Cheat]) -> list[str]:
    """Judge and print; the names of those that are called `same` silently."""
    found: Counter[str] = Counter()
    missed = []
    for cheat in chosen:
        verdict, words, seconds = timed(cheat)
        caught = is_caught(cheat, verdict, words)
        found["limit said" if caught and verdict == "same" else verdict if caught else "missed"] += 1
        missed += [] if caught else [cheat.name]
        print(
            f"{'ok' if caught else 'WRONG':5} {verdict:12} {seconds:4.1f} s  {cheat.family}: {cheat.name}", flush=True
        )
        if not caught:
            print(f"      {words[:600]}")
    print(f"{len(chosen)} cheats: {', '.join(f'{count} {what}' for what, count in found.most_common())}")
    return missed


def judge_right(chosen: list[Right]) -> list[str]:
    """Judge and print; the names of those that are not called `same`."""
    wrong = []
    for port in chosen:
        verdict, words, seconds = timed(port)
        wrong += [] if verdict == "same" else [port.name]
        sign = "ok" if verdict == "same" else "WRONG"
        print(f"{sign:5} {verdict:12} {seconds:4.1f} s  written otherwise: {port.name}", flush=True)
        if verdict != "same":
            print(f"      {words[:600]}")
    print(f"{len(chosen)} right ports: {len(chosen) - len(wrong)} same")
    return wrong


def timed(port: Cheat | Right) -> tuple[str, str, float]:
    """Verdict, words and seconds of a port; what it raises is an error."""
    clock = time.perf_counter()
    try:
        verdict, words = judge(port)
    except EquivError as error:
        verdict, words = "error", str(error)
    return verdict, words, time.perf_counter() - clock


def main() -> int:
    """Judge those whose name or family has the given text; 1 if any is judged wrong."""
    text = sys.argv[1] if len(sys.argv) > 1 else ""
    wrong = judge_cheats([one for one in all_cheats() if text in one.name or text in one.family])
    wrong += judge_right([one for one in all_right() if text in one.name or text == "right"])
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
