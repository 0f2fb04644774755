"""What equiv knows of Flax NNX without importing it."""

from equiv.backends.library import Library
from equiv.backends.nnx.leaves import LEAVES, native_key
from equiv.core.leaves import NativeKey


def _checkpoint_path(key: NativeKey) -> tuple[str, ...]:
    return tuple(key.path.split("."))


LIBRARY = Library(
    name="nnx",
    distributions=("flax",),
    # Not all of flax.nnx: its bridge has classes of Linen modules. `flax.nnx.nnx` until flax 0.8, which is refused.
    modules=("flax.nnx.module", "flax.nnx.nnx.module", "flax.experimental.nnx.nnx.module"),
    builder_result="a function of rngs that returns an NNX module",
    leaves=LEAVES,
    native_key=native_key,
    builder_arguments=("rngs", "rng", "key"),
    naming_rank=0,
    transposes_kernels=True,
    checkpoint_path=_checkpoint_path,
    variable_children=("value",),  # a variable is saved as a node with one child (flax 0.12.8: `kernel/value`)
    training_parts=("model", "optimizer"),
    oldest="0.11",  # what differs from then on is in `releases.py`; up to 0.10 layers share their random streams
)
