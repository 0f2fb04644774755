"""Flax Linen: with `nnx.py` the only file of the package that imports Flax."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict, unflatten_dict

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

NAME = "linen"


WANTED = "a flax.linen.Module"


def build(builder: Callable[..., Any], request: Request) -> Port:
    """Build the port, abstractly: no parameter is made.

    Raises:
        CaseError: the builder returns no Linen module, or a method is missing.
    """
    built = take_apart(NAME, builder(), (nn.Module,), WANTED)
    methods = {method: _method(built.model, method) for method in request.methods}
    modes = any(mode_arguments(function, True) for function in methods.values())

    def make(key: Any) -> dict[str, Any]:
        method, names = next(iter(request.methods.items()))
        arguments = [jax.numpy.ones(request.batch[name].shape, request.batch[name].dtype) for name in names]
        keys = {"params": key, "dropout": jax.random.fold_in(key, 1)}
        return built.model.init(keys, *arguments, method=method, **mode_arguments(methods[method], False))

    shapes = jax.eval_shape(make, jax.random.key(0))
    abstract, trees = _leaves(shapes), partial(_trees, _paths(shapes))
    collections = sorted({key.collection for key in abstract} - {"params"})
    _, apply, begin, step = _functions(built, request, collections, trees)

    def written(native: Leaves, batch: Mapping[str, Any], key: Any) -> tuple[Written, ...]:
        again = take_apart(NAME, builder(), (nn.Module,), WANTED)
        call, _, begin, step = _functions(again, request, collections, trees)
        call = partial(call, next(iter(request.methods)))
        return (
            *forward_and_gradients(call, trees(native), request, batch, key),
            functional_step(NAME, again, begin, step, native, batch, key),
        )

    return Port(
        backend=NAME,
        leaves=abstract,
        collections={key: "params" if key.collection == "params" else "state" for key in abstract},
        modes=modes,
        apply=apply,
        begin=begin,
        step=step,
        fresh=lambda key: _leaves(make(key)),
        default_step=built.train_step is None,
        written=written,
    )


def _functions(
    built: Built, request: Request, collections: list[str], trees: Callable[[Leaves], dict[str, Any]]
) -> tuple[Callable[..., Any], ...]:
    """A model's call on its trees; `apply`, `begin` and `step` of its port."""
    methods = {method: _method(built.model, method) for method in request.methods}

    def call(
        method: str, trees: dict[str, Any], arguments: tuple[Any, ...], train: bool, key: Any
    ) -> tuple[Any, dict[str, Any]]:
        # In eval mode every collection stays mutable too, so that a state that moves there is seen.
        outputs, changed = built.model.apply(
            trees,
            *arguments,
            method=method,
            mutable=collections,
            rngs={"dropout": key},
            **mode_arguments(methods[method], train),
        )
        return outputs, {**trees, **changed}

    def apply(native: Leaves, method: str, arguments: tuple[Any, ...], train: bool, key: Any) -> tuple[Any, Leaves]:
        outputs, changed = call(method, trees(native), arguments, train, key)
        after = _leaves(changed)
        check_leaves(NAME, method, native, after)
        return outputs, after

    return call, apply, *functional_training(NAME, request, built, apply, trees, _leaves)


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


def _paths(trees: Any) -> dict[NativeKey, tuple[str, ...]]:
    """Where each leaf lies: `nn.SpectralNorm` has names with a `/` in them, so a joined path does not tell."""
    paths = {collection: flatten_dict(tree) for collection, tree in trees.items()}
    return {NativeKey(name, "/".join(path)): (name, *path) for name, found in paths.items() for path in found}


def _trees(paths: Mapping[NativeKey, tuple[str, ...]], native: Leaves) -> dict[str, Any]:
    # without parameters too there is a tree of them to train
    return {"params": {}, **unflatten_dict({paths[key]: leaf for key, leaf in native.items()})}
