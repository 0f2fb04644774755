"""Calls one after the other, each given the state that the one before left: prefill and decode, a recurrent state."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from equiv.core.batch_parts import BatchPart, PartedCall
from equiv.core.batch_spec import BatchTree
from equiv.core.case import CallSequence, setting_for
from equiv.core.method_call import MethodCall, read_call, with_entries
from equiv.errors import CaseError


@dataclass(frozen=True)
class PortSequence:
    """A sequence of one port, read.

    Attributes:
        calls: each call by its text.
        join: as in `CallSequence`.
        parts: those of the batch whose outputs are compared, of the only call; empty: it is a sequence.
        alone: whether the port is called with each part, and not with the batch of which these are parts.
    """

    calls: tuple[tuple[str, MethodCall], ...]
    join: int | None
    parts: tuple[BatchPart, ...] = ()
    alone: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        """The batch entries that its calls take, each once."""
        return tuple(dict.fromkeys(name for _, call in self.calls for name in call.inputs))


def read_sequence(
    name: str, sequence: CallSequence, batch: Mapping[str, BatchTree], port: str, library: str
) -> PortSequence:
    """Read the calls of one port.

    Args:
        name: of the sequence.
        sequence: it.
        batch: the batch, whose names are the inputs.
        port: name of the port.
        library: name of its library.

    Raises:
        CaseError: a call cannot be read or takes what is no input; the port has no calls, or other ones that are not
            joined.
    """
    if isinstance(sequence, PartedCall):
        calls = tuple((text, sequence.known[text]) for text in sequence.texts)
        return PortSequence(calls, None, sequence.parts, alone=port == sequence.alone)
    texts = sequence.calls
    if isinstance(texts, Mapping):
        if sequence.join is None:
            raise CaseError(
                f"sequence {name}: ports have calls of their own, and their outputs are not joined.",
                fix="Give the axis on which the outputs of all calls are joined: CallSequence(..., join=1).",
            )
        own = setting_for(texts, port, library)
        if own is None:
            raise CaseError(
                f"sequence {name}: no calls for {port}, only for {', '.join(texts)}.",
                fix=f"Add the calls of {port}, or of {library}.",
            )
        texts = own
    if isinstance(texts, str) or not texts:
        raise CaseError(
            f"sequence {name}: {texts!r} are no calls.", fix='Give several, e.g. ("prefill(x)", "decode(y)").'
        )
    read: list[tuple[str, MethodCall]] = []
    for text in texts:
        method, call = read_call(text, f"sequence {name}:")
        read.append((text, replace(with_entries(f"{method} of sequence {name}", call, batch), method=method)))
    return PortSequence(tuple(read), sequence.join)
