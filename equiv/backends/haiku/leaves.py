"""Leaves."""

from equiv.backends.base import AS_IS, LeafNames, scaled
from equiv.core.layouts import DropUnitAxes, Layout, Shift, SwapAxes
from equiv.core.leaves import Native, NativeKey
from equiv.core.packing import Gate

SETTLED = 2**30
"""A `counter` at which `decay**counter` is 0 in every float dtype, so that zero debiasing changes nothing."""


def _average(name: str) -> dict[str, Native]:
    # dm-haiku 0.0.17, haiku/_src/moving_averages.py: ExponentialMovingAverage keeps three states per average.
    scope = f"~/{name}_ema"
    return {
        name: Native("state", f"{scope}/average", DropUnitAxes()),
        f"{name}.hidden": Native("state", f"{scope}/hidden", DropUnitAxes(), copies=name),
        f"{name}.counter": Native("state", f"{scope}/counter", constant=SETTLED),
    }


def _weighted(scope: str = "", name: str = "", kernel: Layout = AS_IS) -> dict[str, Native]:
    below, leaf = (f"{part}/" if part else "" for part in (scope, name))
    return {f"{leaf}kernel": Native("params", f"{below}w", kernel), f"{leaf}bias": Native("params", f"{below}b")}


def _lstm() -> dict[str, Native]:
    # dm-haiku 0.0.17, haiku/_src/recurrent.py: one linear layer for input and hidden, gates i, g, f, o, and f + 1.
    found: dict[str, Native] = {}
    for index, gate in enumerate("igfo"):
        for letter, rows in (("i", "input"), ("h", "hidden")):
            found[f"{letter}{gate}/kernel"] = Native("params", "linear/w", part=Gate(index, rows=rows))
        layout = Shift(1.0) if gate == "f" else AS_IS
        found[f"h{gate}/bias"] = Native("params", "linear/b", layout, Gate(index))
    return found


LEAVES: LeafNames = {
    "linear": _weighted(),
    "conv": _weighted(),
    "conv_transpose": _weighted(kernel=SwapAxes()),
    "embed": {"embedding": Native("params", "embeddings")},
    "layer_norm": scaled("offset", DropUnitAxes()),
    "rms_norm": {"scale": Native("params", "scale", DropUnitAxes())},
    "group_norm": scaled("offset"),
    "instance_norm": scaled("offset"),
    "batch_norm": {**scaled("offset", DropUnitAxes()), **_average("mean"), **_average("var")},
    "spectral_norm": {"u": Native("state", "u0"), "sigma": Native("state", "sigma")},
    "attention": {
        **_weighted("query", "query"),
        **_weighted("key", "key"),
        **_weighted("value", "value"),
        **_weighted("linear", "out"),
    },
    "lstm": _lstm(),
    "vanilla_rnn": {**_weighted("linear", "i"), "h/kernel": Native("params", "linear_1/w")},
    "conv_lstm": {**_weighted("input_to_hidden", "ih"), **_weighted("hidden_to_hidden", "hh")},
    "module": {"*": Native("params", "*")},
    "parameter": {"": Native("params", "")},
    "state": {"": Native("state", "")},
}


def native_key(native: Native, scope: str) -> NativeKey:
    """Where a leaf of a layer at `scope` lives: Haiku joins module and leaf names with `/`."""
    return NativeKey(native.collection, "/".join(part for part in (scope, native.name) if part))
