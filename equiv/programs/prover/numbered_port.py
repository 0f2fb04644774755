"""A port's programs, numbered in several forms and under several sets of rewrites, each once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from equiv.compat import enable_x64
from equiv.core.leaves import LeafTable
from equiv.core.output_name import InputName, OutputName, ProgramName, leaf_input
from equiv.programs.constants import read_numbers
from equiv.programs.content import digest
from equiv.programs.jaxpr import count_equations
from equiv.programs.keep_casts import has_casts
from equiv.programs.program import Program, Programs
from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.conditions import drop_idle
from equiv.programs.prover.dependencies import Dependencies, input_dependencies
from equiv.programs.prover.proof import Form
from equiv.programs.prover.statements import ALL_REWRITES, CLOSED_SUMS, NO_REWRITES
from equiv.programs.prover.value_numbering import Numbering, number_program

LARGE = 2000
"""Number of equations above which minimal sets of rewrites are not searched again: a numbering takes 0.1 ms each."""


@dataclass
class NumberedPort:
    """One port's programs, with the names of their outputs under every set of rewrites tried so far.

    Attributes:
        programs: in the port's own precision.
        table: its leaf table.
        float64_program: gives a program in float64 by name, without casts; None where there is none.
        kept_program: gives one with its casts by name; None where it has none, or they cannot be kept.
        rounded_program: gives one without casts, whose numbers are as the port rounds them; None where there is none.
        known: form, rewrites and program to the names of its outputs.
        applied: form and program to the rewrites that applied in it.
        needs: program to output to the inputs that it can depend on.
        casts: program to whether it has casts that a float64 trace removes.
        sizes: program to the number of its equations.
        bounds: batch entry of whole numbers to the number that all of its values are below.
        frozen: all names come from a frozen reference; there is nothing to number.
    """

    programs: Programs
    table: LeafTable
    float64_program: Callable[[ProgramName], Program | None]
    kept_program: Callable[[ProgramName], Program | None] = lambda _: None
    rounded_program: Callable[[ProgramName], Program | None] = lambda _: None
    known: dict[tuple[Form, frozenset[str], ProgramName], dict[OutputName, str]] = field(default_factory=dict)
    applied: dict[tuple[Form, ProgramName], set[str]] = field(default_factory=dict)
    needs: dict[ProgramName, Dependencies] = field(default_factory=dict)
    casts: dict[ProgramName, bool] = field(default_factory=dict)
    sizes: dict[ProgramName, int] = field(default_factory=dict)
    bounds: Mapping[str, int] = field(default_factory=dict)
    frozen: bool = False

    def name(self, output: OutputName, form: Form, rules: frozenset[str]) -> str | None:
        """The name of one output; None where there is no such program."""
        program = output.program
        form = self.resolve(program, form)
        if self.frozen:
            rules &= self.applied.get((form, program), NO_REWRITES)
            return self.known.get((form, rules, program), {}).get(output)
        flat = drop_idle(rules - CLOSED_SUMS)
        rules = rules & CLOSED_SUMS | flat if flat else flat  # a sum is closed in another one, in normal form
        if (form, rules, program) not in self.known:
            self.known[form, rules, program] = self._number(program, form, rules)
        return self.known[form, rules, program].get(output)

    def plain_name(self, output: OutputName) -> str | None:
        """Its name without rewrites, in the port's own precision."""
        return self.name(output, Form("native"), NO_REWRITES)

    def resolve(self, program: ProgramName, form: Form) -> Form:
        """The form in which a program is numbered: without casts, those that are kept are as none.

        What is frozen has its loops as they are.
        """
        if form.precision == "kept" and not self.has_casts(program):
            form = replace(form, precision="float64")
        return Form(form.precision) if self.frozen else form

    def has_casts(self, program: ProgramName) -> bool:
        """Whether a program has casts that a float64 trace removes."""
        if program not in self.casts:
            self.casts[program] = any(part.name == program and has_casts(part) for part in all_programs(self.programs))
        return self.casts[program]

    def dependencies(self, program: Program) -> Dependencies:
        """Output to the inputs that it can depend on."""
        if program.name not in self.needs:
            self.needs[program.name] = input_dependencies(program)
        return self.needs[program.name]

    def is_large(self, program: ProgramName) -> bool:
        """Whether it takes long to number a program."""
        if program not in self.sizes:
            own = (part for part in all_programs(self.programs) if part.name == program)
            self.sizes[program] = sum(count_equations(part.jaxpr) for part in own)
        return self.sizes[program] > LARGE

    def jaxpr(self, program: ProgramName) -> Any:
        """The jaxpr of a program in the port's own precision; None where there is no such program, or it is frozen."""
        own = self._own_program(program)
        return None if own is None else own.jaxpr

    def rounded_pair(self, program: ProgramName) -> tuple[Program, Program] | None:
        """A program without casts, with its numbers as the port rounds them, and as traced; None: there is none."""
        own, rounded = self._own_program(program), self.rounded_program(program)
        return None if own is None or rounded is None else (rounded, own)

    def _number(self, program: ProgramName, form: Form, rules: frozenset[str]) -> dict[OutputName, str]:
        precision = form.precision
        find = {
            "native": self._own_program,
            "kept": self.kept_program,
            "float64": self.float64_program,
            "rounded": self.rounded_program,
        }
        algebra = Algebra(rules - CLOSED_SUMS, closes=rules >= CLOSED_SUMS, far_slices=form.far_slices)
        part = find[precision](program)
        if part is not None and form.readings:
            with enable_x64(True):
                part = read_numbers(part, form.readings)
        numbering = Numbering(algebra, unrolled=form.unrolled)
        aliases = mirrored_inputs(self.table)
        values = {} if part is None else number_program(part, numbering, aliases, self.bounds)
        names = {output: value.name for output, value in values.items()}
        if precision == "kept":
            # The same casts, and the same function: constants of the program with casts are guessed.
            names = {
                output: digest(one, self.name(output, replace(form, precision="float64"), rules))
                for output, one in names.items()
            }
        flat, lifted = rules - CLOSED_SUMS, replace(form, precision="float64")
        if flat == ALL_REWRITES:
            also = self.applied.get((lifted, program), set()) if precision == "kept" else set()
            self.applied[form, program] = algebra.applied | also
        if not algebra.kept_closed and (precision != "kept" or (lifted, flat, program) in self.known):
            self.known[form, flat, program] = names  # no sum was long enough to make a difference
        return names

    def _own_program(self, program: ProgramName) -> Program | None:
        return next((part for part in all_programs(self.programs) if part.name == program), None)


def mirrored_inputs(table: LeafTable) -> dict[InputName, InputName]:
    """Map each library-only leaf to the leaf that it mirrors, whose value it has where its formula has converged."""
    return {leaf_input(leaf.name): leaf_input(leaf.mirrors) for leaf in table.leaves if leaf.mirrors}


def all_programs(programs: Programs) -> tuple[Program, ...]:
    """All programs of a port."""
    return (*programs.parts, *(part for part in (programs.begin, programs.step) if part is not None))
