"""Build a port of a Haiku model."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import haiku as hk
import jax

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
from equiv.backends.haiku.library import LIBRARY
from equiv.backends.user_programs import forward_and_gradients, functional_step
from equiv.core.leaves import NativeKey
from equiv.core.method_call import MethodCall
from equiv.errors import CaseError

NAME = LIBRARY.name

TRANSFORMED_TYPES = (hk.Transformed, hk.TransformedWithState, hk.MultiTransformed, hk.MultiTransformedWithState)

EXPECTED_TRANSFORMED = "what hk.transform, transform_with_state or multi_transform returns"


def build(builder: Callable[..., Any], spec: PortSpec) -> Port:
    """Build the port abstractly: no parameter is allocated.

    Raises:
        CaseError: the builder does not return a transformed function.
    """
    spec = spec if spec.port else replace(spec, port=NAME)
    built = unpack_builder_result(spec.port, builder(), TRANSFORMED_TYPES, EXPECTED_TRANSFORMED)
    calls, apply, init_training, step = _haiku_functions(built, spec)

    def init(key: Any) -> Leaves:
        arrays = [jax.numpy.ones(struct.shape, struct.dtype) for struct in spec.initial_inputs()]
        # hk.BatchNorm creates its state only in train mode (guide: Handling State).
        arguments, keywords = call_arguments(calls.init, _initial_call(calls, spec), arrays, True, (key,))
        variables = built.model.init(*arguments, **keywords)
        return _haiku_leaves(
            dict(zip(("params", "state"), variables if calls.stateful else (variables, {}), strict=True))
        )

    def user_programs(native: Leaves, batch: Mapping[str, Any], key: Any) -> tuple[UserProgram, ...]:
        rebuilt = unpack_builder_result(spec.port, builder(), TRANSFORMED_TYPES, EXPECTED_TRANSFORMED)
        calls, _, init_training, step = _haiku_functions(rebuilt, spec)
        call = partial(calls, next(iter(spec.methods)))
        return (
            *forward_and_gradients(call, _haiku_trees(native), spec, batch, key),
            functional_step(spec, rebuilt, init_training, step, native, batch, key),
        )

    abstract = jax.eval_shape(init, jax.random.key(0))
    return Port(
        name=spec.port,
        library=NAME,
        leaves=abstract,
        collections={key: key.collection for key in abstract},
        has_modes=any(calls.has_free_mode(name) for name in spec.calls),
        apply=apply,
        init_training=init_training,
        step=step,
        init=init,
        default_step=built.train_step is None,
        user_programs=user_programs,
    )


def _haiku_functions(
    built: BuilderResult, spec: PortSpec
) -> "tuple[_ApplyFunctions, Callable[..., Any], Callable[..., Any], Any]":
    """The apply functions of a model; `apply`, `init_training` and `step` of its port."""
    calls = _apply_functions(built.model, spec)

    def apply(native: Leaves, method: str, arguments: tuple[Any, ...], train: bool, key: Any) -> tuple[Any, Leaves]:
        outputs, trees = calls(method, _haiku_trees(native), arguments, train, key)
        if not calls.stateful:
            return outputs, native
        after = _haiku_leaves(trees)
        check_leaves(spec.port, method, native, after)
        return outputs, after

    return calls, apply, *functional_training(spec.port, spec, built, apply, _named_trees(built), _haiku_leaves)


class _ApplyFunctions:
    """The apply functions of a transformed function, by method name."""

    def __init__(
        self,
        functions: dict[str, Callable[..., Any]],
        init: Callable[..., Any],
        stateful: bool,
        calls: Mapping[str, MethodCall],
    ) -> None:
        self.functions, self.init, self.stateful, self.calls = functions, init, stateful, calls

    def __call__(
        self, method: str, trees: dict[str, Any], inputs: tuple[Any, ...], train: bool, key: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Call one method: its outputs, and the updated trees."""
        function = self.functions[method]
        before = (
            trees["params"],
            *((trees["state"],) if self.stateful else ()),
            *((key,) if _takes_key(function) else ()),
        )
        positional, keywords = call_arguments(function, self.calls[method], inputs, train, before)
        returned = function(*positional, **keywords)
        if not self.stateful:
            return returned, trees
        outputs, state = returned
        return outputs, {**trees, "state": state}

    def has_free_mode(self, method: str) -> bool:
        """Whether a method has an argument for its mode that the case leaves open."""
        function = self.functions[method]
        return has_free_mode(function, self.calls[method], 1 + self.stateful + _takes_key(function))


def _takes_key(function: Callable[..., Any]) -> bool:
    return "rng" in inspect.signature(function).parameters


def _initial_call(calls: _ApplyFunctions, spec: PortSpec) -> MethodCall:
    """The call that initialises: the first method's, with those constants alone that `init` takes too.

    The function that `hk.multi_transform` initialises with is written separately from its methods.
    """
    call, parameters = spec.initial_call, inspect.signature(calls.init).parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return call
    return replace(call, keywords={name: one for name, one in call.keywords.items() if name in parameters})


def _apply_functions(model: Any, spec: PortSpec) -> _ApplyFunctions:
    apply, names = model.apply, tuple(dict.fromkeys(call.method or name for name, call in spec.calls.items()))
    if isinstance(apply, dict):
        functions = dict(apply)
    elif callable(apply):
        functions = {next(iter(spec.methods)): apply}
    else:
        functions = dict(
            zip((*spec.methods, *(name for name in names if name not in spec.methods)), apply, strict=False)
        )
    if missing := [name for name in names if name not in functions]:
        raise CaseError(
            f"{spec.port}: no apply function for {', '.join(missing)}: the case asks for "
            f"{', '.join(names)}, the transformed function has {len(functions)}.",
            fix="Return the missing ones from hk.multi_transform, in the order of the case's methods.",
        )
    functions = {name: functions[call.method or name] for name, call in spec.calls.items()}
    stateful = isinstance(model, hk.TransformedWithState | hk.MultiTransformedWithState)
    return _ApplyFunctions(functions, model.init, stateful, spec.calls)


def _haiku_leaves(trees: dict[str, Any]) -> Leaves:
    return {
        NativeKey(collection, f"{scope}/{name}"): leaf
        for collection, alias in (("params", "params"), ("state", "batch_stats"))
        for scope, module in trees.get(collection, trees.get(alias, {})).items()
        for name, leaf in module.items()
    }


def _haiku_trees(native: Leaves) -> dict[str, Any]:
    trees: dict[str, Any] = {"params": {}, "state": {}}
    for key, leaf in native.items():
        scope, _, name = key.path.rpartition("/")
        trees[key.collection].setdefault(scope, {})[name] = leaf
    return trees


def _named_trees(built: BuilderResult) -> Callable[[Leaves], dict[str, Any]]:
    """Native leaves to trees, with the case's own name for Haiku's state (`batch_stats` in guide 002, or `state`)."""
    parameters = {
        name
        for function in (built.train_step, built.create)
        if function is not None
        for name in inspect.signature(function).parameters
    }
    name = "batch_stats" if "batch_stats" in parameters else "state"

    def named(native: Leaves) -> dict[str, Any]:
        trees = _haiku_trees(native)
        return {"params": trees["params"], name: trees["state"]} if trees["state"] else {"params": trees["params"]}

    return named
