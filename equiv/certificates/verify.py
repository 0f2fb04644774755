"""Read a certificate from a file, check it, and say what it proves. No jax is imported here."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equiv.certificates.checker.check import check
from equiv.certificates.checker.terms import Refused
from equiv.errors import EquivError

SCHEMA_VERSION = 2

ABOUT = ("case", "reference", "candidate", "equiv", "jax", "default_rate")
"""What a certificate says of itself."""

TRUSTED = (
    "the checker (equiv/certificates/checker), numpy and Python; that jax's operations are functions of their operands",
    "that these programs are the models: tracing, what each equation is described as, the layer table, replayed random "
    "draws; give the case file to trace and compare them, and to know which outputs the case has besides",
    "that a compiler computes what a program says, up to rounding; conditions of rewrites are named, not checked",
)
"""What nothing in a certificate shows, in sentences."""


class FalseCertificate(EquivError):
    """A certificate claims what does not follow, or is not about the case that it is compared with."""


@dataclass(frozen=True)
class VerifiedCertificate:
    """A certificate that the checker has accepted.

    Attributes:
        data: the certificate.
        path: the file.
    """

    data: Mapping[str, Any]
    path: Path

    @property
    def pairs(self) -> int:
        """How many pairs of outputs of single programs are proved."""
        return len(self._covered)

    @property
    def missing(self) -> list[str]:
        """The outputs of its programs of which it claims nothing."""
        native = [one for one in self.data["programs"] if one["precision"] == "native" and one["side"] == 0]
        every = {(tuple(one["name"]), tuple(name)) for one in native for name in one["outputs"]}
        return [f"{_name(name)} of {' '.join(program)}" for program, name in sorted(every - self._covered)]

    @property
    def _covered(self) -> set[tuple[tuple[str, ...], tuple[str, ...]]]:
        return {
            (tuple(proof["programs"][0]), tuple(ours)) for proof in self.data["proofs"] for ours, _ in proof["pairs"]
        }

    def describe(self) -> Iterator[str]:
        """Say what is claimed and for which inputs, what was checked, and what is trusted: lines to be printed."""
        yield from map(to_line, self._describe())

    def _describe(self) -> Iterator[str]:
        about, training = self.data["about"], self.data["training"]
        native = [one for one in self.data["programs"] if one["precision"] == "native"]
        yield (
            f"{about['case']}: {about['candidate']} computes what {about['reference']} computes, in {self.pairs} of "
            f"{self.pairs + len(self.missing)} outputs of {len({tuple(one['name']) for one in native})} programs: "
            f"{', '.join(sorted({' '.join(one['name']).strip() for one in native}))}"
        )
        if self.missing:
            yield f"nothing is claimed of {name_some(self.missing)}"
        for what, reason in self.data["left_out"]:
            yield f"proved, but not certified: {what}: {reason}"
        for claim in training:
            start = "from the fresh state of each library" if claim["cold"] else "from equal variables"
            yield (
                f"{start}: {len(claim['kept'])} values stay equal after any number of train steps, "
                f"and {len(claim['after'])} outputs of the trained models"
            )
            ours, theirs = self.data["fresh"]
            different = sorted(leaf for leaf in {**ours, **theirs} if ours.get(leaf) != theirs.get(leaf))
            if claim["cold"] and different:
                yield f"  though these start otherwise: {', '.join(different)}"
        yield f"for every input of these shapes and dtypes: {', '.join(_describe_inputs(self.data['programs']))}"
        for name, condition in self.data["conditions"].items():
            yield f"up to {name}: {condition}"
        for _, name, other in self.data["aliases"]:
            yield f"assuming that {_name(name)}, which one library alone has, is {_name(other)}"
        steps = sum(len(side) for proof in self.data["proofs"] for side in proof["steps"])
        terms = sum(len(proof["terms"]) for proof in self.data["proofs"])
        yield f"checked: {steps} steps and {terms} terms of {len(self.data['proofs'])} proofs, each by its rule"
        yield from (f"trusted: {sentence}" for sentence in TRUSTED)


def to_line(text: str) -> str:
    """A text as one line: what would move the cursor or break the line is shown as a question mark."""
    return "".join(one if one.isprintable() else "?" for one in text)


def name_some(names: Sequence[str], most: int = 8) -> str:
    """Names in one line, the first of many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def _describe_inputs(programs: Any) -> list[str]:
    found: dict[str, None] = {}
    for program in programs:
        if program["precision"] == "native":
            for name, (shape, dtype) in zip(program["inputs"], program["jaxpr"]["inputs"], strict=True):
                found[f"{_name(name)} {dtype}[{','.join(map(str, shape))}]"] = None
    return sorted(found)


def _name(name: Any) -> str:
    kind, path, leaf = name
    return f"{path}{leaf}" if kind in ("leaf", "optimizer", "bookkeeping") else f"{kind}/{path}"


def verify_file(path: Path) -> VerifiedCertificate:
    """Read a certificate and check it.

    Raises:
        FalseCertificate: the checker refuses it.
        EquivError: it cannot be read, or is no certificate.
    """
    data = read_certificate(path)
    fix = "Write it again with equiv run --certificates."
    try:
        check(data)
        found = VerifiedCertificate(data, path)
        list(found.describe())  # only what can be said was a certificate
        if not found.pairs:
            raise Refused("it claims of no output that it is equal")
        return found
    except Refused as refusal:
        raise FalseCertificate(to_line(f"{path}: refused: {refusal}.")) from refusal
    except Exception as error:  # what is no certificate may break the checker in any way, but is never accepted
        raise EquivError(f"{path}: no certificate: {_one_line(error)}.", fix=fix) from error


def read_certificate(path: Path) -> dict[str, Any]:
    """Read a file as JSON that has the sections of a certificate of this version.

    Raises:
        EquivError: it has not.
    """
    fix = "Give a file of equiv run --certificates."
    try:
        data = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
        version = data["schema"]
        if version == SCHEMA_VERSION and tuple(data["about"]) != ABOUT:
            raise ValueError(f"it does not say {', '.join(ABOUT)}")
    except OSError as error:
        raise EquivError(f"{path}: cannot be read: {error.strerror}.", fix=fix) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise EquivError(f"{path}: no certificate: {_one_line(error)}.", fix=fix) from error
    if version != SCHEMA_VERSION:
        raise EquivError(f"{path}: certificate schema {version!r}, this version reads {SCHEMA_VERSION}.", fix=fix)
    return data


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _one_line(error: BaseException) -> str:
    text = to_line(" ".join(f"{type(error).__name__}: {error}".split()))
    return text if len(text) <= 200 else f"{text[:200]} ..."
