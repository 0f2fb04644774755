"""What equiv knows of Flax Linen without importing it."""

from equiv.backends.library import Library
from equiv.backends.linen.leaves import LEAVES, native_key

LIBRARY = Library(
    name="linen",
    distributions=("flax",),
    modules=("flax.linen",),
    builder_result="a function that returns a Linen module",
    leaves=LEAVES,
    native_key=native_key,
    naming_rank=2,
    transposes_kernels=True,
    pickled_mappings=(("flax.core.frozen_dict", "FrozenDict"),),
)
