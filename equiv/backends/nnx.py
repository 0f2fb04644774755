"""Flax NNX: with `linen.py` the only file of the package that imports Flax."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from equiv.backends.base import Built, LeafNames, Leaves, Port, Request, bind, check_leaves, path_of, take_apart
from equiv.errors import CaseError
from equiv.variables import Native, NativeKey

NAME = "nnx"

LEAVES: LeafNames = {
    "linear": {"kernel": Native("params", "kernel"), "bias": Native("params", "bias")},
    "batch_norm": {
        "scale": Native("params", "scale"),
        "bias": Native("params", "bias"),
        "mean": Native("state", "mean"),
        "var": Native("state", "var"),
    },
    "module": {"*": Native("params", "*")},
    "parameter": {"": Native("params", "")},
    "state": {"": Native("state", "")},
}


def native_key(native: Native, scope: str) -> NativeKey:
    """Where a leaf of a layer at `scope` lives: attribute names joined by dots."""
    return NativeKey(native.collection, ".".join(part for part in (scope, native.name) if part))


def build(builder: Callable[..., Any], request: Request) -> Port:
    """Build the port, abstractly: no parameter is made.

    Raises:
        CaseError: the builder returns no NNX module, or a method is missing.
    """
    parts: list[Built] = []

    def make() -> nnx.Module:
        parts.append(take_apart(NAME, builder(nnx.Rngs(0)), (nnx.Module,), "an nnx.Module"))
        return parts[-1].model

    abstract = nnx.eval_shape(make)
    built = parts[-1]
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


def _state(like: nnx.State, native: Leaves) -> nnx.State:
    """The leaves as a fresh state: NNX mutates variables, so none may be shared between two traces."""
    keys = list(_leaves(like))
    return jax.tree.unflatten(jax.tree.structure(like), [native[key] for key in keys])
