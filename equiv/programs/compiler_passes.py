"""Which pass of XLA is to blame where a compiled program does not compute what it means: leave out one at a time.

XLA itself says which passes change a program: `xla_dump_hlo_pass_re` writes a file after each of them (read with jax
0.10.2: `module_0001.jit_f.0011.dot-library-passes.after_dot-library-rewriter.before_pipeline-end.txt`). So a pass of
another release is tried too. `xla_disable_hlo_passes` leaves passes out; a name that no pass has is ignored.
"""

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from equiv.compat import passes_can_be_left_out
from equiv.core.results import DISABLE_PASSES

LIBRARY_PASSES = ("dot-library-rewriter", "onednn-ops-rewriter", "onednn-contraction-rewriter")
"""Passes of the CPU compiler that hand parts of a program over to a library of kernels. They were to blame for every
wrong result of `equiv.programs.known_miscompilations` whose cause is known. What equiv compares leaves them out: a
program as its user runs it is then compared with one that does not share their faults."""

SUSPECTED_PASSES = (
    *LIBRARY_PASSES,
    "fusion",
    "cpu-instruction-fusion",
    "multi_output_fusion",
    "algsimp",
    "cse",
    "constant_folding",
    "reshape-mover",
    "transpose-folding",
    "reduce-window-rewriter",
    "while-loop-invariant-code-motion",
    "while-loop-simplifier",
    "small-while-loop-hoisting",
    "conditional_simplification",
    "zero_sized_hlo_elimination",
    "simplify-fp-conversions",
    "batchnorm_expander",
    "gather_simplifier",
    "scatter_simplifier",
    "sort-simplifier",
    "dynamic-dimension-simplifier",
    "cpu-parallel-task-assigner",
    "tuple-simplifier",
    "dce",
)
"""Passes that a program can do without (jax 0.10.2, CPU and GPU), the likeliest first."""

NEEDED_PASSES = re.compile(
    r"copy|copies|layout|schedul|expander|decompos|legaliz|partition|sharding|inlin|flatten|normaliz|canonical"
    r"|call-graph|upcast|promotion|size-setter|pipeline|special-case"
)
"""Passes without which XLA cannot compile, or stops the process: they are never left out."""

Compile = Callable[[dict[str, str | bool]], Any]
"""Compiles one program with some compiler options."""


def list_changing_passes(compile_with: Compile) -> tuple[str, ...]:
    """The passes that change a program and can be left out, as XLA names them; none where it does not say.

    Args:
        compile_with: compiles the program.
    """
    with tempfile.TemporaryDirectory() as folder:
        # A name of its own, which no pass has: jax's cache of compiled programs does not look at where dumps go.
        unique = without_passes([Path(folder).name])
        compile_with({"xla_dump_to": folder, "xla_dump_hlo_pass_re": ".*", **unique})
        names = sorted(path.name for path in Path(folder).iterdir())
    found = (re.search(r"\.after_([^.]+)(\.before_[^.]+)?\.txt$", name) for name in names)
    return tuple(dict.fromkeys(one[1] for one in found if one and not NEEDED_PASSES.search(one[1])))


def list_suspects(compile_with: Compile) -> tuple[str, ...]:
    """The passes to leave out, those first that change the program; arguments as of `list_changing_passes`."""
    changing = list_changing_passes(compile_with)
    ranked = sorted(changing, key=lambda name: name not in SUSPECTED_PASSES)
    return tuple(dict.fromkeys((*ranked, *SUSPECTED_PASSES)))


def without_passes(names: Sequence[str]) -> dict[str, str | bool]:
    """The compiler options that leave out some passes; none where the compiler cannot."""
    return {DISABLE_PASSES: ",".join(names)} if passes_can_be_left_out() else {}


def find_guilty_passes(suspects: Sequence[str], is_right_without: Callable[[Sequence[str]], bool]) -> tuple[str, ...]:
    """Find the pass without which a program computes what it means; where it takes several, the smallest group found.

    Args:
        suspects: the passes, the likeliest first.
        is_right_without: whether the program is right when it is compiled without some passes.

    Returns:
        None where it is wrong without all of them, too.
    """
    if not is_right_without(suspects):
        return ()
    group = tuple(suspects)
    while len(group) > 1:
        middle = (len(group) + 1) // 2
        halves = (group[:middle], group[middle:])
        smaller = next((half for half in halves if is_right_without(half)), None)
        if smaller is None:
            return _drop_one_by_one(group, is_right_without)
        group = smaller
    return group


def _drop_one_by_one(group: tuple[str, ...], is_right_without: Callable[[Sequence[str]], bool]) -> tuple[str, ...]:
    for name in group:
        rest = tuple(one for one in group if one != name)
        if is_right_without(rest):
            group = rest
    return group
