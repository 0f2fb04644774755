"""Outputs of a large port: small ones as arrays, of large ones only what is asked of all; the rest is run again.

All outputs of all train steps together are many times the size of the parameters. So they are compared part by part, as
they are computed (`fold.py`), and only what is refuted or shown becomes arrays, in one more run.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from equiv.comparison.numeric.blocks import count_nonfinite_values, largest_finite
from equiv.core.batch_spec import INEXACT_DTYPES
from equiv.core.output_name import OutputName
from equiv.programs.compiled import NamedOutputs, join_parts
from equiv.programs.exercise import Observed, merge_observed

LARGE_OUTPUT = 2**16
"""Bytes of an output in float64, or of its part in one train step, above which no array is held.

In float64 whatever its dtype: what is held of a native run has to be held of its float64 run, too."""

Stream = Callable[[], Iterator[tuple[NamedOutputs, Observed]]]
"""Runs a port, and yields its outputs part by part, with what each part exercised."""


Part = TypeVar("Part")


@dataclass(frozen=True)
class LargeOutput:
    """What is known of an output that is not held.

    Attributes:
        shape: of the whole, with the train step on axis 0 where it is trained.
        dtype: of the array.
        largest: the largest finite magnitude.
        nonfinite: number of values that are not finite.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    largest: float
    nonfinite: int

    def join(self, other: "LargeOutput") -> "LargeOutput":
        """Add a later train step."""
        shape = (self.shape[0] + other.shape[0], *self.shape[1:])
        return LargeOutput(shape, self.dtype, max(self.largest, other.largest), self.nonfinite + other.nonfinite)


@dataclass(frozen=True, eq=False)
class HeldOutputs(Mapping[OutputName, np.ndarray]):
    """The outputs of one run, by name; large ones are computed again when an array is asked for, all in one run.

    Attributes:
        held: arrays of the small outputs, and of those that were fetched.
        large: all large outputs.
        stream: runs the port again.
        names: of all outputs, in order.
        rerun: what the first access to an array that is not held has computed.
    """

    held: Mapping[OutputName, np.ndarray]
    large: Mapping[OutputName, LargeOutput]
    stream: Stream
    names: tuple[OutputName, ...]
    rerun: dict[OutputName, np.ndarray] = field(default_factory=dict)

    def __getitem__(self, name: OutputName) -> np.ndarray:
        if name in self.held or name not in self.large:
            return self.held[name]
        if not self.rerun:
            self.rerun.update(self._compute(self.large))
        return self.rerun[name]

    def __contains__(self, name: object) -> bool:
        return name in self.held or name in self.large

    def __iter__(self) -> Iterator[OutputName]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def _compute(self, names: Iterable[OutputName]) -> NamedOutputs:
        """The arrays of some large outputs, of one more run."""
        wanted = frozenset(names)
        return join_parts(
            [{name: array for name, array in part.items() if name in wanted} for part, _ in self.stream()]
        )

    def fetch(self, names: Iterable[OutputName]) -> "HeldOutputs":
        """The same outputs with arrays of some of the large ones."""
        missing = {name for name in names if name in self.large and name not in self.held}
        return replace(self, held={**self.held, **self._compute(missing)}) if missing else self


def run_in_step(streams: Iterable[Iterable[Part]]) -> Iterator[list[Part]]:
    """Yield the next parts of all streams together, until one ends; `zip` would keep them while it waits for others."""
    running = [iter(stream) for stream in streams]
    while True:
        parts: list[Part] = []
        for one in running:
            try:
                parts.append(next(one))
            except StopIteration:
                return
        yield parts
        del parts


def drop_observed(stream: Iterable[tuple[Part, Any]]) -> Iterator[Part]:
    """Yield the outputs of each part; a generator expression would hold those of one while the next is computed."""
    for part, _ in stream:
        yield part
        del part


def hold_outputs(stream: Stream, look: Callable[[NamedOutputs], None] | None = None) -> tuple[HeldOutputs, Observed]:
    """Run a port, and keep what is small of its outputs; with what the run exercised.

    Args:
        stream: runs it.
        look: is shown every part before it is dropped; None: nothing looks.
    """
    small: dict[OutputName, list[np.ndarray]] = {}
    large: dict[OutputName, LargeOutput] = {}
    names: dict[OutputName, None] = {}
    exercised: list[Observed] = []
    for part, observed in stream():
        exercised.append(observed)
        if look is not None:
            look(part)
        for name, array in part.items():
            names[name] = None
            if array.size * np.dtype("float64").itemsize <= LARGE_OUTPUT or str(array.dtype) not in INEXACT_DTYPES:
                small.setdefault(name, []).append(array)
                continue
            found = LargeOutput(array.shape, array.dtype, largest_finite(array), count_nonfinite_values(array))
            large[name] = large[name].join(found) if name in large else found
            del array
        del part  # before the next one is computed
    held = {name: arrays[0] if len(arrays) == 1 else np.concatenate(arrays) for name, arrays in small.items()}
    return HeldOutputs(held, large, stream, tuple(names)), merge_observed(exercised)


def fetch_arrays(
    outputs: Mapping[OutputName, np.ndarray], names: Iterable[OutputName]
) -> Mapping[OutputName, np.ndarray]:
    """The same outputs with the arrays of some of them at hand."""
    return outputs.fetch(names) if isinstance(outputs, HeldOutputs) else outputs


def keep_outputs(
    outputs: Mapping[OutputName, np.ndarray], names: Container[OutputName]
) -> Mapping[OutputName, np.ndarray]:
    """Some of the outputs."""
    if not isinstance(outputs, HeldOutputs):
        return {name: array for name, array in outputs.items() if name in names}
    held, large = ({name: one for name, one in part.items() if name in names} for part in (outputs.held, outputs.large))
    return replace(outputs, held=held, large=large, names=tuple(name for name in outputs.names if name in names))


def array_at_hand(outputs: Mapping[OutputName, np.ndarray], name: OutputName) -> np.ndarray | None:
    """The array of an output, unless it would have to be computed again."""
    return outputs.held.get(name) if isinstance(outputs, HeldOutputs) else outputs.get(name)


def output_dtype(outputs: Mapping[OutputName, np.ndarray], name: OutputName) -> np.dtype | None:
    """The dtype of an output; None where there is none."""
    if isinstance(outputs, HeldOutputs) and name in outputs.large:
        return outputs.large[name].dtype
    array = outputs.get(name)
    return None if array is None else array.dtype


def largest_value(outputs: Mapping[OutputName, np.ndarray], name: OutputName) -> float:
    """The largest finite magnitude of an output."""
    if isinstance(outputs, HeldOutputs) and name in outputs.large:
        return outputs.large[name].largest
    return largest_finite(outputs[name])


def count_nonfinite(outputs: Mapping[OutputName, np.ndarray], name: OutputName) -> int:
    """The number of values of an output that are not finite."""
    if isinstance(outputs, HeldOutputs) and name in outputs.large:
        return outputs.large[name].nonfinite
    return count_nonfinite_values(outputs[name])
