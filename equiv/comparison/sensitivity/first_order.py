"""What a change of a leaf does to first order, from the gradients that were computed anyway: no run is needed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from equiv.comparison.sensitivity.trial_runs import NOTHING, BaseRun, Shown
from equiv.core.output_name import OutputName, leaf_input
from equiv.programs.probes import widen_array
from equiv.programs.program import Programs

SAFE_MARGIN = 4
"""How many budgets a change of a loss must be for its first order to be believed.

The change is one by the size of the leaf itself, along the gradient or against it. A quarter of it is over the budget
already, unless the slope is gone within that quarter in both directions: where a function saturates in one direction,
it changes the more in the other.
"""


@dataclass(frozen=True)
class LeafSlopes:
    """What the gradients of a leaf say.

    Attributes:
        shown: the loss that shows a change of the leaf best, to first order.
        has_gradient: whether some program returns the gradient of the leaf.
        is_zero: whether every gradient of it is zero, or what rounding leaves of a zero.
        is_exactly_zero: whether every element of every gradient of it is the number 0.
    """

    shown: Shown = NOTHING
    has_gradient: bool = False
    is_zero: bool = False
    is_exactly_zero: bool = False

    @property
    def is_zero_in_theory(self) -> bool:
        """Whether its gradient is a sum that cancels: it is zero but for rounding, on other batches too."""
        return self.is_zero and not self.is_exactly_zero

    @property
    def suffices(self) -> bool:
        """Whether the first order alone says that a change of the leaf is noticed."""
        return self.shown.ratio >= SAFE_MARGIN


def measure_slopes(bases: Iterable[BaseRun], leaves: Iterable[str]) -> dict[str, LeafSlopes]:
    """Read from gradients whether each leaf matters; the more precise run decides where there are two.

    Args:
        bases: the reference on one probe, the more precise run last.
        leaves: canonical names.
    """
    known = [(base, _gradients_by_leaf(base)) for base in bases]
    return {
        leaf: _leaf_slopes([(base, named[leaf]) for base, named in known if leaf in named], leaf) for leaf in leaves
    }


def _leaf_slopes(gradients: Iterable[tuple[BaseRun, Sequence[OutputName]]], leaf: str) -> LeafSlopes:
    best = LeafSlopes()
    for base, found in gradients:
        shown = max((_loss_change(base, name, leaf) for name in found), key=lambda one: one.ratio)
        largest = {name: np.max(np.abs(widen_array(base.array(name))), initial=0.0) for name in found}
        best = LeafSlopes(
            max(best.shown, shown, key=lambda one: one.ratio),
            has_gradient=True,
            is_zero=all(largest[name] <= base.zero_level(name) for name in found),
            is_exactly_zero=not any(largest.values()),
        )
    return best


def _gradients_by_leaf(base: BaseRun) -> dict[str, list[OutputName]]:
    """Each leaf to the names of its gradients, in one pass over all outputs."""
    found: dict[str, list[OutputName]] = {}
    for name in base.outputs:
        if name.kind == "gradient":
            found.setdefault(name.leaf, []).append(name)
    return found


def _loss_change(base: BaseRun, name: OutputName, leaf: str) -> Shown:
    """How far the loss changes to first order if each element of the leaf changes by its own size, over its budget.

    What rounding explains of a gradient counts as nothing.
    """
    loss = OutputName(name.program, "loss")
    if loss not in base.outputs:
        return NOTHING
    gradient, values = (widen_array(array) for array in (base.array(name), base.probe.variables[leaf]))
    sure = np.maximum(np.abs(gradient) - base.budgets(name), 0.0)
    change, budget = float(np.sum(sure * np.abs(values))), float(base.budgets(loss))
    if not np.isfinite(change) or not budget > 0:
        return NOTHING
    return Shown(str(loss), change / budget)


def returned_leaves(programs: Programs) -> dict[str, OutputName]:
    """Map each leaf that a call returns as it was given to that output, which shows every change of it."""
    found: dict[str, OutputName] = {}
    for part in programs.parts:
        given = dict(zip(part.inputs, part.jaxpr.jaxpr.invars, strict=True))
        for name, value in zip(part.outputs, part.jaxpr.jaxpr.outvars, strict=True):
            if name.kind == "state" and given.get(leaf_input(name.leaf)) is value:
                found.setdefault(name.leaf, name)
    return found
