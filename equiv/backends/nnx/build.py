"""Flax NNX: with `linen.py` the only file of the package that imports Flax."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx

from equiv.backends.base import (
    Built,
    Call,
    Leaves,
    Port,
    Request,
    Running,
    Written,
    bind,
    check_leaves,
    path_of,
    take_apart,
)
from equiv.backends.user_programs import apart, bound, carrying, copied, flat_inside, functional, time_inside
from equiv.core.leaves import NativeKey
from equiv.errors import CaseError

NAME = "nnx"


def build(builder: Callable[..., Any], request: Request) -> Port:
    """Build the port, abstractly: no parameter is made.

    Raises:
        CaseError: the builder returns no NNX module, or a method is missing.
    """
    abstract, built = _abstract(builder)
    for method in request.methods:
        _check_method(abstract, method)
    graphdef, state = nnx.split(abstract)

    def apply(native: Leaves, method: str, arguments: tuple[Any, ...], train: bool, key: Any) -> tuple[Any, Leaves]:
        model = nnx.merge(graphdef, _state(state, native))
        _set_mode(model, train)
        outputs = getattr(model, method)(*arguments)
        after = _leaves(nnx.state(model))
        check_leaves(NAME, method, native, after)
        return outputs, after

    def fresh(key: Any) -> Leaves:
        return _leaves(nnx.state(take_apart(NAME, builder(nnx.Rngs(key)), (nnx.Module,), "an nnx.Module").model))

    begin, step = _training(request, built, graphdef, state)
    return Port(
        backend=NAME,
        leaves=_leaves(state),
        collections={key: key.collection for key in _leaves(state)},
        modes=any(
            hasattr(node, "deterministic") or hasattr(node, "use_running_average")
            for _, node in nnx.iter_modules(abstract)
        ),
        apply=apply,
        begin=begin,
        step=step,
        fresh=fresh,
        default_step=built.train_step is None,
        written=partial(_written, builder, request),
    )


def _check_method(model: nnx.Module, method: str) -> None:
    if not callable(getattr(model, method, None)):
        raise CaseError(
            f"nnx: {type(model).__name__} has no method {method!r}, which the case asks for. "
            "Add it, or leave it out of the case's methods."
        )


def _training(
    request: Request, built: Built, graphdef: Any, state: nnx.State
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    train_step, create = built.train_step, built.create
    if train_step is None:
        train_step, create = _default_training(request)

    def begin(native: Leaves, key: Any) -> Any:
        model = nnx.merge(graphdef, _state(state, native))
        _set_mode(model, True)
        created = create(**bind(NAME, create, {"model": model, "key": key})) if create else None
        if hasattr(created, "apply_gradients"):
            return created
        return nnx.split((model, created))

    def step(carry: Any, batch: Mapping[str, Any], key: Any) -> tuple[Any, Any]:
        if hasattr(carry, "apply_gradients"):
            available = {"batch": dict(batch), **batch, "key": key, "state": carry, "train_state": carry}
            result = train_step(**bind(NAME, train_step, available))
            return (result[0], result[1:]) if isinstance(result, tuple) else (result, ())
        graph, variables = carry
        model, optimizer = nnx.merge(graph, jax.tree.map(lambda leaf: leaf, variables))  # the step mutates its own
        available = {"batch": dict(batch), **batch, "key": key, "model": model, "optimizer": optimizer}
        outputs = train_step(**bind(NAME, train_step, available))
        return nnx.split((model, optimizer)), _as_tuple(outputs)

    return begin, step


def _default_training(request: Request) -> tuple[Callable[..., Any], Callable[..., Any]]:
    method, names = next(iter(request.methods.items()))

    def create(model: nnx.Module) -> nnx.Optimizer:
        return nnx.Optimizer(model, request.optimizer(), wrt=nnx.Param)

    @nnx.jit
    def train_step(model: nnx.Module, optimizer: nnx.Optimizer, batch: dict[str, Any]) -> Any:
        def loss_of(model: nnx.Module) -> Any:
            return request.loss(getattr(model, method)(*(batch[name] for name in names)), batch)

        loss, gradients = nnx.value_and_grad(loss_of)(model)
        optimizer.update(model, gradients)
        return loss

    return train_step, create


def _as_tuple(outputs: Any) -> tuple[Any, ...]:
    if outputs is None:
        return ()
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _set_mode(model: nnx.Module, train: bool) -> None:
    if train:
        model.train()
    else:
        model.eval()


def _collections(state: nnx.State) -> dict[str, str]:
    kinds = {nnx.RngState: "random", nnx.Param: "params"}
    return {
        ".".join(map(str, path)): next((name for kind, name in kinds.items() if isinstance(leaf, kind)), "state")
        for path, leaf in nnx.to_flat_state(state)
    }


def _leaves(state: nnx.State) -> Leaves:
    collections = _collections(state)
    paths = [(path_of(path).replace("/", "."), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]]
    return {NativeKey(collections[path], path): leaf for path, leaf in paths}


def _abstract(builder: Callable[..., Any]) -> tuple[nnx.Module, Built]:
    parts: list[Built] = []

    def make() -> nnx.Module:
        rngs = nnx.Rngs(0)
        # A traced count costs, at every parameter, an error message over all equations so far (flax 0.12.8, jax 0.10).
        rngs.default.count.set_value(np.zeros((), "uint32"))  # pyright: ignore[reportArgumentType]
        parts.append(take_apart(NAME, builder(rngs), (nnx.Module,), "an nnx.Module"))
        return parts[-1].model

    return nnx.eval_shape(make), parts[-1]


def _state(like: nnx.State, native: Leaves) -> nnx.State:
    """The leaves as a fresh state: NNX mutates variables, so none may be shared between two traces."""
    keys = list(_leaves(like))
    return jax.tree.unflatten(jax.tree.structure(like), [native[key] for key in keys])


def _written(
    builder: Callable[..., Any], request: Request, native: Leaves, batch: Mapping[str, Any], key: Any
) -> tuple[Written, ...]:
    """The programs of a newly built model, under `nnx.jit` and, split into its state, under `jax.jit`."""
    abstract, built = _abstract(builder)
    graphdef, state = nnx.split(abstract)
    train_step, create = built.train_step, built.create
    if train_step is None:
        train_step, create = _default_training(request)
    method, names = next(iter(request.methods.items()))

    def forward(model: nnx.Module, *inputs: Any) -> Any:
        return getattr(model, method)(*inputs)

    def gradients(model: nnx.Module, batch: Mapping[str, Any]) -> Any:
        def loss_of(model: nnx.Module) -> Any:
            return request.loss(getattr(model, method)(*(batch[name] for name in names)), batch)

        return nnx.value_and_grad(loss_of)(model)

    model = nnx.merge(graphdef, _state(state, native))
    _set_mode(model, True)
    created = create(**bind(NAME, create, {"model": model, "key": key})) if create else None
    named = {"batch": dict(batch), **batch, "key": key, "model": model, "optimizer": created}
    written = (
        *_both_ways("forward", forward, ((model, *(batch[name] for name in names)), {})),
        *_both_ways("gradients", gradients, ((model, dict(batch)), {})),
    )
    if hasattr(created, "apply_gradients"):
        asked = bind(NAME, train_step, {**named, "state": created, "train_state": created})
        carried = [name for name in asked if asked[name] is created]
        step = functional("train step", train_step, bound(train_step, asked), carrying(train_step, carried))
        return (*written, step)
    return (*written, *_both_ways("train step", train_step, bound(train_step, bind(NAME, train_step, named))))


def _both_ways(program: str, function: Callable[..., Any], given: Call) -> tuple[Written, ...]:
    """A program that changes its modules in place, as it is written, and in the guide's functional form."""
    jitted, raw = function if hasattr(function, "trace") else nnx.jit(function), inspect.unwrap(function)
    modules, arrays, put = apart(given[0], (nnx.Module, nnx.Optimizer))
    graphdef, state = nnx.split(modules)

    @jax.jit
    def split(graphdef: Any, state: nnx.State, *arrays: Any, **keywords: Any) -> tuple[Any, nnx.State]:
        modules = nnx.merge(graphdef, state)
        outputs = raw(*put(modules, arrays), **keywords)
        return outputs, nnx.state(modules)

    def start() -> Running:
        own = nnx.merge(graphdef, copied(state))
        variables = [node for _, node in nnx.iter_graph(own) if isinstance(node, nnx.Variable)]
        mine = put(own, copied(arrays)), copied(given[1])
        return Running(jitted, mine, changed=lambda: [variable.get_raw_value() for variable in variables])

    def follow(given: Call, outputs: Any) -> Call:
        return (given[0][0], outputs[1], *given[0][2:]), given[1]

    inside = partial(time_inside, jitted) if hasattr(jitted, "jitted_fn") else None
    return (
        Written(program, "nnx.jit", jitted, start, partial(flat_inside, jitted), inside),
        replace(functional(program, split, ((graphdef, state, *arrays), given[1]), follow), runner="split + jax.jit"),
    )
