"""Names of programs, of their inputs and of their outputs. Places in reports are these names as text.

They are types, so that no code takes a text apart to learn which program, leaf or kind of value it is about.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

ProgramKind = Literal[
    "call", "eval", "train", "eval gradient", "gradient", "start", "begin", "step", "training"
]  # fmt: skip
"""`call`, or `eval` and `train` where the modes differ: one call of a method; `gradient`: of its loss, in train mode
where the modes differ, and `eval gradient` in eval mode. `start`: a library's initial state. `begin`: variables to the
carry of training; `step`: one train step; `training`: all steps."""


InputKind = Literal["leaf", "optimizer", "bookkeeping", "random", "key", "batch", "draw", "cotangent"]
"""`bookkeeping`: in the carry of training, but neither a leaf nor in the optimizer's state, such as a step count."""


OutputKind = Literal["output", "state", "gradient", "loss", "draw", "leaf", "optimizer", "bookkeeping", "random"]
"""`output`: what the user's function returns; `state`: a leaf after a call; from `leaf` on: the carry of training."""


class _SortedAsText:
    """Sort names as they read; jax sorts the keys of a dict in a pytree."""

    @cached_property
    def _order(self) -> tuple[str, str]:
        return str(self), repr(self)

    def __lt__(self, other: Any) -> bool:
        return self._order < other._order if isinstance(other, type(self)) else NotImplemented


@dataclass(frozen=True)
class ProgramName(_SortedAsText):
    """The name of a program, `train __call__`; only calls and gradients have a method."""

    kind: ProgramKind
    method: str = ""

    def __str__(self) -> str:
        kind = "train" if self.kind == "training" else self.kind
        return f"{kind} {self.method}" if self.method else kind

    @property
    def is_forward(self) -> bool:
        """Whether it is one call of a method."""
        return self.kind in ("call", "eval", "train")

    @property
    def is_evaluation(self) -> bool:
        """Whether it is one call of a method in the mode in which a trained model is used."""
        return self.kind in ("call", "eval")

    @property
    def is_training(self) -> bool:
        """Whether it is a part of training, or all of it."""
        return self.kind in ("begin", "step", "training")

    @property
    def is_gradient(self) -> bool:
        """Whether it is the gradient of a method's loss, in either mode."""
        return self.kind in ("gradient", "eval gradient")

    @property
    def complexity(self) -> int:
        """A rank by size: a difference in a simple program explains those in larger ones."""
        return _BY_SIZE.index(self.kind)


_BY_SIZE: tuple[ProgramKind, ...] = (
    "eval", "call", "train", "eval gradient", "gradient", "start", "begin", "step", "training",
)  # fmt: skip


START, BEGIN, STEP, TRAINING = ProgramName("start"), ProgramName("begin"), ProgramName("step"), ProgramName("training")


@dataclass(frozen=True)
class InputName(_SortedAsText):
    """The name of a program's input.

    Attributes:
        kind: what it is.
        path: a batch entry, the number of a draw, the output of a cotangent, a path in random or optimizer state; of
            the latter up to the leaf.
        leaf: canonical name of the leaf, or, in the optimizer's state, of the parameter that it belongs to.
    """

    kind: InputKind
    path: str = ""
    leaf: str = ""

    def __str__(self) -> str:
        if self.kind in ("leaf", "optimizer", "bookkeeping"):
            return f"{self.path}{self.leaf}"
        return f"{self.kind}/{self.path}" if self.path else self.kind

    @property
    def is_random(self) -> bool:
        """Whether it is a key or the library's own random state."""
        return self.kind in ("key", "random")

    @property
    def is_carried(self) -> bool:
        """Whether it is in the carry of training."""
        return self.kind in ("leaf", "optimizer", "bookkeeping", "random")


KEY = InputName("key")


def leaf_input(leaf: str) -> InputName:
    """The input that is a canonical leaf."""
    return InputName("leaf", leaf=leaf)


def optimizer_slot(role: str, leaf: str, number: int = 1) -> InputName:
    """The input that is the optimizer's slot of a parameter, `opt_state/mu/block.linear/kernel`.

    Args:
        role: what it holds, as optax calls it: `mu`, `nu`, `trace`; empty where nothing says so.
        leaf: canonical name of the parameter.
        number: of several with this role and parameter, from 1.
    """
    return InputName("optimizer", _optimizer_path(number, role), leaf)


def optimizer_count(role: str, beside: tuple[str, ...] = (), number: int = 1) -> InputName:
    """The input that is in the optimizer's state and belongs to no parameter, `opt_state/mu,nu/count`.

    Args:
        role: what it is called there: `count`.
        beside: the roles of the slots that it is kept with.
        number: of several such, from 1.
    """
    return InputName("optimizer", f"{_optimizer_path(number, ','.join(beside))}{role}")


def bookkeeping_input(role: str, number: int = 1) -> InputName:
    """The input that is in the carry of training, but neither a leaf nor in the optimizer's state."""
    return InputName("bookkeeping", role if number == 1 else f"{number}/{role}")


def _optimizer_path(number: int, *words: str) -> str:
    return "".join(f"{word}/" for word in ("opt_state", str(number) if number > 1 else "", *words) if word)


def batch_input(entry: str) -> InputName:
    """The input that is a batch entry."""
    return InputName("batch", entry)


def draw_input(number: int) -> InputName:
    """The input with the bits of a draw."""
    return InputName("draw", str(number))


@dataclass(frozen=True)
class OutputName(_SortedAsText):
    """The name of an output of a program, `train __call__: state block.norm/mean`.

    Attributes:
        program: the program.
        kind: what it is.
        path: where in what a function returns, the batch entry of a gradient, the number of a draw, a path in random or
            optimizer state; of the latter up to the leaf.
        leaf: canonical name of the leaf, or, in the optimizer's state, of the parameter that it belongs to.
        after_training: whether the program ran with the trained leaves.
    """

    program: ProgramName
    kind: OutputKind
    path: str = ""
    leaf: str = ""
    after_training: bool = False

    def __str__(self) -> str:
        return f"{'after training, ' if self.after_training else ''}{self.program}: {self.text}"

    @property
    def text(self) -> str:
        """The name without the program."""
        if self.kind == "output":
            first = "step output" if self.program.is_training else "output"
            return f"{first}/{self.path}" if self.path else first
        if self.kind in ("state", "gradient"):
            return f"{self.kind} {self.path}{self.leaf}"
        if self.kind in ("draw", "random"):
            return f"{self.kind}/{self.path}"
        return f"{self.path}{self.leaf}" or self.kind

    @property
    def check(self) -> str:
        """The check that compares it, one of `equiv.core.checks.CHECK_NAMES`."""
        if self.after_training:
            return "state"
        if self.program.is_training:
            return "train"
        if self.program.is_gradient:
            return "gradients"
        return {"state": "state", "draw": "randomness"}.get(self.kind, "outputs")

    @property
    def is_leaf(self) -> bool:
        """Whether it is the value of a leaf after a call or a train step."""
        return self.kind in ("state", "leaf")

    @property
    def as_input(self) -> InputName | None:
        """The input of the next train step that it becomes; None: it is not in the carry of training."""
        if self.kind in ("leaf", "optimizer", "bookkeeping", "random"):
            return InputName(self.kind, self.path, self.leaf)
        return None

    def of(self, program: ProgramName) -> "OutputName":
        """The output of the same name of another program."""
        return replace(self, program=program)


def carried_output(program: ProgramName, name: InputName) -> OutputName:
    """The output that is a leaf of the carry of training."""
    if name.kind in ("leaf", "optimizer", "bookkeeping", "random"):
        return OutputName(program, name.kind, name.path, name.leaf)
    raise ValueError(f"{name} is not in the carry of training")


def trained_leaf(leaf: str) -> OutputName:
    """The values of a leaf after every train step."""
    return OutputName(TRAINING, "leaf", leaf=leaf)
