"""Where and why, scored: faults of porters in two models, located and explained: `tests/locate_run.py [NAME ..]`.

Each fault of `locate_models.py` is planted in the NNX builder; both programs are run in float64 on the probes of a run,
operation by operation, as a refuted run does. Nothing is compiled, so the verdict itself is not what is scored. Judged
is what a user is shown: the layer and the line that are named first, whether one of the first three tried causes is
right, and whether one is wrong. Faults of the held-out set are counted by themselves. Exit code 0: every fault is
located, and no tried cause is wrong.
"""

import argparse
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from helpers import case_from
from locate_models import FAULTS, SourceFault, faulty_source

from equiv.comparison.explain.divergence import add_divergences
from equiv.comparison.numeric.probe_set import make_probes
from equiv.comparison.stages import check_structure, open_case, trace_ports
from equiv.core.divergence import Divergence
from equiv.core.first_difference import SourceLine
from equiv.core.results import CheckResult, Finding
from equiv.report.findings.divergences import describe_divergences

SHOWN = 3
"""Causes that are judged."""


@dataclass(frozen=True)
class Score:
    """How one fault was located and explained.

    Attributes:
        fault: which one.
        located: whether anything was.
        layer: whether the first place is in a right layer.
        line: whether the candidate's line there is the faulty one.
        cause: whether one of the first causes that were tried is right.
        wrong: tried causes that are not.
        seconds: that it took.
        shown: what the user reads.
    """

    fault: SourceFault
    located: bool
    layer: bool
    line: bool
    cause: bool
    wrong: tuple[str, ...]
    seconds: float
    shown: tuple[str, ...]

    @property
    def text(self) -> str:
        """One row of the table."""
        marks = [("layer", self.layer), ("line", self.line), ("cause", self.cause)]
        said = " ".join(f"{'+' if right else '-'}{word}" for word, right in marks)
        held = " (held out)" if self.fault.held_out else ""
        return f"{self.fault.model:9} {self.fault.name:22} {said}  wrong {len(self.wrong)} {self.seconds:6.1f} s{held}"


def find_first(fault: SourceFault) -> tuple[Finding | None, float]:
    """The finding with the divergences of a fault, and the seconds that these took."""
    state = trace_ports(check_structure(open_case(case_from(faulty_source(fault), fault.model))))
    left, right = (state.traced[name] for name in ("haiku", "nnx"))
    probes = make_probes(state.built_case, left.table)
    program = min(left.programs.parts, key=lambda part: part.name.complexity)
    findings = tuple(
        Finding(str(name), "refuted", 1.0, 0.1, 10.0, output=name) for name in program.outputs if name.kind == "output"
    )
    clock = time.perf_counter()
    (check,) = add_divergences([CheckResult("outputs", "nnx", "refuted", "", findings)], left, right, probes, 1)
    spent = time.perf_counter() - clock
    return next((one for one in check.findings if one.divergences), None), spent


def score(fault: SourceFault) -> Score:
    """Locate and judge one fault."""
    finding, seconds = find_first(fault)
    if finding is None:
        return Score(fault, False, False, False, False, (), seconds, ())
    causes = [cause.text for one in finding.divergences for cause in one.causes][:SHOWN]
    right = [text for text in causes if re.search(fault.cause, text)]
    wrong = tuple(text for text in causes if text not in right)
    first = finding.divergences[0]
    layers = {site.layer for site in first.sites}
    return Score(
        fault,
        True,
        not layers.isdisjoint(fault.layers),
        _line_of(first) in _faulty_lines(fault),
        bool(right),
        wrong,
        seconds,
        tuple(describe_divergences(finding)),
    )


def _line_of(one: Divergence) -> int:
    lines: list[SourceLine] = [site.user_line for site in one.sites if site.port == "nnx" and site.user_line]
    return lines[-1].line if lines else 0


def _faulty_lines(fault: SourceFault) -> set[int]:
    """The numbers of the lines that differ from those of the model without the fault."""
    source = faulty_source(fault)
    wanted = [line.strip() for line in (fault.line or fault.new).splitlines()]
    start = source.index("class Faulty") if fault.old not in source.partition("class Faulty")[2] else 0
    return {
        source[:start].count("\n") + number
        for number, line in enumerate(source[start:].splitlines(), 1)
        if any(one in line for one in wanted)
    }


def summarise(scores: list[Score], title: str) -> str:
    """The counts of some faults in one line."""
    total = len(scores)
    counts = ", ".join(
        f"{word} {sum(getattr(one, name) for one in scores)}/{total}"
        for word, name in (("located", "located"), ("layer first", "layer"), ("line", "line"), ("right cause", "cause"))
    )
    return f"{title}: {counts}, with a wrong cause {sum(bool(one.wrong) for one in scores)}/{total}"


def main() -> int:
    """Score the faults whose name contains one of the arguments; all without any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of names of faults")
    parser.add_argument("--show", action="store_true", help="print what the user reads, too")
    given = parser.parse_args()
    scores = []
    for fault in FAULTS:
        if given.names and not any(name in f"{fault.model} {fault.name}" for name in given.names):
            continue
        scores.append(score(fault))
        print(scores[-1].text, *(f"\n    {line}" for line in scores[-1].shown if given.show), sep="", flush=True)
    for held, title in ((False, "tuned on"), (True, "held out")):
        if some := [one for one in scores if one.fault.held_out == held]:
            print(summarise(some, title))
    return 0 if all(one.located and not one.wrong for one in scores) else 1


if __name__ == "__main__":
    sys.exit(main())
