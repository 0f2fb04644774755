"""The text of `repro.py`: the functions of both sides, what they are given, and what is printed."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import replace

from equiv.comparison.explain.reproduction.reproduce import Reproduction
from equiv.comparison.explain.reproduction.script import FUNCTIONS
from equiv.comparison.explain.reproduction.segments import FIX
from equiv.errors import EquivError

MOST_LINES = 60
"""Lines of the file."""

MOST_COLUMNS = 110
"""Columns of a line up to which operations are written into one another, where there would be too many lines."""


def write_script(made: Reproduction, title: str, notes: Sequence[str] = (), archive: str = "repro.npz") -> str:
    """Write the file that reproduces a difference.

    Args:
        made: what it shows.
        title: its first line.
        notes: lines about the place.
        archive: name of the file with the arrays, beside it.

    Raises:
        EquivError: it has more than `MOST_LINES` lines.
    """
    arrays = made.functions.arrays
    names = [name for name in arrays if name.startswith("x")]
    lines = [
        f'"""{_one_line(title)}',
        "",
        *(line for note in notes for line in textwrap.wrap(_one_line(note), MOST_COLUMNS) or [""]),
        f'Needs jax and numpy. Exit code 1: {made.names[0]} and {made.names[1]} differ by more than rounding."""',
        "",
        *(["from pathlib import Path", ""] if arrays else []),
        "import jax",
        "import numpy as np",
        *(["from jax import lax"] if "lax." in made.functions.text else []),
        "from jax import numpy as jnp",
        "",
        'jax.config.update("jax_enable_x64", True)',
    ]
    if arrays:
        lines += [f'data = {{k: jnp.asarray(v) for k, v in np.load(Path(__file__).with_name("{archive}")).items()}}']
    for name in names:
        array = arrays[name]
        lines.append(f'{name} = data["{name}"]  # {array.dtype}{list(array.shape)}: {_one_line(made.given[name])}')
    ours, theirs = (f"{name}({', '.join(_arguments(made.functions.text, name))})" for name in FUNCTIONS)
    lines += [
        "",
        "",
        *made.functions.text.splitlines(),
        "",
        "",
        f"ROUNDING = {made.rounding:.2g}  # how far rounding moves the result, measured with inputs moved by an ulp",
        f"one, other = np.asarray({ours}), np.asarray({theirs})",
        "off = np.where((one == other) | (one != one) & (other != other), 0.0, abs(one - other))",
        "at = tuple(map(int, np.unravel_index(np.argmax(np.where(off != off, np.inf, off)), off.shape)))",
        f'print(f"{made.names[0]} {{one[at]:.9g}}, {made.names[1]} {{other[at]:.9g}} at {{at}}: {{off[at]:.3g}} off, '
        'rounding {ROUNDING:.1g}")',
        "differs = not off[at] <= ROUNDING",
        'print("different" if differs else "same")',
        "raise SystemExit(int(differs))",
        "",
    ]
    if len(lines) - 1 > MOST_LINES:
        shorter = replace(made, functions=replace(made.functions, text=shorten_lines(made.functions.text)))
        if shorter.functions.text != made.functions.text:
            return write_script(shorter, title, notes, archive)
        raise EquivError(
            f"the smallest reproduction that was found has {len(lines) - 1} lines, more than {MOST_LINES}.", fix=FIX
        )
    return "\n".join(lines)


def _arguments(text: str, name: str) -> list[str]:
    found = re.search(rf"def {name}\((.*?)\):", text)
    return [one for one in (found[1] if found else "").split(", ") if one]


def _one_line(text: str) -> str:
    """A text for a comment or a docstring."""
    return " ".join(text.split()).replace("\\", "/").replace('"""', "'''")


def shorten_lines(text: str) -> str:
    """Write an operation into the only line that reads it, as long as that stays short.

    Args:
        text: functions with one operation in a line.
    """
    lines = text.splitlines()
    gone = {number for number in range(len(lines)) if _move_line(lines, number)}
    return "\n".join(line for number, line in enumerate(lines) if number not in gone)


def _move_line(lines: list[str], number: int) -> bool:
    """Write a line into the only one that reads its result; whether it could be."""
    made = re.fullmatch(r"( +)(v\d+) = (.*?)(?:  # (.*))?", lines[number])
    if made is None:
        return False
    indent, name, code, comment = made.groups()
    read = re.compile(rf"\b{name}\b")
    end = next((at for at in range(number, len(lines)) if lines[at].startswith("    return")), len(lines) - 1)
    readers = [at for at in range(number + 1, end + 1) if read.search(lines[at])]
    if len(readers) != 1 or len(read.findall(lines[readers[0]])) != 1 or lines[readers[0]].startswith(f"{indent} "):
        return False
    before, _, said = lines[readers[0]].partition("  # ")
    simple = re.fullmatch(r"[\w.]+(\([^()]*\))?", code)
    start, after = read.split(before)
    put = f"{start}{code if simple else f'({code})'}{after}"
    if len(put) > MOST_COLUMNS:
        return False
    lines[readers[0]] = f"{put}  # {said or comment}" if said or comment else put
    return True
