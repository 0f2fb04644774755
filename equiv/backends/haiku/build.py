"""Haiku: the only file of the package that imports it."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import haiku as hk
import jax

from equiv.backends.base import (
    Built,
    Leaves,
    Port,
    Request,
    Written,
    check_leaves,
    functional_training,
    mode_arguments,
    take_apart,
)
from equiv.backends.user_programs import forward_and_gradients, functional_step
from equiv.core.leaves import NativeKey
from equiv.errors import CaseError

NAME = "haiku"


KINDS = (hk.Transformed, hk.TransformedWithState, hk.MultiTransformed, hk.MultiTransformedWithState)


WANTED = "what hk.transform, transform_with_state or multi_transform returns"


def build(builder: Callable[..., Any], request: Request) -> Port:
    """Build the port, abstractly: no parameter is made.

    Raises:
        CaseError: the builder returns something that is not a transformed function.
    """
    built = take_apart(NAME, builder(), KINDS, WANTED)
    calls, apply, begin, step = _functions(built, request)

    def init(key: Any) -> Leaves:
        arguments = [jax.numpy.ones(spec.shape, spec.dtype) for spec in _first_inputs(request)]
        # hk.BatchNorm makes its state only in train mode (guide: Handling State).
        made = built.model.init(key, *arguments, **mode_arguments(calls.init, True))
        return _leaves(dict(zip(("params", "state"), made if calls.stateful else (made, {}), strict=True)))

    def written(native: Leaves, batch: Mapping[str, Any], key: Any) -> tuple[Written, ...]:
        again = take_apart(NAME, builder(), KINDS, WANTED)
        calls, _, begin, step = _functions(again, request)
        call = partial(calls, next(iter(request.methods)))
        return (
            *forward_and_gradients(call, _trees(native), request, batch, key),
            functional_step(NAME, again, begin, step, native, batch, key),
        )

    abstract = jax.eval_shape(init, jax.random.key(0))
    return Port(
        backend=NAME,
        leaves=abstract,
        collections={key: key.collection for key in abstract},
        modes=any(mode_arguments(function, True) for function in calls.functions.values()),
        apply=apply,
        begin=begin,
        step=step,
        fresh=init,
        default_step=built.train_step is None,
        written=written,
    )


def _functions(built: Built, request: Request) -> "tuple[_Calls, Callable[..., Any], Callable[..., Any], Any]":
    """A model's calls; `apply`, `begin` and `step` of its port."""
    calls = _calls(built.model, request)

    def apply(native: Leaves, method: str, arguments: tuple[Any, ...], train: bool, key: Any) -> tuple[Any, Leaves]:
        outputs, trees = calls(method, _trees(native), arguments, train, key)
        if not calls.stateful:
            return outputs, native
        after = _leaves(trees)
        check_leaves(NAME, method, native, after)
        return outputs, after

    return calls, apply, *functional_training(NAME, request, built, apply, _named_trees(built), _leaves)


class _Calls:
    """The apply functions of a transformed function by method name."""

    def __init__(self, functions: dict[str, Callable[..., Any]], init: Callable[..., Any], stateful: bool) -> None:
        self.functions, self.init, self.stateful = functions, init, stateful

    def __call__(
        self, method: str, trees: dict[str, Any], arguments: tuple[Any, ...], train: bool, key: Any
    ) -> tuple[Any, dict[str, Any]]:
        """One method: its outputs, and the trees after the call."""
        function = self.functions[method]
        modes = mode_arguments(function, train)
        rng = (key,) if "rng" in inspect.signature(function).parameters else ()
        if not self.stateful:
            return function(trees["params"], *rng, *arguments, **modes), trees
        outputs, state = function(trees["params"], trees["state"], *rng, *arguments, **modes)
        return outputs, {**trees, "state": state}


def _calls(model: Any, request: Request) -> _Calls:
    apply = model.apply
    if isinstance(apply, dict):
        functions = dict(apply)
    elif callable(apply):
        functions = {next(iter(request.methods)): apply}
    else:
        functions = dict(zip(request.methods, apply, strict=False))
    if missing := [method for method in request.methods if method not in functions]:
        raise CaseError(
            f"haiku: no apply function for {', '.join(missing)}: the case asks for "
            f"{', '.join(request.methods)}, the transformed function has {len(functions)}. "
            "Return the missing ones from hk.multi_transform, in the order of the case's methods."
        )
    stateful = isinstance(model, hk.TransformedWithState | hk.MultiTransformedWithState)
    return _Calls(functions, model.init, stateful)


def _first_inputs(request: Request) -> list[jax.ShapeDtypeStruct]:
    return [request.batch[name] for name in next(iter(request.methods.values()))]


def _leaves(trees: dict[str, Any]) -> Leaves:
    return {
        NativeKey(collection, f"{scope}/{name}"): leaf
        for collection, alias in (("params", "params"), ("state", "batch_stats"))
        for scope, module in trees.get(collection, trees.get(alias, {})).items()
        for name, leaf in module.items()
    }


def _trees(native: Leaves) -> dict[str, Any]:
    trees: dict[str, Any] = {"params": {}, "state": {}}
    for key, leaf in native.items():
        scope, _, name = key.path.rpartition("/")
        trees[key.collection].setdefault(scope, {})[name] = leaf
    return trees


def _named_trees(built: Built) -> Callable[[Leaves], dict[str, Any]]:
    """The trees under the name that the case's train step has for Haiku's state (guide 002 says `batch_stats`)."""
    asked = {
        name
        for function in (built.train_step, built.create)
        if function is not None
        for name in inspect.signature(function).parameters
    }
    name = "batch_stats" if "batch_stats" in asked else "state"

    def named(native: Leaves) -> dict[str, Any]:
        trees = _trees(native)
        return {"params": trees["params"], name: trees["state"]} if trees["state"] else {"params": trees["params"]}

    return named
