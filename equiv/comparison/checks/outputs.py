"""Does every public method give the same outputs, in every mode?"""

from dataclasses import replace

import numpy as np

from equiv.comparison.checks.coverage import CheckAnswer, compare_all
from equiv.comparison.numeric.held_outputs import output_dtype
from equiv.comparison.observation import Comparison
from equiv.core.output_name import OutputName, ProgramName
from equiv.core.results import Finding

HIDDEN = (
    "equal whole numbers on every probe: they hide small differences of what decides them, nothing else is returned, "
    "and there is no proof"
)


def check(comparison: Comparison) -> CheckAnswer | None:
    """Compare the outputs of every method and mode."""
    answer = compare_all(comparison, "outputs")
    if answer is None:
        return None
    return replace(answer, findings=tuple(_judge_whole_numbers(comparison, one) for one in answer.findings))


def _judge_whole_numbers(comparison: Comparison, finding: Finding) -> Finding:
    """Whole numbers that agree say little where the call returns nothing else."""
    output = finding.output
    if finding.grade != "exact" or output is None or _returns_floats(comparison, output.program):
        return finding
    return replace(finding, grade="unidentifiable", note=HIDDEN)


def _returns_floats(comparison: Comparison, program: ProgramName) -> bool:
    def is_whole(output: OutputName, dtype: np.dtype | None) -> bool:
        return output.program != program or output.kind != "output" or dtype is None or dtype.kind in "iub"

    samples = comparison.reference.samples.values()
    return not all(is_whole(name, output_dtype(one.native, name)) for one in samples for name in one.native)
