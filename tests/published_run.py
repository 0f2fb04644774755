"""Judge equiv on published models and their ports: `python tests/published_run.py [NAME ...]`.

Every pair of `tests/published/` is compared without a layer table, in a process of its own. The score table says
whether the ports were traced, whether the inferred table covers them and agrees with the map written by hand, whether
the verdict is right, whether both models, run by themselves under the map written by hand, confirm which verdict is
right, and CPU time over that of compiling both. It is written to `reports/published/` after every pair. Exit code 0:
everything is right.
"""

import argparse
import json
import resource
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from published_judge import Score, ask, judge
from published_pair import load_pair, pair_names

RESULTS = Path(__file__).parents[1] / "reports" / "published"

WAITS = 10
"""Wall time over CPU time that a pair may take: the machine may be busy, but one that waits for ever ends."""


def judge_alone(name: str) -> Score:
    """Judge one pair in a process of its own."""
    pair = load_pair(name)
    if missing := pair.missing_packages():
        return Score(name, pair.verdict, why=(f"not installed here: {', '.join(missing)}",))
    command = [sys.executable, __file__, "--alone", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAITS * pair.seconds)
    except subprocess.TimeoutExpired:
        return Score(name, pair.verdict, why=(f"no answer in {WAITS * pair.seconds:.0f} s",))
    if done.returncode == -signal.SIGXCPU:
        return Score(name, pair.verdict, why=(f"no answer in {pair.seconds:.0f} s of CPU time",))
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Score(name, pair.verdict, why=(f"exit code {done.returncode}: {last}",))
    found = json.loads(done.stdout.splitlines()[-1])
    return Score(**found | {"why": tuple(found["why"])})


def markdown(scores: list[Score]) -> str:
    """The score table."""
    heads = ("pair", "right", "verdict", "traced", "mapped", "map right", "verdict right", "by hand", "CPU s ÷ compile")
    lines = ["# Published models and their ports", "", f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for score in scores:
        held = (score.traced, score.mapped, score.map_right, score.verdict == score.expected, score.hand_right)
        cells = [score.name, score.expected, score.verdict or "none", *("yes" if one else "**no**" for one in held)]
        lines.append(f"| {' | '.join([*cells, ratio(score)])} |")
    count = len(scores)
    right = sum(score.right for score in scores)
    opposite = sum(score.wrong_verdict for score in scores)
    lines += ["", f"{right} of {count} right, {opposite} with the opposite verdict.", ""]
    lines += [f"- {score.name}: {' '.join(text.split())}" for score in scores if not score.right for text in score.why]
    return "\n".join([*lines, ""])


def ratio(score: Score) -> str:
    """CPU seconds, and how many times those of compiling both ports they are."""
    if score.seconds is None:
        return "-"
    if not score.compile_seconds:
        return f"{score.seconds:.0f}"
    return f"{score.seconds:.0f} ÷ {score.compile_seconds:.0f} = {score.seconds / score.compile_seconds:.1f}"


def main() -> None:
    """Judge pairs, and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of pairs; default: all")
    parser.add_argument("--needs", action="store_true", help="only print the packages that the pairs need")
    parser.add_argument("--alone", metavar="NAME", help="judge one pair in this process, and print its score as JSON")
    given = parser.parse_args()
    if given.alone:
        pair = load_pair(given.alone)
        resource.setrlimit(resource.RLIMIT_CPU, (pair.seconds, pair.seconds + 10))
        print("\n" + json.dumps(asdict(judge(given.alone, pair, ask(pair)))))
        return
    if unknown := sorted(set(given.names) - set(pair_names())):
        parser.error(f"no pair {unknown[0]!r} in tests/published/. There are {', '.join(pair_names())}.")
    names = given.names or pair_names()
    if given.needs:
        print("\n".join(sorted({text for name in names for text in load_pair(name).needs})))
        return
    scores: list[Score] = []
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in names:
        scores.append(judge_alone(name))
        print("\n".join(markdown(scores[-1:]).splitlines()[4:5] + list(scores[-1].why)), flush=True)
        (RESULTS / "results.json").write_text(json.dumps([asdict(score) for score in scores], indent=1) + "\n")
        (RESULTS / "README.md").write_text(markdown(scores))
    print(markdown(scores).split("\n\n")[2])
    sys.exit(not all(score.right for score in scores))


if __name__ == "__main__":
    main()
