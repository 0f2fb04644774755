"""Read the decay of debiased running averages from the train program, for their known difference."""

from collections.abc import Mapping, Sequence

import numpy as np

from equiv.backends.base import Port, PortSpec
from equiv.backends.registry import load_library
from equiv.core.leaves import NativeKey
from equiv.infer.dataflow.blocks import BlockedValue, value_parts
from equiv.infer.dataflow.port_graph import PortGraph, read_port
from equiv.infer.table.rows import InferredRow


def average_differences(
    port: Port, request: PortSpec, rows: Sequence[InferredRow]
) -> tuple[tuple[str, str, float], ...]:
    """The known differences of a port whose library debiases its running averages.

    Args:
        port: the port.
        request: its methods and batch.
        rows: the layer table.

    Returns:
        For each layer the function of `equiv.case`, the path of the row, and the decay in a train step.

    Raises:
        PortError: the port cannot be traced in train mode.
    """
    averages = load_library(port.library).running_averages
    if averages is None:
        return ()
    scopes = {row.layer.path: row.layer.scopes[port.name] for row in rows if row.layer.kind == averages.kind}
    if not scopes:
        return ()
    factors = _leaf_factors(read_port(port, request, train=True))
    found = []
    for path, scope in scopes.items():
        numbers = {factors[key] for key in averages.leaves(scope) if key in factors}
        # A known difference has one decay for all averages of a layer. Where they differ
        # no formula is written, and the run shows the difference.
        if len(numbers) == 1:
            found.append((averages.known_difference, path, numbers.pop()))
    return tuple(found)


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
