"""The kinds of rows that there are, and where a leaf could be one of theirs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from equiv.core import layers as kinds
from equiv.core.case import Layer
from equiv.core.leaves import MappedLeaf, Native, NativeKey
from equiv.infer.matching.proposal import Pair


@dataclass(frozen=True)
class Template:
    """A way to call a function of `equiv.core.layers`."""

    function: str
    arguments: tuple[tuple[str, Any], ...] = ()

    def layer(self, path: str, scopes: Mapping[str, str]) -> Layer:
        """The row at some scopes."""
        return getattr(kinds, self.function)(path, **dict(self.arguments), **scopes)


def templates(names: tuple[str, str]) -> Iterator[Template]:
    """The rows that there are, those with the most leaves first."""
    for function in ("lstm", "attention", "conv_lstm", "batch_norm", "vanilla_rnn", "spectral_norm"):
        yield Template(function)
        if function == "batch_norm":
            yield from (Template(function, (("channels_first", number),)) for number in (1, 2, 3))
    for function in ("linear", "conv", "group_norm", "instance_norm", "layer_norm", "rms_norm", "embed"):
        yield Template(function)
    yield from (Template("conv", (("channels_first", number),)) for number in (1, 2, 3))
    flax = tuple(name for name in names if name != "haiku")
    for flipped in ((), *((name,) for name in flax), flax):
        for number in (1, 2, 3) if flipped else (2,):
            yield Template("conv_transpose", (("transpose_kernel", flipped), ("spatial", number)) if flipped else ())


def fits(template: Template, leaves: Mapping[str, MappedLeaf], scopes: tuple[str, str], pair: Pair) -> bool:
    """Whether a kind is meant, where another has leaves of the same names: by what it does, or what it is called."""
    kind = template.function
    called = any(kind.replace("_", "") in scope.lower().replace("_", "") for scope in scopes)
    if kind in ("linear", "conv", "conv_transpose"):
        conv = pair.operation == "conv_general_dilated" or (pair.operation != "dot_general" and called)
        transposed = any("transpose" in scope.lower() for scope in scopes)
        return conv == (kind != "linear") and not (kind == "conv" and transposed)
    if kind == "batch_norm":
        return "row/mean" in leaves
    if kind == "layer_norm":
        return called or "row/bias" in leaves
    return called or kind not in ("group_norm", "instance_norm")


def natives_of(module: ModuleType, template: Template) -> list[Native]:
    """How a library stores the leaves of a kind."""
    kind = template.layer("row", {}).kind
    table: Mapping[str, Native | tuple[Native, ...]] = module.LEAVES.get(kind, {})
    return [one for ways in table.values() for one in (ways if isinstance(ways, tuple) else (ways,))]


def scopes_of(key: NativeKey, natives: Iterable[Native], module: ModuleType) -> Iterator[str]:
    """The scopes at which a leaf of a kind is that leaf."""
    found = dict.fromkeys(
        key.path.removesuffix(native.name)[:-1]
        for native in natives
        if native.collection == key.collection and key.path.endswith(native.name)
    )
    for scope in found:
        if any(module.native_key(native, scope) == key for native in natives):
            yield scope
