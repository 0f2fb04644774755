"""What a backend gives: a port, and the helpers that every backend needs. No library is imported here."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import optax

from equiv.core.layouts import Identity, Layout
from equiv.core.leaves import Native, NativeKey
from equiv.errors import CaseError, PortError

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of one call."""


Inside = Callable[["Running", Callable[[], float]], dict[str, float]]
"""Makes one call and says how many seconds each part of it took on the host."""


@dataclass
class Running:
    """A program between two calls, with buffers of its own.

    Attributes:
        function: jitted.
        given: arguments of the next call.
        follow: `(arguments, outputs)` to the arguments of the next call; None: always the same.
        changed: the arrays that the last call has put into objects of the caller; None: it changes nothing.
    """

    function: Callable[..., Any]
    given: Call
    follow: Callable[[Call, Any], Call] | None = None
    changed: Callable[[], Any] | None = None

    def call(self) -> Any:
        """One call, as users write it; what it returns may still be computed."""
        return self.function(*self.given[0], **self.given[1])

    def wait(self, outputs: Any) -> None:
        """Wait for all outputs, and for all that was changed in place."""
        jax.block_until_ready((outputs, self.changed() if self.changed else None))

    def after(self, outputs: Any) -> None:
        """Hand the outputs to the next call."""
        if self.follow is not None:
            self.given = self.follow(self.given, outputs)


def leaves_of(running: Running) -> list[Any]:
    """The arrays of the next call, in the order of its pytree."""
    return jax.tree.leaves(running.given)


@dataclass(frozen=True)
class Written:
    """One program, freshly jitted: nothing of it has been traced or compiled yet.

    Attributes:
        program: one of `PROGRAMS`.
        runner: how it is called: `jax.jit`, `nnx.jit`, `split + jax.jit`.
        function: jitted; has `trace`.
        start: copies of everything, so that no two runners share a buffer.
        flat: the arrays that the compiled program takes, in its order.
        inside: where the time of a call goes on the host; None where the runner is one call into JAX.
    """

    program: str
    runner: str
    function: Any
    start: Callable[[], Running]
    flat: Callable[[Running], list[Any]] = leaves_of
    inside: Inside | None = None


Leaves = dict[NativeKey, Any]
"""Native place to array."""


LeafNames = Mapping[str, Mapping[str, Native | tuple[Native, ...]]]
"""Layer kind to canonical leaf to its native form, or to several ones: a backend's `LEAVES`."""


AS_IS: Layout = Identity()


def scaled(bias: str, layout: Layout = AS_IS) -> dict[str, Native]:
    """The leaves of a norm, in a library that calls its bias so."""
    return {"scale": Native("params", "scale", layout), "bias": Native("params", bias, layout)}


TRAIN_ARGUMENTS = {"training": True, "is_training": True, "train": True, "deterministic": False}
"""Arguments that switch between train and eval mode, with their value in train mode."""


@dataclass(frozen=True)
class Request:
    """What a backend needs to know of a case.

    Attributes:
        methods: public method to the batch entries that are its positional arguments.
        batch: batch entry to `jax.ShapeDtypeStruct`.
        loss: `(outputs of the first method, batch)` to a scalar.
        optimizer: makes the optax transformation of the default train step.
    """

    methods: Mapping[str, tuple[str, ...]]
    batch: Mapping[str, jax.ShapeDtypeStruct]
    loss: Callable[[Any, Mapping[str, Any]], Any]
    optimizer: Callable[[], optax.GradientTransformation]


@dataclass(frozen=True)
class Port:
    """A built model in its backend, as pure functions of its native leaves. All can be traced abstractly.

    Attributes:
        backend: backend name.
        leaves: every native leaf to its `jax.ShapeDtypeStruct`.
        collections: every native leaf to `params`, `state` or `random` (the library's own random state).
        modes: whether train and eval mode can differ.
        apply: `(leaves, method, arguments, train, key)` to `(outputs, leaves after the call)`.
        begin: `(leaves, key)` to the carry of training: variables, optimizer state.
        step: `(carry, batch, key)` to `(carry, outputs)`.
        fresh: `key` to the leaves as the library initialises them.
        default_step: whether the train step is ours, not the case's.
        written: `(leaves, batch, key)` to the programs as users of the library write them, freshly jitted; None
            where they cannot be timed.
    """

    backend: str
    leaves: Mapping[NativeKey, jax.ShapeDtypeStruct]
    collections: Mapping[NativeKey, str]
    modes: bool
    apply: Callable[[Leaves, str, tuple[Any, ...], bool, Any], tuple[Any, Leaves]]
    begin: Callable[[Leaves, Any], Any]
    step: Callable[[Any, Mapping[str, Any], Any], tuple[Any, Any]]
    fresh: Callable[[Any], Leaves]
    default_step: bool
    written: "Callable[[Leaves, Mapping[str, Any], Any], tuple[Written, ...]] | None" = None


@dataclass(frozen=True)
class Built:
    """What a builder returned, taken apart."""

    model: Any
    train_step: Callable[..., Any] | None
    create: Callable[..., Any] | None


def take_apart(backend: str, returned: Any, kinds: tuple[type, ...], wanted: str) -> Built:
    """A builder's result as model, train step and `create`.

    Raises:
        CaseError: the builder returned something else.
    """
    named = hasattr(returned, "_fields")
    parts: tuple[Any, ...] = returned if isinstance(returned, tuple) and not named else (returned,)
    if not 1 <= len(parts) <= 3 or not isinstance(parts[0], kinds) or not all(map(callable, parts[1:])):
        shown = ", ".join(f"the class {p.__name__}" if isinstance(p, type) else type(p).__name__ for p in parts)
        raise CaseError(
            f"{backend}: the builder returned ({shown}), wanted {wanted}. "
            "Return model, (model, train_step) or (model, train_step, create)."
        )
    return Built(*parts, *(None,) * (3 - len(parts)))


def mode_arguments(function: Callable[..., Any], train: bool) -> dict[str, bool]:
    """The arguments of a model's call that set its mode, e.g. `{"training": True}`."""
    parameters = inspect.signature(function).parameters
    return {name: value == train for name, value in TRAIN_ARGUMENTS.items() if name in parameters}


def bind(backend: str, function: Callable[..., Any], available: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a train step or `create`, by parameter name.

    Raises:
        CaseError: a parameter that nothing is known for.
    """
    arguments = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in available:
            arguments[name] = available[name]
        elif parameter.default is parameter.empty:
            asking = getattr(function, "__name__", "a function")
            raise CaseError(
                f"{backend}: {asking} asks for {name!r}, which nothing is known for; "
                f"it can have: {', '.join(sorted(available))}. Rename the parameter, or add {name!r} to the batch."
            )
    return arguments


def path_of(path: tuple[Any, ...]) -> str:
    """A pytree path as `a/b/0/c`, without the `value` that wraps an NNX variable."""
    return jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value")


def check_leaves(backend: str, what: str, before: Mapping[NativeKey, Any], after: Mapping[NativeKey, Any]) -> None:
    """Raise where a call or step adds or loses leaves: nothing of a port may go unnoticed.

    Raises:
        PortError: naming the first such leaf.
    """
    for extra, verb in ((set(after) - set(before), "adds"), (set(before) - set(after), "loses")):
        if extra:
            raise PortError(
                f"{backend}: {what} {verb} {min(extra)}, which initialisation did not have. "
                "Create every variable when the model is built or initialised."
            )


def functional_training(
    backend: str,
    request: Request,
    built: Built,
    apply: Callable[..., tuple[Any, Leaves]],
    trees: Callable[[Leaves], dict[str, Any]],
    leaves: Callable[[dict[str, Any]], Leaves],
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`begin` and `step` of a library whose variables are plain trees (Haiku, Linen).

    Args:
        backend: backend name, for messages.
        request: what the case asks.
        built: the builder's result.
        apply: the port's `apply`.
        trees: native leaves to the trees that a train step takes, by argument name.
        leaves: those trees back to native leaves.
    """
    if built.train_step is None:
        return _default_training(request, apply, trees, leaves)
    train_step, create = built.train_step, built.create

    def begin(native: Leaves, key: Any) -> dict[str, Any]:
        carry = trees(native)
        if create is None:
            return carry
        created = create(**bind(backend, create, {**carry, "key": key}))
        if hasattr(created, "apply_gradients"):
            return {"train_state" if "train_state" in inspect.signature(train_step).parameters else "state": created}
        return {**carry, "opt_state": created}

    def step(carry: dict[str, Any], batch: Mapping[str, Any], key: Any) -> tuple[dict[str, Any], Any]:
        arguments = bind(backend, train_step, {"batch": dict(batch), **batch, "key": key, **carry})
        carried = [name for name in arguments if name in carry]
        result = train_step(**arguments)
        alone = len(carried) == 1 and not (isinstance(result, tuple) and not hasattr(result, "_fields"))
        results = (result,) if alone else tuple(result)
        if len(results) < len(carried):
            raise CaseError(
                f"{backend}: train_step returns {len(results)} values but carries {', '.join(carried)}. "
                "Return what it carries in the order of its arguments, then any outputs."
            )
        return {**carry, **dict(zip(carried, results, strict=False))}, results[len(carried) :]

    return begin, step


def _default_training(
    request: Request, apply: Callable[..., tuple[Any, Leaves]], trees: Any, leaves: Any
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    method, names = next(iter(request.methods.items()))

    def begin(native: Leaves, key: Any) -> dict[str, Any]:
        carry = trees(native)
        return {**carry, "opt_state": request.optimizer().init(carry["params"])}

    def step(carry: dict[str, Any], batch: Mapping[str, Any], key: Any) -> tuple[dict[str, Any], Any]:
        def loss_of(params: Any) -> tuple[Any, Any]:
            outputs, after = apply(
                leaves({**carry, "params": params}), method, tuple(batch[name] for name in names), True, key
            )
            return request.loss(outputs, batch), after

        (loss, after), gradients = jax.value_and_grad(loss_of, has_aux=True)(carry["params"])
        updates, opt_state = request.optimizer().update(gradients, carry["opt_state"], carry["params"])
        params = optax.apply_updates(carry["params"], updates)
        return {**trees(after), "params": params, "opt_state": opt_state}, (loss,)

    return begin, step
