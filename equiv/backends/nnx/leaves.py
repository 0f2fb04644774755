"""How Flax NNX names and stores each canonical leaf of each layer kind. No library is imported here."""

from equiv.backends.base import AS_IS, LeafNames, scaled
from equiv.core.layer_kinds import GATES, KINDS
from equiv.core.layouts import Layout, MergeAxes
from equiv.core.leaves import Native, NativeKey
from equiv.core.packing import Gate


def native_key(native: Native, scope: str) -> NativeKey:
    """Where a leaf of a layer at `scope` lives: attribute names joined by dots."""
    return NativeKey(native.collection, ".".join(part for part in (scope, native.name) if part))


def _weighted(name: str = "", own: str = "", kernel: Layout = AS_IS, bias: Layout = AS_IS) -> dict[str, Native]:
    leaf, below = f"{name}/" if name else "", f"{own or name}." if name else ""
    return {
        f"{leaf}kernel": Native("params", f"{below}kernel", kernel),
        f"{leaf}bias": Native("params", f"{below}bias", bias),
    }


def _lstm(leaf: str) -> tuple[Native, Native]:
    """Of `nnx.LSTMCell`, whose `if` has to be `if_`; and of `nnx.OptimizedLSTMCell`, packed in the order of `GATES`."""
    (side, gate), _, name = leaf.partition("/")
    own = "if_" if side + gate == "if" else side + gate
    packed = Native("params", f"dense_{side}.{name}", part=Gate(GATES.index(gate)))
    return Native("params", f"{own}.{name}"), packed


def _stats(*names: str) -> dict[str, Native]:
    return {name: Native("state", name) for name in names}


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
        **_weighted("query", kernel=MergeAxes(), bias=MergeAxes()),
        **_weighted("key", kernel=MergeAxes(), bias=MergeAxes()),
        **_weighted("value", kernel=MergeAxes(), bias=MergeAxes()),
        **_weighted("out", kernel=MergeAxes(-3)),
    },
    "lstm": {leaf: _lstm(leaf) for leaf in KINDS["lstm"]},
    "vanilla_rnn": {**_weighted("i", "dense_i"), "h/kernel": Native("params", "dense_h.kernel")},
    "conv_lstm": {**_weighted("ih"), **_weighted("hh")},
    "module": {"*": Native("params", "*")},
    "parameter": {"": Native("params", "")},
    "state": {"": Native("state", "")},
}
