"""Judge every cheating port: none may be called `same` without its limit being said.

Run it with `python tests/cheating_run.py [TEXT]`, where TEXT is part of a name or family; a few of them are tests.
"""

import sys
import time
from collections import Counter

from cheating import draws, functions, training
from cheating.cheat import Cheat, is_caught, judge

from equiv.errors import EquivError

FAMILIES = (
    *(functions.rare_places, functions.constants, functions.ties, draws.rows, draws.randomness, draws.gradients),
    *(training.training, training.hidden),
)


def all_cheats() -> list[Cheat]:
    """Every cheat, by family."""
    return [cheat for family in FAMILIES for cheat in family()]


def main() -> int:
    """Judge and print; 1 if any is called `same` silently."""
    text = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [one for one in all_cheats() if text in one.name or text in one.family]
    found: Counter[str] = Counter()
    missed = []
    for cheat in chosen:
        clock = time.perf_counter()
        try:
            verdict, words = judge(cheat)
        except EquivError as error:
            verdict, words = "error", str(error)
        caught = is_caught(cheat, verdict, words)
        found["limit said" if caught and verdict == "same" else verdict if caught else "missed"] += 1
        missed += [] if caught else [cheat.name]
        seconds, sign = time.perf_counter() - clock, "ok" if caught else "WRONG"
        print(f"{sign:5} {verdict:12} {seconds:4.1f} s  {cheat.family}: {cheat.name}", flush=True)
        if not caught:
            print(f"      {words[:600]}")
    print(f"{len(chosen)} cheats: {', '.join(f'{count} {what}' for what, count in found.most_common())}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
