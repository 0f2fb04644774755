"""Shared by the tests of frozen references: bundles of cases, and ports compared with them."""

from functools import cache

from helpers import loaded

from equiv.comparison.frozen.bundle import FrozenReference, decode_bundle, encode_bundle
from equiv.comparison.frozen.freeze import freeze_reference
from equiv.comparison.pipeline import RunOptions, run_case
from equiv.core.case_files import LoadedCase
from equiv.core.results import CaseResult

NAMES = ("counter", "custom_linear", "mlp")


@cache
def bundle(name: str) -> FrozenReference:
    """The reference of a case, frozen and thawed once."""
    return decode_bundle(encode_bundle(freeze_reference(loaded(name))), name)


def compare_with_frozen(case: LoadedCase, frozen: FrozenReference) -> CaseResult:
    return run_case(case, options=RunOptions(against=frozen))


def grades(result: CaseResult) -> dict[tuple[str, str], str]:
    return {(check.candidate, check.check): check.grade for check in result.checks}
