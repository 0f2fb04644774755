"""The constants of float64 programs, and programs that read some of them otherwise.

A number that a port makes in float32, such as `np.sqrt(8).astype("float32")`, is known to its last digit only; one that
it makes in bfloat16 or float16, to the last digit of that. Another port may have the same number with more digits, or
compute it: in float64 the two differ, though the model is one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from equiv.compat import bind_equation, enable_x64
from equiv.core.first_difference import SourceLine
from equiv.core.output_name import ProgramName, batch_input
from equiv.programs.jaxpr import Interpreter, inner_jaxprs, locate_equation, open_jaxpr, read_scan, read_while
from equiv.programs.primitives import EXACT, FOREIGN_CALLS, RANDOMNESS
from equiv.programs.probes import numpy_dtype, split_parts
from equiv.programs.program import Program, Programs
from equiv.programs.reevaluation import Reevaluation
from equiv.programs.transform import constant_as_float64

ConstantKey = tuple[tuple[int, ...], bytes]
"""Shape and bytes of a constant: the same number in two places is one constant."""

AMOUNTS = "amounts of constants"
"""The batch entry that `read_programs` adds: by how many last digits each unknown is moved. No entry of a case is named
with spaces."""

HALF_DTYPES = ("bfloat16", "float16")
"""Dtypes of fewer digits than float32."""

NUDGES = 16
"""Number of evaluations with every result moved by an ulp: most ways in which a few roundings add up occur."""

LARGEST_TABLE = 2**22
"""Number of elements up to which an array is looked at."""


def constant_key(array: np.ndarray) -> ConstantKey:
    """The key of a float64 constant."""
    return array.shape, array.tobytes()


def last_digits(array: np.ndarray, dtype: str = "float32") -> np.ndarray:
    """One unit in the last place of a dtype for every element; 0 for numbers that it has exactly, as written.

    A number is taken for exact if the dtype holds it and it has at most as many decimal digits as come back from that
    (C's FLT_DIG, 6 of float32): 0, 2, 0.125.

    Args:
        array: the numbers, in float64.
        dtype: the dtype.
    """
    kind = numpy_dtype(dtype)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        narrow = array.astype(kind)
        size = np.abs(np.spacing(narrow)).astype("float64")
        digits = int(ml_dtypes.finfo(kind).precision) - 1 - np.floor(np.log10(np.abs(array)))
        scaled = np.where(digits >= 0, array * 10.0 ** np.maximum(digits, 0), array / 10.0 ** np.maximum(-digits, 0))
        written = (array == 0) | ((narrow == array) & (scaled == np.round(scaled)))
    return np.where(written | ~np.isfinite(size), 0.0, size)


@dataclass(frozen=True)
class Constant:
    """One constant of a port's float64 programs.

    Attributes:
        value: in float64.
        place: the user's line that uses it first; None if unknown.
        dtype: in which the port has it natively, as far as its digits go: one of `HALF_DTYPES`, or `float32`.
    """

    value: np.ndarray
    place: SourceLine | None = None
    dtype: str = "float32"

    @property
    def center(self) -> np.ndarray:
        """What is known of every element: of a narrower dtype than float32, that number, and no shorter decimal."""
        if self.dtype == "float32":
            return self.value
        return self.value.astype(numpy_dtype(self.dtype)).astype("float64")

    @property
    def unknown(self) -> np.ndarray:
        """How far every element may be from what it stands for: one last digit of float32, half a one of less digits.

        Where a last digit is a percent, two neighbouring numbers are two numbers: what rounds to the nearest one
        lies within half of it, and short of the middle.
        """
        digits = last_digits(self.value, self.dtype)
        return digits if self.dtype == "float32" else digits * (0.5 - float(np.finfo("float32").eps))


def find_constants(
    programs: Programs, names: frozenset[ProgramName], native: Programs | None = None
) -> dict[ConstantKey, Constant]:
    """Find the float64 constants of some programs of a port, those inside of loops and calls included.

    Args:
        programs: of one port, in float64.
        names: of the programs.
        native: the same port's in its own dtypes, which say in what a constant was rounded; None: in float32.
    """
    walk, narrow = _ConstantWalk(), _NativeWalk()
    for part in named_programs(programs, names):
        walk.run(part.jaxpr, [None] * len(part.inputs))
    with enable_x64(True):
        for part in named_programs(native, names) if native is not None else ():
            narrow.run(part.jaxpr, [None] * len(part.inputs))
    return {
        key: Constant(array, walk.places.get(key), narrow.dtypes.get(key, "float32"))
        for key, array in walk.constants.items()
    }


class _NativeWalk(Interpreter[None]):
    """A walk over native programs for the constants that they have in fewer digits than float32.

    Attributes:
        lift: gives a constant in float64.
        dtypes: key of the constant in float64 to its dtype; what a program has in float32 too is not among them.
    """

    def __init__(self, lift: Callable[[Any], Any] = constant_as_float64) -> None:
        self.lift = lift
        self.dtypes: dict[ConstantKey, str] = {}

    def literal(self, atom: Any) -> None:
        self.constant(np.asarray(atom.val, atom.aval.dtype) if isinstance(atom.aval.dtype, np.dtype) else atom.val)

    def constant(self, array: Any) -> None:
        dtype = str(getattr(array, "dtype", ""))
        if dtype in (*HALF_DTYPES, "float32") and array.size <= LARGEST_TABLE:
            key = constant_key(np.asarray(self.lift(array), "float64"))
            known = self.dtypes.setdefault(key, dtype)
            self.dtypes[key] = dtype if dtype == "float32" else known

    def equation(self, eqn: Any, ins: list[None]) -> list[None]:
        for body in inner_jaxprs(eqn):
            self.run(body, [None] * len(open_jaxpr(body)[0].invars))
        return [None] * len(eqn.outvars)


@dataclass(frozen=True)
class ComputedTable:
    """An array that a program computes from constants alone.

    Attributes:
        value: in float64.
        rounding: how far float32 arithmetic may take each element from that.
    """

    value: np.ndarray
    rounding: np.ndarray


def find_computed(programs: Programs, names: frozenset[ProgramName]) -> list[ComputedTable]:
    """Find the float arrays that some programs compute from constants alone, and how they round in float32."""

    def evaluate(seed: int | None) -> list[np.ndarray]:
        walk = _ConstantWalk(evaluate=True, nudges=None if seed is None else np.random.default_rng(seed))
        for part in named_programs(programs, names):
            walk.run(part.jaxpr, [None] * len(part.inputs))
        return walk.computed

    with enable_x64(True):
        tables = evaluate(None)
        moved = [evaluate(seed) for seed in range(NUDGES if tables else 0)]
    rounding = (np.max([np.abs(one[index] - table) for one in moved], axis=0) for index, table in enumerate(tables))
    return [ComputedTable(*pair) for pair in zip(tables, rounding, strict=True)]


def named_programs(programs: Programs, names: frozenset[ProgramName]) -> Iterator[Program]:
    """Yield the programs of these names; training is its step."""
    for part in (*programs.parts, programs.step):
        if part is not None and part.name in names:
            yield part


def _is_read(array: Any) -> bool:
    """Whether a constant of a float64 program is looked at; what takes one in float32 converts it."""
    return str(getattr(array, "dtype", "")) in ("float64", "float32") and array.size <= LARGEST_TABLE


@dataclass
class _ConstantWalk(Interpreter[Any]):
    """A walk in which a value is an array where constants alone decide it, and None where an input does.

    Attributes:
        evaluate: compute what constants alone decide; otherwise only constants themselves are known.
        nudges: moves every rounded result by one ulp of float32; None: none is moved.
        constants: those found.
        places: the lines that use them.
        computed: tables computed from them, in order.
    """

    evaluate: bool = False
    nudges: np.random.Generator | None = None
    constants: dict[ConstantKey, np.ndarray] = field(default_factory=dict)
    places: dict[ConstantKey, SourceLine | None] = field(default_factory=dict)
    computed: list[np.ndarray] = field(default_factory=list)
    known: dict[int, ConstantKey] = field(default_factory=dict)

    def literal(self, atom: Any) -> Any:
        if str(atom.aval.dtype) == "float64":
            return self._found(atom.val)
        return np.asarray(atom.val, atom.aval.dtype) if isinstance(atom.aval.dtype, np.dtype) else atom.val

    def constant(self, array: Any) -> Any:
        return self._found(array) if _is_read(array) else array

    def _found(self, value: Any) -> np.ndarray:
        array = np.asarray(value, "float64")
        key = constant_key(array)
        kept = self.constants.setdefault(key, array)
        self.known[id(kept)] = key
        return kept

    def step(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        for one in ins:
            key = self.known.get(id(one))
            if key is not None and key not in self.places:
                _, self.places[key], _ = locate_equation((*self.calls, eqn))
        return super().step(eqn, ins)

    def equation(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        name = eqn.primitive.name
        if not self.evaluate or any(one is None for one in ins) or name in RANDOMNESS | FOREIGN_CALLS or eqn.effects:
            return [None] * len(eqn.outvars)
        return [self._rounded(name, one) for one in bind_equation(eqn, ins)]

    def _rounded(self, primitive: str, value: Any) -> Any:
        if str(getattr(value, "dtype", "")) not in ("float64", "complex128"):
            return value
        array = np.asarray(value)
        if self.nudges is not None and primitive not in EXACT:
            ulp = float(np.finfo("float32").eps)
            array = array * (1 + ulp * self.nudges.choice((-1.0, 1.0), array.shape))
        if 1 < array.size <= LARGEST_TABLE:
            # A table of complex numbers is two, as where one is a constant.
            self.computed += split_parts(array)
        return array

    def scan(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        loop = read_scan(eqn)
        fixed, start, scanned = loop.split(ins)
        self.run(loop.body, [*fixed, *(None for _ in (*start, *scanned))], self.path)
        return self.equation(eqn, ins)

    def while_loop(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        loop = read_while(eqn)
        for_test, for_body, start = loop.split(ins)
        for body, fixed in ((loop.test, for_test), (loop.body, for_body)):
            self.run(body, [*fixed, *(None for _ in start)], self.path)
        return [None] * len(eqn.outvars)

    def cond(self, eqn: Any, ins: list[Any]) -> Sequence[Any]:
        for branch in inner_jaxprs(eqn):
            self.run(branch, ins[1:], self.path)
        return self.equation(eqn, ins)


@dataclass(frozen=True)
class Reading:
    """How a program reads one of its constants: `value + step * amounts[unknown]`.

    Attributes:
        value: of every element.
        step: how far an amount of 1 moves each element; 0 where it stays.
        unknown: number of the amount that moves each element.
    """

    value: np.ndarray
    step: np.ndarray
    unknown: np.ndarray


def read_programs(
    programs: Programs, names: frozenset[ProgramName], readings: Mapping[ConstantKey, Reading], unknowns: int
) -> Programs:
    """Return some float64 programs of a port with constants read otherwise; the batch entry `AMOUNTS` is an input.

    Args:
        programs: of one port, in float64.
        names: of the programs that are kept; that of the train step keeps `begin` too, as it is.
        readings: constant to how it is read.
        unknowns: number of amounts.
    """

    def read(program: Program) -> Program:
        def run(*arrays: Any) -> list[Any]:
            *given, amounts = arrays
            return _ReadConstants(readings, amounts).run(program.jaxpr, given)

        structs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in program.jaxpr.in_avals]
        jaxpr = jax.make_jaxpr(run)(*structs, jax.ShapeDtypeStruct((unknowns,), "float64"))
        return replace(program, jaxpr=jaxpr, inputs=(*program.inputs, batch_input(AMOUNTS)))

    with enable_x64(True):
        changed = {part.name: read(part) for part in named_programs(programs, names)}
    step = None if programs.step is None else changed.get(programs.step.name)
    parts = tuple(changed[part.name] for part in programs.parts if part.name in changed)
    return replace(programs, parts=parts, begin=programs.begin if step is not None else None, step=step)


def read_numbers(program: Program, numbers: Iterable[tuple[float, float]]) -> Program:
    """Return a float64 program with some of its numbers read as others; call it inside `jax.enable_x64(True)`."""
    nothing = np.zeros(())
    readings = {
        constant_key(np.asarray(number, "float64")): Reading(np.asarray(other), nothing, nothing.astype(int))
        for number, other in numbers
    }
    structs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in program.jaxpr.in_avals]
    run = _ReadConstants(readings, None)
    return replace(program, jaxpr=jax.make_jaxpr(lambda *arrays: run.run(program.jaxpr, arrays))(*structs))


def pair_numbers(one: tuple[Program, Program], other: tuple[Program, Program]) -> frozenset[tuple[float, float]]:
    """Find the numbers of few digits in a program that may be numbers of another one, or one over them.

    What the dtype has exactly as written, as 2 and 0.125, is that number and no other.

    Args:
        one: the program in float64 without casts, with its numbers as rounded, and as traced.
        other: the one that it is compared with, likewise.

    Returns:
        Number of `one` or of `other` to the number that it may be; each rounds to it.
    """
    found = [_single_numbers(*pair) for pair in (one, other)]
    pairs: dict[float, float] = {}
    stays: set[float] = set()  # of two numbers that round to each other one is read, not both
    for mine, theirs in (found, found[::-1]):
        known = [(read, value) for value in theirs if value for read in (value, 1 / value)]
        for value, constant in mine.items():
            if value in theirs or value in stays or constant.dtype not in HALF_DTYPES:
                continue
            near = [pair for pair in known if abs(pair[0] - value) <= float(constant.unknown)]
            if near:
                pairs[value], source = min(near, key=lambda pair, value=value: (abs(pair[0] - value), pair))
                stays.add(source)
    return frozenset(pairs.items())


def _single_numbers(lifted: Program, native: Program) -> dict[float, Constant]:
    """The single numbers of a program, as it has rounded them, with the dtypes in which it has."""
    walk, narrow = _ConstantWalk(), _NativeWalk(lambda array: np.asarray(array, "float64"))
    walk.run(lifted.jaxpr, [None] * len(lifted.inputs))
    narrow.run(native.jaxpr, [None] * len(native.inputs))
    single = {key: array for key, array in walk.constants.items() if not array.shape and np.isfinite(array)}
    return {float(one): Constant(one, dtype=narrow.dtypes.get(key, "float32")) for key, one in single.items()}


class _ReadConstants(Reevaluation):
    """Evaluation under the current trace in which some constants are others."""

    def __init__(self, readings: Mapping[ConstantKey, Reading], amounts: Any) -> None:
        self.readings, self.amounts = readings, amounts

    def literal(self, atom: Any) -> Any:
        return self.constant(super().literal(atom)) if str(atom.aval.dtype) == "float64" else super().literal(atom)

    def constant(self, array: Any) -> Any:
        if not _is_read(array):
            return array
        reading = self.readings.get(constant_key(np.asarray(array, "float64")))
        if reading is None:
            return array
        if not reading.step.any():
            return jnp.asarray(reading.value)
        return reading.value + reading.step * self.amounts[reading.unknown]
