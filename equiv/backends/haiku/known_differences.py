"""Known differences between the libraries, ready for use in a case."""

from collections.abc import Mapping
from typing import Any

from equiv.core.case import KnownDifference


def zero_debias(layer: str, decay: float) -> tuple[KnownDifference, ...]:
    """Known differences of the running averages of one batch norm layer between Haiku and Flax.

    dm-haiku 0.0.17, `haiku/_src/moving_averages.py`: `hidden` starts at 0 and `average` is
    `hidden / (1 - decay**counter)`. flax 0.12.8, `normalization.py`: `mean` starts at 0, `var` at 1, neither debiased.

    Args:
        layer: canonical path of the batch norm layer.
        decay: its `decay_rate` (Haiku) or `momentum` (Flax).
    """

    def difference(name: str, initial: float) -> KnownDifference:
        leaf = f"{layer}/{name}"
        return KnownDifference(
            backend="haiku",
            leaf=leaf,
            formula=f"flax {name} = haiku hidden{f' + {decay:g}**steps' if initial else ''}; "
            f"haiku average = hidden / (1 - {decay:g}**counter)",
            expected=lambda leaves, steps: leaves[f"{leaf}.hidden"] + initial * decay**steps,
            own=lambda leaves, steps: leaves[f"{leaf}.hidden"] / (1 - decay ** _broadcast_counter(leaves, leaf)),
            reason="hk.BatchNorm averages with zero debiasing, Flax without (hk.ExponentialMovingAverage)",
        )

    return difference("mean", 0.0), difference("var", 1.0)


def _broadcast_counter(leaves: Mapping[str, Any], leaf: str) -> Any:
    """The counter, broadcastable to the average that it belongs to; stacked layers have one counter each."""
    hidden, counter = leaves[f"{leaf}.hidden"], leaves[f"{leaf}.counter"]
    return counter.reshape(counter.shape + (1,) * (hidden.ndim - counter.ndim))
