"""Build a port of a Flax Linen model."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
from flax.errors import InvalidRngError

from equiv.backends.base import (
    BuilderResult,
    Leaves,
    Port,
    PortSpec,
    UserProgram,
    check_leaves,
    functional_training,
    unpack_builder_result,
)
from equiv.backends.calls import call_arguments, has_free_mode
from equiv.backends.linen.library import LIBRARY
from equiv.backends.linen.variables import linen_annotations, linen_leaves, linen_trees, named_annotations
from equiv.backends.sharding import within_calls
from equiv.backends.user_programs import forward_and_gradients, functional_step
from equiv.errors import CaseError

NAME = LIBRARY.name

EXPECTED_MODULE = "a flax.linen.Module"

SOWN = "intermediates"
"""The collection of what `sow` records: it is not given to the next call, so it is no state (flax 0.12.8,
`linen/module.py`, `Module.sow`)."""


def build(builder: Callable[..., Any], spec: PortSpec) -> Port:
    """Build the port abstractly: no parameter is allocated.

    Raises:
        CaseError: the builder does not return a Linen module, or a method is missing.
    """
    spec = spec if spec.port else replace(spec, port=NAME)
    built = unpack_builder_result(spec.port, builder(), (nn.Module,), EXPECTED_MODULE)
    functions = _linen_methods(built.model, spec)
    modes = any(has_free_mode(function, spec.calls[name]) for name, function in functions.items())
    initial = spec.initial_call
    initialise = _linen_method(spec.port, built.model, initial.method)

    def init_variables(key: Any) -> dict[str, Any]:
        arguments, keywords = call_arguments(initialise, initial, _ones(spec, initial.inputs), False)
        keys = {"params": key, "dropout": jax.random.fold_in(key, 1)}
        made = built.model.init(keys, *arguments, method=initial.method, **keywords)
        return {name: tree for name, tree in made.items() if name not in (SOWN, *sown)}

    sown: tuple[str, ...] = ()
    shapes = jax.eval_shape(init_variables, jax.random.key(0))
    if sown := _sown_collections(built.model, spec, functions, shapes):
        shapes = {name: tree for name, tree in shapes.items() if name not in sown}
    abstract, trees = linen_leaves(shapes), linen_trees(shapes)
    collections = sorted({key.collection for key in abstract} - {"params"})
    _, apply, init_training, step = _linen_functions(built, spec, collections, trees)

    def user_programs(native: Leaves, batch: Mapping[str, Any], key: Any) -> tuple[UserProgram, ...]:
        rebuilt = unpack_builder_result(spec.port, builder(), (nn.Module,), EXPECTED_MODULE)
        call, _, init_training, step = _linen_functions(rebuilt, spec, collections, trees)
        call = partial(call, next(iter(spec.methods)))
        return (
            *forward_and_gradients(call, trees(native), spec, batch, key),
            functional_step(spec, rebuilt, init_training, step, native, batch, key),
        )

    port = Port(
        name=spec.port,
        library=NAME,
        leaves=abstract,
        collections={key: "params" if key.collection == "params" else "state" for key in abstract},
        has_modes=modes,
        apply=apply,
        init_training=init_training,
        step=step,
        init=lambda key: linen_leaves(init_variables(key)),
        default_step=built.train_step is None,
        user_programs=user_programs,
        made=lambda: sown,
        annotations=named_annotations(shapes),
        annotate=linen_annotations,
    )
    return within_calls(port, partial(nn.logical_axis_rules, spec.rules)) if spec.rules else port


def _ones(spec: PortSpec, names: Iterable[str]) -> list[Any]:
    return [jax.numpy.ones(spec.batch[name].shape, spec.batch[name].dtype) for name in names]


def _sown_collections(
    model: nn.Module, spec: PortSpec, functions: Mapping[str, Callable[..., Any]], shapes: Mapping[str, Any]
) -> tuple[str, ...]:
    """The collections that only `sow` writes: every call adds to the tuples that they hold, so they are no state."""
    tuples = [name for name, tree in shapes.items() if name != "params" and _holds_tuples(tree)]
    if not tuples:
        return ()
    method, names = spec.first_method

    def call(variables: Any, key: Any) -> Any:
        arguments, keywords = call_arguments(functions[method], spec.methods[method], _ones(spec, names), True)
        streams = {"params": key, "dropout": key}
        return model.apply(variables, *arguments, method=method, mutable=tuples, rngs=streams, **keywords)[1]

    after = jax.eval_shape(call, shapes, jax.random.key(0))
    return tuple(name for name in tuples if jax.tree.structure(after[name]) != jax.tree.structure(shapes[name]))


def _holds_tuples(tree: Any) -> bool:
    """Whether every array of a collection is in a tuple, as what `sow` records is."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
    return bool(paths) and all(path and isinstance(path[-1], jax.tree_util.SequenceKey) for path in paths)


def _linen_functions(
    built: BuilderResult, spec: PortSpec, collections: list[str], trees: Callable[[Leaves], dict[str, Any]]
) -> tuple[Callable[..., Any], ...]:
    """The call of a model on its trees; `apply`, `init_training` and `step` of its port."""
    functions = _linen_methods(built.model, spec)

    def call(
        name: str, trees: dict[str, Any], inputs: tuple[Any, ...], train: bool, key: Any
    ) -> tuple[Any, dict[str, Any]]:
        asked = spec.calls[name]
        arguments, keywords = call_arguments(functions[name], asked, inputs, train)
        keywords |= {"method": asked.method or name, "mutable": collections}

        def with_streams(streams: dict[str, Any]) -> tuple[Any, Any]:
            # Every collection is mutable in eval mode too, so that a change of state there is detected.
            return built.model.apply(trees, *arguments, rngs=streams, **keywords)

        try:
            outputs, changed = with_streams({"dropout": key})
        except InvalidRngError:
            # A stream of any other name is `params` where that is given (flax 0.12.8, `core/scope.py`, `make_rng`).
            outputs, changed = with_streams({"dropout": key, "params": jax.random.fold_in(key, 1)})
        return outputs, {**trees, **changed}

    def apply(native: Leaves, method: str, arguments: tuple[Any, ...], train: bool, key: Any) -> tuple[Any, Leaves]:
        outputs, changed = call(method, trees(native), arguments, train, key)
        after = linen_leaves(changed)
        check_leaves(spec.port, method, native, after)
        return outputs, after

    return call, apply, *functional_training(spec.port, spec, built, apply, trees, linen_leaves)


def _linen_methods(model: nn.Module, spec: PortSpec) -> dict[str, Callable[..., Any]]:
    """The method of every call."""
    return {name: _linen_method(spec.port, model, call.method or name) for name, call in spec.calls.items()}


def _linen_method(port: str, model: nn.Module, method: str) -> Callable[..., Any]:
    if not callable(getattr(model, method, None)):
        raise CaseError(
            f"{port}: {type(model).__name__} has no method {method!r}, which the case's methods name.",
            fix="Add it to the model, or remove it from the case's methods.",
            port=port,
        )
    return getattr(model, method)
