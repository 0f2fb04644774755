"""Where and why, scored: faults of porters in five models, located and explained: `tests/locate_run.py [NAME ..]`.

Each fault of `locate/` is planted in one builder of a model; both programs are run in float64 on the probes of a run,
operation by operation, as a refuted run does. Nothing is compiled, so the verdict itself is not what is scored. Judged
is what a user is shown: the layer and the lines that are named first, whether one of the first three tried causes is
right, and whether the one that is named first is wrong. Of two faults at once: whether both layers and both causes are
named. Held-out faults are run with `--held` alone, and counted by themselves. Exit code 0: every fault is located, and
no tried cause is wrong.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from helpers import case_from
from locate.faults import IMAGES, OPTIMIZER, RESIDUAL, WORDS, FaultPair, SourceFault
from locate.faults_of_blocks import BLOCKS, HIDDEN
from locate.pairs import PAIRS
from locate.planting import plant_faults, right_lines

from equiv.comparison.explain.divergence import add_divergences
from equiv.comparison.explain.inputs import program_inputs
from equiv.comparison.numeric.probe_set import make_probes
from equiv.comparison.stages import check_structure, open_case, trace_ports
from equiv.compat import enable_x64
from equiv.core.divergence import Divergence
from equiv.core.first_difference import OPTIMIZER as THE_OPTIMIZER
from equiv.core.output_name import BEGIN, STEP, TRAINING, OutputName
from equiv.core.results import CheckResult, Finding
from equiv.programs.eager import evaluate_eagerly
from equiv.programs.probes import Probe
from equiv.programs.traced_port import TracedPort, trace_program_float64
from equiv.report.findings.divergences import describe_divergences

SHOWN = 3
"""Causes that are judged."""

CLEAR = 1e-10
"""A relative difference in float64 above which an output counts as refuted."""


@dataclass(frozen=True)
class Score:
    """How a fault, or two at once, were located and explained.

    Attributes:
        name: of the fault.
        held_out: whether it was held out.
        located: whether anything was.
        layer: whether the first place is in a right layer; of two faults: whether both are named.
        line: whether the candidate's line there is the faulty one.
        twin: whether the reference's line there is its counterpart.
        cause: whether one of the first causes that were tried is right; of two faults: one for each.
        wrong: tried causes named first that are not.
        beside: those named as others that explain it and are not right.
        seconds: of processor time that it took.
        shown: what the user reads.
    """

    name: str
    held_out: bool
    located: bool = False
    layer: bool = False
    line: bool = False
    twin: bool = False
    cause: bool = False
    wrong: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    seconds: float = 0.0
    shown: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """One row of the table."""
        marks = [("layer", self.layer), ("line", self.line), ("twin", self.twin), ("cause", self.cause)]
        said = " ".join(f"{'+' if right else '-'}{word}" for word, right in marks)
        held = " (held out)" if self.held_out else ""
        counts = f"wrong {len(self.wrong)} beside {len(self.beside)}"
        return f"{self.name:44} {said}  {counts} {self.seconds:6.1f} s{held}"


def find_divergences_of(source: str, model: str, port: str) -> tuple[tuple[Divergence, ...], float, tuple[str, ...]]:
    """The divergences of a source, the seconds that they took, and what the user reads."""
    state = trace_ports(check_structure(open_case(case_from(source, model))))
    left = next(traced for name, traced in state.traced.items() if name != port)
    right = state.traced[port]
    probes = make_probes(state.built_case, left.table)
    checks = make_checks(left, right, probes[0], state.built_case.case.steps)
    clock = time.process_time()
    found = add_divergences(checks, left, right, probes, state.built_case.case.steps)
    spent = time.process_time() - clock
    finding = next((one for check in found for one in check.findings if one.divergences), None)
    if finding is None:
        return (), spent, tuple(remark for check in found for remark in check.remarks)
    return finding.divergences, spent, tuple(describe_divergences(finding))


def make_checks(left: TracedPort, right: TracedPort, probe: Probe, steps: int) -> list[CheckResult]:
    """Checks with everything refuted that differs in a float64 run on one probe."""
    findings = [
        Finding(str(name), "refuted", 1.0, 0.1, 10.0, output=name)
        for name in differing_outputs(left, right, probe, steps)
    ]
    checks: dict[str, list[Finding]] = {}
    for one in findings:
        if one.output is not None:
            checks.setdefault(one.output.check, []).append(one)
    return [CheckResult(name, right.port.name, "refuted", "", tuple(some)) for name, some in checks.items()]


def differing_outputs(left: TracedPort, right: TracedPort, probe: Probe, steps: int) -> Iterator[OutputName]:
    """Yield the outputs of both ports that differ in float64."""
    names = [part.name for part in left.programs.parts]
    names += [STEP] if left.programs.step is not None and right.programs.step is not None else []
    with enable_x64(True):
        for name in names:
            pair = trace_program_float64(left, name), trace_program_float64(right, name)
            given = program_inputs(pair, (left, right), probe, steps)
            ours, theirs = (
                dict(zip(program.outputs, _run(program, inputs), strict=True))
                for program, inputs in zip(pair, given, strict=True)
            )
            for output in ours:
                if output in theirs and _differ(ours[output], theirs[output]):
                    yield output.of(TRAINING) if name in (STEP, BEGIN) else output


def _run(program, inputs):
    return evaluate_eagerly(program.jaxpr, [inputs[name] for name in program.inputs])


def _differ(one: np.ndarray, other: np.ndarray) -> bool:
    if not isinstance(one, np.ndarray) or one.shape != other.shape or one.dtype.kind != "f" or not one.size:
        return False
    return bool(np.max(np.abs(one - other)) > CLEAR * (np.max(np.abs(one)) + 1e-6))


def score(faults: tuple[SourceFault, ...], name: str, held_out: bool) -> Score:
    """Locate and judge one fault, or several at once."""
    source = plant_faults(faults[0].model, faults)
    found, seconds, shown = find_divergences_of(source, faults[0].model, faults[0].port)
    if not found:
        return Score(name, held_out, seconds=seconds, shown=shown)
    firsts = [one.causes[0].text for one in found if one.causes]
    others = [cause.text for one in found for cause in one.causes[1:]]
    known = [text for one in found for text in [cause.text for cause in one.causes][:SHOWN]]
    first = found[: len(faults)]
    return Score(
        name,
        held_out,
        True,
        all(any(_has_layer(one, fault) for one in (first if len(faults) == 1 else found)) for fault in faults),
        all(any(_has_line(one, source, fault, False) for one in first) for fault in faults),
        all(any(_has_line(one, source, fault, True) for one in first) for fault in faults),
        all(fault.cause and any(re.search(fault.cause, text) for text in known) for fault in faults),
        tuple(text for text in firsts if not _is_right(text, faults)),
        tuple(text for text in others if not _is_right(text, faults)),
        seconds,
        shown,
    )


def _is_right(text: str, faults: Sequence[SourceFault]) -> bool:
    return any(fault.cause and re.search(fault.cause, text) for fault in faults)


def _has_layer(one: Divergence, fault: SourceFault) -> bool:
    layers = {site.layer for site in one.sites}
    if OPTIMIZER in fault.layers and one.program == STEP and layers == {THE_OPTIMIZER}:
        return True
    return not layers.isdisjoint(fault.layers)


def _has_line(one: Divergence, source: str, fault: SourceFault, ours: bool) -> bool:
    lines = {site.user_line.line for site in one.sites if site.user_line and (site.port != fault.port) == ours}
    return not lines.isdisjoint(right_lines(source, fault, ours))


def summarise(scores: Sequence[Score], title: str) -> str:
    """The counts of some faults in one line."""
    total = len(scores)
    words = {"located": "located", "layer": "layer", "line": "line", "twin": "reference's line", "cause": "right cause"}
    counts = ", ".join(f"{word} {sum(getattr(one, name) for one in scores)}/{total}" for name, word in words.items())
    wrong, beside = (sum(bool(getattr(one, name)) for one in scores) for name in ("wrong", "beside"))
    return f"{title}: {counts}, a wrong cause first {wrong}/{total}, a wrong one beside {beside}/{total}"


def main() -> int:
    """Score the faults whose name contains one of the arguments; all without any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of names of faults")
    parser.add_argument("--only", choices=("single", "pairs"), help="one fault at once, or two")
    parser.add_argument("--held", action="store_true", help="the held-out ones, and no others")
    parser.add_argument("--show", action="store_true", help="print what the user reads, too")
    parser.add_argument("--resume", type=Path, help="a file of scores that are known; new ones are added to it")
    given = parser.parse_args()
    known = _read_known(given.resume)
    scores: dict[str, list[Score]] = {"single": [], "pairs": []}
    for kind, faults, name, held_out in _all_faults():
        chosen = not given.names or any(part in name for part in given.names)
        if not chosen or held_out != given.held or given.only not in (None, kind):
            continue
        one = known.get(name) or score(faults, name, held_out)
        if given.resume and name not in known:
            with given.resume.open("a") as file:
                file.write(json.dumps(asdict(one)) + "\n")
        scores[kind].append(one)
        print(one.text, *(f"\n    {line}" for line in one.shown if given.show), sep="", flush=True)
    for kind, some in scores.items():
        if some:
            print(summarise(some, f"{'held out' if given.held else 'tuned on'}, {kind}"))
    return 0 if all(one.located and not one.wrong for some in scores.values() for one in some) else 1


def _all_faults() -> Iterator[tuple[str, tuple[SourceFault, ...], str, bool]]:
    singles = (*BLOCKS, *HIDDEN, *RESIDUAL, *IMAGES, *WORDS)
    yield from (("single", (one,), one.name, one.held_out) for one in singles)
    by_name = {one.name: one for one in singles}
    pairs = (FaultPair(tuple(by_name[name] for name in names), held) for names, held in PAIRS)
    yield from (("pairs", pair.faults, pair.name, pair.held_out) for pair in pairs)


def _read_known(path: Path | None) -> dict[str, Score]:
    if path is None or not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["name"]: Score(**row) for row in rows}


if __name__ == "__main__":
    sys.exit(main())
