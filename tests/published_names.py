"""Maps written by hand, where whole layers only have other names."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


def rename(left: Mapping[str, Any], names: Mapping[str, str], layers: int = 0, join: str = ".") -> dict[str, Any]:
    """Leaves of the reference under the port's paths.

    Args:
        left: leaves by their paths, joined by `/`.
        names: layer or leaf of the reference to that of the port; `{}` in both stands for each number of a layer.
        layers: how many layers have numbers.
        join: what joins the port's paths: `.` in NNX, `/` in Linen and Haiku.

    Raises:
        KeyError: the reference has no such layer.
    """
    found = {}
    for old, new in numbered(names, layers):
        ends = [path[len(old) :] for path in left if path == old or path.startswith(f"{old}/")]
        if not ends:
            raise KeyError(f"the reference has no {old}")
        found |= {new + end.replace("/", join): left[old + end] for end in ends}
    return found


def numbered(names: Mapping[str, str], layers: int) -> Iterator[tuple[str, str]]:
    """Yield names, with every number of a layer in place of `{}`."""
    for old, new in names.items():
        if "{}" in old:
            yield from ((old.replace("{}", str(number)), new.replace("{}", str(number))) for number in range(layers))
        else:
            yield old, new


def fuse(left: Mapping[str, Any], layer: str, parts: tuple[str, ...], leaf: str) -> Any:
    """The leaves `layer/part/leaf` side by side on their last axis."""
    return np.concatenate([left[f"{layer}/{part}/{leaf}"] for part in parts], axis=-1)
