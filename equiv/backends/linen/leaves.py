"""Leaves."""

from equiv.backends.base import AS_IS, LeafNames, scaled
from equiv.core.layer_kinds import KINDS
from equiv.core.layouts import Layout, MergeAxes
from equiv.core.leaves import Native, NativeKey


def _weighted(name: str = "", kernel: Layout = AS_IS, bias: Layout = AS_IS) -> dict[str, Native]:
    below = f"{name}/" if name else ""
    return {
        f"{below}kernel": Native("params", f"{below}kernel", kernel),
        f"{below}bias": Native("params", f"{below}bias", bias),
    }


def _stats(*names: str) -> dict[str, Native]:
    return {name: Native("batch_stats", name) for name in names}


LEAVES: LeafNames = {
    "linear": _weighted(),
    "conv": _weighted(),
    "conv_transpose": _weighted(),
    "embed": {"embedding": Native("params", "embedding")},
    "layer_norm": scaled("bias"),
    "rms_norm": {"scale": Native("params", "scale")},
    "group_norm": scaled("bias"),
    "instance_norm": scaled("bias"),
    "batch_norm": {**scaled("bias"), **_stats("mean", "var")},
    "spectral_norm": _stats("u", "sigma"),
    "attention": {
        **_weighted("query", MergeAxes(), MergeAxes()),
        **_weighted("key", MergeAxes(), MergeAxes()),
        **_weighted("value", MergeAxes(), MergeAxes()),
        **_weighted("out", MergeAxes(-3)),
    },
    "lstm": {leaf: Native("params", leaf) for leaf in KINDS["lstm"]},
    "vanilla_rnn": {leaf: Native("params", leaf) for leaf in KINDS["vanilla_rnn"]},
    "conv_lstm": {**_weighted("ih"), **_weighted("hh")},
    "module": {"*": Native("params", "*")},
    "parameter": {"": Native("params", "")},
    "state": {"": Native("", "")},
}


def native_key(native: Native, scope: str) -> NativeKey:
    """Where a leaf of a layer at `scope` lives. A `state` row names the collection first: `counter/count`."""
    path = "/".join(part for part in (scope, native.name) if part)
    if native.collection:
        return NativeKey(native.collection, path)
    collection, _, rest = path.partition("/")
    return NativeKey(collection, rest)
