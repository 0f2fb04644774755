"""Every mixture of two libraries in a model of six layers: `python tests/mixtures_run.py [NUMBER ..] [--host HOST]`.

Each of the 64 mixtures in NNX (Linen's layers in `bridge.ToNNX`) and in Linen (NNX's layers in `bridge.to_linen`) is
compared with the pure model in Linen, without a layer table, as `equiv check` does: 128 comparisons, all `same`. A
sample of them is compared with one planted fault, too, in a layer of either library: all `different`. Several are in a
process, which is what a pytest session does. The table goes to `reports/mixtures/` after every comparison; what it has
already is left out with `--resume`. Exit code 0: every verdict is right.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from mixture_models import BATCH, FAULTS, HOSTS, LAYERS, MIXTURES, builder_of, layers_of

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "reports" / "mixtures"

TOGETHER = 16
"""Number of comparisons in a process."""

SAMPLE = 5
"""Every fifth mixture has a fault: the faults take turns, and so does whether the faulty layer is wrapped."""


@dataclass(frozen=True)
class Comparison:
    """One mixture, with a fault of `FAULTS` or without (empty)."""

    host: str
    number: int
    fault: str = ""

    @property
    def wanted(self) -> str:
        return "different" if self.fault else "same"

    @property
    def text(self) -> str:
        return f"{self.host} {self.number:2} [{', '.join(layers_of(self.number)) or 'none'}] {self.fault}".rstrip()


@dataclass(frozen=True)
class Answer:
    """What was found: verdict, headline, check to grade, and processor seconds."""

    verdict: str
    headline: str
    grades: dict[str, str]
    seconds: float


Found = dict[Comparison, Answer]


def every(hosts: list[str], numbers: list[int], with_faults: bool) -> Iterator[Comparison]:
    """Yield all comparisons, mixture by mixture."""
    faults = list(FAULTS)
    for number in dict.fromkeys(numbers):
        for host in hosts:
            yield Comparison(host, number)
            if with_faults and number % SAMPLE == HOSTS.index(host):
                yield Comparison(host, number, faults[number // SAMPLE % len(faults)])


def compare(one: Comparison) -> Answer:
    """Compare a mixture with the pure model in this process."""
    import equiv

    began = time.process_time()
    run = equiv.compare(builder_of("linen", 0), builder_of(one.host, one.number, one.fault), batch=BATCH)
    grades = {check.check: str(check.grade) for check in run.cases[0].checks}
    return Answer(str(run.verdict), run.headline, grades, round(time.process_time() - began, 1))


def compare_all(wanted: list[Comparison]) -> Iterator[tuple[Comparison, Answer]]:
    """Yield what processes of `TOGETHER` comparisons find; what ends a process is the answer of what it was at."""
    rest = list(wanted)
    while rest:
        command = [sys.executable, __file__, "--alone", json.dumps([asdict(one) for one in rest[:TOGETHER]])]
        said, count = [""], 0
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
            assert process.stdout is not None, "it is a pipe"
            for line in process.stdout:
                if line.startswith("{"):
                    yield rest[count], Answer(**json.loads(line))
                    count += 1
                elif line.strip():
                    said.append(line.strip())
        if process.returncode:
            yield rest[count], Answer("error", said[-1] or f"exit code {process.returncode}", {}, 0.0)
            count += 1
        rest = rest[count:]


def markdown(found: Found) -> str:
    """The table of all mixtures, and that of the planted faults."""
    heads = ["mixture", *LAYERS, *(f"in {host}" for host in HOSTS)]
    lines = ["# Mixtures of Linen and NNX", "", "An x is a layer of the other library.", ""]
    lines += [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for number in sorted({one.number for one in found if not one.fault}):
        wrapped = ["x" if name in layers_of(number) else "" for name in LAYERS]
        verdicts = [answer_text(found.get(Comparison(host, number))) for host in HOSTS]
        lines.append(f"| {' | '.join([str(number), *wrapped, *verdicts])} |")
    lines += ["", "| mixture | planted fault | its layer | verdict |", "| --- | --- | --- | --- |"]
    for one, answer in found.items():
        if one.fault:
            kind = "the other library's" if FAULTS[one.fault][0] in layers_of(one.number) else f"{one.host}'s own"
            lines.append(f"| {one.number} in {one.host} | {one.fault} | {kind} | {answer_text(answer)} |")
    right = [one for one, answer in found.items() if answer.verdict == one.wanted]
    plain = [one for one in right if not one.fault]
    lines += ["", f"{len(plain)} of {sum(not one.fault for one in found)} mixtures are same, "]
    lines[-1] += f"{len(right) - len(plain)} of {sum(bool(one.fault) for one in found)} planted faults are found."
    wrong = [f"- {one.text}: {answer.headline}" for one, answer in found.items() if answer.verdict != one.wanted]
    return "\n".join([*lines, *(["", *wrong] if wrong else []), ""])


def answer_text(answer: Answer | None) -> str:
    """A verdict, what is proved of it, and processor seconds."""
    if answer is None:
        return "-"
    proved = sum(grade.startswith("proved") for grade in answer.grades.values())
    return f"{answer.verdict}, {proved} proved, {answer.seconds:.0f} s"


def read_found() -> Found:
    """What the table has already."""
    path = RESULTS / "results.json"
    rows = json.loads(path.read_text()) if path.is_file() else []
    return {Comparison(**row["comparison"]): Answer(**row["answer"]) for row in rows}


def write_found(found: Found) -> None:
    """Write the table, and what it is made of."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    rows = [{"comparison": asdict(one), "answer": asdict(answer)} for one, answer in found.items()]
    (RESULTS / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    (RESULTS / "README.md").write_text(markdown(found))


def main() -> None:
    """Compare every mixture, and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", type=int, metavar="NUMBER", help="of mixtures, 0 to 63; default: all")
    parser.add_argument("--host", choices=HOSTS, help="library of the model around the layers; default: both")
    parser.add_argument("--no-faults", action="store_true", help="only what is the same")
    parser.add_argument("--resume", action="store_true", help="leave out what the table has with the right verdict")
    parser.add_argument("--alone", help="comparisons for this process, as JSON")
    given = parser.parse_args()
    if given.alone:
        for one in json.loads(given.alone):
            print("\n" + json.dumps(asdict(compare(Comparison(**one)))), flush=True)
        return
    found = (
        {one: answer for one, answer in read_found().items() if answer.verdict == one.wanted} if given.resume else {}
    )
    hosts, numbers = [given.host] if given.host else list(HOSTS), given.numbers or list(range(MIXTURES))
    wanted = every(hosts, numbers, not given.no_faults)
    for one, answer in compare_all([one for one in wanted if one not in found]):
        found[one] = answer
        print(f"{one.text}: {answer_text(answer)}", "" if answer.verdict == one.wanted else answer.headline, flush=True)
        write_found(found)
    print(markdown(found).strip().splitlines()[-1])
    sys.exit(any(answer.verdict != one.wanted for one, answer in found.items()))


if __name__ == "__main__":
    main()
