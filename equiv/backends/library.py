"""What equiv knows of a library without importing it: the `LIBRARY` of each backend folder, in its `library.py`."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from equiv.backends.base import LeafNames
from equiv.core.layouts import Layout
from equiv.core.leaves import NativeKey, NativeLeaf


def slash_separated_path(key: NativeKey) -> tuple[str, ...]:
    """The keys of a leaf in a checkpoint: its collection, then the parts of its path between slashes."""
    return key.collection, *key.path.split("/")


def no_layouts(kind: str, spatial: int) -> Mapping[str, Layout]:
    """The `channels_first_layouts` of a library whose layers store their leaves alike for every data format."""
    return {}


@dataclass(frozen=True)
class RunningAverages:
    """A library's running averages that are debiased, which is a known difference to those that are not.

    Attributes:
        kind: the layer kind that has them.
        leaves: scope of a layer to the leaves that a train step multiplies by the decay.
        known_difference: function of `equiv.case`, `(path, decay)` to the known differences of a layer.
    """

    kind: str
    leaves: Callable[[str], tuple[NativeKey, ...]]
    known_difference: str


@dataclass(frozen=True)
class Library:
    """A library, as its backend describes it.

    Attributes:
        name: of the backend's folder, and of the library in cases and reports.
        distributions: installed packages whose versions a run records.
        modules: modules that define the library's model classes; submodules count too.
        builder_result: what a builder of this library is, for error messages: `a function that returns a Linen module`.
        leaves: layer kind to canonical leaf to its native form, or to several alternatives.
        native_key: `(native leaf, scope of the layer)` to the native key.
        builder_arguments: names of the argument that a builder of this library takes; empty: it takes none.
        transform: source text that makes a model of `{call}`, a call of a module with the input x, where a module is
            none by itself; empty: it is one.
        naming_rank: libraries with a lower rank are preferred where names of layers are taken from their scopes.
        transposes_kernels: whether its transposed convolution has `transpose_kernel`, which stores (.., out, in).
        channels_first_layouts: `(layer kind, number of spatial axes)` to the layouts of leaves that a layer with
            channels first stores in another shape.
        running_averages: see `RunningAverages`; None: it has none.
        checkpoint_path: native key to the keys of the leaf in a checkpoint.
        variable_children: keys below each variable in a checkpoint of the model alone.
        training_parts: names of the states in a training carry `(graph, states)`, under which a checkpoint has them;
            empty: the carry has another form.
        pickled_mappings: module and name of the library's dictionary classes, as in a pickle.
        oldest: release of the first of `distributions` from which its models are read; empty: any that installs.
    """

    name: str
    distributions: tuple[str, ...]
    modules: tuple[str, ...]
    builder_result: str
    leaves: LeafNames
    native_key: Callable[[NativeLeaf, str], NativeKey]
    builder_arguments: tuple[str, ...] = ()
    transform: str = ""
    naming_rank: int = 100
    transposes_kernels: bool = False
    channels_first_layouts: Callable[[str, int], Mapping[str, Layout]] = no_layouts
    running_averages: RunningAverages | None = None
    checkpoint_path: Callable[[NativeKey], tuple[str, ...]] = slash_separated_path
    variable_children: tuple[str, ...] = ()
    training_parts: tuple[str, ...] = ()
    pickled_mappings: tuple[tuple[str, str], ...] = field(default=())
    oldest: str = ""

    def defines(self, one: type) -> bool:
        """Whether a class is one of the library's own."""
        return any(one.__module__ == name or one.__module__.startswith(f"{name}.") for name in self.modules)

    def owns(self, model: Any) -> bool:
        """Whether a model, or a class of models, is one of this library."""
        return any(map(self.defines, model.__mro__ if inspect.isclass(model) else type(model).__mro__))
