"""How Flax Linen names and stores each canonical leaf of each layer kind. Flax is not imported here."""

from equiv.backends.base import AS_IS, LeafNames, norm_leaves
from equiv.core.layer_kinds import LAYER_KINDS
from equiv.core.layouts import Layout, MergeAxes
from equiv.core.leaves import NativeKey, NativeLeaf


def _linen_weights(name: str = "", kernel: Layout = AS_IS, bias: Layout = AS_IS) -> dict[str, NativeLeaf]:
    below = f"{name}/" if name else ""
    return {
        f"{below}kernel": NativeLeaf("params", f"{below}kernel", kernel),
        f"{below}bias": NativeLeaf("params", f"{below}bias", bias),
    }


def _batch_stats(*names: str) -> dict[str, NativeLeaf]:
    return {name: NativeLeaf("batch_stats", name) for name in names}


LEAVES: LeafNames = {
    "linear": _linen_weights(),
    "conv": _linen_weights(),
    "conv_transpose": _linen_weights(),
    "embed": {"embedding": NativeLeaf("params", "embedding")},
    "layer_norm": norm_leaves("bias"),
    "rms_norm": {"scale": NativeLeaf("params", "scale")},
    "group_norm": norm_leaves("bias"),
    "instance_norm": norm_leaves("bias"),
    "batch_norm": {**norm_leaves("bias"), **_batch_stats("mean", "var")},
    "spectral_norm": _batch_stats("u", "sigma"),
    "attention": {
        **_linen_weights("query", MergeAxes(), MergeAxes()),
        **_linen_weights("key", MergeAxes(), MergeAxes()),
        **_linen_weights("value", MergeAxes(), MergeAxes()),
        **_linen_weights("out", MergeAxes(-3)),
    },
    "lstm": {leaf: NativeLeaf("params", leaf) for leaf in LAYER_KINDS["lstm"]},
    "vanilla_rnn": {leaf: NativeLeaf("params", leaf) for leaf in LAYER_KINDS["vanilla_rnn"]},
    "conv_lstm": {**_linen_weights("ih"), **_linen_weights("hh")},
    "module": {"*": NativeLeaf("params", "*")},
    "parameter": {"": NativeLeaf("params", "")},
    "state": {"": NativeLeaf("", "")},
}


def native_key(native: NativeLeaf, scope: str) -> NativeKey:
    """The native key of a leaf in the layer at `scope`; a `state` scope begins with the collection: `counter/count`."""
    path = "/".join(part for part in (scope, native.name) if part)
    if native.collection:
        return NativeKey(native.collection, path)
    collection, _, rest = path.partition("/")
    return NativeKey(collection, rest)
