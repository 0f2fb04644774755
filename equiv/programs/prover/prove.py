"""Proofs that outputs of two ports are equal for every input, not only on probes.

Both ports' programs are numbered (`value_numbering.py`); outputs of equal name are the same computation. Outputs that
stay unequal are tried under the named rewrites (`conditions.py`), in the ports' own precision and then in the others
(`statements.py`). Only the rewrites that a proof needs are reported.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from equiv.core.leaves import LeafTable
from equiv.core.output_name import BEGIN, STEP, TRAINING, InputName, OutputName, ProgramName, leaf_input
from equiv.programs.content import digest
from equiv.programs.jaxpr import count_equations
from equiv.programs.keep_casts import has_casts
from equiv.programs.program import Program, Programs
from equiv.programs.prover.algebra import Algebra
from equiv.programs.prover.conditions import drop_idle
from equiv.programs.prover.dependencies import Dependencies, input_dependencies
from equiv.programs.prover.far_slices import slice_otherwise
from equiv.programs.prover.proof import Form, Proof, Proofs
from equiv.programs.prover.statements import ALL_REWRITES, CLOSED_SUMS, NO_REWRITES, STATEMENTS
from equiv.programs.prover.unrolling import differing_loops
from equiv.programs.prover.value_numbering import Numbering, number_program

OutputPair = tuple[OutputName, OutputName]
"""An output of the reference and one of the candidate."""


LARGE = 2000
"""Number of equations above which minimal sets of rewrites are not searched anew: a numbering takes 0.1 ms each."""


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


def prove(left: NumberedPort, right: NumberedPort, same_initial_state: frozenset[str]) -> Proofs:
    """Prove what can be proved; the result maps pairs of outputs to proofs.

    Args:
        left: the reference.
        right: the candidate.
        same_initial_state: state leaves that both libraries initialise to the same value.
    """
    single = prove_programs(left, right)
    proofs: dict[tuple[OutputName, OutputName, bool], Proof] = {}
    for (ours, theirs), proof in single.items():
        if not ours.program.is_training:
            proofs[ours, theirs, False] = proof
    state = frozenset(left.table.names("state"))
    moving = _outputs_of_mirrors(right)
    after_steps = {pair: proof for pair, proof in single.items() if pair[1] not in moving}
    for cold in (False, True):
        trained = _prove_training(left, after_steps, state - same_initial_state if cold else frozenset())
        for name, proof in trained.items():
            proofs[name.of(TRAINING), name.of(TRAINING), cold] = proof
        for part in left.programs.parts:
            for output, proof in _prove_after_training(left.dependencies(part), after_steps, trained):
                after = replace(output, after_training=True)
                proofs[after, after, cold] = proof
    return proofs


def _outputs_of_mirrors(port: NumberedPort) -> frozenset[OutputName]:
    """The candidate's outputs that can depend on a leaf with the value of another: a step can give it one of its own.

    Of the reference's such leaves the induction knows: they are among the inputs of its train step.
    """
    found: set[OutputName] = set()
    if mirrored := mirrored_inputs(port.table):
        for part in all_programs(port.programs):
            needs = port.dependencies(part)
            mask = needs.mask(mirrored)
            found |= {output for output in part.outputs if needs.masks[output] & mask}
    return frozenset(found)


def _prove_after_training(
    needs: Dependencies, single: Mapping[OutputPair, Proof], trained: Mapping[OutputName, Proof]
) -> Iterator[tuple[OutputName, Proof]]:
    """Prove outputs of a program of trained leaves: their computation is the same, from leaves that stay equal."""
    leaves = needs.mask(name for name in needs.inputs if name.kind == "leaf")
    proved = needs.mask(name.as_input for name in trained)
    of_proof: dict[Proof, list[InputName | None]] = {}
    for name, proof in trained.items():
        of_proof.setdefault(proof, []).append(name.as_input)
    masks = {proof: leaves & needs.mask(names) for proof, names in of_proof.items()}
    for output, inputs in needs.masks.items():
        if (output, output) in single and not inputs & leaves & ~proved:
            used = (proof for proof, mask in masks.items() if mask & inputs)
            yield output, _combine_proofs([single[output, output], *used])


def prove_programs(left: NumberedPort, right: NumberedPort) -> dict[OutputPair, Proof]:
    """Prove outputs of single programs: without rewrites, then with them, then in float64 with casts, then without."""
    every = output_pairs(left, right)
    # What both ports compute in the same way in both modes is proved once.
    copies = {pair: same for pair in every if (same := _in_train_mode(left, right, pair)) is not None}
    pairs = [pair for pair in every if pair not in copies]
    found: dict[OutputPair, Proof] = {}
    written: dict[tuple[str | None, ...], Proof] = {}
    forms = _forms(left, right, pairs)
    for (precision, rules, also), attempt in product(STATEMENTS, range(max(map(len, forms.values()), default=0))):
        sets: dict[frozenset[str], None] = {}
        for pair in [pair for pair in pairs if pair not in found and attempt < len(forms[pair])]:
            form = replace(forms[pair][attempt], precision=precision)
            if precision == "rounded" and not any(map(NumberedPort.has_casts, (left, right), pair_programs(pair))):
                continue  # without casts it is the port's own precision
            # Outputs of the same names without rewrites, as of one call in two modes, have one proof.
            names = tuple(side.plain_name(output) for side, output in zip((left, right), pair, strict=True))
            if precision == "native" and names in written:
                found[pair] = written[names]
                continue
            if (needed := _find_rewrites(left, right, pair, form, rules, tuple(sets))) is None:
                continue
            sets.setdefault(needed)
            found[pair] = Proof("proved modulo", (*sorted(needed), *also)) if rules else Proof("proved")
            if None not in names:
                written[names] = found[pair]
    return found | {pair: found[same] for pair, same in copies.items() if same in found}


def _forms(left: NumberedPort, right: NumberedPort, pairs: Iterable[OutputPair]) -> dict[OutputPair, tuple[Form, ...]]:
    """Pair of outputs to the forms in which it is tried: as it is; loops written out; slices computed from slices."""
    known: dict[tuple[ProgramName, ProgramName], tuple[Form, ...]] = {}
    for ours, theirs in pairs:
        names = ours.program, theirs.program
        if names not in known:
            one, other = left.jaxpr(names[0]), right.jaxpr(names[1])
            # Of what is frozen the loops are not known: all of the other's may be written out there.
            loops = differing_loops(one, other)
            unrolled = (Form("native", loops),) if loops else ()
            sliced = (Form("native", loops, far_slices=True),) if slice_otherwise(one, other) else ()
            known[names] = (Form("native"), *unrolled, *sliced)
    return {pair: known[pair[0].program, pair[1].program] for pair in pairs}


def _in_train_mode(left: NumberedPort, right: NumberedPort, pair: OutputPair) -> OutputPair | None:
    """The outputs in train mode that a pair of outputs in eval mode are the very same values as; None: it is not so."""
    ours, theirs = (
        side.programs.same_in_train_mode(output.program) for side, output in zip((left, right), pair, strict=True)
    )
    return None if ours is None or theirs is None else (pair[0].of(ours), pair[1].of(theirs))


def output_pairs(left: NumberedPort, right: NumberedPort) -> list[OutputPair]:
    """Pair the reference's outputs with the candidate's; a reference-only leaf is paired with the leaf it mirrors."""
    theirs = {output for part in all_programs(right.programs) for output in part.outputs}
    copies = {leaf.name: leaf.mirrors for leaf in left.table.leaves if leaf.mirrors}
    pairs = []
    for part in all_programs(left.programs):
        for output in part.outputs:
            mirrors = output.is_leaf and output.leaf in copies and part.name != STEP
            other = replace(output, leaf=copies[output.leaf]) if mirrors else output
            if other in theirs:
                pairs.append((output, other))
    return pairs


def pair_programs(pair: OutputPair) -> tuple[ProgramName, ProgramName]:
    """The programs that compute the outputs of a pair."""
    return pair[0].program, pair[1].program


def _are_equal(left: NumberedPort, right: NumberedPort, pair: OutputPair, form: Form, rules: frozenset[str]) -> bool:
    casts = form.precision == "kept" and any(map(NumberedPort.has_casts, (left, right), pair_programs(pair)))
    # Names with casts hold those without (`NumberedPort._number`), which are made much sooner.
    if casts and not _are_equal(left, right, pair, replace(form, precision="float64"), rules):
        return False
    one, other = left.name(pair[0], form, rules), right.name(pair[1], form, rules)
    return one is not None and one == other


def _find_rewrites(
    left: NumberedPort,
    right: NumberedPort,
    pair: OutputPair,
    form: Form,
    rules: frozenset[str],
    before: tuple[frozenset[str], ...],
) -> frozenset[str] | None:
    """The rewrites that a proof needs, of those that may be used; None: there is no proof with all of them."""

    def enough(tried: frozenset[str]) -> bool:
        return _are_equal(left, right, pair, form, tried | rules & CLOSED_SUMS)

    # What other outputs needed is tried first: under all rewrites a numbering takes longest.
    large = right.is_large(pair[1].program)
    for known in before if rules else ():
        if enough(known) and (large or not any(enough(known - {rule}) for rule in known)):
            return known
    if not enough(rules):
        return None
    # Only a rewrite that applied in one of the two programs can be needed.
    sides = zip((left, right), pair, strict=True) if rules else ()
    applied = [side.applied[side.resolve(output.program, form), output.program] for side, output in sides]
    return _minimal_rewrites(enough, NO_REWRITES.union(*applied), before if large else ())


def _minimal_rewrites(
    enough: Callable[[frozenset[str]], bool], applied: frozenset[str], before: Iterable[frozenset[str]]
) -> frozenset[str]:
    """A minimal set of rewrites for a proof: none can be removed. Of a large program, where a try takes long, few are.

    Args:
        enough: whether a proof needs no more than these.
        applied: those that a proof can need.
        before: of a large program the minimal sets of other pairs, which are likely to suffice with one more.
    """
    needed = applied
    # A derivative often needs one more than what is derived.
    for rules, rule in product(before, sorted(needed)):
        if rule not in rules and enough(rules | {rule}):
            return rules | {rule}
    for rule in sorted(needed):
        if enough(needed - {rule}):
            needed -= {rule}
    return needed


def _prove_training(
    left: NumberedPort, single: Mapping[OutputPair, Proof], different: frozenset[str]
) -> dict[OutputName, Proof]:
    """Prove by induction what stays equal over all steps: equal initially, and computed from what stays equal.

    Args:
        left: the reference.
        single: proofs of outputs of single programs.
        different: carried leaves whose initial values differ.

    Returns:
        Outputs of the train step to proofs.
    """
    begin, step = left.programs.begin, left.programs.step
    if begin is None or step is None:
        return {}
    needs, made = left.dependencies(step), left.dependencies(begin)
    unequal = {leaf_input(leaf) for leaf in different}
    unchanged = {output for output in begin.outputs if (output, output) in single}
    # A carry that is made from an unequal leaf, such as an average that starts from it, starts unequal too.
    unequal_start = made.mask(unequal)
    starts = {output.as_input for output in unchanged if not made.masks[output] & unequal_start} - unequal
    carried = frozenset(name for name in step.inputs if name.is_carried)
    # Hypothesis of the induction: everything that one step computes alike, and that starts alike if it is carried.
    kept = {
        name for name in needs if (name, name) in single and (name.as_input in starts or name.as_input not in carried)
    }
    while True:
        unequal_inputs = needs.mask(carried) & ~needs.mask(name.as_input for name in kept)
        # What is computed from an unequal leaf can be unequal a step later, and then what is computed from that.
        lost = {name for name in kept if needs.masks[name] & unequal_inputs}
        if not lost:
            break
        kept -= lost
    used = [single[name, name] for name in kept]
    begun = [single[name.of(BEGIN), name.of(BEGIN)] for name in kept if name.as_input in starts]
    return dict.fromkeys(kept, _combine_proofs([*used, *begun]))


def _combine_proofs(proofs: Iterable[Proof]) -> Proof:
    rewrites = sorted({rewrite for proof in proofs for rewrite in proof.rewrites})
    return Proof("proved modulo", tuple(rewrites)) if rewrites else Proof("proved")
