"""The layer kinds: which canonical leaves a row of the layer table has.

How a library names and stores each leaf stands in its backend file (`LEAVES`).
"""

from equiv.core.case import Layer

PARAMS = "params"


SCALED = {"scale": PARAMS, "bias": PARAMS}


WEIGHTED = {"kernel": PARAMS, "bias": PARAMS}


GATES = ("i", "f", "g", "o")
"""Input, forget, cell and output gate, in Flax's order (flax 0.12.8, `linen/recurrent.py`)."""


def _below(names: tuple[str, ...], leaves: dict[str, str]) -> dict[str, str]:
    return {f"{name}/{leaf}": collection for name in names for leaf, collection in leaves.items()}


KINDS: dict[str, dict[str, str]] = {
    "linear": WEIGHTED,
    "conv": WEIGHTED,
    "conv_transpose": WEIGHTED,
    "embed": {"embedding": PARAMS},
    "layer_norm": SCALED,
    "rms_norm": {"scale": PARAMS},
    "group_norm": SCALED,
    "instance_norm": SCALED,
    "batch_norm": {**SCALED, "mean": "state", "var": "state"},
    "spectral_norm": {"u": "state", "sigma": "state"},
    "attention": _below(("query", "key", "value", "out"), WEIGHTED),
    "lstm": {
        **_below(tuple(f"i{gate}" for gate in GATES), {"kernel": PARAMS}),
        **_below(tuple(f"h{gate}" for gate in GATES), WEIGHTED),
    },
    "vanilla_rnn": {"i/kernel": PARAMS, "i/bias": PARAMS, "h/kernel": PARAMS},
    "conv_lstm": _below(("ih", "hh"), WEIGHTED),
    "parameter": {"": PARAMS},
    "state": {"": "state"},
}
"""Layer kind to canonical leaf to collection (`params` is trained, `state` is changed by a call)."""


def leaves_of(layer: Layer) -> dict[str, str]:
    """Canonical leaf name to collection, for one row. `""` names the row itself."""
    if layer.kind == "module":
        return dict.fromkeys(layer.leaves, PARAMS)
    return KINDS[layer.kind]


def canonical(layer: Layer, leaf: str) -> str:
    """The canonical name of a leaf: `block.linear/kernel`, or the path alone for `parameter` and `state`."""
    return f"{layer.path}/{leaf}" if leaf else layer.path
