"""Where a refuted candidate parts from the reference by its values, and the causes that were tried there."""

from dataclasses import dataclass

from equiv.core.first_difference import FirstDifference
from equiv.core.output_name import ProgramName


@dataclass(frozen=True)
class TriedCause:
    """A change of the candidate's program that was made and judged.

    Attributes:
        text: the change: `epsilon 1e-05 in place of 1e-06`.
        left: the part of the error that it leaves, of what the changes before it left; 0 where all outputs of the
            program are within their budgets.
        within: whether they are.
    """

    text: str
    left: float
    within: bool


@dataclass(frozen=True)
class Divergence:
    """Operations whose operands both programs compute and whose results they do not, with a difference that stays.

    Attributes:
        program: in which program.
        sites: the operation of the reference, then that of the candidate; one of them where the other has no
            counterpart.
        causes: those that were tried and explain it, the best first; none: no change that was tried does.
        equal: number of the reference's values before it that the candidate computes too.
        reference: the reference's value at the worst element of the result; empty where the two have no such element.
        candidate: the candidate's value there.
        left: the part of the error that is left where the candidate's result is replaced by the reference's; None:
            that was not tried.
    """

    program: ProgramName
    sites: tuple[FirstDifference, ...]
    causes: tuple[TriedCause, ...] = ()
    equal: int = 0
    reference: str = ""
    candidate: str = ""
    left: float | None = None
