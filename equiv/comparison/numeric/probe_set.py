"""The probes of a case: random values for every leaf and batch, large inputs, fresh state."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from equiv.comparison.observation import FRESH_STATE, LARGE_INPUTS
from equiv.core.batch_spec import INEXACT_DTYPES
from equiv.core.leaves import LeafTable
from equiv.programs.built_case import BuiltCase
from equiv.programs.probes import Probe, make_probe

PROBE_SEEDS = {"0": 1, "1": 2}
"""Probe name to seed: two different batches and sets of variables."""

LARGE_INPUT_FACTOR = 16
"""Factor on the inputs of the large-input probe."""

FAR_INPUT_FACTOR = LARGE_INPUT_FACTOR**3
"""Factor on its first row where code is called that no jaxpr shows; the rows between have factors between."""


def make_probes(
    built_case: BuiltCase,
    table: LeafTable,
    spread: float = 1.0,
    seeds: Mapping[str, int] = PROBE_SEEDS,
    proved: bool = False,
    far: bool = False,
) -> list[Probe]:
    """Make the probes of a case: every leaf randomised, with two seeds; large inputs; and, with state, fresh state.

    `LARGE_INPUTS` is for what only large inputs show, such as clipping or saturation; nothing is trained on it.
    `FRESH_STATE` trains with the parameters and batches of the first probe, and each library's own initial state.

    Args:
        built_case: the case.
        table: its leaf table.
        spread: factor on every parameter.
        seeds: probe name to seed.
        proved: whether every output is proved, for every input: one seed double-checks, and no large inputs.
        far: whether the large inputs have several sizes, up to `FAR_INPUT_FACTOR`: a host function may branch anywhere.
    """
    entries, steps = built_case.entries, built_case.case.steps
    used = list(seeds.items())[: 1 if proved else None]
    made = [make_probe(name, seed, table, entries, steps, spread) for name, seed in used]
    first = made[0]
    floats = {
        name: array * _large_factors(array, far)
        for name, array in first.free_batches.items()
        if str(array.dtype) in INEXACT_DTYPES
    }
    if floats and not proved:
        made.append(replace(first, name=LARGE_INPUTS, batches={**first.batches, **floats}))
    if table.names("state"):
        params = {name: array for name, array in first.variables.items() if table[name].spec.collection == "params"}
        made.append(replace(first, name=FRESH_STATE, variables=params))
    return made


def _large_factors(array: np.ndarray, far: bool) -> np.ndarray:
    """Make the factors of large inputs, one for each row of a batch; the first axis of the array is the step."""
    rows = array.shape[1] if array.ndim > 1 else 1
    factors = np.geomspace(FAR_INPUT_FACTOR if far else LARGE_INPUT_FACTOR, LARGE_INPUT_FACTOR, rows)
    return factors.astype(array.dtype).reshape(rows, *(1,) * (array.ndim - 2))
