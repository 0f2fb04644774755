"""Programs of a port as users of its library write and call them, for timing. No library is imported here."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import numpy as np

from equiv.backends.base import Built, Call, Leaves, Request, Running, Written, bind

PROGRAMS = ("forward", "gradients", "train step")
"""What is timed of every port, in the order of the report; the modes are those of training."""


def copied(tree: Any) -> Any:
    """The same pytree in other buffers: where a buffer lies can change a program's speed by percents."""
    return jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, jax.Array | np.ndarray) else leaf, tree)


def bound(function: Callable[..., Any], named: Mapping[str, Any]) -> Call:
    """Named arguments as a user writes them: by position where the function allows it."""
    arguments = inspect.signature(function).bind(**named)
    return arguments.args, arguments.kwargs


def apart(
    arguments: tuple[Any, ...], kinds: tuple[type, ...]
) -> tuple[tuple[Any, ...], tuple[Any, ...], Callable[[Any, Any], tuple[Any, ...]]]:
    """The arguments of some kinds, all others, and a function that puts the two together in the old order."""
    places = [isinstance(argument, kinds) for argument in arguments]
    paired = list(zip(arguments, places, strict=True))
    first, second = (tuple(one for one, place in paired if place is wanted) for wanted in (True, False))

    def put(first: Any, second: Any) -> tuple[Any, ...]:
        which = {True: iter(first), False: iter(second)}
        return tuple(next(which[place]) for place in places)

    return first, second, put


def functional(
    program: str,
    function: Callable[..., Any],
    given: Call,
    follow: Callable[[Call, Any], Call] | None = None,
) -> Written:
    """A program without side effects under `jax.jit`; one that is jitted already is left as it is written."""
    jitted = function if hasattr(function, "trace") else jax.jit(function)
    return Written(program, "jax.jit", jitted, lambda: Running(jitted, copied(given), follow))


def carrying(function: Callable[..., Any], names: list[str]) -> Callable[[Call, Any], Call]:
    """The `follow` of a train step that returns what it carries, in the order of `names`, and then its outputs."""
    signature = inspect.signature(function)

    def follow(given: Call, outputs: Any) -> Call:
        alone = len(names) == 1 and not (isinstance(outputs, tuple) and not hasattr(outputs, "_fields"))
        results = (outputs,) if alone else tuple(outputs)
        named = signature.bind(*given[0], **given[1]).arguments
        return bound(function, {**named, **dict(zip(names, results, strict=False))})

    return follow


def forward_and_gradients(
    call: Callable[..., tuple[Any, dict[str, Any]]],
    trees: dict[str, Any],
    request: Request,
    batch: Mapping[str, Any],
    key: Any,
) -> tuple[Written, Written]:
    """Both programs of a library whose variables are plain trees (Haiku, Linen).

    Args:
        call: `(trees, inputs, train, key)` to the first method's outputs and the trees after it.
        trees: variables, `params` among them.
        request: what the case asks.
        batch: batch entry to array.
        key: of the randomness of a call.
    """
    names = next(iter(request.methods.values()))

    def run(trees: dict[str, Any], inputs: tuple[Any, ...], key: Any) -> tuple[Any, dict[str, Any]]:
        outputs, after = call(trees, inputs, True, key)
        return outputs, {name: tree for name, tree in after.items() if name != "params"}

    def forward(trees: dict[str, Any], key: Any, *inputs: Any) -> tuple[Any, dict[str, Any]]:
        return run(trees, inputs, key)

    def gradients(trees: dict[str, Any], key: Any, batch: Mapping[str, Any]) -> Any:
        def loss_of(params: Any) -> tuple[Any, dict[str, Any]]:
            outputs, state = run({**trees, "params": params}, tuple(batch[name] for name in names), key)
            return request.loss(outputs, batch), state

        return jax.value_and_grad(loss_of, has_aux=True)(trees["params"])

    return (
        functional("forward", forward, ((trees, key, *(batch[name] for name in names)), {})),
        functional("gradients", gradients, ((trees, key, dict(batch)), {})),
    )


def functional_step(
    backend: str,
    built: Built,
    begin: Callable[[Leaves, Any], dict[str, Any]],
    step: Callable[..., Any],
    native: Leaves,
    batch: Mapping[str, Any],
    key: Any,
) -> Written:
    """The train step of such a library: the case's own as it is written, else ours.

    Args:
        backend: backend name, for messages.
        built: what the builder returned.
        begin: of the port.
        step: of the port.
        native: native leaves.
        batch: batch entry to array.
        key: of the randomness of a step.
    """
    carry, train_step = begin(native, key), built.train_step
    if train_step is None:
        return functional(
            "train step",
            step,
            ((carry, dict(batch), key), {}),
            lambda given, outputs: ((outputs[0], *given[0][1:]), {}),
        )
    named = bind(backend, train_step, {"batch": dict(batch), **batch, "key": key, **carry})
    carried = [name for name in named if name in carry]
    return functional("train step", train_step, bound(train_step, named), carrying(train_step, carried))


@contextmanager
def watched(jitted: Any, watch: Callable[..., Any]) -> Iterator[None]:
    """`nnx.jit` holds a `jax.jit` (flax 0.12, `JitWrapped.jitted_fn`): `watch` is called instead, and given it."""
    inner = jitted.jitted_fn
    jitted.jitted_fn = partial(watch, inner)
    try:
        yield
    finally:
        jitted.jitted_fn = inner


def flat_inside(jitted: Any, running: Running) -> list[Any]:
    """The arrays that `nnx.jit` hands to `jax.jit`; makes one call."""
    seen: list[Any] = []

    def watch(inner: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        seen[:] = jax.tree.leaves(copied((arguments, keywords)))  # a copy: the call may give its buffers away
        return inner(*arguments, **keywords)

    with watched(jitted, watch):
        running.wait(running.call())
    return seen


def time_inside(jitted: Any, running: Running, clock: Callable[[], float]) -> dict[str, float]:
    """One call, taken apart: modules to arrays, `jax.jit` with the wait for its results, arrays into the modules."""
    marks: list[float] = []

    def watch(inner: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        marks.append(clock())
        outputs = jax.block_until_ready(inner(*arguments, **keywords))
        marks.append(clock())
        return outputs

    with watched(jitted, watch):
        marks.append(clock())
        outputs = running.call()
        marks.append(clock())
    running.after(outputs)
    began, entered, left, ended = marks
    return {"modules to arrays": entered - began, "jax.jit": left - entered, "arrays to modules": ended - left}
