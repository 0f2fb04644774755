"""Read the decay of Haiku's running averages from the train program, for the `zero_debias` known difference."""

from collections.abc import Mapping, Sequence

import numpy as np

from equiv.backends.base import Port, PortSpec
from equiv.core.leaves import NativeKey
from equiv.infer.dataflow.blocks import BlockedValue, value_parts
from equiv.infer.dataflow.port_graph import PortGraph, read_port
from equiv.infer.table.rows import InferredRow

HAIKU_AVERAGES = ("mean_ema", "var_ema")


def average_decays(port: Port, request: PortSpec, rows: Sequence[InferredRow]) -> dict[str, float]:
    """Map the path of each batch norm row to the factor of its running average in a train step.

    Args:
        port: of Haiku, the only library that debiases its averages.
        request: its methods and batch.
        rows: the layer table.

    Raises:
        PortError: the port cannot be traced in train mode.
    """
    scopes = {row.layer.path: row.layer.scopes["haiku"] for row in rows if row.layer.kind == "batch_norm"}
    if not scopes:
        return {}
    factors = _leaf_factors(read_port(port, request, train=True))
    found = {}
    for path, scope in scopes.items():
        keys = [NativeKey("state", f"{scope}/~/{name}/hidden") for name in HAIKU_AVERAGES]
        numbers = {factors[key] for key in keys if key in factors}
        # `zero_debias` has one decay for both averages. Where they differ
        # no formula is written, and the run shows the difference.
        if len(numbers) == 1:
            found[path] = numbers.pop()
    return found


def _leaf_factors(graph: PortGraph) -> Mapping[NativeKey, float]:
    """Map each leaf to the literal that it is multiplied by."""
    found = {}
    for step in graph.dataflow.equations:
        if step.name == "mul" and len(step.ins) == 2:
            for value, factor in (step.ins, step.ins[::-1]):
                number = value_parts(factor)[0].number
                if (node := _single_leaf_node(value)) is not None and number is not None:
                    # The shortest decimal that is this float32: 0.99, where the program has 0.9900000095.
                    found[graph.key(node)] = float(str(np.float32(number)))
    return found


def _single_leaf_node(value: BlockedValue) -> int | None:
    held = value_parts(value)[0].leaves
    return held[0].node if len(value_parts(value)) == 1 and len(held) == 1 and not held[0].transformed else None
