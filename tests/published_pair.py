"""What a file of `tests/published/` says of a published model and its port: the right verdict and the right map."""

import importlib
import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from equiv.core.case import Case

PAIRS = Path(__file__).parent / "published"

LeafMap = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Leaves of the reference, path to array, to those of the port, as a porter converts a checkpoint by hand."""


@dataclass(frozen=True)
class Pair:
    """A published model, its port, and the right answers.

    Attributes:
        left: builder of the reference.
        right: builder of the port; one of the two is of a published package.
        batch: see `equiv.Case`.
        verdict: the right one.
        leaf_map: written by hand: from the reference's leaves, as float64, to the port's. Elements with no counterpart
            are NaN; leaves that only the library needs, as the counter of a running average in Haiku, are left out.
            Several maps where interchangeable leaves allow several.
        bug: what is wrong in the port, in words; empty: nothing.
        outputs_differ: whether the bug shows in the outputs of a single call; else only gradients, state or training
            differ.
        needs: packages beside those of the tests, as requirements: `transformers==4.57.6`. They are imported in the
            builders only.
        options: other fields of `equiv.Case`: methods, loss, optimizer, steps.
        seconds: CPU time after which it is stopped.
    """

    left: Callable[..., Any]
    right: Callable[..., Any]
    batch: Any
    verdict: Literal["same", "different"]
    leaf_map: LeafMap | tuple[LeafMap, ...]
    bug: str = ""
    outputs_differ: bool = True
    needs: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    seconds: int = 400

    @property
    def case(self) -> Case:
        """The case without models and layers."""
        return Case("", {}, self.batch, (), **self.options)

    @property
    def leaf_maps(self) -> tuple[LeafMap, ...]:
        """Every map that is right."""
        return (self.leaf_map,) if callable(self.leaf_map) else self.leaf_map

    def missing_packages(self) -> list[str]:
        """Which of `needs` is not installed here, or in another version."""
        return [text for text in self.needs if not is_installed(Requirement(text))]


def is_installed(wanted: Requirement) -> bool:
    """Whether a package is installed, in a version that is wanted."""
    try:
        return wanted.specifier.contains(importlib.metadata.version(wanted.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False


def pair_names() -> list[str]:
    """The names of all pairs."""
    return sorted(path.stem for path in PAIRS.glob("[a-z]*.py"))


def load_pair(name: str) -> Pair:
    """The pair of one file."""
    return importlib.import_module(f"published.{name}").PAIR


def move(left: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Leaves of the reference under the port's paths: `names` maps old to new. A layer, without its leaves, will do."""
    layers = sorted(names, key=len, reverse=True)
    found = {}
    for path, leaf in left.items():
        if layer := next(
            (one for one in layers if path == one or path[: len(one) + 1] in (f"{one}/", f"{one}.")), None
        ):
            found[names[layer] + path[len(layer) :]] = leaf
    return found


def swap_ends(leaves: Mapping[str, Any], ends: Mapping[str, str]) -> dict[str, Any]:
    """The same leaves with the last word of each path as another library has it: `{"w": "kernel"}`."""
    found = {}
    for path, leaf in leaves.items():
        head, slash, last = path.rpartition("/")
        found[f"{head}{slash}{ends.get(last, last)}"] = leaf
    return found
