"""What equiv knows of Haiku without importing it."""

from collections.abc import Mapping

from equiv.backends.haiku.leaves import LEAVES, native_key
from equiv.backends.library import Library, RunningAverages
from equiv.core.layouts import Layout, Squeeze
from equiv.core.leaves import NativeKey


def channels_first_layouts(kind: str, spatial: int) -> Mapping[str, Layout]:
    """Haiku stores what it adds to or multiplies with the channels in a shape that broadcasts: (channels, 1, 1)."""
    axes = tuple(range(-spatial, 0))
    if kind == "conv":
        return {"bias": Squeeze(axes)}
    squeeze = Squeeze((-2 - spatial, *axes))
    return dict.fromkeys(("scale", "bias", "mean", "var", "mean.hidden", "var.hidden"), squeeze)


def average_leaves(scope: str) -> tuple[NativeKey, ...]:
    """The hidden averages of a batch norm: dm-haiku 0.0.17 debiases them only in what it returns."""
    return tuple(NativeKey("state", f"{scope}/~/{name}/hidden") for name in ("mean_ema", "var_ema"))


def _checkpoint_path(key: NativeKey) -> tuple[str, ...]:
    module, _, name = key.path.rpartition("/")
    return key.collection, module, name


LIBRARY = Library(
    name="haiku",
    distributions=("dm-haiku",),
    modules=("haiku",),
    builder_result="a function that returns what hk.transform gives",
    leaves=LEAVES,
    native_key=native_key,
    transform="hk.transform(lambda x: {call})",
    naming_rank=1,
    channels_first_layouts=channels_first_layouts,
    running_averages=RunningAverages("batch_norm", average_leaves, "zero_debias"),
    checkpoint_path=_checkpoint_path,
    pickled_mappings=(("haiku._src.data_structures", "FlatMapping"), ("haiku._src.data_structures", "FlatMap")),
)
