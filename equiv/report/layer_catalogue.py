"""The layer catalogue as a table: each layer in every library, its layout, and the results of `cases/layers`."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from equiv.core.headline import verdict_words
from equiv.core.layer_catalogue import LAYER_PAIRS, LayerPair
from equiv.core.results import CaseResult
from equiv.report.cells import NOT_APPLICABLE, VERDICT_SIGNS, check_cell

CATALOGUE_CHECKS = ("outputs", "gradients", "state", "train")
"""The checks that get a column."""

CATALOGUE_HEADERS = ("layer", "haiku", "candidate", "layout", *CATALOGUE_CHECKS, "verdict")


def catalogue_rows(cases: Sequence[CaseResult]) -> list[list[str]]:
    """Return one row per layer and candidate found in the cases, under `CATALOGUE_HEADERS`, in the catalogue's order.

    Where a library has no such layer, the row says why and which replacement was compared.
    """
    shown = {case.name: case for case in cases if PurePosixPath(case.path).parent.name == "layers"}
    return [
        _catalogue_row(pair, shown[pair.case], candidate)
        for pair in LAYER_PAIRS
        if pair.case in shown
        for candidate in shown[pair.case].candidates
    ]


def _catalogue_row(pair: LayerPair, case: CaseResult, candidate: str) -> list[str]:
    written = {"linen": pair.linen, "nnx": pair.nnx}.get(candidate, "")
    said = f"{candidate}: {written or f'none: {pair.reason}. Works: {pair.works}'}"
    found = [check_cell(case, candidate, check, ratio=False)[0] for check in CATALOGUE_CHECKS]
    verdict = f"{VERDICT_SIGNS[case.verdicts[candidate]]} {verdict_words(case, candidate)}"
    return [pair.name, pair.haiku, said, pair.layout or NOT_APPLICABLE, *found, verdict]
