"""Layers that a checkpoint stacks and the model has one by one, or the other way round: scanned and unrolled layers."""

from collections.abc import Mapping
from dataclasses import dataclass

from equiv.conversion.formats.tree_paths import TreePath, path_text, path_words
from equiv.core.leaves import LeafSpec


@dataclass(frozen=True)
class StackedLayers:
    """One leaf that is several leaves stacked.

    Attributes:
        whole: path of the stack, and its shape and dtype.
        single: path of the first of the leaves, and its shape and dtype.
        axes: the axes on which it may be stacked: several where sizes are equal.
        in_checkpoint: whether the checkpoint has the stack; else the model.
    """

    whole: tuple[TreePath, LeafSpec]
    single: tuple[TreePath, LeafSpec]
    axes: tuple[int, ...]
    in_checkpoint: bool

    @property
    def text(self) -> str:
        """What it is, in words."""
        (stack, spec), (one, one_spec) = self.whole, self.single
        sides = ("the checkpoint", "the model") if self.in_checkpoint else ("the model", "the checkpoint")
        axes = " or ".join(map(str, self.axes))
        return (
            f"{sides[0]} has {path_text(stack)!r} {spec}, a stack of {spec.shape[self.axes[0]]} layers on axis {axes}, "
            f"where {sides[1]} has them one by one, {path_text(one)!r} {one_spec}"
        )

    @property
    def fix(self) -> str:
        """What to do."""
        if not self.in_checkpoint:
            return "Give the case the model with one layer after the other, as the checkpoint was saved."
        index = f"[{':, ' * self.axes[0]}0]"
        return (
            f'Give the case the model with scanned layers, nn.scan(..., variable_axes={{"params": {self.axes[0]}}}); '
            f'its rows name a layer as "{path_text(self.whole[0][:-1])}{index}".'
        )


def find_stack(extra: Mapping[TreePath, LeafSpec], missing: Mapping[TreePath, LeafSpec]) -> StackedLayers | None:
    """Find the first leaf of one side that is as many leaves of the other as it has layers.

    Args:
        extra: the leaves of the checkpoint that no leaf takes.
        missing: the leaves of the model that the checkpoint lacks.
    """
    for in_checkpoint, stacks, singles in ((True, extra, missing), (False, missing, extra)):
        by_name: dict[tuple[str, str, tuple[int, ...]], list[TreePath]] = {}
        for path, spec in singles.items():
            by_name.setdefault((path_words(path)[-1], spec.dtype, spec.shape), []).append(path)
        for path, spec in stacks.items():
            fitting: dict[int, TreePath] = {}
            for axis, size in enumerate(spec.shape):
                rest = (*spec.shape[:axis], *spec.shape[axis + 1 :])
                found = by_name.get((path_words(path)[-1], spec.dtype, rest), [])
                if size > 1 and len(found) == size:
                    fitting[axis] = found[0]
            if fitting:
                one = next(iter(fitting.values()))
                return StackedLayers((path, spec), (one, singles[one]), tuple(fitting), in_checkpoint)
    return None
