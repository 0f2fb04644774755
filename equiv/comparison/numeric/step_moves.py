"""How far train steps move each parameter: seen as the steps are computed, so that no run is made for it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from equiv.comparison.numeric.held_outputs import HeldOutputs, Stream, hold_outputs
from equiv.comparison.observation import Outputs
from equiv.core.batch_spec import INEXACT_DTYPES
from equiv.core.leaves import LeafTable
from equiv.core.output_name import trained_leaf
from equiv.programs.exercise import Observed
from equiv.programs.probes import NamedArrays, Probe, widen_array


def moved_parameters(table: LeafTable, probe: Probe) -> NamedArrays:
    """The parameters whose moves count, by name: those of inexact numbers that are not all zero in the probe.

    Args:
        table: the leaf table of the port.
        probe: the probe.
    """
    given = ((leaf, probe.variables.get(leaf)) for leaf in table.names("params"))
    return {
        leaf: array for leaf, array in given if array is not None and str(array.dtype) in INEXACT_DTYPES and array.any()
    }


def relative_moves(before: np.ndarray, steps: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """How far each step moves a parameter, over its norm; infinite where that is not finite.

    Args:
        before: the parameter in the probe.
        steps: its value after each step, with the step on axis 0.

    Returns:
        Float64[steps].
    """
    first = _flatten(before)
    return np.array(list(_move(first, [first, *map(_flatten, steps)])))


def _flatten(array: np.ndarray) -> np.ndarray:
    return widen_array(array).reshape(-1)


def _move(first: np.ndarray, values: Sequence[np.ndarray]) -> Iterator[float]:
    """Yield the distance of each value to the one before, over the norm of the first."""
    with np.errstate(invalid="ignore", over="ignore"):
        norm = np.linalg.norm(first)
        for one, other in pairwise(values):
            yield float(np.nan_to_num(np.linalg.norm(other - one) / norm, nan=np.inf, posinf=np.inf))


@dataclass(frozen=True)
class StepMoves:
    """Watches a native run whose training is large, step by step.

    Attributes:
        start: the parameters in the probe.
        last: those that a step has moved, as the last step gave them.
        found: parameter to how far each step has moved it.
    """

    start: NamedArrays
    last: dict[str, np.ndarray] = field(default_factory=dict)
    found: dict[str, list[float]] = field(default_factory=dict)

    def hold(self, stream: Stream, in_float64: bool) -> tuple[HeldOutputs, Observed]:
        """Run a port, natively or in float64, and hold its outputs; the native run is watched."""
        held = hold_outputs(stream, None if in_float64 else self.look)
        self.last.clear()
        return held

    @property
    def moves(self) -> dict[str, np.ndarray]:
        """Parameter to its moves; see `relative_moves`."""
        return {leaf: np.array(moves) for leaf, moves in self.found.items()}

    def look(self, part: Outputs) -> None:
        """See how far the steps of a part of the run move the parameters.

        Args:
            part: outputs by name, with the step on axis 0.
        """
        for leaf, before in self.start.items():
            steps = part.get(trained_leaf(leaf))
            if steps is not None:
                values = [self.last.get(leaf, before), *steps]
                self.found.setdefault(leaf, []).extend(_move(_flatten(before), [_flatten(one) for one in values]))
                self.last[leaf] = steps[-1]
