"""Do the forward pass and the train step of each port compute what they mean when they are compiled as users do?"""

from collections.abc import Iterator
from dataclasses import replace

from equiv.comparison.checks.coverage import CheckAnswer
from equiv.comparison.observation import Blame, Comparison, UserRun
from equiv.core.output_name import STEP, TRAINING, ProgramName
from equiv.core.results import Finding, Miscompilation


def check(comparison: Comparison) -> CheckAnswer | None:
    """Compare what each port computes as its user runs it with what it means; None where nothing was run so."""
    findings = tuple(one for run in comparison.user_runs for one in _port_findings(run))
    return CheckAnswer(findings) if findings else None


def _port_findings(run: UserRun) -> Iterator[Finding]:
    if run.problem:
        yield Finding(f"{run.port}: as users run it", "error", note=run.problem)
        return
    for program, finding in run.worst.items():
        yield _judge(run.port, program, finding, run)


def _judge(port: str, program: ProgramName, finding: Finding, run: UserRun) -> Finding:
    """Name the port, and who is to blame, in a finding whose two sides are one port."""
    values = f"it means {finding.reference}, and computes {finding.candidate}"
    told = replace(finding, place=f"{port}: {finding.output}", reference="", candidate="", output=None)
    if finding.grade != "refuted":
        return replace(told, note="")
    blame = run.blame.get(STEP if program == TRAINING else program, Blame("unknown"))
    if blame.who == "unstable":
        # No budget holds beside a kink: its numbers are told, and are no ratio.
        note = f"its value depends on how it is rounded, whatever compiles it: {values}"
        return replace(told, grade="rounding", error=None, budget=None, ratio=None, note=note)
    at = f" at {list(finding.index)}" if finding.index else ""
    note = f"{_describe_blame(port, blame)}; {values}{at}"
    name = "train step" if program == TRAINING else str(program)
    wrong = Miscompilation(port, name, blame.compiler, blame.passes) if blame.who == "compiler" else None
    if wrong is not None and wrong.fix:
        note = f"{note}. {wrong.fix}"
    return replace(told, grade="error", note=note, miscompiled=wrong)


def _describe_blame(port: str, blame: Blame) -> str:
    if blame.who == "equiv":
        return (
            f"{port} is right as users run it; {blame.compiler} compiles it wrong in the executable that equiv compares"
        )
    if blame.who == "unknown":
        return f"{port} computes something else as users run it, and it is not known which run of it is right"
    where = "; no pass that can be left out is to blame"
    if blame.passes:
        where = f", in its pass{'es' if len(blame.passes) > 1 else ''} {', '.join(blame.passes)}"
    return f"the program is right, but {blame.compiler} compiles {port} wrong{where}"
