"""Layer kinds: the canonical leaves of each row of a layer table.

The `LEAVES` of each backend say how its library names and stores them.
"""

from equiv.core.case import Layer

PARAMS = "params"

ONLY = "only"
"""The kind of a row that has no leaves of its own: it says of the leaf of another row that one port alone has it."""

NORM_LEAVES = {"scale": PARAMS, "bias": PARAMS}

WEIGHT_LEAVES = {"kernel": PARAMS, "bias": PARAMS}

GATES = ("i", "f", "g", "o")
"""Input, forget, cell and output gate, in Flax's order (flax 0.12.8, `linen/recurrent.py`)."""


def _prefix_names(names: tuple[str, ...], leaves: dict[str, str]) -> dict[str, str]:
    return {f"{name}/{leaf}": collection for name in names for leaf, collection in leaves.items()}


LAYER_KINDS: dict[str, dict[str, str]] = {
    "linear": WEIGHT_LEAVES,
    "conv": WEIGHT_LEAVES,
    "conv_transpose": WEIGHT_LEAVES,
    "embed": {"embedding": PARAMS},
    "layer_norm": NORM_LEAVES,
    "rms_norm": {"scale": PARAMS},
    "group_norm": NORM_LEAVES,
    "instance_norm": NORM_LEAVES,
    "batch_norm": {**NORM_LEAVES, "mean": "state", "var": "state"},
    "spectral_norm": {"u": "state", "sigma": "state"},
    "attention": _prefix_names(("query", "key", "value", "out"), WEIGHT_LEAVES),
    "lstm": {
        **_prefix_names(tuple(f"i{gate}" for gate in GATES), {"kernel": PARAMS}),
        **_prefix_names(tuple(f"h{gate}" for gate in GATES), WEIGHT_LEAVES),
    },
    "vanilla_rnn": {"i/kernel": PARAMS, "i/bias": PARAMS, "h/kernel": PARAMS},
    "conv_lstm": _prefix_names(("ih", "hh"), WEIGHT_LEAVES),
    "parameter": {"": PARAMS},
    "state": {"": "state"},
}
"""Layer kind to canonical leaf to collection (`params` is trained, `state` is changed by a call)."""


def leaf_collections(layer: Layer) -> dict[str, str]:
    """Canonical leaf name to collection, for one row. `""` names the row itself."""
    if layer.kind == "module":
        return dict.fromkeys(layer.leaves, PARAMS)
    return LAYER_KINDS[layer.kind]


def canonical_name(layer: Layer, leaf: str) -> str:
    """The canonical name of a leaf: `block.linear/kernel`, or the path alone for `parameter` and `state`."""
    return f"{layer.path}/{leaf}" if leaf else layer.path
