"""Noun of a frozen reference: all that candidates are judged against, so that its library can be uninstalled.

A bundle is one MessagePack file: names, numbers and arrays, no code. No jax is imported here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from equiv.core.leaves import LeafSpec, NativeKey
from equiv.core.results import Finding
from equiv.errors import EquivError
from equiv.programs.program import Draw

SCHEMA_VERSION = 1


Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class FrozenLeaf:
    """One leaf of the reference; see `equiv.core.leaves.MappedLeaf`."""

    name: str
    key: NativeKey
    spec: LeafSpec
    native_shape: tuple[int, ...]
    copies: str | None
    constant: int | None


@dataclass(frozen=True)
class Outline:
    """A program without its equations.

    Attributes:
        name: see `equiv.programs.program.Program`; so are `inputs`, `outputs` and `draws`.
        inputs: by name.
        outputs: by name.
        draws: what it draws.
        needs: output to the inputs that it can depend on.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    draws: tuple[Draw, ...]
    needs: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Names:
    """The prover's names of a program's outputs under a set of rewrites: equal names, equal computations.

    Attributes:
        program: name of the program.
        lifted: whether in float64.
        rules: the rewrites in force.
        outputs: output to name.
    """

    program: str
    lifted: bool
    rules: tuple[str, ...]
    outputs: dict[str, str]


@dataclass(frozen=True)
class FrozenProbe:
    """A probe, and what the reference gave on it; see `equiv.programs.probes.Probe` and `equiv.compare.observation.Sample`."""

    name: str
    seed: int
    variables: Arrays
    batches: Arrays
    native: Arrays
    lifted: Arrays | None


@dataclass(frozen=True)
class Frozen:
    """A reference with its probes, outputs, gradients, steps, draws, rounding and names.

    Attributes:
        case: name of the case.
        backend: whose port it is.
        environment: that it was frozen in.
        prover: fingerprint of the prover that gave the names; another one's names mean nothing.
        has_modes: whether train and eval mode differ.
        steps: number of train steps.
        batch: as the case states it.
        leaves: its leaf table.
        random: number of leaves of random state.
        native_paths: native place and shape.
        parts: its forward and gradient programs.
        begin: variables to the carry of training.
        step: the train step.
        names: of every program's outputs.
        probes: with its outputs.
        noise: probe to output to the response to one ulp in every input.
        lifted_noise: likewise in float64.
        depth: output to rounded operations in a row.
        fresh: the state leaves as its library initialises them.
        reused: pairs of its native draws that came out alike and must not.
        drawn: number of native draws looked at.
        unlifted: why there is no float64 run.
        told: whether its probes can tell.
        schema: version of this noun.
    """

    case: str
    backend: str
    environment: dict[str, str]
    prover: str
    has_modes: bool
    steps: int
    batch: dict[str, str]
    leaves: tuple[FrozenLeaf, ...]
    random: int
    native_paths: tuple[tuple[NativeKey, tuple[int, ...]], ...]
    parts: tuple[Outline, ...]
    begin: Outline
    step: Outline
    names: tuple[Names, ...]
    probes: tuple[FrozenProbe, ...]
    noise: dict[str, dict[str, float]]
    lifted_noise: dict[str, dict[str, float]]
    depth: dict[str, int]
    fresh: Arrays
    reused: tuple[str, ...]
    drawn: int
    unlifted: str
    told: tuple[Finding, ...]
    schema: int = SCHEMA_VERSION


def encode(frozen: Frozen) -> bytes:
    """A bundle as bytes; arrays as dtype, shape and little-endian bytes."""
    return msgspec.msgpack.encode(frozen, enc_hook=_packed, order="sorted")


def decode(data: bytes, source: str) -> Frozen:
    """A bundle from bytes.

    Raises:
        EquivError: it is not a bundle, is cut off, or has another schema version.
    """
    mend = "Write it anew with equiv freeze."
    try:
        version = msgspec.msgpack.decode(data, type=_Version).schema
        if version != SCHEMA_VERSION:
            raise EquivError(f"{source}: bundle schema {version}, this version reads {SCHEMA_VERSION}. {mend}")
        return msgspec.msgpack.decode(data, type=Frozen, dec_hook=_unpacked)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise EquivError(f"{source}: not a bundle of equiv freeze: {error}. {mend}") from error


def read(path: Path) -> Frozen:
    """A bundle from a file.

    Raises:
        EquivError: it cannot be read, or is not a bundle.
    """
    try:
        return decode(path.read_bytes(), str(path))
    except OSError as error:
        raise EquivError(f"{path}: cannot be read: {error.strerror}. Give a file of equiv freeze.") from error


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """What differs between two environments, `jax: 0.10.2, now 0.11.2`."""
    return tuple(
        f"{name}: {before.get(name, 'unknown')}, now {now.get(name, 'unknown')}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    )


@dataclass(frozen=True)
class _Version:
    schema: int


def _packed(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        raise NotImplementedError(f"no form for {type(value).__name__}")
    little = value.astype(value.dtype.newbyteorder("<"))
    return {"dtype": str(value.dtype), "shape": value.shape, "data": little.tobytes()}


def _unpacked(kind: type, value: Any) -> Any:
    if kind is not np.ndarray or not isinstance(value, dict) or set(value) != {"dtype", "shape", "data"}:
        raise ValueError("an array is stored as dtype, shape and data")
    return np.frombuffer(value["data"], np.dtype(value["dtype"])).reshape(value["shape"])
