"""Proofs that outputs of two ports are equal for every input, not only on probes.

Both ports' programs are numbered (`value_numbering.py`); outputs of equal name are the same computation. Outputs that
stay unequal are tried under the named rewrites (`conditions.py`), in the ports' own precision and then in the others
(`statements.py`). Only the rewrites that a proof needs are reported.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import product

from equiv.core.output_name import BEGIN, STEP, TRAINING, InputName, OutputName, ProgramName, leaf_input
from equiv.programs.constants import pair_numbers
from equiv.programs.prover.dependencies import Dependencies
from equiv.programs.prover.far_slices import slice_otherwise
from equiv.programs.prover.numbered_port import NumberedPort, all_programs, mirrored_inputs
from equiv.programs.prover.proof import READ_CONSTANTS, Form, Proof, Proofs, Readings
from equiv.programs.prover.statements import CLOSED_SUMS, NO_REWRITES, STATEMENTS, Statement
from equiv.programs.prover.unrolling import differing_loops

OutputPair = tuple[OutputName, OutputName]
"""An output of the reference and one of the candidate."""


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
    search = _ProofSearch(left, right, _forms(left, right, pairs))
    late: list[tuple[Statement, int, list[OutputPair]]] = []
    for statement, attempt in product(STATEMENTS, range(search.attempts)):
        tried = [pair for pair in pairs if pair not in search.found and attempt < len(search.forms[pair])]
        forward = [pair for pair in tried if pair[0].program.is_forward]
        search.prove(statement, attempt, forward)
        unproved = {pair[0].program.method for pair in forward if pair not in search.found}
        derived = [pair for pair in tried if not pair[0].program.is_forward]
        # Without rewrites it is one numbering, which is made anyway, and the strongest statement.
        doubted = unproved if statement[1] else frozenset[str]()
        waits = [right.is_large(theirs.program) and _is_doubted(ours.program, doubted) for ours, theirs in derived]
        search.prove(statement, attempt, (pair for pair, wait in zip(derived, waits, strict=True) if not wait))
        late.append((statement, attempt, [pair for pair, wait in zip(derived, waits, strict=True) if wait]))
    for statement, attempt, waiting in late:
        search.prove(statement, attempt, (pair for pair in waiting if pair not in search.found))
    found = search.found
    return found | {pair: found[same] for pair, same in copies.items() if same in found}


def _is_doubted(program: ProgramName, unproved: AbstractSet[str]) -> bool:
    """Whether a derivative or a train step computes what has no proof forwards: then it hardly has one.

    Of a large program that is tried last. What is proved so in a weaker form alone is still proved.
    """
    return program.method in unproved or (program == STEP and bool(unproved))


@dataclass
class _ProofSearch:
    """Proofs of pairs of outputs, as they are found.

    Attributes:
        left: the reference.
        right: the candidate.
        forms: see `_forms`.
        found: pair to its proof.
        written: names without rewrites to the proof of what has them.
        sets: precision, rules and attempt to the minimal sets of rewrites that proofs needed.
        readings: programs to the numbers of theirs that may be read as others.
    """

    left: NumberedPort
    right: NumberedPort
    forms: Mapping[OutputPair, tuple[Form, ...]]
    found: dict[OutputPair, Proof] = field(default_factory=dict)
    written: dict[tuple[str | None, ...], Proof] = field(default_factory=dict)
    sets: dict[tuple[Statement, int], dict[frozenset[str], None]] = field(default_factory=dict)
    readings: dict[tuple[ProgramName, ProgramName], Readings] = field(default_factory=dict)

    @property
    def attempts(self) -> int:
        """Most forms of a pair."""
        return max(map(len, self.forms.values()), default=0)

    def prove(self, statement: Statement, attempt: int, pairs: Iterable[OutputPair]) -> None:
        """Try to prove a statement of some pairs, in one of their forms."""
        precision, rules, also = statement
        sides = self.left, self.right
        sets = self.sets.setdefault((statement, attempt), {})
        for pair in pairs:
            form = replace(self.forms[pair][attempt], precision=precision)
            if precision == "rounded" and not any(map(NumberedPort.has_casts, sides, pair_programs(pair))):
                continue  # without casts it is the port's own precision
            if READ_CONSTANTS in also:
                form = replace(form, readings=self._find_readings(*pair_programs(pair)))
                if not form.readings:
                    continue
            # Outputs of the same names without rewrites, as of one call in two modes, have one proof.
            names = tuple(side.plain_name(output) for side, output in zip(sides, pair, strict=True))
            if precision == "native" and names in self.written:
                self.found[pair] = self.written[names]
                continue
            if (needed := _find_rewrites(*sides, pair, form, rules, tuple(sets))) is None:
                continue
            sets.setdefault(needed)
            self.found[pair] = Proof("proved modulo", (*sorted(needed), *also)) if rules else Proof("proved")
            if None not in names:
                self.written[names] = self.found[pair]

    def _find_readings(self, ours: ProgramName, theirs: ProgramName) -> Readings:
        """The numbers of two programs that may be read as the other's."""
        if (ours, theirs) not in self.readings:
            one, other = self.left.rounded_pair(ours), self.right.rounded_pair(theirs)
            self.readings[ours, theirs] = frozenset() if one is None or other is None else pair_numbers(one, other)
        return self.readings[ours, theirs]


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
