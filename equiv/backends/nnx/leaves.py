"""How Flax NNX names and stores each canonical leaf of each layer kind. Flax is not imported here."""

from equiv.backends.base import AS_IS, LeafNames, norm_leaves
from equiv.core.layer_kinds import GATES, LAYER_KINDS
from equiv.core.layouts import Layout, MergeAxes
from equiv.core.leaves import NativeKey, NativeLeaf
from equiv.core.packing import Gate


def native_key(native: NativeLeaf, scope: str) -> NativeKey:
    """The native key of a leaf in the layer at `scope`: attribute names joined by dots."""
    return NativeKey(native.collection, ".".join(part for part in (scope, native.name) if part))


def _nnx_weights(
    name: str = "", attribute: str = "", kernel: Layout = AS_IS, bias: Layout = AS_IS
) -> dict[str, NativeLeaf]:
    leaf, below = f"{name}/" if name else "", f"{attribute or name}." if name else ""
    return {
        f"{leaf}kernel": NativeLeaf("params", f"{below}kernel", kernel),
        f"{leaf}bias": NativeLeaf("params", f"{below}bias", bias),
    }


def _nnx_lstm(leaf: str) -> tuple[NativeLeaf, NativeLeaf]:
    """The native forms in `nnx.LSTMCell` (`if` is `if_`) and in `nnx.OptimizedLSTMCell` (packed like `GATES`)."""
    (side, gate), _, name = leaf.partition("/")
    attribute = "if_" if side + gate == "if" else side + gate
    packed = NativeLeaf("params", f"dense_{side}.{name}", part=Gate(GATES.index(gate)))
    return NativeLeaf("params", f"{attribute}.{name}"), packed


def _running_stats(*names: str) -> dict[str, NativeLeaf]:
    return {name: NativeLeaf("state", name) for name in names}


LEAVES: LeafNames = {
    "linear": _nnx_weights(),
    "conv": _nnx_weights(),
    "conv_transpose": _nnx_weights(),
    "embed": {"embedding": NativeLeaf("params", "embedding")},
    "layer_norm": norm_leaves("bias"),
    "rms_norm": {"scale": NativeLeaf("params", "scale")},
    "group_norm": norm_leaves("bias"),
    "instance_norm": norm_leaves("bias"),
    "batch_norm": {**norm_leaves("bias"), **_running_stats("mean", "var")},
    "spectral_norm": _running_stats("u", "sigma"),
    "attention": {
        **_nnx_weights("query", kernel=MergeAxes(), bias=MergeAxes()),
        **_nnx_weights("key", kernel=MergeAxes(), bias=MergeAxes()),
        **_nnx_weights("value", kernel=MergeAxes(), bias=MergeAxes()),
        **_nnx_weights("out", kernel=MergeAxes(-3)),
    },
    "lstm": {leaf: _nnx_lstm(leaf) for leaf in LAYER_KINDS["lstm"]},
    "vanilla_rnn": {**_nnx_weights("i", "dense_i"), "h/kernel": NativeLeaf("params", "dense_h.kernel")},
    "conv_lstm": {**_nnx_weights("ih"), **_nnx_weights("hh")},
    "module": {"*": NativeLeaf("params", "*")},
    "parameter": {"": NativeLeaf("params", "")},
    "state": {"": NativeLeaf("state", "")},
}
