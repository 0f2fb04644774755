"""How Haiku names and stores each canonical leaf of each layer kind. Haiku is not imported here."""

from equiv.backends.base import AS_IS, LeafNames, norm_leaves
from equiv.core.layouts import DropUnitAxes, Layout, Shift, SwapAxes
from equiv.core.leaves import NativeKey, NativeLeaf
from equiv.core.packing import Gate

CONVERGED_COUNTER = 2**30
"""A `counter` for which `decay**counter` is 0 in every float dtype, so that zero debiasing has no effect."""


def _moving_average(name: str) -> dict[str, NativeLeaf]:
    # dm-haiku 0.0.17, haiku/_src/moving_averages.py: ExponentialMovingAverage has three states per average.
    scope = f"~/{name}_ema"
    return {
        name: NativeLeaf("state", f"{scope}/average", DropUnitAxes()),
        f"{name}.hidden": NativeLeaf("state", f"{scope}/hidden", DropUnitAxes(), mirrors=name),
        f"{name}.counter": NativeLeaf("state", f"{scope}/counter", fixed_value=CONVERGED_COUNTER),
    }


def _haiku_weights(scope: str = "", name: str = "", kernel: Layout = AS_IS) -> dict[str, NativeLeaf]:
    below, leaf = (f"{part}/" if part else "" for part in (scope, name))
    return {
        f"{leaf}kernel": NativeLeaf("params", f"{below}w", kernel),
        f"{leaf}bias": NativeLeaf("params", f"{below}b"),
    }


def _haiku_lstm() -> dict[str, NativeLeaf]:
    # dm-haiku 0.0.17, haiku/_src/recurrent.py: one linear layer for input and hidden, gates i, g, f, o, and f + 1.
    found: dict[str, NativeLeaf] = {}
    for index, gate in enumerate("igfo"):
        for letter, rows in (("i", "input"), ("h", "hidden")):
            found[f"{letter}{gate}/kernel"] = NativeLeaf("params", "linear/w", part=Gate(index, rows=rows))
        layout = Shift(1.0) if gate == "f" else AS_IS
        found[f"h{gate}/bias"] = NativeLeaf("params", "linear/b", layout, Gate(index))
    return found


LEAVES: LeafNames = {
    "linear": _haiku_weights(),
    "conv": _haiku_weights(),
    "conv_transpose": _haiku_weights(kernel=SwapAxes()),
    "embed": {"embedding": NativeLeaf("params", "embeddings")},
    "layer_norm": norm_leaves("offset", DropUnitAxes()),
    "rms_norm": {"scale": NativeLeaf("params", "scale", DropUnitAxes())},
    "group_norm": norm_leaves("offset"),
    "instance_norm": norm_leaves("offset"),
    "batch_norm": {**norm_leaves("offset", DropUnitAxes()), **_moving_average("mean"), **_moving_average("var")},
    "spectral_norm": {"u": NativeLeaf("state", "u0"), "sigma": NativeLeaf("state", "sigma")},
    "attention": {
        **_haiku_weights("query", "query"),
        **_haiku_weights("key", "key"),
        **_haiku_weights("value", "value"),
        **_haiku_weights("linear", "out"),
    },
    "lstm": _haiku_lstm(),
    "vanilla_rnn": {**_haiku_weights("linear", "i"), "h/kernel": NativeLeaf("params", "linear_1/w")},
    "conv_lstm": {**_haiku_weights("input_to_hidden", "ih"), **_haiku_weights("hidden_to_hidden", "hh")},
    "module": {"*": NativeLeaf("params", "*")},
    "parameter": {"": NativeLeaf("params", "")},
    "state": {"": NativeLeaf("state", "")},
}


def native_key(native: NativeLeaf, scope: str) -> NativeKey:
    """The native key of a leaf in the layer at `scope`: Haiku joins module and leaf names with `/`."""
    return NativeKey(native.collection, "/".join(part for part in (scope, native.name) if part))
