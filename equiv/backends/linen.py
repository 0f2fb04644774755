"""Flax Linen: with `nnx.py` the only file of the package that imports Flax."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from equiv.backends.base import (
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
from equiv.variables import Native, NativeKey

NAME = "linen"

LEAVES: LeafNames = {
    "linear": {"kernel": Native("params", "kernel"), "bias": Native("params", "bias")},
    "batch_norm": {
        "scale": Native("params", "scale"),
        "bias": Native("params", "bias"),
        "mean": Native("batch_stats", "mean"),
        "var": Native("batch_stats", "var"),
    },
    "module": {"*": Native("params", "*")},
    "parameter": {"": Native("params", "")},
    "state": {"": Native("", "")},
}


def native_key(native: Native, scope: str) -> NativeKey:
    """Where a leaf of a layer at `scope` lives. A `state` row names the collection first: `counter/count`."""
    path = "/".join(part for part in (scope, native.name) if part)
    if native.collection:
        return NativeKey(native.collection, path)
    collection, _, rest = path.partition("/")
    return NativeKey(collection, rest)


def build(builder: Callable[..., Any], request: Request) -> Port:
    """Build the port, abstractly: no parameter is made.

    Raises:
        CaseError: the builder returns no Linen module, or a method is missing.
    """
    built = take_apart(NAME, builder(), (nn.Module,), "a flax.linen.Module")
    model = built.model
    methods = {method: _method(model, method) for method in request.methods}

    def init(key: Any) -> Leaves:
        method, names = next(iter(request.methods.items()))
        arguments = [jax.numpy.ones(request.batch[name].shape, request.batch[name].dtype) for name in names]
        keys = {"params": key, "dropout": jax.random.fold_in(key, 1)}
        return _leaves(model.init(keys, *arguments, method=method, **mode_arguments(methods[method], False)))

    abstract = jax.eval_shape(init, jax.random.key(0))
    collections = sorted({key.collection for key in abstract} - {"params"})

    def apply(native: Leaves, method: str, arguments: tuple[Any, ...], train: bool, key: Any) -> tuple[Any, Leaves]:
        trees = _trees(native)
        modes = mode_arguments(methods[method], train)
        # In eval mode every collection stays mutable too, so that a state that moves there is seen.
        outputs, changed = model.apply(
            trees, *arguments, method=method, mutable=collections, rngs={"dropout": key}, **modes
        )
        after = _leaves({**trees, **changed})
        check_leaves(NAME, method, native, after)
        return outputs, after

    begin, step = functional_training(NAME, request, built, apply, _trees, _leaves)
    return Port(
        backend=NAME,
        leaves=abstract,
        collections={key: "params" if key.collection == "params" else "state" for key in abstract},
        modes=any(mode_arguments(function, True) for function in methods.values()),
        apply=apply,
        begin=begin,
        step=step,
        fresh=init,
        default_step=built.train_step is None,
    )


def _method(model: nn.Module, method: str) -> Callable[..., Any]:
    if not callable(getattr(model, method, None)):
        raise CaseError(
            f"linen: {type(model).__name__} has no method {method!r}, which the case asks for. "
            "Add it, or leave it out of the case's methods."
        )
    return getattr(model, method)


def _leaves(trees: Any) -> Leaves:
    # optimizer state and step travel beside the collections in a training carry, under `opt_state`
    return {
        NativeKey(collection, "/".join(path)): leaf
        for collection, tree in trees.items()
        if collection != "opt_state"
        for path, leaf in flatten_dict(tree).items()
    }


def _trees(native: Leaves) -> dict[str, Any]:
    return unflatten_dict({(key.collection, *key.path.split("/")): leaf for key, leaf in native.items()})
