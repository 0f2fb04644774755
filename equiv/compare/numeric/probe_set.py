"""Probe set."""

from collections.abc import Mapping
from dataclasses import replace

from equiv.core.batch_spec import FLOATS
from equiv.core.leaves import LeafTable
from equiv.programs.built_case import Workshop
from equiv.programs.probes import Probe, make_probe

SEEDS = {"0": 1, "1": 2}
"""Probe name to seed: two different batches and sets of variables."""


WIDE = 16
"""How much larger the inputs of the wide probe are."""


def probes(
    workshop: Workshop,
    table: LeafTable,
    spread: float = 1.0,
    seeds: Mapping[str, int] = SEEDS,
    proved: bool = False,
) -> list[Probe]:
    """The probes of a case: every leaf randomised, two seeds; large inputs; and, with state, a fresh start.

    `wide` is for what only large inputs show, a clip or a saturation; nothing is trained on it. `cold` is training from
    fresh state: the parameters and batches of the first, and no state, which each library brings.

    Args:
        workshop: the case.
        table: its leaf table.
        spread: factor on every parameter.
        seeds: probe name to seed.
        proved: whether every output is proved, for every input: one seed double-checks, and no large inputs.
    """
    entries, steps = workshop.entries, workshop.case.steps
    used = list(seeds.items())[: 1 if proved else None]
    made = [make_probe(name, seed, table, entries, steps, spread) for name, seed in used]
    first = made[0]
    floats = {
        name: array * array.dtype.type(WIDE) for name, array in first.batches.items() if str(array.dtype) in FLOATS
    }
    if floats and not proved:
        made.append(replace(first, name="wide", batches={**first.batches, **floats}))
    if table.names("state"):
        params = {name: array for name, array in first.variables.items() if table[name].spec.collection == "params"}
        made.append(replace(first, name="cold", variables=params))
    return made
