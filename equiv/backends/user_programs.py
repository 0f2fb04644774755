"""The programs of a port as users of its library write and call them, for timing. No model library is imported."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import numpy as np

from equiv.backends.base import BuilderResult, Call, Leaves, PortSpec, ProgramRun, UserProgram, bind_arguments

PROGRAMS = ("forward", "gradients", "train step")
"""The programs that are timed, in the order of the report; all in train mode."""


def copy_arrays(tree: Any) -> Any:
    """Copy all arrays of a pytree: the address of a buffer can change the speed of a program by percents."""
    return jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, jax.Array | np.ndarray) else leaf, tree)


def positional_call(function: Callable[..., Any], named_arguments: Mapping[str, Any]) -> Call:
    """Convert named arguments to a call, by position where the function allows it."""
    arguments = inspect.signature(function).bind(**named_arguments)
    return arguments.args, arguments.kwargs


def partition_arguments(
    arguments: tuple[Any, ...], types: tuple[type, ...]
) -> tuple[tuple[Any, ...], tuple[Any, ...], Callable[[Any, Any], tuple[Any, ...]]]:
    """Partition arguments by type.

    Returns:
        The arguments of the given types, all others, and a function that merges the two in the original order.
    """
    selected = [isinstance(argument, types) for argument in arguments]
    paired = list(zip(arguments, selected, strict=True))
    first, second = (tuple(argument for argument, is_first in paired if is_first is side) for side in (True, False))

    def merge(first: Any, second: Any) -> tuple[Any, ...]:
        remaining = {True: iter(first), False: iter(second)}
        return tuple(next(remaining[is_first]) for is_first in selected)

    return first, second, merge


def functional_program(
    program: str,
    function: Callable[..., Any],
    arguments: Call,
    next_arguments: Callable[[Call, Any], Call] | None = None,
) -> UserProgram:
    """A pure function under `jax.jit`; one that is jitted already is used unchanged."""
    jitted = function if hasattr(function, "trace") else jax.jit(function)
    return UserProgram(program, "jax.jit", jitted, lambda: ProgramRun(jitted, copy_arrays(arguments), next_arguments))


def next_step_arguments(function: Callable[..., Any], names: list[str]) -> Callable[[Call, Any], Call]:
    """The `next_arguments` of a train step that returns its carry, in the order of `names`, and then its outputs."""
    signature = inspect.signature(function)

    def next_arguments(arguments: Call, outputs: Any) -> Call:
        is_single = len(names) == 1 and not (isinstance(outputs, tuple) and not hasattr(outputs, "_fields"))
        results = (outputs,) if is_single else tuple(outputs)
        named = signature.bind(*arguments[0], **arguments[1]).arguments
        return positional_call(function, {**named, **dict(zip(names, results, strict=False))})

    return next_arguments


def forward_and_gradients(
    call: Callable[..., tuple[Any, dict[str, Any]]],
    trees: dict[str, Any],
    spec: PortSpec,
    batch: Mapping[str, Any],
    key: Any,
) -> tuple[UserProgram, UserProgram]:
    """The `forward` and `gradients` programs of a library whose variables are plain pytrees (Haiku, Linen).

    Args:
        call: `(trees, inputs, train, key)` to the first method's outputs and the updated trees.
        trees: variables, `params` among them.
        spec: see `PortSpec`.
        batch: batch entry to array.
        key: random key of a call.
    """
    _, names = spec.first_method

    def run(trees: dict[str, Any], inputs: tuple[Any, ...], key: Any) -> tuple[Any, dict[str, Any]]:
        outputs, after = call(trees, inputs, True, key)
        return outputs, {name: tree for name, tree in after.items() if name != "params"}

    def forward(trees: dict[str, Any], key: Any, *inputs: Any) -> tuple[Any, dict[str, Any]]:
        return run(trees, inputs, key)

    def gradients(trees: dict[str, Any], key: Any, batch: Mapping[str, Any]) -> Any:
        def loss_of(params: Any) -> tuple[Any, dict[str, Any]]:
            outputs, state = run({**trees, "params": params}, tuple(batch[name] for name in names), key)
            return spec.loss(outputs, batch), state

        return jax.value_and_grad(loss_of, has_aux=True)(trees["params"])

    return (
        functional_program("forward", forward, ((trees, key, *(batch[name] for name in names)), {})),
        functional_program("gradients", gradients, ((trees, key, dict(batch)), {})),
    )


def functional_step(
    spec: PortSpec,
    built: BuilderResult,
    init_training: Callable[[Leaves, Any], dict[str, Any]],
    step: Callable[..., Any],
    native: Leaves,
    batch: Mapping[str, Any],
    key: Any,
) -> UserProgram:
    """The train step of such a library: the case's own function unchanged, else the default one.

    Args:
        spec: see `PortSpec`.
        built: the result of the builder.
        init_training: that of the port.
        step: that of the port.
        native: native leaves.
        batch: batch entry to array.
        key: random key of a step.
    """
    carry, train_step = init_training(native, key), built.train_step
    if train_step is None:
        return functional_program(
            "train step",
            step,
            ((carry, dict(batch), key), {}),
            lambda arguments, outputs: ((outputs[0], *arguments[0][1:]), {}),
        )
    named = bind_arguments(spec.port, train_step, {**spec.step_arguments(batch), "key": key, **carry})
    carried = [name for name in named if name in carry]
    return functional_program(
        "train step", train_step, positional_call(train_step, named), next_step_arguments(train_step, carried)
    )


@contextmanager
def intercept_jitted(jitted: Any, watch: Callable[..., Any]) -> Iterator[None]:
    """Call `watch` in place of the `jax.jit` function inside an `nnx.jit` one (flax 0.12, `JitWrapped.jitted_fn`).

    The inner function is passed to `watch` as its first argument.
    """
    inner = jitted.jitted_fn
    jitted.jitted_fn = partial(watch, inner)
    try:
        yield
    finally:
        jitted.jitted_fn = inner


def flat_nnx_arguments(jitted: Any, run: ProgramRun) -> list[Any]:
    """The arrays that `nnx.jit` passes to `jax.jit`; makes one call."""
    seen: list[Any] = []

    def watch(inner: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        seen[:] = jax.tree.leaves(copy_arrays((arguments, keywords)))  # a copy: the call may donate its buffers
        return inner(*arguments, **keywords)

    with intercept_jitted(jitted, watch):
        run.wait(run.call())
    return seen


def time_nnx_parts(jitted: Any, run: ProgramRun, clock: Callable[[], float]) -> dict[str, float]:
    """Time the parts of one call: modules to arrays, `jax.jit` until its results are ready, arrays to modules."""
    marks: list[float] = []

    def watch(inner: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        marks.append(clock())
        outputs = jax.block_until_ready(inner(*arguments, **keywords))
        marks.append(clock())
        return outputs

    with intercept_jitted(jitted, watch):
        marks.append(clock())
        outputs = run.call()
        marks.append(clock())
    run.advance(outputs)
    began, entered, left, ended = marks
    return {"modules to arrays": entered - began, "jax.jit": left - entered, "arrays to modules": ended - left}
