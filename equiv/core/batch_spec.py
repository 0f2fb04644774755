"""The batch of a case: `"float32[8,784]"` parsed to shape, dtype and bound; entries nested as the model takes them."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from equiv.core.leaves import LeafSpec
from equiv.errors import CaseError

if TYPE_CHECKING:
    import numpy as np  # commands that need no jax start without it, too

BATCH_ENTRY = re.compile(
    r"(?P<dtype>[a-z]+\d*(?:<fry>)?)\[(?P<shape>(?:\s*\d+\s*,)*(?:\s*\d+)?\s*)\](?::(?P<bound>\d+))?"
)

FLOAT_DTYPES = ("float16", "bfloat16", "float32", "float64")

COMPLEX_DTYPES = ("complex64", "complex128")

INEXACT_DTYPES = (*FLOAT_DTYPES, *COMPLEX_DTYPES)
"""Dtypes whose operations round."""

INTEGER_DTYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")

DTYPES = (*INEXACT_DTYPES, "bool", *INTEGER_DTYPES)

SHORT_DTYPES = {
    "f16": "float16",
    "bf16": "bfloat16",
    "f32": "float32",
    "f64": "float64",
    "c64": "complex64",
    "c128": "complex128",
    **{f"{short}{bits}": f"{long}{bits}" for short, long in (("i", "int"), ("u", "uint")) for bits in (8, 16, 32, 64)},
}
"""The names of dtypes as jax prints them (jax 0.10.2, `jax._src.dtypes.short_dtype_name`), and those of numpy."""

KEY_DTYPES = ("key", "key<fry>")
"""The dtype of PRNG keys of `jax.random.key`, as jax prints it; those of other implementations are not made."""

KEY_WORDS = 2
"""Numbers of 32 bits in a key (jax 0.10.2, `jax._src.prng.threefry_prng_impl.key_shape`)."""

BatchTree = Any
"""One input: the text of an array; an array, or a function that returns an input, whose values are kept; None; or a
dict, tuple or list of inputs."""

Batch = Mapping[str, BatchTree] | Callable[[], Any]
"""Inputs by name, or a function that returns arrays by name, or the only one."""


@dataclass(frozen=True, eq=False)
class KeptValues:
    """An array of a batch that has the same values in every probe and train step.

    Attributes:
        values: any shape; a dtype of `DTYPES`. Of PRNG keys their data.
        source: import path of the function that gives the whole batch; empty: it is given by itself.
        is_key: whether they are the data of PRNG keys.
    """

    values: "np.ndarray"
    source: str = ""
    is_key: bool = False

    def __repr__(self) -> str:
        if self.is_key:
            return f"key[{','.join(map(str, self.values.shape[:-1]))}]"
        return f"{self.values.dtype}[{','.join(map(str, self.values.shape))}]"


@dataclass(frozen=True)
class BatchEntry:
    """One array of a batch.

    Attributes:
        spec: its shape and dtype; of PRNG keys those of their data.
        bound: for integers the exclusive upper bound of its values, none of which is negative; 0: some are.
        kept: its values in every probe; None: random ones.
        by_table: whether the bound is the number of rows of the table that is looked up with it.
        is_key: whether a call takes it as PRNG keys.
    """

    spec: LeafSpec
    bound: int
    kept: "np.ndarray | None" = field(default=None, compare=False)
    by_table: bool = False
    is_key: bool = False

    @property
    def axes(self) -> int:
        """How many axes it has, as a call takes it."""
        return len(self.spec.shape) - self.is_key

    @property
    def is_unbounded(self) -> bool:
        """Whether it is of whole numbers, of which no bound is known, nor values."""
        return self.spec.dtype in INTEGER_DTYPES and not self.bound and self.kept is None

    def __str__(self) -> str:
        if self.is_key:
            return f"key[{','.join(map(str, self.spec.shape[:-1]))}]"
        bound = f":{self.bound}" if self.spec.dtype in INTEGER_DTYPES and self.bound else ""
        return f"{self.spec.dtype}[{','.join(map(str, self.spec.shape))}]{bound}"


def parse_batch(batch: Mapping[str, BatchTree], need_bounds: bool = True) -> dict[str, BatchEntry]:
    """Parse the entries of a batch, such as `"float32[8,784]"` and `"int32[8]:10"`.

    Args:
        batch: the batch.
        need_bounds: whether whole numbers must have a bound.

    Returns:
        Every array by its name; one that is nested has a name with slashes, `inputs/image`, `pair/0`.

    Raises:
        CaseError: an entry cannot be parsed or is empty, or an integer entry has no bound.
    """
    found = {name: _parse_entry(name, text) for name, text in flatten_batch(batch).items()}
    for name, entry in found.items() if need_bounds else ():
        if entry.is_unbounded:
            raise CaseError(
                f"batch entry {name!r}: {str(entry)!r} has no upper bound, and no table is looked up with it.",
                fix=f'Write e.g. "{entry}:10".',
            )
    return found


def batch_texts(batch: Mapping[str, BatchTree]) -> dict[str, str]:
    """Every array of a batch as text, with dtypes as numpy has them; errors as of `parse_batch`."""
    return {name: str(entry) for name, entry in parse_batch(batch).items()}


def flatten_batch(batch: Mapping[str, BatchTree]) -> dict[str, Any]:
    """Every array of a batch by its name.

    Raises:
        CaseError: two have one name.
    """
    found: dict[str, Any] = {}
    for name, one in batch.items():
        for path, leaf in _iterate_arrays(name, one):
            if path in found:
                raise CaseError(f"the batch has two entries that are called {path!r}.", fix="Rename one.")
            found[path] = leaf
    return found


def _iterate_arrays(name: str, tree: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key, one in tree.items():
            yield from _iterate_arrays(f"{name}/{key}", one)
    elif isinstance(tree, tuple | list):
        for index, one in enumerate(tree):
            yield from _iterate_arrays(f"{name}/{index}", one)
    elif tree is not None:
        yield name, tree


def nest_batch(batch: Mapping[str, BatchTree], function: Callable[[str], Any]) -> dict[str, Any]:
    """A batch with every array replaced.

    Args:
        batch: the batch.
        function: the name of an array to what takes its place.
    """

    def nest(name: str, tree: Any) -> Any:
        if isinstance(tree, Mapping):
            return {key: nest(f"{name}/{key}", one) for key, one in tree.items()}
        if isinstance(tree, tuple | list):
            return type(tree)(nest(f"{name}/{index}", one) for index, one in enumerate(tree))
        return None if tree is None else function(name)

    return {name: nest(name, one) for name, one in batch.items()}


def nested_entries(batch: Mapping[str, BatchTree]) -> dict[str, BatchTree]:
    """The names of the arrays of every input, nested as it is."""
    return nest_batch(batch, lambda name: name)


def key_names(batch: Mapping[str, BatchTree]) -> frozenset[str]:
    """The names of the arrays of a batch that are PRNG keys; errors as of `parse_batch`."""
    return frozenset(name for name, entry in parse_batch(batch, need_bounds=False).items() if entry.is_key)


def _parse_entry(name: str, text: str | KeptValues | BatchEntry) -> BatchEntry:
    if isinstance(text, BatchEntry):
        return text
    if isinstance(text, KeptValues):
        return replace(_describe_kept(name, text.values), is_key=text.is_key)
    match = BATCH_ENTRY.fullmatch(text.strip())
    if not match:
        raise CaseError(f"batch entry {name!r}: cannot parse {text!r}.", fix='Write "float32[8,784]" or "int32[8]:10".')
    shape = tuple(int(size) for size in match["shape"].split(",") if size.strip())
    dtype, bound = SHORT_DTYPES.get(match["dtype"], match["dtype"]), match["bound"]
    if dtype not in (*DTYPES, *KEY_DTYPES):
        raise CaseError(
            f"batch entry {name!r}: no dtype {dtype!r}.",
            fix="Write a numpy dtype name, e.g. float32 or int32, or a short one, f32 or i32; key for a PRNG key.",
        )
    if 0 in shape:
        raise CaseError(
            f"batch entry {name!r}: {text!r} is empty: nothing would be compared.", fix="Give every axis a size."
        )
    if dtype in KEY_DTYPES:
        return BatchEntry(LeafSpec((*shape, KEY_WORDS), "uint32"), 2**32 - 1, is_key=True)
    if "int" in dtype and bound and not int(bound):
        raise CaseError(
            f"batch entry {name!r}: {text!r} has no value below 0.", fix=f'Write "{text[:-1]}10", or no bound.'
        )
    signed, bits = dtype.startswith("int"), int(re.sub(r"\D", "", dtype) or 0)
    if "int" in dtype and int(bound or 0) > (largest := 2 ** (bits - signed) - 1):
        raise CaseError(f"batch entry {name!r}: {text!r} does not fit.", fix=f"Write a bound up to {largest}.")
    return BatchEntry(LeafSpec(shape, dtype), int(bound or 0) if dtype in INTEGER_DTYPES else 2)


def _describe_kept(name: str, values: "np.ndarray") -> BatchEntry:
    dtype = str(values.dtype)
    if dtype not in DTYPES:
        raise CaseError(f"batch entry {name!r}: no dtype {dtype!r}.", fix=f"Make it one of {', '.join(DTYPES)}.")
    if not values.size:
        raise CaseError(
            f"batch entry {name!r}: {dtype}{list(values.shape)} is empty: nothing would be compared.",
            fix="Give every axis a size.",
        )
    bound = 2 if dtype not in INTEGER_DTYPES else 0 if int(values.min()) < 0 else int(values.max()) + 1
    return BatchEntry(LeafSpec(values.shape, dtype), bound, values)
