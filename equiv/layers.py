"""The layer kinds: which canonical leaves a row of the layer table has.

How a library names and stores each leaf stands in its backend file (`LEAVES`).
"""

from equiv.case import Layer

KINDS: dict[str, dict[str, str]] = {
    "linear": {"kernel": "params", "bias": "params"},
    "batch_norm": {"scale": "params", "bias": "params", "mean": "state", "var": "state"},
    "parameter": {"": "params"},
    "state": {"": "state"},
}
"""Layer kind to canonical leaf to collection (`params` is trained, `state` is changed by a call)."""


def linear(path: str, **scopes: str) -> Layer:
    """`hk.Linear`, `nn.Dense`, `nnx.Linear`: `kernel` of shape (in, out) and `bias` of shape (out,)."""
    return Layer(path, "linear", scopes)


def batch_norm(path: str, **scopes: str) -> Layer:
    """`hk.BatchNorm`, `nn.BatchNorm`, `nnx.BatchNorm`: `scale`, `bias`, running `mean` and `var`, each (features,)."""
    return Layer(path, "batch_norm", scopes)


def module(path: str, *leaves: str, **scopes: str) -> Layer:
    """A module of the case's own: parameters `leaves`, under the same names in every library."""
    return Layer(path, "module", scopes, leaves)


def parameter(path: str, **paths: str) -> Layer:
    """One parameter: `paths` are its full native paths."""
    return Layer(path, "parameter", paths)


def state(path: str, **paths: str) -> Layer:
    """One variable that a call changes: `paths` are its full native paths (Linen: with the collection first)."""
    return Layer(path, "state", paths)


def leaves_of(layer: Layer) -> dict[str, str]:
    """Canonical leaf name to collection, for one row. `""` names the row itself."""
    if layer.kind == "module":
        return dict.fromkeys(layer.leaves, "params")
    return KINDS[layer.kind]


def canonical(layer: Layer, leaf: str) -> str:
    """The canonical name of a leaf: `block.linear/kernel`, or the path alone for `parameter` and `state`."""
    return f"{layer.path}/{leaf}" if leaf else layer.path
