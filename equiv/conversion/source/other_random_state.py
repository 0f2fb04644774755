"""Random state of NNX where the model of the case does not have it: other releases of flax store it in other places.

Up to flax 0.10 a layer such as `nnx.Dropout` holds the `Rngs` that it is given, which all layers share: its checkpoints
have `dropout/rngs/default/key`, once. From 0.11 on each layer holds a stream of its own, forked from it:
`dropout/rngs/key`, for every layer (flax, `docs_nnx/migrating/nnx_010_to_nnx_011.rst`). In both a stream is a key and a
count of the draws from it (`nnx/rnglib.py`, `RngStream`), and this is how it is known here.
"""

from collections.abc import Mapping

from equiv.conversion.formats.tree_paths import TreePath, path_words
from equiv.core.leaves import LeafSpec

KEY, COUNT = "key", "count"
"""The two variables of a stream."""


def find_other_random_state(leaves: Mapping[TreePath, LeafSpec]) -> tuple[TreePath, ...]:
    """Find the streams among leaves that are none of the model's: pairs of a key and the count of its draws.

    Args:
        leaves: path to shape and dtype.

    Returns:
        Paths of keys and counts, in the order of the leaves.
    """
    by_words = {path_words(path): spec for path, spec in leaves.items()}
    streams = {
        words[:-1]
        for words, spec in by_words.items()
        if words[-1:] == (KEY,) and (count := by_words.get((*words[:-1], COUNT))) and _is_stream(spec, count)
    }
    return tuple(path for path in leaves if path_words(path)[:-1] in streams and path_words(path)[-1] in (KEY, COUNT))


def _is_stream(key: LeafSpec, count: LeafSpec) -> bool:
    """Whether a key belongs to a count; a stream that is split over an axis has one of both for each index."""
    shape = key.shape if key.dtype.startswith("key<") else key.shape[:-1]
    is_key = key.dtype.startswith("key<") or (key.dtype == "uint32" and key.shape[-1:] in ((2,), (4,)))
    return is_key and count.dtype == "uint32" and count.shape == shape
