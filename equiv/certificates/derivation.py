"""The prover's walk over two programs, kept step by step, as the steps of a certificate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from equiv.certificates.checker.check import ENDLESS, Walk
from equiv.certificates.checker.reals import RULES
from equiv.certificates.checker.rules import Step
from equiv.certificates.checker.terms import Refused, Value
from equiv.certificates.definitions import Definitions, FirstStep
from equiv.certificates.hints import find_hints
from equiv.certificates.program_data import NotCertified
from equiv.core.output_name import InputName
from equiv.programs.content import record_names
from equiv.programs.jaxpr import read_scan, read_while
from equiv.programs.primitives import CALLS
from equiv.programs.program import Program
from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.terms import TermView
from equiv.programs.prover.value_numbering import Numbering, number_program


@dataclass
class _Run:
    """One run over a jaxpr: what it was given, and its steps."""

    inputs: list[TermView]
    steps: list["_Step"] = field(default_factory=list)


@dataclass
class _Step:
    """One equation: its operands and results, and the runs over its jaxprs, as many as the prover needed."""

    eqn: Any = None
    ins: Sequence[TermView] = ()
    outs: Sequence[TermView] = ()
    runs: list[_Run] = field(default_factory=list)

    @property
    def loop(self) -> tuple[list[TermView], list[TermView], list[TermView]] | None:
        """Of a loop: the carries before it, those in it, and the slices that its body is given."""
        name = self.eqn.primitive.name
        if name not in ("scan", "while"):
            return None
        given = self.last_runs[0].inputs
        if name == "while":
            _, fixed, start = read_while(self.eqn).split(list(self.ins))
            return start, given[len(fixed) :], []
        loop = read_scan(self.eqn)
        return loop.split(list(self.ins))[1], *loop.split(given)[1:]

    @property
    def last_runs(self) -> list[_Run]:
        """The runs with the final names: one of each jaxpr, in the order in which the checker walks them."""
        name = self.eqn.primitive.name
        many = {"scan": 1, "while": 2, "cond": len(self.eqn.params.get("branches", ()))}.get(name, 1)
        return self.runs[-many:]


@dataclass
class _KeptNumbering(Numbering):
    """A numbering that keeps every step."""

    current: _Step = field(default_factory=_Step)
    steps: list[_Step] = field(default_factory=list)

    def run(self, closed: Any, inputs: Sequence[TermView], path: tuple[int, ...] = ()) -> list[TermView]:
        run = _Run(list(inputs))
        self.current.runs.append(run)
        outer, self.steps = self.steps, run.steps
        outs = super().run(closed, inputs, path)
        self.steps = outer
        return outs

    def step(self, eqn: Any, ins: list[TermView]) -> Sequence[TermView]:
        step = _Step(eqn, ins)
        self.steps.append(step)
        outer, self.current = self.current, step
        step.outs = super().step(eqn, ins)
        self.current = outer
        return step.outs


@dataclass(frozen=True)
class Derivation:
    """Steps and definitions of the proofs of two programs.

    Attributes:
        rows: the definitions.
        steps: of the reference's program and of the candidate's.
    """

    rows: list[Any]
    steps: list[list[Any]]


def derive(
    programs: tuple[Program, Program],
    rules: frozenset[str],
    aliases: tuple[Mapping[InputName, InputName], Mapping[InputName, InputName]],
    bounds: Mapping[str, int],
) -> Derivation:
    """Let the prover number two programs under some rewrites, and keep what it does.

    Raises:
        NotCertified: the checker has no terms of some kind.
    """
    with record_names() as recorded:
        # The checker has no pieces: what is equal only with them is not certified.
        sides = [_KeptNumbering(Algebra(rules), by_pieces=False) for _ in programs]
        given = zip(programs, sides, aliases, strict=True)
        ends = [number_program(*one, bounds) for one in given]
    made = {term: one for side in reversed(sides) for term, one in side.algebra.made.items()}
    splits = {term: one for side in sides for term, one in side.algebra.splits.items()}
    definitions = Definitions(recorded, made, splits)
    tops = [side.current.runs[0] for side in sides]
    for run in tops:
        _see_all(definitions, run, ())
    for values in ends:
        definitions.see(values.values())
    definitions.see_made()
    for run, values in zip(tops, ends, strict=True):
        for value in (*run.inputs, *values.values()):
            definitions.claim(value)
    return Derivation(definitions.rows, [_describe_steps(definitions, run) for run in tops])


def _see_all(definitions: Definitions, run: _Run, loops: tuple[int, ...]) -> None:
    """Note the shapes and first equations of all terms of a run, and the carries of its loops."""
    definitions.see(run.inputs)
    for step in run.steps:
        definitions.see((*step.ins, *step.outs))
        for number, out in enumerate(step.outs if step.eqn.primitive.name not in CALLS else ()):
            definitions.first.setdefault(out.term, FirstStep(step.eqn, step.ins, number))
        loop, inner = step.loop, loops
        if loop is not None:
            inner = (*loops, read_scan(step.eqn).length if step.eqn.primitive.name == "scan" else ENDLESS)
            for start, now in zip(loop[0], loop[1], strict=True):
                if now != start and definitions.carries.setdefault(now.term, inner) != inner:
                    raise NotCertified("loops with equal carries are in loops of other lengths")
        for one in step.last_runs if step.runs else ():
            _see_all(definitions, one, inner)


def _describe_steps(definitions: Definitions, run: _Run) -> list[Any]:
    """The steps of a run as a certificate has them: the rule, which is not known yet, the results, and of a loop its
    carries. The steps of what is inside follow; what is called stands where it is called."""
    found: list[Any] = []
    for step in run.steps:
        for value in step.ins:
            definitions.claim(value)  # also of an operand that no claim is of
        if step.eqn.primitive.name not in CALLS:
            carries = None if step.loop is None else list(map(definitions.claim, step.loop[1]))
            found.append(["", list(map(definitions.claim, step.outs)), carries])
        for one in step.last_runs if step.runs else ():
            found += _describe_steps(definitions, one)
    return found


class Labelling(Walk):
    """The checker's walk, which writes down the rule of each step, and what it needs, instead of reading them."""

    def follows(self, step: Any, eqn: Any, ins: list[Value], outs: list[Value]) -> bool:
        """Find the first rule that a step follows.

        Raises:
            NotCertified: there is none.
        """
        if eqn["kind"] in ("scan", "while", "cond"):
            step[0] = eqn["kind"]
            return super().follows(step, eqn, ins, outs)
        for rule, (_, ops, needed) in RULES.items():
            if (ops and eqn["op"] not in ops) or not self.rewrites.issuperset(needed):
                continue
            for hint in find_hints(rule, self.terms, Step(eqn["kind"], eqn["op"], eqn["data"], ins, outs[0], 0, None)):
                step[0], step[2] = rule, hint
                try:
                    if super().follows(step, eqn, ins, outs):
                        return True
                except Refused:
                    continue
        raise NotCertified(f"no rule of the checker gives the result of {eqn['op']}")
