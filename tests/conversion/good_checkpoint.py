"""A whole checkpoint of Haiku, and how it is written with some of it changed."""

from pathlib import Path

import convert_helpers as h
import numpy as np

NAME, OPTIMIZER = "layers/linear", "adam"


def good() -> dict[str, np.ndarray]:
    """A whole checkpoint of Haiku, as flat names."""
    return h.leaves_of(h.trained(NAME, "haiku", OPTIMIZER))


KERNEL = "params/linear/w"


def npz(**changes):
    """An npz file with some leaves changed, added, or, where None, left out."""

    def make(folder: Path) -> Path:
        leaves = {**good(), **{name.replace("__", "/"): value for name, value in changes.items()}}
        np.savez(folder / "old.npz", **{name: value for name, value in leaves.items() if value is not None})
        return folder / "old.npz"

    return make


def changed(function):
    """A leaf of the kernel changed by a function."""
    return lambda folder: npz(**{KERNEL: function(good()[KERNEL])})(folder)


def nan(kernel):
    """One NaN in the middle."""
    kernel = kernel.copy()
    kernel[1, 2] = np.nan
    return kernel


def cut(make, share: float = 0.6):
    """A file that ends too early."""

    def cut_it(folder: Path) -> Path:
        file = make(folder)
        data = file.read_bytes()
        file.write_bytes(data[: int(len(data) * share)])
        return file

    return cut_it


def with_two_trees(folder: Path) -> Path:
    """Parameters and their moving average, which have the same names."""
    averages = {name.replace("params", "ema"): array for name, array in good().items() if name.startswith("params/")}
    return npz(**averages)(folder)


def written(data: bytes, name: str = "old.npz"):
    """A file of these bytes."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make
