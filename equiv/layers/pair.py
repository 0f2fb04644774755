"""Noun of the catalogue: one layer in three libraries."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerPair:
    """One layer in three libraries, written with the arguments that make them equal.

    Attributes:
        name: of the layer.
        case: the case under `cases/layers` that shows it.
        haiku: how it is written there.
        linen: likewise; empty: there is none that is the same.
        nnx: likewise.
        layout: what each library keeps, where it is not one and the same array.
        reason: why a library has none.
        works: what to write there instead.
    """

    name: str
    case: str
    haiku: str
    linen: str
    nnx: str
    layout: str = "same arrays"
    reason: str = ""
    works: str = ""
