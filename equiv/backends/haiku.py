"""Haiku: the only file of the package that imports it."""

import inspect
from collections.abc import Callable
from typing import Any

import haiku as hk
import jax

from equiv.backends.base import (
    Built,
    LeafNames,
    Leaves,
    Port,
    Request,
    check_leaves,
    functional_training,
    mode_arguments,
    take_apart,
)
from equiv.errors import CaseError
from equiv.variables import DropUnitAxes, Native, NativeKey

NAME = "haiku"

SETTLED = 2**30
"""A `counter` at which `decay**counter` is 0 in every float dtype, so that zero debiasing changes nothing."""


def _average(name: str) -> dict[str, Native]:
    # dm-haiku 0.0.17, haiku/_src/moving_averages.py: ExponentialMovingAverage keeps three states per average.
    scope = f"~/{name}_ema"
    return {
        name: Native("state", f"{scope}/average", DropUnitAxes()),
        f"{name}.hidden": Native("state", f"{scope}/hidden", DropUnitAxes(), copies=name),
        f"{name}.counter": Native("state", f"{scope}/counter", constant=SETTLED),
    }


LEAVES: LeafNames = {
    "linear": {"kernel": Native("params", "w"), "bias": Native("params", "b")},
    "batch_norm": {
        "scale": Native("params", "scale", DropUnitAxes()),
        "bias": Native("params", "offset", DropUnitAxes()),
        **_average("mean"),
        **_average("var"),
    },
    "module": {"*": Native("params", "*")},
    "parameter": {"": Native("params", "")},
    "state": {"": Native("state", "")},
}

KINDS = (hk.Transformed, hk.TransformedWithState, hk.MultiTransformed, hk.MultiTransformedWithState)


def native_key(native: Native, scope: str) -> NativeKey:
    """Where a leaf of a layer at `scope` lives: Haiku joins module and leaf names with `/`."""
    return NativeKey(native.collection, "/".join(part for part in (scope, native.name) if part))


def build(builder: Callable[..., Any], request: Request) -> Port:
    """Build the port, abstractly: no parameter is made.

    Raises:
        CaseError: the builder returns something that is not a transformed function.
    """
    built = take_apart(NAME, builder(), KINDS, "what hk.transform, transform_with_state or multi_transform returns")
    calls = _calls(built.model, request)

    def init(key: Any) -> Leaves:
        arguments = [jax.numpy.ones(spec.shape, spec.dtype) for spec in _first_inputs(request)]
        # hk.BatchNorm makes its state only in train mode (guide: Handling State).
        made = built.model.init(key, *arguments, **mode_arguments(calls.init, True))
        return _leaves(dict(zip(("params", "state"), made if calls.stateful else (made, {}), strict=True)))

    abstract = jax.eval_shape(init, jax.random.key(0))

    def apply(native: Leaves, method: str, arguments: tuple[Any, ...], train: bool, key: Any) -> tuple[Any, Leaves]:
        trees = _trees(native)
        function, modes = calls.functions[method], mode_arguments(calls.functions[method], train)
        rng = (key,) if "rng" in inspect.signature(function).parameters else ()
        if not calls.stateful:
            return function(trees["params"], *rng, *arguments, **modes), native
        outputs, state = function(trees["params"], trees["state"], *rng, *arguments, **modes)
        after = _leaves({"params": trees["params"], "state": state})
        check_leaves(NAME, method, native, after)
        return outputs, after

    begin, step = functional_training(NAME, request, built, apply, _named_trees(built), _leaves)
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
    )


class _Calls:
    """The apply functions of a transformed function by method name."""

    def __init__(self, functions: dict[str, Callable[..., Any]], init: Callable[..., Any], stateful: bool) -> None:
        self.functions, self.init, self.stateful = functions, init, stateful


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
