"""Ports whose constants may be read otherwise: which table is one of the other port's, which numbers may be moved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from equiv.backends.build import call_user_code
from equiv.comparison.numeric.held_outputs import hold_outputs
from equiv.comparison.numeric.run_port import CompiledPort, run_then_eval, stream_then_eval
from equiv.comparison.numeric.tables import match_table
from equiv.comparison.observation import FRESH_STATE, Outputs
from equiv.core.output_name import ProgramName, trained_leaf
from equiv.programs.compiled import Executable, lower_programs
from equiv.programs.constants import (
    AMOUNTS,
    ComputedTable,
    Constant,
    ConstantKey,
    Reading,
    find_computed,
    find_constants,
    read_programs,
)
from equiv.programs.probes import Probe, numpy_dtype
from equiv.programs.program import Programs

MOST_UNKNOWNS = 64
"""Number of numbers that are tried; each costs a run of its port."""


@dataclass(frozen=True)
class Unknown:
    """A number that may be moved within its last digit.

    Attributes:
        port: name of the port that has it.
        value: in the float64 program.
        center: from where it is moved; see `equiv.programs.constants.Constant`.
        size: by how much.
        place: where it is used, in brackets; empty if unknown.
        dtype: in which its port has it.
    """

    port: str
    value: float
    center: float
    size: float
    place: str
    dtype: str = "float32"

    @property
    def is_rounded(self) -> bool:
        """Whether somebody has rounded it: to a narrower dtype, or to float32 or the shortest decimal for one."""
        return self.dtype != "float32" or self.value in (
            float(np.float32(self.value)),
            float(str(np.float32(self.value))),
        )

    def describe(self, amount: float) -> str:
        """Say as which number it is read."""
        return f"{self.port}'s {self.value:.9g}{self.place} as {self.center + amount * self.size:.12g}"


@dataclass(frozen=True)
class ReadPort:
    """A port whose constants may be read otherwise; without an executable it stays as it is.

    Attributes:
        compiled: the port; None: a frozen reference.
        probes: on which it runs.
        executable: its programs with amounts as inputs.
        unknowns: its numbers that the amounts move.
        tables: those that are read as the other port's, as text.
        table_dtypes: those in which its port has these.
    """

    compiled: CompiledPort | None
    probes: Sequence[Probe]
    executable: Executable | None
    unknowns: tuple[Unknown, ...]
    tables: tuple[str, ...]
    table_dtypes: tuple[str, ...] = ()

    def run(
        self,
        amounts: np.ndarray,
        known: Mapping[str, Outputs],
        taken: Mapping[str, Outputs],
        converted: set[str],
        calls_alone: bool = False,
    ) -> Mapping[str, Outputs]:
        """Run it on the probes of `known`, its outputs as they are. Where its training is large, outputs are held.

        Args:
            amounts: of its own unknowns.
            known: probe to outputs.
            taken: probe to outputs of the reference.
            converted: leaves that differ by a known formula: the eval after training takes them from there.
            calls_alone: where its training is large, no step of it is asked for.
        """
        if self.executable is None or self.compiled is None:
            return known
        found: dict[str, Outputs] = {}
        for probe in self.probes:
            if probe.name not in known:
                continue
            given = np.tile(amounts, (self.executable.steps, 1))
            moved = replace(probe, batches={**probe.batches, AMOUNTS: given})
            fresh = probe.name == FRESH_STATE
            own = self.compiled.traced.fresh if fresh else {}
            is_large = self.executable.training is not None
            if is_large and calls_alone:
                found[probe.name] = {**known[probe.name], **next(stream_then_eval(self.executable, moved, own, {}))[0]}
                continue
            leaves = {leaf: taken[probe.name][trained_leaf(leaf)][-1] for leaf in converted if fresh and taken}
            stream = partial(stream_then_eval, self.executable, moved, own, leaves)
            found[probe.name] = (
                hold_outputs(stream)[0]  # of all programs, so that nothing of what was known is missing
                if is_large
                else {**known[probe.name], **run_then_eval(self.executable, moved, own, leaves)[0]}
            )
        return found


Ports = tuple[CompiledPort | None, CompiledPort]
"""The reference, None where it is frozen, and the candidate."""


def readable_ports(
    ports: Ports, probes: tuple[Sequence[Probe], Sequence[Probe]], names: frozenset[ProgramName]
) -> tuple[ReadPort, ReadPort]:
    """Find the constants that only one of two ports has, and compile the ports so that these may be read otherwise.

    Args:
        ports: both.
        probes: of both.
        names: of the programs that are read so.

    Raises:
        PortError: a changed program cannot be compiled, or what a port computes from constants cannot be computed.
    """
    programs = [None if one is None or one.float64 is None else one.float64.programs for one in ports]
    found = [
        {} if one is None or port is None else find_constants(one, names, port.traced.programs)
        for one, port in zip(programs, ports, strict=True)
    ]
    # What both have is no difference; and a number that float32 has exactly, as written, is known.
    own = [
        {key: one for key, one in mine.items() if key not in theirs and one.unknown.any()}
        for mine, theirs in (found, found[::-1])
    ]
    sides: list[ReadPort] = []
    for index, compiled in enumerate(ports):
        tables: list[ComputedTable] = []
        other = programs[1 - index]
        if other is not None and any(one.value.size > 1 for one in own[index].values()):
            tables = call_user_code(other.port, "computing constants", partial(find_computed, other, names))
            raw = (one.value for one in found[1 - index].values() if one.value.size > 1)
            tables += [ComputedTable(one, np.zeros(one.shape)) for one in raw]
        sides.append(_readable_port(compiled, probes[index], names, own[index], tables, is_reference=not index))
    return sides[0], sides[1]


def _is_rounded(array: np.ndarray, dtype: str) -> bool:
    return bool(np.array_equal(array, array.astype(numpy_dtype(dtype)).astype("float64")))


def _exact_tables(constant: Constant, tables: Sequence[ComputedTable], is_reference: bool) -> list[ComputedTable]:
    """The tables as which one may be read: those that are not rounded; where both or none are, the reference's."""
    rounded = _is_rounded(constant.value, constant.dtype)
    if is_reference:
        return [one for one in tables if rounded and not _is_rounded(one.value, constant.dtype)]
    return [one for one in tables if rounded or not _is_rounded(one.value, constant.dtype)]


def _match_constant(constant: Constant, tables: Sequence[ComputedTable]) -> np.ndarray | None:
    """The table as which a constant is read; of one with too many numbers to try, as far as the other port has them.

    A table has all positions that a model can take, and the other port computes those of the batch.
    """
    value, unknown = constant.value, constant.unknown
    if value.size == 1:
        return None
    too_many = np.unique(value[unknown > 0]).size > MOST_UNKNOWNS
    return match_table(value, tables, unknown, partly=too_many)


def _readable_port(
    compiled: CompiledPort | None,
    probes: Sequence[Probe],
    names: frozenset[ProgramName],
    constants: Mapping[ConstantKey, Constant],
    tables: Sequence[ComputedTable],
    is_reference: bool,
) -> ReadPort:
    readings: dict[ConstantKey, Reading] = {}
    unknowns: dict[float, Unknown] = {}
    texts, rounded = list[str](), list[str]()
    if compiled is None or compiled.float64 is None:
        return ReadPort(compiled, probes, None, (), ())
    port = compiled.traced.port.name
    for key, constant in sorted(constants.items(), key=lambda item: item[1].value.size):
        value, place = constant.value, f" ({constant.place.short})" if constant.place else ""
        matched = _match_constant(constant, _exact_tables(constant, tables, is_reference))
        if matched is not None:
            nothing = np.zeros(value.shape)
            readings[key] = Reading(matched, nothing, nothing.astype(int))
            texts.append(_table_text(port, value, matched, place))
            rounded.append(constant.dtype)
            continue
        size, center = constant.unknown, constant.center
        elements = zip(*(array.ravel().tolist() for array in (value, center, size)), strict=True)
        numbers = {one: (known, each) for one, known, each in elements if each}
        if len(unknowns.keys() | numbers.keys()) > MOST_UNKNOWNS:
            continue
        for number, (known, each) in numbers.items():
            unknowns.setdefault(number, Unknown(port, number, known, each, place, constant.dtype))
        order = {number: index for index, number in enumerate(unknowns)}
        which = np.array([order.get(float(one), 0) for one in value.ravel()], int).reshape(value.shape)
        readings[key] = Reading(center, size, which)
    if not readings:
        return ReadPort(compiled, probes, None, (), ())
    whole = compiled.float64.programs
    if compiled.float64.training is not None:  # then all are run, and none is put together with what was known
        names = frozenset(part.name for part in (*whole.parts, whole.step) if part is not None)
    programs = read_programs(whole, names, readings, len(unknowns))
    return ReadPort(
        compiled,
        probes,
        _compile(compiled.float64, programs, probes[0], len(unknowns)),
        tuple(unknowns.values()),
        tuple(texts),
        tuple(dict.fromkeys(rounded)),
    )


def _table_text(port: str, value: np.ndarray, read: np.ndarray, place: str) -> str:
    """Say how a table is read, with the number that this changes most."""
    most = np.unravel_index(int(np.argmax(np.abs(read - value))), value.shape)
    return (
        f"{port}'s table of {value.size} numbers{place} as the other port has it, "
        f"{value[most]:.9g} as {read[most]:.12g}"
    )


def _compile(executable: Executable, programs: Programs, probe: Probe, unknowns: int) -> Executable:
    given = replace(probe, batches={**probe.batches, AMOUNTS: np.zeros((executable.steps, unknowns))})
    lower = partial(lower_programs, programs, executable.table, executable.steps, given, quick=True)
    return call_user_code(programs.port, "compiling", lambda: lower()())
