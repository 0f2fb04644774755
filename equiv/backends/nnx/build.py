"""Build a port of a Flax NNX model."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
from flax import nnx
from flax.core.spmd import logical_axis_rules

from equiv.backends.base import (
    BuilderResult,
    Call,
    Leaves,
    Port,
    PortSpec,
    ProgramRun,
    UserProgram,
    bind_arguments,
    check_leaves,
)
from equiv.backends.calls import call_arguments, has_free_mode
from equiv.backends.nnx import releases
from equiv.backends.nnx.library import LIBRARY
from equiv.backends.nnx.variables import (
    Constants,
    NnxModel,
    build_module,
    nnx_annotations,
    plain_variables,
    split_model,
)
from equiv.backends.sharding import within_calls
from equiv.backends.user_programs import (
    copy_arrays,
    flat_nnx_arguments,
    functional_program,
    next_step_arguments,
    partition_arguments,
    positional_call,
    time_nnx_parts,
)
from equiv.core.batch_spec import flatten_batch
from equiv.core.method_call import MethodCall
from equiv.errors import CaseError

NAME = LIBRARY.name


def build(builder: Callable[..., Any], spec: PortSpec) -> Port:
    """Build the port abstractly: no parameter is allocated.

    Raises:
        CaseError: the builder does not return an NNX module, or a method is missing.
    """
    spec = spec if spec.port else replace(spec, port=NAME)
    model, built = split_model(builder, spec.port)
    abstract = model.abstract()
    functions = {name: _method(spec.port, abstract, call.method or name) for name, call in spec.calls.items()}

    @plain_variables()
    def apply(native: Leaves, name: str, arguments: tuple[Any, ...], train: bool, key: Any) -> tuple[Any, Leaves]:
        asked = spec.calls[name]

        def call(constants: Constants) -> tuple[nnx.Module, Any]:
            module = model.merge(native, constants)
            _set_mode(module, asked.in_train_mode(train))
            return module, _call(module, asked.method or name, asked, arguments, train, key)

        module, outputs = model.run(call)
        after = model.read(module)
        check_leaves(spec.port, name, native, after)
        return outputs, after

    def init(key: Any) -> Leaves:
        return model.read(build_module(builder, key, spec.port).model)

    init_training, step = _nnx_training(spec, built, model)
    port = Port(
        name=spec.port,
        library=NAME,
        leaves=model.leaves,
        collections={key: key.collection for key in model.leaves},
        has_modes=any(has_free_mode(function, spec.calls[name]) for name, function in functions.items())
        or (
            any(call.mode is None for call in spec.calls.values())
            and any(
                hasattr(node, "deterministic") or hasattr(node, "use_running_average")
                for _, node in releases.iter_modules(abstract)
            )
        ),
        apply=apply,
        init_training=init_training,
        step=step,
        init=init,
        default_step=built.train_step is None,
        user_programs=partial(_nnx_programs, builder, spec),
        returns_parameters=True,
        made=lambda: tuple(sorted(model.made)),
        annotations=model.annotations,
        annotate=nnx_annotations,
    )
    return within_calls(port, partial(logical_axis_rules, spec.rules)) if spec.rules else port


def _method(port: str, model: nnx.Module, method: str) -> Callable[..., Any]:
    if not callable(getattr(model, method, None)):
        raise CaseError(
            f"{port}: {type(model).__name__} has no method {method!r}, which the case's methods name.",
            fix="Add it to the model, or remove it from the case's methods.",
            port=port,
        )
    return getattr(model, method)


def _call(module: nnx.Module, method: str, call: MethodCall, inputs: tuple[Any, ...], train: bool, key: Any) -> Any:
    """Call a method of a module that is in this mode, which the method may also be given as an argument."""
    function = getattr(module, method)
    arguments, keywords = call_arguments(function, call, inputs, train)
    return function(*arguments, **{**_streams(function, key), **keywords})


def _streams(function: Callable[..., Any], key: Any) -> dict[str, nnx.Rngs]:
    """The random streams of a method that has to be given some."""
    parameter = inspect.signature(function).parameters.get("rngs")
    return {"rngs": nnx.Rngs(key)} if parameter is not None and parameter.default is parameter.empty else {}


def _nnx_training(
    spec: PortSpec, built: BuilderResult, model: NnxModel
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    train_step, create = built.train_step, built.create
    trained_in = True
    if train_step is None:
        train_step, create = _default_train_step(spec)
        trained_in = spec.methods[spec.first_method[0]].in_train_mode(True)

    @plain_variables()
    def init_training(native: Leaves, key: Any) -> Any:
        module = model.merge(native, model.constants())
        _set_mode(module, trained_in)
        created = (
            create(**bind_arguments(spec.port, create, {"model": module, "key": key}, "create")) if create else None
        )
        if hasattr(created, "apply_gradients"):
            return created
        return model.split_carry(module, created)

    @plain_variables()
    def step(carry: Any, batch: Mapping[str, Any], key: Any) -> tuple[Any, Any]:
        if hasattr(carry, "apply_gradients"):
            available = {**spec.step_arguments(batch), "key": key, "state": carry, "train_state": carry}
            result = train_step(**bind_arguments(spec.port, train_step, available))
            return (result[0], result[1:]) if isinstance(result, tuple) else (result, ())

        def call(constants: Constants) -> tuple[nnx.Module, tuple[Any, Any]]:
            module, optimizer = model.merge_carry(carry, constants)
            available = {**spec.step_arguments(batch), "key": key, "model": module, "optimizer": optimizer}
            outputs = train_step(**bind_arguments(spec.port, train_step, available))
            return module, (optimizer, outputs)

        module, (optimizer, outputs) = model.run(call)
        return model.split_carry(module, optimizer), _as_tuple(outputs)

    return init_training, step


def _default_train_step(spec: PortSpec) -> tuple[Callable[..., Any], Callable[..., Any]]:
    method, names = spec.first_method
    call = spec.methods[method]

    def create(model: nnx.Module) -> nnx.Optimizer:
        return nnx.Optimizer(model, spec.optimizer(), wrt=nnx.Param)

    @nnx.jit
    def train_step(model: nnx.Module, optimizer: nnx.Optimizer, batch: dict[str, Any], key: Any) -> Any:
        flat = flatten_batch(batch)

        def loss_of(model: nnx.Module) -> Any:
            return spec.loss(_call(model, method, call, tuple(flat[name] for name in names), True, key), flat)

        loss, gradients = releases.value_and_grad(loss_of)(model)
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


def _nnx_programs(
    builder: Callable[..., Any], spec: PortSpec, native: Leaves, batch: Mapping[str, Any], key: Any
) -> tuple[UserProgram, ...]:
    """The programs of a newly built model, under `nnx.jit` and, with the model split, under `jax.jit`."""
    split, built = split_model(builder, spec.port)
    train_step, create = built.train_step, built.create
    if train_step is None:
        train_step, create = _default_train_step(spec)
    method, names = spec.first_method
    call = spec.methods[method]

    def forward(model: nnx.Module, *inputs: Any) -> Any:
        return _call(model, method, call, inputs, True, key)

    def gradients(model: nnx.Module, batch: Mapping[str, Any]) -> Any:
        def loss_of(model: nnx.Module) -> Any:
            return spec.loss(forward(model, *(batch[name] for name in names)), batch)

        return releases.value_and_grad(loss_of)(model)

    model = split.merge(native, split.constants())
    _set_mode(model, call.in_train_mode(True))
    created = create(**bind_arguments(spec.port, create, {"model": model, "key": key}, "create")) if create else None
    named = {**spec.step_arguments(batch), "key": key, "model": model, "optimizer": created}
    programs = (
        *_nnx_and_functional("forward", forward, ((model, *(batch[name] for name in names)), {})),
        *_nnx_and_functional("gradients", gradients, ((model, dict(batch)), {})),
    )
    _set_mode(model, built.train_step is not None or call.in_train_mode(True))
    if hasattr(created, "apply_gradients"):
        arguments = bind_arguments(spec.port, train_step, {**named, "state": created, "train_state": created})
        carried = [name for name in arguments if arguments[name] is created]
        step = functional_program(
            "train step", train_step, positional_call(train_step, arguments), next_step_arguments(train_step, carried)
        )
        return (*programs, step)
    return (
        *programs,
        *_nnx_and_functional(
            "train step", train_step, positional_call(train_step, bind_arguments(spec.port, train_step, named))
        ),
    )


def _nnx_and_functional(program: str, function: Callable[..., Any], arguments: Call) -> tuple[UserProgram, ...]:
    """A program that mutates its modules, unchanged under `nnx.jit`, and in the guide's functional form."""
    jitted, raw = function if hasattr(function, "trace") else nnx.jit(function), inspect.unwrap(function)
    modules, arrays, merge = partition_arguments(arguments[0], (nnx.Module, nnx.Optimizer))
    graphdef, state = nnx.split(modules)

    @jax.jit
    def split(graphdef: Any, state: nnx.State, *arrays: Any, **keywords: Any) -> tuple[Any, nnx.State]:
        modules = nnx.merge(graphdef, state)
        outputs = raw(*merge(modules, arrays), **keywords)
        return outputs, nnx.state(modules)

    def start() -> ProgramRun:
        copied = nnx.merge(graphdef, copy_arrays(state))
        variables = [node for _, node in nnx.iter_graph(copied) if isinstance(node, nnx.Variable)]
        call = merge(copied, copy_arrays(arrays)), copy_arrays(arguments[1])
        return ProgramRun(jitted, call, mutated_arrays=lambda: [releases.raw_value(variable) for variable in variables])

    def next_arguments(arguments: Call, outputs: Any) -> Call:
        return (arguments[0][0], outputs[1], *arguments[0][2:]), arguments[1]

    host_timer = partial(time_nnx_parts, jitted) if hasattr(jitted, "jitted_fn") else None
    return (
        UserProgram(program, "nnx.jit", jitted, start, partial(flat_nnx_arguments, jitted), host_timer),
        replace(
            functional_program(program, split, ((graphdef, state, *arrays), arguments[1]), next_arguments),
            runner="split + jax.jit",
        ),
    )
