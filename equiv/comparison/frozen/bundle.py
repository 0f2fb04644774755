"""A frozen reference: all that candidates are compared with, so that its library can be uninstalled.

A bundle is a line with the version of its format, a SHA-256 of what follows, and that in MessagePack: names, numbers
and arrays, no code. No jax is imported here.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from equiv.comparison.observation import TrainStepKind
from equiv.core.budget import Responses
from equiv.core.leaves import LeafSpec, NativeKey
from equiv.core.no_gradient import NoGradient
from equiv.core.output_name import InputName, OutputName, ProgramName
from equiv.core.results import ProbeTrial
from equiv.errors import EquivError
from equiv.programs.program import Draw, KeyReuse
from equiv.programs.prover.proof import Precision

SCHEMA_VERSION = 11

FIRST_LINE = b"equiv bundle %d\n"

FrozenArrays = dict[str, np.ndarray]


FrozenOutputs = dict[OutputName, np.ndarray]


@dataclass(frozen=True)
class FrozenLeaf:
    """One leaf of the reference; see `equiv.core.leaves.MappedLeaf`."""

    name: str
    key: NativeKey
    spec: LeafSpec
    native_shape: tuple[int, ...]
    mirrors: str | None
    fixed_value: int | None


@dataclass(frozen=True)
class FrozenProgram:
    """A program without its equations.

    Attributes:
        name: see `equiv.programs.program.Program`; so are `inputs`, `outputs` and `draws`.
        inputs: by name.
        outputs: by name.
        draws: what it draws.
        needs: for every output the numbers of the inputs that it can depend on.
        casts: whether it has casts that a float64 trace removes.
    """

    name: ProgramName
    inputs: tuple[InputName, ...]
    outputs: tuple[OutputName, ...]
    draws: tuple[Draw, ...]
    needs: tuple[tuple[int, ...], ...]
    casts: bool


@dataclass(frozen=True)
class FrozenNames:
    """The prover's names of a program's outputs under a set of rewrites: equal names mean equal computations.

    Attributes:
        program: name of the program.
        precision: in which it is numbered.
        rules: the rewrites applied.
        outputs: output to name.
    """

    program: ProgramName
    precision: Precision
    rules: tuple[str, ...]
    outputs: dict[OutputName, str]


@dataclass(frozen=True)
class FrozenProbe:
    """A probe, and the outputs of the reference on it; see `equiv.programs.probes.Probe`
    and `equiv.comparison.observation.Sample`."""

    name: str
    seed: int
    variables: FrozenArrays
    batches: FrozenArrays
    native: FrozenOutputs
    float64: FrozenOutputs | None


@dataclass(frozen=True)
class FrozenEdge:
    """An edge probe, and the outputs of the reference that are compared on it.

    Attributes:
        probe: what of it differs from the first probe of the bundle, and the outputs.
        late: see `equiv.programs.probes.Probe`; so is `tails`.
        tails: numbers that draws have among their own.
        calls: see `equiv.comparison.edges.edge_probes.EdgeProbe`; so are the following.
        training: whether train steps are compared.
        exact: whether values lie exactly at ties and thresholds.
        guarded: whether only equal numbers of ties are compared.
        overflows: whether it is made to overflow an exponential.
        ties: threshold to the number of values that are exactly there, where there are any.
    """

    probe: FrozenProbe
    late: tuple[int, ...]
    tails: tuple[float, ...]
    calls: bool
    training: bool
    exact: bool
    guarded: bool
    overflows: bool
    ties: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class FrozenReference:
    """A reference with its probes, outputs, draws, rounding and the names of its outputs.

    Attributes:
        case: name of the case.
        port: name of the port.
        library: of the port.
        environment: versions and device with which it was frozen.
        prover: fingerprint of the prover that computed the names; names of another prover cannot be compared.
        has_modes: whether train and eval mode differ.
        steps: number of train steps.
        batch: every array of it as text.
        kept: those whose values are the case's own.
        methods: public method to its arguments.
        leaves: its leaf table.
        random: number of leaves of random state.
        native_paths: native keys and shapes.
        parts: its forward and gradient programs.
        begin: variables to the carry of training; None: it was not trained.
        step: the train step; None likewise.
        no_gradients: the gradients that it does not have, and why.
        names: of every program's outputs.
        probes: with the outputs of the reference.
        noise: probe to output to its responses to one ulp in every input.
        float64_noise: likewise in float64.
        depth: output to rounded operations in a row.
        fresh: the state leaves as its library initialises them.
        reused: draws of one program that use one key.
        drawn: number of keys looked at.
        why_no_float64: why there is no float64 run.
        sensitivity: trials of its probes.
        train_step: whose train step it was trained with.
        default_rate: of the default train step, where it was trained with that.
        edges: probes with what ordinary ones have not, made for the reference; their responses are in `noise`.
        edges_refused: why it could not be run on any.
        thresholds: what its programs compare values with, which the edges are made for.
    """

    case: str
    port: str
    library: str
    environment: dict[str, str]
    prover: str
    has_modes: bool
    steps: int
    batch: dict[str, str]
    kept: FrozenArrays
    methods: dict[str, tuple[str, ...]]
    leaves: tuple[FrozenLeaf, ...]
    random: int
    native_paths: tuple[tuple[NativeKey, tuple[int, ...]], ...]
    parts: tuple[FrozenProgram, ...]
    begin: FrozenProgram | None
    step: FrozenProgram | None
    no_gradients: tuple[NoGradient, ...]
    names: tuple[FrozenNames, ...]
    probes: tuple[FrozenProbe, ...]
    noise: dict[str, dict[OutputName, Responses]]
    float64_noise: dict[str, dict[OutputName, Responses]]
    depth: dict[OutputName, int]
    fresh: FrozenArrays
    reused: tuple[KeyReuse, ...]
    drawn: int
    why_no_float64: str
    sensitivity: tuple[ProbeTrial, ...]
    train_step: TrainStepKind
    default_rate: float
    edges: tuple[FrozenEdge, ...]
    edges_refused: str
    thresholds: tuple[float, ...]


def encode_bundle(frozen: FrozenReference) -> bytes:
    """Encode a bundle; arrays as dtype, shape and little-endian bytes."""
    content = msgspec.msgpack.encode(frozen, enc_hook=_encode_array)
    return b"".join((FIRST_LINE % SCHEMA_VERSION, hashlib.sha256(content).digest(), content))


def decode_bundle(data: bytes, source: str) -> FrozenReference:
    """Decode a bundle.

    Raises:
        EquivError: it is not a bundle, has another schema version, or is not as it was written.
    """
    fix = "Regenerate it with equiv freeze."
    line = re.match(FIRST_LINE.replace(b"%d", b"([0-9]{1,9})"), data)
    if line is None:
        raise EquivError(f"{source}: not a bundle of equiv freeze.", fix=fix)
    if int(line[1]) != SCHEMA_VERSION:
        raise EquivError(f"{source}: bundle schema {int(line[1])}, this version reads {SCHEMA_VERSION}.", fix=fix)
    content = memoryview(data)[line.end() + hashlib.sha256().digest_size :]
    if hashlib.sha256(content).digest() != data[line.end() : len(data) - len(content)]:
        raise EquivError(f"{source}: the bundle is cut off or was changed after it was written.", fix=fix)
    try:
        return msgspec.msgpack.decode(content, type=FrozenReference, dec_hook=_decode_array)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise EquivError(f"{source}: not a bundle of equiv freeze: {error}.", fix=fix) from error


def read_bundle(path: Path) -> FrozenReference:
    """Read a bundle from a file.

    Raises:
        EquivError: it cannot be read, or is not a bundle.
    """
    try:
        return decode_bundle(path.read_bytes(), str(path))
    except OSError as error:
        raise EquivError(f"{path}: cannot be read: {error.strerror}.", fix="Give a file of equiv freeze.") from error


def environment_changes(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """List what differs between two environments: `jax: 0.10.2, now 0.11.2`."""
    return tuple(
        f"{name}: {before.get(name, 'unknown')}, now {now.get(name, 'unknown')}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    )


def _encode_array(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        raise NotImplementedError(f"no form for {type(value).__name__}")
    little = value.astype(value.dtype.newbyteorder("<"))
    return {"dtype": str(value.dtype), "shape": value.shape, "data": little.tobytes()}


def _decode_array(kind: type, value: Any) -> Any:
    if kind is not np.ndarray or not isinstance(value, dict) or set(value) != {"dtype", "shape", "data"}:
        raise ValueError("an array is stored as dtype, shape and data")
    return np.frombuffer(value["data"], np.dtype(value["dtype"])).reshape(value["shape"])
