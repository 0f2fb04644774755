"""What a verdict holds for: shapes, dtypes, methods, modes and steps, and what no probe exercised."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from equiv.core.no_gradient import NoGradient

ExerciseKind = Literal["rows", "branch", "threshold", "loop", "kink", "draw", "unaimed", "unread"]
"""`rows` of a table that are looked up, a `branch` of `cond`, `switch` or a select, a `threshold` that values are
compared with, the number of turns of a `while_loop`; every `kink` of a port, where a tie or a zero decides, as of
`max`, `abs` or `sort`; every `draw` of it, of whose ends few random numbers come near; and an `unaimed`
threshold, which a frozen reference has not, so that no probe is made for it; elements of a leaf that are `unread`: no
call depends on them, so that nothing shows which elements of another port they are."""


@dataclass(frozen=True)
class Unexercised:
    """Part of a program that no probe exercised: another model could differ there unnoticed by numbers.

    Attributes:
        port: name of the port.
        kind: of the place.
        where: `FILE:LINE` of the user's code; empty if unknown; of kinks those without a tie, of draws where they are;
            the canonical name of a leaf.
        seen: what the probes exercised: the number of rows, kinks or draws; the numbers of the branches; the smallest
            and the largest value, or number of turns; of a leaf the number of elements that nothing reads.
        bound: the number of rows, branches, kinks, draws or elements there are; the threshold.
        relation: what is asked of the threshold: `>`, `>=`, `<` or `<=`; `select` of a branch of one.
    """

    port: str
    kind: ExerciseKind
    where: str
    seen: tuple[float, ...]
    bound: float = 0.0
    relation: str = ""

    @property
    def text(self) -> str:
        """It in words, without the port."""
        seen, bound = [f"{one:.4g}" for one in self.seen], f"{self.bound:.6g}"
        if self.kind == "unaimed":
            place = f" at {self.where}" if self.where else ""
            return f"no probe of the frozen reference is made for its threshold {self.relation} {bound}{place}"
        if self.kind == "unread":
            return f"no call reads {seen[0]} of the {bound} elements of {self.where}"
        branches = "operands of a select" if self.relation == "select" else "branches"
        words = {
            "rows": f"{seen[0]} of {bound} rows read",
            "branch": f"of {bound} {branches} only {' and '.join(seen)} taken",
            "threshold": f"{self.relation} {bound} asked of values from {seen[0]} to {seen[-1]} only",
            "loop": f"while_loop of {seen[0]} to {seen[-1]} turns",
            "kink": f"{seen[0]} of {bound} kinks met at an exact tie or zero, not",
            "draw": f"tails of {seen[0]} of {bound} draws tried, not those",
        }[self.kind]
        if self.kind in ("kink", "draw"):
            return f"{words} {self.where}"
        return f"{words} at {self.where}" if self.where else words


SizeAnswer = Literal["same", "another program", "fails", "too large"]
"""Whether a port is the `same` program with other sizes, but for the sizes; `too large`: it was not traced."""


@dataclass(frozen=True)
class OtherSizes:
    """What tracing a port with other sizes of one axis of its batch gave; nothing was run.

    Attributes:
        port: name of the port.
        axis: of the batch: 0, or 1 of a sequence.
        size: its size in the case.
        tried: the other sizes.
        answer: what the port is with these.
        where: the first operation that is another one, with its line.
    """

    port: str
    axis: int
    size: int
    tried: tuple[int, ...]
    answer: SizeAnswer
    where: str = ""

    @property
    def text(self) -> str:
        """It in words, without the port."""
        sizes = " and ".join(map(str, self.tried))
        place = f" ({self.where})" if self.where else ""
        return {
            "same": f"the same program with axis {self.axis} of {sizes}",
            "another program": f"another program with axis {self.axis} of {sizes} instead of {self.size}{place}",
            "fails": f"cannot be traced with axis {self.axis} of {sizes}",
            "too large": f"not traced with other sizes than {self.size} of axis {self.axis}",
        }[self.answer]


@dataclass(frozen=True)
class RangeTried:
    """The range of a dtype, narrower than that of float32, over which a candidate was compared with the reference.

    Attributes:
        candidate: name of the port.
        dtype: the dtype.
        smallest: its smallest normal number.
        largest: its largest finite number.
        inputs: which inputs were scaled until values left the range, one after the other.
        why_not: why nothing was run; empty where it was.
    """

    candidate: str
    dtype: str
    smallest: float
    largest: float
    inputs: tuple[str, ...] = ()
    why_not: str = ""

    @property
    def text(self) -> str:
        """It in words, without the candidate."""
        limits = f"{self.dtype} from {self.smallest:.2g} to {self.largest:.6g}"
        if self.why_not:
            return f"the range of {limits} was not tried: {self.why_not.rstrip('.')}"
        # Which port overflows first there may be a matter of signs, and is not told.
        return f"the range of {limits} was tried but for its last factor of two, by scaling {', '.join(self.inputs)}"


@dataclass(frozen=True)
class HeldLeaf:
    """A leaf that one port has and another lacks, held at a value: what is found holds where it has this value.

    Attributes:
        port: name of the port that has it.
        leaf: its canonical name.
        value: in words.
        trained: whether it is a parameter, which a train step moves.
        candidate: the candidate in whose comparison it is held, where it is not held in all of them; empty: in all.
    """

    port: str
    leaf: str
    value: str
    trained: bool
    candidate: str = ""

    @property
    def text(self) -> str:
        """The condition in words."""
        return f"{self.leaf} of {self.port} is {self.value}"


HOST_DEVICES = "XLA_FLAGS=--xla_force_host_platform_device_count="
"""Makes several devices of one CPU."""


@dataclass(frozen=True)
class MeshTried:
    """A mesh of the case, and what was run on it.

    Attributes:
        mesh: in words, `data 2 x model 4`.
        devices: how many it has.
        available: how many jax has.
        sharded: port to how many of the arrays that it was given, over all programs, are in different parts on the
            devices; a port that is missing was not run.
        why_not: why nothing was run; empty: something was, or there are too few devices.
    """

    mesh: str
    devices: int
    available: int
    sharded: dict[str, int] = field(default_factory=dict)
    why_not: str = ""

    @property
    def exercised(self) -> bool:
        """Whether anything was sharded on it, or could be run on one device as a whole."""
        return self.devices == 1 or any(self.sharded.values())

    @property
    def text(self) -> str:
        """It in words."""
        if self.why_not:
            return f"the mesh {self.mesh} is not exercised: {self.why_not}"
        if self.devices > self.available:
            have = f"{self.available} device{'' if self.available == 1 else 's'}"
            fix = f"For more on a CPU set {HOST_DEVICES}{self.devices}"
            return f"the mesh {self.mesh} is not exercised: it takes {self.devices} devices, jax has {have}. {fix}"
        counts = ", ".join(f"{count} of {port}" for port, count in self.sharded.items())
        return f"run on the mesh {self.mesh}, arrays in different parts on its devices: {counts or 'none'}"


@dataclass(frozen=True)
class Scope:
    """What the verdicts of a case hold for.

    Attributes:
        batch: entry to dtype and shape.
        kept: entries that had the same values in every probe: those that the case gives.
        table_bounds: entries that are as large as the table has rows that is looked up with them, as no bound is given.
        left_out: names of the checks that are not made, as the case asks for others only.
        methods: public method to its arguments.
        modes: of the forward programs: `eval` and `train`, or `call` where there is no difference.
        steps: number of train steps; 0 where no port has a gradient to be trained with.
        gradient_modes: of the gradients, where the modes differ; empty in results that had them in train mode only.
        default_rate: of the default optimizer, where it trains a port; 0: none.
        budget_factor: the case's own factor on every budget.
        proved: whether every output of every candidate is proved: for every input, not only for the probes.
        ran: whether anything was run; nothing is with `--prove-only`.
        rewrites: those that the proofs need: where a condition of one fails, the ports may differ.
        cast_dtypes: the dtypes in which the ports compute, where a proof leaves casts out.
        ranges: over which ranges of narrow dtypes the ports were compared.
        unexercised: what no probe exercised; empty where everything is proved.
        patched: port to what its builder changed outside of its model, which was in force for this port only.
        changes: what the import of the case file changed, which was in force for the whole case.
        late_steps: numbers of steps that counters of training were set to, beyond the first ones.
        edges: the other probes with what ordinary ones have not: small inputs, zeros, values at thresholds.
        edges_refused: why the reference could not be run on these; empty: it could, or nothing had to be tried.
        as_users: whether ports were also compiled as their users do; None in results that do not say.
        not_as_users: why they were not, where that was not asked for.
        other_sizes: what each port is with other sizes of its batch.
        sequences: name to the calls that were made one after the other; where ports have their own, `PORT: CALL`.
        made: port to the variables that its calls make, which are no outputs and are not given to the next call.
        no_gradients: the gradients that ports do not have, and why.
        held: the leaves that one port has and another lacks, with the values that they are held at.
        annotated: port to how many of its leaves have names of axes, where any port has some.
        unexplained: names of axes that only one of two ports has, so that what has them is not compared without rules.
        meshes: what was run on the meshes of the case.
    """

    batch: dict[str, str]
    methods: dict[str, tuple[str, ...]]
    modes: tuple[str, ...]
    steps: int
    gradient_modes: tuple[str, ...] = ()
    default_rate: float = 0.0
    budget_factor: float = 1.0
    proved: bool = False
    ran: bool = True
    rewrites: tuple[str, ...] = ()
    cast_dtypes: tuple[str, ...] = ()
    ranges: tuple[RangeTried, ...] = ()
    unexercised: tuple[Unexercised, ...] = field(default_factory=tuple)
    patched: dict[str, tuple[str, ...]] = field(default_factory=dict)
    changes: tuple[str, ...] = ()
    late_steps: tuple[int, ...] = ()
    edges: tuple[str, ...] = ()
    edges_refused: str = ""
    as_users: bool | None = None
    not_as_users: str = ""
    other_sizes: tuple[OtherSizes, ...] = ()
    made: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sequences: dict[str, tuple[str, ...]] = field(default_factory=dict)
    no_gradients: tuple[NoGradient, ...] = ()
    kept: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    table_bounds: tuple[str, ...] = ()
    held: tuple[HeldLeaf, ...] = ()
    annotated: dict[str, int] = field(default_factory=dict)
    unexplained: tuple[str, ...] = ()
    meshes: tuple[MeshTried, ...] = ()

    @property
    def condition(self) -> str:
        """Under which condition on leaves of one port alone everything holds, in words; empty: there is none."""
        held = [one.text for one in self.held if not one.candidate]
        return f"where {' and '.join(held)}" if held else ""

    @property
    def held_texts(self) -> tuple[str, ...]:
        """What is not compared of held leaves, in words."""
        trained = [one for one in self.held if one.trained]
        moved = ", ".join(f"{one.leaf} of {one.port}" for one in trained)
        note = f"{moved} trained away from there is not covered: every train step was made from these values"
        own = [f"{one.candidate} is compared where {one.text}" for one in self.held if one.candidate]
        return (*own, note) if trained else tuple(own)

    @property
    def patches(self) -> tuple[str, ...]:
        """What each builder, and the import of the case file, changed outside of the models, in words."""
        whole = (f"the case file changes {', '.join(self.changes)}: in force for this case only",)
        ports = (
            f"{port} changes {', '.join(changes)}: in force for this port only"
            for port, changes in self.patched.items()
        )
        return (*(whole if self.changes else ()), *ports)

    @property
    def notes(self) -> tuple[str, ...]:
        """Over which ranges ports were compared, what was left out, what builders changed, in words."""
        asked = f"not compared, as other checks are asked for: {', '.join(self.left_out)}"
        left_out = [asked] if self.left_out else []
        if self.edges_refused:
            left_out.append(f"nothing was tried beyond ordinary values: {self.edges_refused.rstrip('.')}")
        if self.as_users is False and self.ran and "compiled" not in self.left_out:
            why = f": {self.not_as_users}" if self.not_as_users else ""
            left_out.append(f"the ports were not compiled as users do{why}")
        tables = (f"{name} is below {self.batch[name].rpartition(':')[2]}" for name in self.table_bounds)
        left_out += [f"{text}, the rows of the table that is looked up with it" for text in tables]
        left_out += [f"{port}: a call makes {', '.join(made)}: not compared" for port, made in self.made.items()]
        left_out += self.sharding_texts
        return (*self.gradient_texts, *left_out, *self.held_texts, *self.range_texts, *self.size_texts, *self.patches)

    @property
    def sharding_texts(self) -> tuple[str, ...]:
        """Whose names of axes are compared with nobody's, and what was run on which mesh, in words."""
        none = [port for port, count in self.annotated.items() if not count]
        some = [f"{count} leaves of {port}" for port, count in self.annotated.items() if count]
        alone = f"{' and '.join(some)} have names of axes, none of {', '.join(none)}: these names are not compared"
        known = (
            f"nothing says which axes of a mesh {', '.join(self.unexplained)} are: leaves that differ in these names "
        )
        known += f"are not compared by them. Give the case rules={{{(*self.unexplained, '')[0]!r}: ...}}"
        unclear = [known] if self.unexplained else []
        return (*([alone] if some and none else []), *unclear, *(one.text for one in self.meshes))

    @property
    def gradient_texts(self) -> tuple[str, ...]:
        """Which ports have no gradients, and why, in words; equal ones once."""
        ports: dict[str, list[NoGradient]] = {}
        for one in self.no_gradients:
            ports.setdefault(one.port, []).append(one)
        texts: dict[str, list[str]] = {}
        for port, missing in ports.items():
            # A port without any has one for each method and mode.
            every = len(missing) == len(self.methods) * len(self.modes)
            for reason in dict.fromkeys(one.reason for one in missing):
                named = ", ".join(str(one.program) for one in missing if one.reason == reason)
                alone = every and all(one.reason == reason for one in missing)
                text = f"gradients do not apply: {reason}" if alone else f"no {named}: {reason}"
                texts.setdefault(text, []).append(port)
        return tuple(f"{', '.join(names)}: {text}" for text, names in texts.items())

    @property
    def size_texts(self) -> tuple[str, ...]:
        """What each port is with other sizes of its batch, in words; equal ones once."""
        texts: dict[str, list[str]] = {}
        for one in self.other_sizes:
            texts.setdefault(one.text, []).append(one.port)
        return tuple(f"{', '.join(names)}: {text}" for text, names in texts.items())

    @property
    def range_texts(self) -> tuple[str, ...]:
        """Over which ranges of narrow dtypes the ports were compared, in words; equal ones once."""
        texts: dict[str, list[str]] = {}
        for one in self.ranges:
            texts.setdefault(one.text, []).append(one.candidate)
        return tuple(f"{', '.join(names)}: {text}" for text, names in texts.items())

    @property
    def text(self) -> str:
        """It in words, without what is unexercised."""
        only = {} if self.proved else dict.fromkeys(self.kept, " (only the given values)")
        shapes = ", ".join(f"{name} {spec}{only.get(name, '')}" for name, spec in self.batch.items())
        methods = ", ".join(f"{name}({', '.join(entries)})" for name, entries in self.methods.items())
        methods += "".join(f", {name}: {'; '.join(calls)}" for name, calls in self.sequences.items())
        modes = f" in {' and '.join(self.modes)} mode" if self.modes != ("call",) else ""
        if self.gradient_modes:
            modes += f", gradients in {' and '.join(self.gradient_modes)} mode"
        optimizer = f", default optimizer sgd({self.default_rate:g})" if self.default_rate else ""
        if self.budget_factor != 1:
            optimizer += f"; every budget times {self.budget_factor:g}"
        late = f", and steps {', '.join(map(str, self.late_steps))} of its counters" if self.late_steps else ""
        edges = f"; tried too: {', '.join(self.edges)}" if self.edges else ""
        values = "every value of" if self.proved else "the probes' values of" if self.ran else "what is proved, for"
        if self.proved and self.rewrites:
            values = f"every value, up to the rewrites {', '.join(self.rewrites)}, of"
            if self.cast_dtypes:
                values = values.replace(", of", f" (dtypes: {', '.join(self.cast_dtypes)}), of")
        where = f", {self.condition}" if self.condition else ""
        return (
            f"{values} these shapes and dtypes: {shapes}; {methods}{modes}; "
            f"{self.steps} train steps{late}{optimizer}{edges}{where}"
        )


def group_by_port(places: Sequence[Unexercised]) -> Iterator[str]:
    """Yield every place in words after the ports that have it."""
    ports: dict[str, list[str]] = {}
    for place in places:
        ports.setdefault(place.text, []).append(place.port)
    return (f"{', '.join(names)}: {text}" for text, names in ports.items())
