"""The decay of Haiku's running averages, read from the train program: what its known difference needs."""

from collections.abc import Mapping, Sequence

import numpy as np

from equiv.backends.base import Port, Request
from equiv.core.leaves import NativeKey
from equiv.infer.dataflow.blocks import Value, parts
from equiv.infer.dataflow.port_graph import Reading, read
from equiv.infer.table.rows import Row

AVERAGES = ("mean_ema", "var_ema")


def decays(port: Port, request: Request, rows: Sequence[Row]) -> dict[str, float]:
    """Path of a batch norm row to the number by which its average is multiplied in every train step.

    Args:
        port: of Haiku, the only library that takes the bias of its averages out.
        request: its methods and batch.
        rows: the layer table.

    Raises:
        PortError: the port cannot be traced in train mode.
    """
    scopes = {row.layer.path: row.layer.scopes["haiku"] for row in rows if row.layer.kind == "batch_norm"}
    if not scopes:
        return {}
    factors = _factors(read(port, request, train=True))
    found = {}
    for path, scope in scopes.items():
        keys = [NativeKey("state", f"{scope}/~/{name}/hidden") for name in AVERAGES]
        numbers = {factors[key] for key in keys if key in factors}
        if len(numbers) == 1:
            found[path] = numbers.pop()
    return found


def _factors(reading: Reading) -> Mapping[NativeKey, float]:
    """Leaf to the number in the program's text that it is multiplied with."""
    found = {}
    for step in reading.flow.steps:
        if step.name == "mul" and len(step.ins) == 2:
            for value, factor in (step.ins, step.ins[::-1]):
                number = parts(factor)[0].number
                if (node := _leaf(value)) is not None and number is not None:
                    # The shortest decimal that is this float32: 0.99, where the program has 0.9900000095.
                    found[reading.key(node)] = float(str(np.float32(number)))
    return found


def _leaf(value: Value) -> int | None:
    held = parts(value)[0].leaves
    return held[0].node if len(parts(value)) == 1 and len(held) == 1 and not held[0].bent else None
