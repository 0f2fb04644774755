"""The kinds of layers that a row can have, and the scopes at which a leaf could belong to one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any

from equiv.backends.library import Library, no_layouts
from equiv.core import layers as kinds
from equiv.core.case import Layer
from equiv.core.leaves import MappedLeaf, NativeKey, NativeLeaf
from equiv.infer.matching.proposal import LeafPair


@dataclass(frozen=True)
class RowTemplate:
    """A function of `equiv.core.layers` with keyword arguments."""

    function: str
    arguments: tuple[tuple[str, Any], ...] = ()

    def layer(self, path: str, scopes: Mapping[str, str]) -> Layer:
        """The row for the given scopes."""
        return getattr(kinds, self.function)(path, **dict(self.arguments), **scopes)


def all_row_templates(names: tuple[str, str], libraries: tuple[Library, Library]) -> Iterator[RowTemplate]:
    """All kinds of rows, those with the most leaves first."""
    sides = list(zip(names, libraries, strict=True))
    channels_first = [name for name, library in sides if library.channels_first_layouts is not no_layouts]
    # The first kind that fits is taken, and `linear` would fit the four projections of an attention one by one.
    for function in ("lstm", "attention", "conv_lstm", "batch_norm", "vanilla_rnn", "spectral_norm"):
        yield RowTemplate(function)
        if function == "batch_norm":
            yield from _channels_first_templates(function, channels_first)
    for function in ("linear", "conv", "group_norm", "instance_norm", "layer_norm", "rms_norm", "embed"):
        yield RowTemplate(function)
    yield from _channels_first_templates("conv", channels_first)
    yield RowTemplate("conv_transpose")
    for flipped in _nonempty_subsets([name for name, library in sides if library.transposes_kernels]):
        for number in (1, 2, 3):
            yield RowTemplate("conv_transpose", (("transpose_kernel", flipped), ("spatial", number)))


def _channels_first_templates(function: str, names: Sequence[str]) -> Iterator[RowTemplate]:
    """Rows of a kind where the layer of all of these ports, or of one of them, has the channels first."""
    for some in sorted(_nonempty_subsets(names), key=len, reverse=True):
        for number in (1, 2, 3):
            value = number if len(some) == len(names) else dict.fromkeys(some, number)
            yield RowTemplate(function, (("channels_first", value),))


def _nonempty_subsets(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return chain.from_iterable(combinations(names, size) for size in range(1, len(names) + 1))


def template_fits(
    template: RowTemplate, leaves: Mapping[str, MappedLeaf], scopes: tuple[str, str], pair: LeafPair
) -> bool:
    """Whether the kind fits, where several kinds have the same leaf names: by primitive, else by scope name."""
    kind = template.function
    called = any(kind.replace("_", "") in scope.lower().replace("_", "") for scope in scopes)
    if kind in ("linear", "conv", "conv_transpose"):
        # A kernel alone does not show its kind: a 1x1 convolution may
        # be written as a product. Then the scope's name decides.
        conv = pair.operation == "conv_general_dilated" or (pair.operation != "dot_general" and called)
        transposed = any("transpose" in scope.lower() for scope in scopes)
        # A lone bias fits all three, and may be that of a norm.
        return "row/kernel" in leaves and conv == (kind != "linear") and not (kind == "conv" and transposed)
    if kind == "batch_norm":
        return "row/mean" in leaves
    if kind == "layer_norm":
        return called or "row/bias" in leaves
    return called or kind not in ("group_norm", "instance_norm")


def native_leaves(library: Library, template: RowTemplate) -> list[NativeLeaf]:
    """The native leaves of a kind in a library."""
    kind = template.layer("row", {}).kind
    table: Mapping[str, NativeLeaf | tuple[NativeLeaf, ...]] = library.leaves.get(kind, {})
    return [one for ways in table.values() for one in (ways if isinstance(ways, tuple) else (ways,))]


def possible_scopes(key: NativeKey, natives: Iterable[NativeLeaf], library: Library) -> Iterator[str]:
    """The scopes at which a leaf of the kind has this native key."""
    found = dict.fromkeys(
        key.path.removesuffix(native.name)[:-1]
        for native in natives
        if native.collection == key.collection and key.path.endswith(native.name)
    )
    for scope in found:
        if any(library.native_key(native, scope) == key for native in natives):
            yield scope
