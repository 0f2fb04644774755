"""What two interpreters say to each other: pickles of plain data, of one version of equiv on both sides."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from equiv.core.leaves import LeafSpec, NativeKey
from equiv.core.output_name import InputName, OutputName, ProgramName
from equiv.infer.dataflow.walk import Dataflow


@dataclass(frozen=True)
class PortFacts:
    """A port without its functions; see `equiv.backends.base.Port`."""

    library: str
    leaves: Mapping[NativeKey, LeafSpec]
    collections: Mapping[NativeKey, str]
    has_modes: bool


@dataclass(frozen=True)
class GraphFacts:
    """A `PortGraph` without the jaxpr of its program.

    Attributes:
        number: by which the other interpreter knows it.
        program: name of the program; so are `inputs` and `outputs`.
        inputs: by name.
        outputs: by name.
        shapes: of the outputs.
        keys: see `PortGraph`; so is `dataflow`.
        dataflow: likewise.
    """

    number: int
    program: ProgramName
    inputs: tuple[InputName, ...]
    outputs: tuple[OutputName, ...]
    shapes: tuple[tuple[int, ...], ...]
    keys: Mapping[int, NativeKey]
    dataflow: Dataflow


@dataclass(frozen=True)
class Failure:
    """What a request raised that is no `EquivError`: an error of ours.

    Attributes:
        summary: type and message.
    """

    summary: str


@lru_cache(maxsize=1)
def source_digest() -> str:
    """Hash the sources of equiv: pickles of one version mean nothing to another."""
    content = hashlib.sha256()
    root = Path(__file__).parent.parent.parent
    for path in sorted(root.rglob("*.py")):
        content.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return content.hexdigest()
