"""The interface of a backend: `PortSpec` in, `Port` out; and what all backends share. No model library is imported."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import optax

from equiv.compat import key_text
from equiv.core.annotation import Annotation, Axes
from equiv.core.call_sequence import PortSequence
from equiv.core.layouts import Identity, Layout
from equiv.core.leaves import NativeKey, NativeLeaf
from equiv.core.method_call import MethodCall
from equiv.errors import CaseError, PortError

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of one call."""

HostTimer = Callable[["ProgramRun", Callable[[], float]], dict[str, float]]
"""Makes one call; returns the seconds that each part of it took on the host."""


@dataclass
class ProgramRun:
    """A user program that is called repeatedly, with buffers of its own.

    Attributes:
        function: the jitted function.
        arguments: of the next call.
        next_arguments: `(arguments, outputs)` to the arguments of the next call; None: always the same.
        mutated_arrays: returns the arrays that calls have changed in place; None: nothing is changed in place.
    """

    function: Callable[..., Any]
    arguments: Call
    next_arguments: Callable[[Call, Any], Call] | None = None
    mutated_arrays: Callable[[], Any] | None = None

    def call(self) -> Any:
        """Call once, as users do; the outputs may still be computed asynchronously."""
        return self.function(*self.arguments[0], **self.arguments[1])

    def wait(self, outputs: Any) -> None:
        """Block until all outputs and all arrays that were changed in place are ready."""
        jax.block_until_ready((outputs, self.mutated_arrays() if self.mutated_arrays else None))

    def advance(self, outputs: Any) -> None:
        """Set the arguments of the next call from the outputs of this one."""
        if self.next_arguments is not None:
            self.arguments = self.next_arguments(self.arguments, outputs)


def argument_arrays(run: ProgramRun) -> list[Any]:
    """The arrays among the arguments of the next call, in pytree order."""
    return jax.tree.leaves(run.arguments)


@dataclass(frozen=True)
class UserProgram:
    """One program as users of the library write it, newly jitted: it is neither traced nor compiled yet.

    Attributes:
        program: one of `PROGRAMS`.
        runner: how it is called: `jax.jit`, `nnx.jit`, `split + jax.jit`.
        function: the jitted function; has `trace`.
        start: returns a new run, with copies of all arrays, so that no two runs share a buffer.
        flat_arguments: the arrays that the compiled program takes, in its order.
        host_timer: times the parts of a call on the host; None if the runner is one call into JAX.
    """

    program: str
    runner: str
    function: Any
    start: Callable[[], ProgramRun]
    flat_arguments: Callable[[ProgramRun], list[Any]] = argument_arrays
    host_timer: HostTimer | None = None


Leaves = dict[NativeKey, Any]
"""Native key to array."""

LeafNames = Mapping[str, Mapping[str, NativeLeaf | tuple[NativeLeaf, ...]]]
"""The type of a backend's `LEAVES`: layer kind to canonical leaf to its native form, or to several alternatives."""

AS_IS: Layout = Identity()


def norm_leaves(bias: str, layout: Layout = AS_IS) -> dict[str, NativeLeaf]:
    """The leaves of a norm layer, with the library's own name of the bias."""
    return {"scale": NativeLeaf("params", "scale", layout), "bias": NativeLeaf("params", bias, layout)}


@dataclass(frozen=True)
class PortSpec:
    """What a port has to provide, as far as a backend needs to know the case.

    Attributes:
        methods: public method to how it is called.
        batch: batch entry to `jax.ShapeDtypeStruct`; nested inputs have an entry for each array.
        loss: `(outputs of the first method, batch entries)` to a scalar.
        optimizer: returns the optax transformation of the default train step.
        port: name of the port, for its messages and results; empty: that of the library.
        bounds: batch entry of whole numbers to the number that all of its values are below; none is negative.
        left_out: names of the checks that are not made.
        nest: batch entries to the batch as the case has it, with nested inputs.
        sequences: name to calls that are made one after the other.
        initial: the call that initialises, with its method; None: that of the first method.
        rules: logical axes to axes of the mesh, in force while the port's functions are called.
    """

    methods: Mapping[str, MethodCall]
    batch: Mapping[str, jax.ShapeDtypeStruct]
    loss: Callable[[Any, Mapping[str, Any]], Any]
    optimizer: Callable[[], optax.GradientTransformation]
    port: str = ""
    bounds: Mapping[str, int] = field(default_factory=dict)
    nest: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
    sequences: Mapping[str, PortSequence] = field(default_factory=dict)
    initial: MethodCall | None = None
    left_out: tuple[str, ...] = ()
    rules: tuple[tuple[str, Axes], ...] = ()

    @property
    def calls(self) -> Mapping[str, MethodCall]:
        """Every call that a port is given: of methods by their names, of sequences by their texts."""
        return {**self.methods, **{text: call for one in self.sequences.values() for text, call in one.calls}}

    @property
    def initial_call(self) -> MethodCall:
        """The call that initialises, with its method."""
        method, call = next(iter(self.methods.items()))
        return self.initial or replace(call, method=method)

    def initial_inputs(self) -> list[Any]:
        """The shapes and dtypes of what the call that initialises takes."""
        return [self.batch[name] for name in self.initial_call.inputs]

    @property
    def first_method(self) -> tuple[str, tuple[str, ...]]:
        """The name of the first method, and the batch entries that it takes."""
        method, call = next(iter(self.methods.items()))
        return method, call.inputs

    def step_arguments(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What a train step may take of a batch, by name: the batch, and each input of it."""
        nested = self.nest(batch)
        return {"batch": nested, **nested}


@dataclass(frozen=True)
class Port:
    """A model of one library as pure functions of its native leaves. All can be traced abstractly.

    Attributes:
        name: of the port, which is its key in the case's `models`.
        library: name of the backend that built it.
        leaves: every native leaf to its `jax.ShapeDtypeStruct`.
        collections: every native leaf to `params`, `state` or `random` (the library's own random state).
        has_modes: whether train and eval mode can differ.
        apply: `(leaves, call, inputs, train, key)` to `(outputs, leaves after the call)`; the call by its name in
            `PortSpec.calls`, the inputs are the batch entries that it takes, in its order.
        init_training: `(leaves, key)` to the carry of training: variables, optimizer state.
        step: `(carry, batch, key)` to `(carry, outputs)`.
        init: `key` to the leaves as the library initialises them.
        default_step: whether the train step is the default one, not the case's own.
        step_left_out: whether its builder returns a train step that is not used, as the port that it is compared with
            has none.
        user_programs: `(leaves, batch, key)` to the programs as users of the library write them, newly jitted; None
            if they cannot be timed.
        patched: what its builder changed outside of the model, in words; it is in force for this port only.
        returns_parameters: whether a compiled call returns the parameters too, as `nnx.jit` does.
        made: what the calls that were traced so far have made that the next call is not given, and that is no output.
        sequences: those of the case, with the calls of this port.
        annotations: native leaf to what the library keeps of its sharding, where it keeps something.
        annotate: a pytree of the library, such as the carry of training, to the same of each of its arrays, in order.
    """

    name: str
    library: str
    leaves: Mapping[NativeKey, jax.ShapeDtypeStruct]
    collections: Mapping[NativeKey, str]
    has_modes: bool
    apply: Callable[[Leaves, str, tuple[Any, ...], bool, Any], tuple[Any, Leaves]]
    init_training: Callable[[Leaves, Any], Any]
    step: Callable[[Any, Mapping[str, Any], Any], tuple[Any, Any]]
    init: Callable[[Any], Leaves]
    default_step: bool
    user_programs: "Callable[[Leaves, Mapping[str, Any], Any], tuple[UserProgram, ...]] | None" = None
    step_left_out: bool = False
    patched: tuple[str, ...] = ()
    returns_parameters: bool = False
    made: Callable[[], tuple[str, ...]] = tuple
    sequences: Mapping[str, PortSequence] = field(default_factory=dict)
    annotations: Mapping[NativeKey, Annotation] = field(default_factory=dict)
    annotate: Callable[[Any], "list[Annotation | None]"] = lambda tree: [None] * len(jax.tree.leaves(tree))


@dataclass(frozen=True)
class BuilderResult:
    """The result of a builder, unpacked."""

    model: Any
    train_step: Callable[..., Any] | None
    create: Callable[..., Any] | None


def unpack_builder_result(port: str, returned: Any, model_types: tuple[type, ...], expected: str) -> BuilderResult:
    """Unpack the result of a builder to model, train step and `create`.

    Raises:
        CaseError: the result has another form.
    """
    is_namedtuple = hasattr(returned, "_fields")
    parts: tuple[Any, ...] = returned if isinstance(returned, tuple) and not is_namedtuple else (returned,)
    if not 1 <= len(parts) <= 3 or not isinstance(parts[0], model_types) or not all(map(callable, parts[1:])):
        shown = ", ".join(f"the class {p.__name__}" if isinstance(p, type) else type(p).__name__ for p in parts)
        classes = [p.__name__ for p in parts[:1] if isinstance(p, type) and issubclass(p, model_types)]
        called = "".join(f"Call the class: return {name}(...). " for name in classes)
        raise CaseError(
            f"{port}: the builder returned ({shown}), wanted {expected}.",
            fix=f"{called}Return model, (model, train_step) or (model, train_step, create).",
            port=port,
        )
    return BuilderResult(*parts, *(None,) * (3 - len(parts)))


CREATED = {
    "state": "the train state",
    "train_state": "the train state",
    "opt_state": "the optimizer's state",
    "optimizer": "the optimizer",
}
"""Arguments of a train step that `create` makes."""


def bind_arguments(
    port: str, function: Callable[..., Any], available: Mapping[str, Any], what: str = "train_step"
) -> dict[str, Any]:
    """Choose the arguments of a train step or `create` by parameter name.

    Args:
        port: name of the port.
        function: what is called.
        available: values by name.
        what: `train_step`, which gets the batch too, or `create`.

    Raises:
        CaseError: a required parameter has an unknown name.
    """
    arguments = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in available:
            arguments[name] = available[name]
        elif parameter.default is parameter.empty:
            called, other = getattr(function, "__name__", "a function"), f"add {name!r} to the batch"
            if what == "create":
                call = called if called.isidentifier() else "function"
                other = f"return one that has such names: lambda params: {call}(params)"
                called = f"{called}, returned as create," if called != what else called
            fix = f"Rename the parameter, or {other}."
            if what == "train_step" and name in CREATED:
                model = "model" if "model" in available else "params"
                made = f"create({model}) makes {CREATED[name]}, which train_step takes as {name}"
                fix = f"Return (model, train_step, create): {made}."
            raise CaseError(
                f"{port}: {called} has the parameter {name!r}, for which there is no value; "
                f"available are: {', '.join(sorted(available))}.",
                fix=fix,
                port=port,
            )
    return arguments


def path_words(path: tuple[Any, ...]) -> tuple[str, ...]:
    """The words of a pytree path, without the `value` of an NNX variable or of a box of Linen."""
    named = [one for one in path if not (isinstance(one, jax.tree_util.GetAttrKey) and one.name == "value")]
    return tuple(map(key_text, named))


def pytree_path(path: tuple[Any, ...]) -> str:
    """Format a pytree path as `a/b/0/c`, see `path_words`."""
    return "/".join(path_words(path))


def check_leaves(port: str, function: str, before: Mapping[NativeKey, Any], after: Mapping[NativeKey, Any]) -> None:
    """Check that a call or step neither adds nor removes leaves, as added ones would not be compared.

    Raises:
        PortError: it does; names the first such leaf.
    """
    for extra, verb, rest in (
        (set(after) - set(before), "adds", ", which initialisation did not create"),
        (set(before) - set(after), "removes", ", which initialisation created"),
    ):
        if extra:
            raise PortError(
                f"{port}: {function} {verb} {min(extra)}{rest}.",
                fix="Create every variable when the model is built or initialised.",
                port=port,
            )


def functional_training(
    port: str,
    spec: PortSpec,
    built: BuilderResult,
    apply: Callable[..., tuple[Any, Leaves]],
    trees: Callable[[Leaves], dict[str, Any]],
    leaves: Callable[[dict[str, Any]], Leaves],
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`init_training` and `step` of a port whose variables are plain pytrees (Haiku, Linen).

    Args:
        port: name of the port, for error messages.
        spec: see `PortSpec`.
        built: the result of the builder.
        apply: the port's `apply`.
        trees: native leaves to the pytrees that a train step takes, by argument name.
        leaves: the inverse of `trees`.
    """
    if built.train_step is None:
        return _default_functional_training(spec, apply, trees, leaves)
    train_step, create = built.train_step, built.create

    def init_training(native: Leaves, key: Any) -> dict[str, Any]:
        carry = trees(native)
        if create is None:
            return carry
        created = create(**bind_arguments(port, create, {**carry, "key": key}, "create"))
        if hasattr(created, "apply_gradients"):
            return {"train_state" if "train_state" in inspect.signature(train_step).parameters else "state": created}
        return {**carry, "opt_state": created}

    def step(carry: dict[str, Any], batch: Mapping[str, Any], key: Any) -> tuple[dict[str, Any], Any]:
        arguments = bind_arguments(port, train_step, {**spec.step_arguments(batch), "key": key, **carry})
        carried = [name for name in arguments if name in carry]
        result = train_step(**arguments)
        is_single = len(carried) == 1 and not (isinstance(result, tuple) and not hasattr(result, "_fields"))
        results = (result,) if is_single else tuple(result)
        if len(results) < len(carried):
            raise CaseError(
                f"{port}: train_step returns {len(results)} values but takes {', '.join(carried)}.",
                fix="Return the updated values of these arguments in their order, then any outputs.",
                port=port,
            )
        return {**carry, **dict(zip(carried, results, strict=False))}, results[len(carried) :]

    return init_training, step


def _default_functional_training(
    spec: PortSpec, apply: Callable[..., tuple[Any, Leaves]], trees: Any, leaves: Any
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    method, names = spec.first_method

    def init_training(native: Leaves, key: Any) -> dict[str, Any]:
        carry = trees(native)
        return {**carry, "opt_state": spec.optimizer().init(carry["params"])}

    def step(carry: dict[str, Any], batch: Mapping[str, Any], key: Any) -> tuple[dict[str, Any], Any]:
        def loss_of(params: Any) -> tuple[Any, Any]:
            outputs, after = apply(
                leaves({**carry, "params": params}), method, tuple(batch[name] for name in names), True, key
            )
            return spec.loss(outputs, batch), after

        (loss, after), gradients = jax.value_and_grad(loss_of, has_aux=True)(carry["params"])
        updates, opt_state = spec.optimizer().update(gradients, carry["opt_state"], carry["params"])
        params = optax.apply_updates(carry["params"], updates)
        return {**trees(after), "params": params, "opt_state": opt_state}, (loss,)

    return init_training, step
