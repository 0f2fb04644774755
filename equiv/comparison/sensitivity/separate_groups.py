"""Leaves that one could take for another: those of one shape, dtype and collection, and what separates them.

Two ports that differ by a swap of two leaves give the same outputs, but for the names of these two, wherever both
leaves have the same values. So there one run shows of every pair whether a swap matters: what is computed of the one
leaf has to differ from what is computed of the other.

- Gradients, where all leaves of a shape have the same values. There is no such probe, so that this says that the two
  leaves play different roles; `swaps` says how that is tried on the probe itself.
- State, on the probe with fresh state. There a port that swaps two leaves starts with their values swapped, too.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from equiv.comparison.numeric.blocks import BlockTally
from equiv.comparison.numeric.rounding import ROUNDING_NUDGES
from equiv.comparison.observation import RoundingNoise
from equiv.comparison.sensitivity.separation import Evidence, Separation, separate_leaves
from equiv.comparison.sensitivity.trial_runs import BaseRun, TrialRuns, with_variables
from equiv.core.batch_spec import INEXACT_DTYPES
from equiv.core.leaves import LeafTable
from equiv.core.output_name import OutputName
from equiv.programs.freed_memory import return_freed_memory
from equiv.programs.probes import NamedArrays, Probe, perturb_by_ulp, split_parts, widen_array

TIED = "tied"
"""Name of the probe on which all leaves of a shape have the same values; no candidate runs on it."""

TIED_RUNS = 1 + ROUNDING_NUDGES
"""Number of runs that `separate_tied` makes."""


def group_by_shape(table: LeafTable, variables: NamedArrays) -> tuple[tuple[str, ...], ...]:
    """Group the leaves of a probe by shape, dtype and collection; leaves that are alone are left out.

    A leaf that is taken for one of another collection is found by the check of structure.
    """
    groups: dict[tuple[str, str, tuple[int, ...]], list[str]] = {}
    for leaf, array in variables.items():
        groups.setdefault((table[leaf].spec.collection, str(array.dtype), array.shape), []).append(leaf)
    return tuple(tuple(leaves) for leaves in groups.values() if len(leaves) > 1)


def separate_fresh(base: BaseRun, leaves: Sequence[str]) -> Separation:
    """Separate leaves of state by what training makes of them from the library's own fresh state.

    Args:
        base: the reference on the probe with fresh state.
        leaves: of one shape, dtype and collection.
    """
    return _separate(base, leaves, lambda name: name.is_leaf)


def separate_tied(runs: TrialRuns, base: BaseRun, groups: Iterable[Sequence[str]]) -> dict[tuple[str, ...], Separation]:
    """Separate leaves by their gradients where all of a group have the same values.

    Args:
        runs: of which `TIED_RUNS` are made.
        base: the reference on the probe as it is.
        groups: of float leaves.

    Returns:
        Group to its separation; groups of leaves without gradients are not separated.
    """
    tied = _tie_groups(base.probe, groups)
    outputs = {name: array for name, array in runs.stream(base, tied) if name.kind == "gradient"}
    dtype = "float64" if base.in_float64 else None
    tallies = {name: BlockTally() for name, array in outputs.items() if str(array.dtype) in INEXACT_DTYPES}
    for seed in range(1, TIED_RUNS):  # one after the other: each has a gradient of every leaf
        for name, array in runs.stream(base, perturb_by_ulp(tied, seed, dtype)):
            if name in tallies:
                tallies[name] = tallies[name].add(outputs[name], [array])
            del array
        return_freed_memory()
    responses = {name: tally.responses for name, tally in tallies.items()}
    noise = RoundingNoise({TIED: responses}, {TIED: responses}, base.noise.depth)
    there = BaseRun(base.executable, tied, outputs, noise, base.factor)
    return {tuple(leaves): _separate(there, leaves, lambda name: name.kind == "gradient") for leaves in groups}


def _tie_groups(probe: Probe, groups: Iterable[Sequence[str]]) -> Probe:
    given = probe.variables
    return replace(with_variables(probe, {leaf: given[leaves[0]] for leaves in groups for leaf in leaves}), name=TIED)


MOST_READ = 4096
"""Number of elements of an output that are looked at to separate leaves, spread over it, besides the largest."""


def _separate(base: BaseRun, leaves: Sequence[str], wanted: Callable[[OutputName], bool]) -> Separation:
    """Separate leaves by outputs that are named after them."""
    named: dict[str, dict[OutputName, OutputName]] = {leaf: {} for leaf in leaves}
    for name in base.outputs:
        if name.leaf in named and wanted(name):
            named[name.leaf][replace(name, leaf="")] = name
    common = [key for key in named[leaves[0]] if all(key in found for found in named.values())]
    if not common:
        return Separation((tuple(leaves),))
    first = [base.array(named[leaves[0]][key]) for key in common]
    places = [_choose_elements(array) for array in first]
    return separate_leaves({leaf: _evidence(base, [named[leaf][key] for key in common], places) for leaf in leaves})


def _choose_elements(array: np.ndarray) -> np.ndarray:
    """Indices into the flat array: evenly spread ones and the largest ones, of which a lookup table has few."""
    if array.size <= 2 * MOST_READ:
        return np.arange(array.size)
    spread = np.linspace(0, array.size - 1, MOST_READ).astype(int)
    largest = np.argpartition(-np.abs(array.ravel()), MOST_READ)[:MOST_READ]
    return np.unique(np.concatenate([spread, largest]))


def _evidence(base: BaseRun, names: Sequence[OutputName], places: Sequence[np.ndarray]) -> Evidence:
    values, budgets = [], []
    for name, chosen in zip(names, places, strict=True):
        found = base.array(name).ravel()[chosen]
        parts = split_parts(widen_array(found))
        values += parts
        budgets += [base.budgets(name, found)] * len(parts)
    return Evidence(np.concatenate(values), np.concatenate(budgets))
