"""Tables of constants that both ports have, and that are not equal, such as sines of float32 and of float64 angles.

Nothing says which formula a table in a program comes from, so no error of it can be derived: what would forgive other
rounding would forgive another wavelength. Such ports stay different, and which numbers differ is said.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from equiv.comparison.numeric.read_port import Ports
from equiv.core.output_name import ProgramName
from equiv.programs.constants import Constant, ConstantKey, find_constants, last_digits

NEAR = 1e-3
"""Largest difference of two tables, over their largest number, to be named together: only a remark rests on it."""

ADVICE = (
    "Where they are meant to be one table, compute both in one way: by the same function, in one dtype (float64), and "
    "round it once"
)


@dataclass(frozen=True)
class TableDifference:
    """Two tables of one shape that nearly agree.

    Attributes:
        ports: names of both ports.
        tables: of both.
    """

    ports: tuple[str, str]
    tables: tuple[Constant, Constant]

    @property
    def distance(self) -> np.ndarray:
        """The difference of the numbers, in units in the last place of the narrower dtype."""
        ours, theirs = self.tables
        size = np.maximum(_spacing(ours), _spacing(theirs))
        return np.abs(ours.value - theirs.value) / np.maximum(size, np.finfo("float64").tiny)

    @property
    def text(self) -> str:
        """It in words: which numbers of which tables, and what to do."""
        distance, (ours, theirs), (left, right) = self.distance, self.tables, self.ports
        index = np.unravel_index(int(np.argmax(distance)), distance.shape)
        most, dtype = distance[index], ours.dtype if _spacing(ours)[index] >= _spacing(theirs)[index] else theirs.dtype
        return (
            f"{left}'s table of {ours.value.size} numbers{_place(ours)} and {right}'s{_place(theirs)} are not equal: "
            f"{int(np.sum(distance > 0))} numbers differ, most [{', '.join(map(str, index))}]: "
            f"{ours.value[index]:.9g} ({left}), {theirs.value[index]:.9g} ({right}), {most:.3g} last digits of "
            f"{dtype}. {ADVICE}"
        )


def _spacing(constant: Constant) -> np.ndarray:
    """One unit in the last place of every number; of 0, that of the largest number."""
    largest = float(np.max(np.abs(constant.value)))
    value = np.where(constant.value == 0, largest, constant.value)
    # A number that is exact has no unknown digit, but has one.
    return np.maximum(last_digits(np.nextafter(value, np.inf), constant.dtype), last_digits(value, constant.dtype))


def _place(constant: Constant) -> str:
    return f" ({constant.place.short})" if constant.place else ""


def find_table_difference(ports: Ports, names: frozenset[ProgramName]) -> TableDifference | None:
    """Find the two tables that differ least of those that one port alone has; None where no two are.

    Args:
        ports: both.
        names: of the programs that differ.
    """
    found: list[Mapping[ConstantKey, Constant]] = []
    for port in ports:
        if port is None or port.float64 is None:
            return None
        found.append(find_constants(port.float64.programs, names, port.traced.programs))
    own = [
        [one for key, one in mine.items() if key not in theirs and one.value.size > 1]
        for mine, theirs in (found, found[::-1])
    ]
    pairs = [(_distance(one, other), (one, other)) for one in own[0] for other in own[1]]
    best = min((pair for pair in pairs if pair[0] <= NEAR), key=lambda pair: pair[0], default=None)
    if best is None or ports[0] is None:
        return None
    return TableDifference((ports[0].traced.port.name, ports[1].traced.port.name), best[1])


def _distance(one: Constant, other: Constant) -> float:
    """The largest difference of two tables, over their largest number; infinite where they have other shapes."""
    if one.value.shape != other.value.shape or not np.all(np.isfinite(one.value) & np.isfinite(other.value)):
        return float("inf")
    largest = float(np.max(np.abs(one.value)))
    return float(np.max(np.abs(one.value - other.value))) / largest if largest else float("inf")
