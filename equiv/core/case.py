"""The classes of a case: one model in several libraries, and how it is compared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from equiv.core.annotation import Axes
from equiv.core.batch_spec import Batch, BatchTree
from equiv.core.leaves import HeldValue
from equiv.core.method_call import Methods

Builder = Callable[..., Any]
"""Returns one library's model: `model`, `(model, train_step)` or `(model, train_step, create)`."""


Setting = TypeVar("Setting")


def setting_for(settings: Mapping[str, Setting], port: str, library: str) -> Setting | None:
    """The setting of a port: its own, else that of its library, which holds for every port of it; None: none."""
    return settings.get(port, settings.get(library))


@dataclass(frozen=True)
class Layer:
    """One row of the layer table: the same layer in every port.

    What is keyed by a port may also be keyed by a library: it holds for every port of it that has no entry of its own.

    Attributes:
        path: canonical path, e.g. `"block.linear"`; leaves are named `block.linear/kernel`.
        kind: which leaves it has and how each library stores them, e.g. `"linear"`; see `equiv.core.layers`.
        scopes: port to the layer's place in its library's own tree; `"blocks[2]"` is one layer of a
            stack, `"qkv[..., 0:8]"` a slice of the last axis of every leaf there, `"kernel[0:6]"` or `"qkv[:, 1]"`
            one of the first axes, as numpy takes it.
        leaves: leaf names, for kinds whose leaves the case itself names (`module`).
        layouts: port to leaf to its layout there (`equiv.core.layouts`), if it is not the kind's default.
        channels_first: number of spatial axes where the layer has the channels first, of every port whose library
            stores leaves in another shape for it, or by port; 0: it has the channels last.
        value: of a row `only`: what the leaf is held at; None: the ports are different by it.
    """

    path: str
    kind: str
    scopes: Mapping[str, str]
    leaves: tuple[str, ...] = ()
    layouts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    channels_first: int | Mapping[str, int] = 0
    value: HeldValue | None = None


@dataclass(frozen=True)
class Deviation:
    """Where a case must deviate from the published guide, and why: one row of the guides' errata.

    Attributes:
        backend: the library whose code in the guide is concerned, or one port.
        prints: the code that the guide prints.
        happens: what that code does on the named versions, with the error message if there is one.
        works: the code that the case uses instead.
        versions: the versions on which it was seen, e.g. `"flax 0.12.8"`.
        evidence: the guide section or the test that shows it.
    """

    backend: str
    prints: str
    happens: str
    works: str
    versions: str
    evidence: str = ""


@dataclass(frozen=True)
class KnownDifference:
    """A difference between one library or port and the others, as a formula that is checked at every step.

    It applies to training from each library's own initial state. Two ports that both have it do not differ by it, and
    are compared like any others. A formula that no longer holds fails the check,
    and so does one that is no longer needed.

    Attributes:
        backend: the library or port that differs from the others.
        leaf: canonical leaf, e.g. `"block.norm/mean"`.
        formula: the relation in words, for the report.
        expected: `(leaves of that port, steps taken)` to the value that the other ports hold.
        own: `(leaves of that port, steps taken)` to the value that this port itself must hold.
        reason: why it differs, with the source of the fact.
    """

    backend: str
    leaf: str
    formula: str
    expected: Callable[[Mapping[str, Any], int], Any]
    own: Callable[[Mapping[str, Any], int], Any]
    reason: str

    def concerns(self, port: str, library: str) -> bool:
        """Whether a port has it."""
        return self.backend in (port, library)


@dataclass(frozen=True)
class CallSequence:
    """Calls of public methods, in order.

    Attributes:
        calls: each as text, such as `"decode(tokens[:, 0:1])"`; or port or library to its own.
        join: axis on which the outputs of all calls are joined, so that ports may differ in how many calls they make;
            None: outputs and state are compared after every call.
    """

    calls: Sequence[str] | Mapping[str, Sequence[str]]
    join: int | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The calls; where ports have their own, all of a port in one text, after its name."""
        if isinstance(self.calls, Mapping):
            return tuple(f"{port}: {', '.join(calls)}" for port, calls in self.calls.items())
        return tuple(self.calls)


@dataclass(frozen=True)
class BatchInvariance:
    """A method gives each row of a batch the outputs that it gives the row alone, in eval mode.

    Attributes:
        method: the public method; empty: the first of the case.
    """

    method: str = ""


@dataclass(frozen=True)
class Padding:
    """A method gives the valid positions of padded rows the outputs of each row alone without padding, in eval mode.

    Attributes:
        mask: the input that says which positions are valid, whose values are kept: an array of shape (batch, length),
            with more axes between them as an attention mask has; or the length of every row, (batch,).
        valid: its value where a position is valid; of lengths, every position before the length is.
        method: the public method; empty: the first of the case.
    """

    mask: str
    valid: bool = True
    method: str = ""


@dataclass(frozen=True)
class Depths:
    """The same model at growing depth, to measure what depth costs with unrolled and with scanned layers.

    Attributes:
        unrolled: port to a builder that writes its layers out one by one; it takes `num_layers` in addition
            to the usual arguments.
        scanned: likewise, for a builder that scans over its layers.
        layers: the depths.
    """

    unrolled: Mapping[str, Builder]
    scanned: Mapping[str, Builder]
    layers: tuple[int, ...] = (1, 4, 16, 64)


@dataclass(frozen=True)
class Case:
    """One model in several ports, of several libraries or of one, and how they are compared.

    Attributes:
        guide: where the example is published: document and section.
        models: name of a port to its builder. The first is the reference; every other is a candidate. The names are
            free, and the library is recognised from what a builder returns; the name of a library is for its models.
        batch: input to `"dtype[shape]"`, integers with an upper bound: `"int32[8]:10"`, PRNG keys as `"key[8]"`, whose
            values are random; to an array, or a function that returns one, whose values are kept: a mask, positions,
            segments; to None; or to a dict, tuple or list of these, where the model takes one. Or a function that
            returns arrays by name.
        layers: the layer table.
        methods: the calls of public methods, with inputs of the batch and constants: `("encode(x)", "__call__(x,
            train=True, cache=None)")`; or public method to the inputs that are its positional arguments. An argument
            that selects train or eval mode (`equiv.core.method_call.MODE_ARGUMENTS`) compares that mode only, whatever
            each port calls it. None: `__call__` with every input but `labels`, `targets` and `y`.
        sequences: name to calls that are made one after the other, each given the state that the one before left.
        invariances: what holds for each port by itself: `BatchInvariance()`, `Padding("mask")`.
        initial: the call that a library initialises with that has to be given a batch for it, such as Linen, where it
            is not that of the first method: `"__call__(tokens)"`, for a cache of the length of `tokens`.
        loss: `(outputs of the first method, batch)` to a scalar; None: the mean square of the outputs.
        optimizer: for a case without a train step of its own, returns an optax transformation; None: `optax.sgd(0.1)`,
            with a lower rate where training blows up with that.
        keep: inputs whose values are kept, of a batch that is a function; all others are random, of the same shape.
        checks: names of the checks that are made (`equiv.core.checks.CHECK_NAMES`), beside that of the structure. What
            only the others need is not traced, and the scope of the verdict says what is left out. None: all.
        printed: port or library to native leaf path to shape, exactly as the guide prints its parameters.
        known_differences: formulas for what differs by design.
        deviations: where the case deviates from the guide, and why.
        steps: how many train steps are compared.
        budget_factor: what every derived budget is multiplied by; anything but 1 is a claim of the case's author, and
            is recorded and shown with every number that it touches.
        depths: the same model at growing depth, for `equiv bench`.
        meshes: the meshes that each port is also run on, sharded as its own annotations say: name to size of each axis.
        rules: logical axes of annotations to axes of the meshes, in order; or port or library to its own.
        batch_axes: input to the names of its axes, which rules hold for too: `{"x": ("data",)}`; others are on every
            device.
    """

    guide: str
    models: Mapping[str, Builder]
    batch: Batch
    layers: tuple[Layer, ...]
    methods: Methods | None = None
    sequences: Mapping[str, CallSequence] = field(default_factory=dict)
    invariances: Sequence[BatchInvariance | Padding] = ()
    initial: str = ""
    loss: Callable[[Any, Mapping[str, Any]], Any] | None = None
    optimizer: Callable[[], Any] | None = None
    keep: tuple[str, ...] = ()
    checks: tuple[str, ...] | None = None
    printed: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)
    known_differences: tuple[KnownDifference, ...] = ()
    deviations: tuple[Deviation, ...] = ()
    steps: int = 5
    budget_factor: float = 1.0
    depths: Depths | None = None
    meshes: Sequence[Mapping[str, int]] = ()
    rules: Mapping[str, Axes | Mapping[str, Axes]] | Sequence[tuple[str, Axes]] = ()
    batch_axes: Mapping[str, Sequence[Axes]] = field(default_factory=dict)

    @property
    def inputs(self) -> Mapping[str, BatchTree]:
        """The batch of a case whose batch is no function, or has been called (`equiv.backends.batches`).

        Raises:
            ValueError: it is a function still.
        """
        if callable(self.batch):
            raise ValueError("the batch of this case is still to be called")
        return self.batch
