"""The layer catalogue: each layer in every library, its layout, and what the cases under `cases/layers` found."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from equiv.core.headline import verdict_words
from equiv.core.layer_catalogue import LAYERS, LayerPair
from equiv.core.results import CaseResult
from equiv.report.cells import NOT_ASKED, VERDICT_SIGNS, cell

COLUMNS = ("outputs", "gradients", "state", "train")
"""The checks that have a column."""


HEADERS = ("layer", "haiku", "candidate", "layout", *COLUMNS, "verdict")


def catalogue(cases: Sequence[CaseResult]) -> list[list[str]]:
    """One row for each layer and candidate that the cases show, under `HEADERS`, in the catalogue's order.

    Where a library has no such layer, the row says why, and what works: that is what was compared.
    """
    shown = {case.name: case for case in cases if PurePosixPath(case.path).parent.name == "layers"}
    return [
        _row(pair, shown[pair.case], candidate)
        for pair in LAYERS
        if pair.case in shown
        for candidate in shown[pair.case].candidates
    ]


def _row(pair: LayerPair, case: CaseResult, candidate: str) -> list[str]:
    written = {"linen": pair.linen, "nnx": pair.nnx}.get(candidate, "")
    said = f"{candidate}: {written or f'none: {pair.reason}. Works: {pair.works}'}"
    found = [cell(case, candidate, check, ratio=False)[0] for check in COLUMNS]
    verdict = f"{VERDICT_SIGNS[case.verdicts[candidate]]} {verdict_words(case, candidate)}"
    return [pair.name, pair.haiku, said, pair.layout or NOT_ASKED, *found, verdict]
