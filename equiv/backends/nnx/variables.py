"""The variables of an NNX model: its graph, native leaves by key, and the arrays that it holds as constants."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from flax import nnx
from flax.core.meta import get_global_mesh

from equiv.backends.base import BuilderResult, Leaves, path_words, unpack_builder_result
from equiv.backends.nnx import releases
from equiv.backends.nnx.constants import trace_constants
from equiv.backends.sharding import is_within_own_mesh, make_annotation
from equiv.core.annotation import Annotation
from equiv.core.leaves import NativeKey
from equiv.errors import PortError

Words = tuple[str, ...]
"""The path of an array in a state."""

Constants = Mapping[Words, Any]

COLLECTIONS = ((nnx.RngState, "random"), (nnx.Param, "params"))
"""Type of a variable to the collection of its leaves; all others are `state`."""


@dataclass(frozen=True)
class NnxModel:
    """An NNX model without values.

    A module may hold an array that is no variable, as a table of positions. If it does not depend on the random streams
    of the builder, it is a constant and is computed again wherever the model is put together: then it is a part of the
    program and in its precision, as where another library computes it in the call.

    Attributes:
        port: name of the port.
        graphdef: what `nnx.split` gives.
        state: the state that belongs to it, with shapes for arrays.
        constants: computes the constants.
        paths: where they are.
        made: what the calls that were traced so far have made; it grows with every trace.
    """

    port: str
    graphdef: Any
    state: nnx.State
    constants: Callable[[], Constants]
    paths: frozenset[Words]
    made: set[str]

    @property
    def leaves(self) -> Leaves:
        """The shapes of all native leaves."""
        return self._leaves(self.state)

    @property
    def annotations(self) -> dict[NativeKey, Annotation]:
        """Native leaf to what its variable keeps of its sharding, where it keeps something."""
        found = zip(_entries(self.state), nnx_annotations(self.state), strict=True)
        return {_key(words, collection): one for (words, collection, _), one in found if one is not None}

    def abstract(self) -> nnx.Module:
        """The module with shapes for arrays."""
        return nnx.merge(self.graphdef, jax.tree.map(lambda leaf: leaf, self.state))

    def merge(self, native: Leaves, constants: Constants) -> nnx.Module:
        """A new module with these leaves and constants: NNX mutates variables, so no two traces share any."""
        arrays = [
            constants[words] if words in self.paths else native[_key(words, collection)]
            for words, collection, _ in _entries(self.state)
        ]
        return nnx.merge(self.graphdef, jax.tree.unflatten(jax.tree.structure(self.state), arrays))

    def run(self, call: Callable[[Constants], tuple[nnx.Module, Any]]) -> tuple[nnx.Module, Any]:
        """Call a function with the constants.

        Args:
            call: constants to the module after it was called, and anything else. What the call made is removed and
                noted in `made`: the next call is not given it.

        Raises:
            PortError: the call has replaced a constant.
        """
        constants = self.constants()
        module, rest = call(constants)
        self._remove_made(module)
        after = _arrays(nnx.state(module)) if constants else {}
        if any(after[words] is not array for words, array in constants.items()):
            # What is returned by a function under `nnx.jit` is another object: only its jaxpr says what it is.
            self._check_constants(constants, jax.make_jaxpr(lambda given: _arrays_of(call(given)[0], given))(constants))
        return module, rest

    def read(self, module: nnx.Module) -> Leaves:
        """The leaves of a module."""
        return self._leaves(nnx.state(module))

    def split_carry(self, module: nnx.Module, created: Any) -> tuple[Any, Any]:
        """The carry of training: the graph, and the state without constants.

        Args:
            module: the model.
            created: what the train step keeps beside it, an optimizer.
        """
        graph, state = nnx.split((module, created))
        if not self.paths:
            return graph, state
        paths, structure = jax.tree_util.tree_flatten_with_path(state, is_leaf=_is_variable)
        nodes = [(path_words(path), node) for path, node in paths]
        kept = [None if self._is_constant(words) else node for words, node in nodes]
        return graph, jax.tree.unflatten(structure, kept)

    def merge_carry(self, carry: tuple[Any, Any], constants: Constants) -> tuple[nnx.Module, Any]:
        """The module and what is kept beside it; the reverse of `split_carry`."""
        graph, state = carry
        paths, structure = jax.tree_util.tree_flatten_with_path(
            state, is_leaf=lambda node: node is None or _is_variable(node)
        )
        # A copy of every variable: the step mutates them.
        named = [(path_words(path), node) for path, node in paths]
        nodes = [
            constants[words[1:]] if self._is_constant(words) else jax.tree.map(lambda leaf: leaf, node)
            for words, node in named
        ]
        return nnx.merge(graph, jax.tree.unflatten(structure, nodes))

    def _is_constant(self, words: Words) -> bool:
        """Whether a path in the state of module and optimizer is that of a constant of the module."""
        return words[:1] == ("0",) and words[1:] in self.paths

    def _leaves(self, state: nnx.State) -> Leaves:
        named = ((words, collection, leaf) for words, collection, leaf in _entries(state) if words not in self.paths)
        return {_key(words, collection): leaf for words, collection, leaf in named}

    def _check_constants(self, constants: Constants, kept: Any) -> None:
        jaxpr = kept.jaxpr
        inputs = dict(zip(sorted(constants), jaxpr.invars, strict=True))
        outputs = dict(zip(sorted(constants), jaxpr.outvars, strict=True))
        if changed := [words for words in constants if _origin(jaxpr, outputs[words]) is not inputs[words]]:
            raise PortError(
                f"{self.port}: a call replaces {'.'.join(changed[0])}, an array that is no nnx.Variable: what it "
                "replaces is not state.",
                fix="Make it an nnx.Variable.",
                port=self.port,
            )

    def _remove_made(self, module: nnx.Module) -> None:
        """Remove the variables that a call made, by `sow` or as `self.loss = nnx.Variable(loss)`.

        Parameters, random streams, averages and caches are not removed, unless they are sown: the next call would be
        given them, so a call that makes some has an error elsewhere.
        """
        known = {path for path, _ in nnx.to_flat_state(self.state)}
        kept = (nnx.Param, nnx.RngState, nnx.BatchStat, nnx.Cache)

        def is_made(path: tuple[Any, ...], node: Any) -> bool:
            if not _is_variable(node) or path in known:
                return False
            return isinstance(releases.raw_value(node), tuple) or not isinstance(node, kept)

        if made := [path for path, node in nnx.to_flat_state(nnx.state(module)) if is_made(path, node)]:
            self.made.update(".".join(map(str, path)) for path in made)
            nnx.pop(module, is_made)


def split_model(builder: Callable[..., Any], port: str) -> tuple[NnxModel, BuilderResult]:
    """Build a model without allocating a parameter.

    Raises:
        CaseError: the builder does not return an NNX module.
    """
    built: list[BuilderResult] = []
    graphs: list[Any] = []

    def build_state(key: Any) -> nnx.State:
        # With a traced count, flax formats an error message over all equations so far per parameter (flax 0.12.8).
        built.append(build_module(builder, key, port, np.zeros((), "uint32")))
        graph, state = nnx.split(built[-1].model)
        graphs.append(graph)
        return state

    state = jax.eval_shape(build_state, jax.random.key(0))
    model, result = NnxModel(port, graphs[-1], state, dict, frozenset(), set()), built[-1]
    if not _arrays(state):
        return model, result
    constants, paths = trace_constants(lambda key: _arrays(build_state(key)))
    return replace(model, constants=constants, paths=paths), result


@contextmanager
def plain_variables() -> Iterator[None]:
    """Make variables without what changes no value: sharding where there is no mesh, and HiJAX.

    A variable with the names of its axes is sharded at once, and where there is no mesh, that is an error (flax 0.12.8,
    `core/spmd.py`, `shard_value`); so it is not, and keeps its names. In a mesh of a case it is not either: there its
    leaves are placed as these names say. With `FLAX_HIJAX_VARIABLE=true`, reading and
    writing a variable are primitives, of which nothing here knows what they do.
    """
    sharded = releases.shards_eagerly() and get_global_mesh() is not None and not is_within_own_mesh()
    with releases.plain_variables(sharded):
        yield


def build_module(builder: Callable[..., Any], key: Any, port: str, count: Any = None) -> BuilderResult:
    """Call a builder with a typed key; what it has sown is removed.

    Args:
        builder: the builder.
        key: the key of its random streams.
        port: name of the port.
        count: of draws so far; None: the library's own.

    Raises:
        CaseError: the builder does not return an NNX module.
        PortError: a variable is made with `hijax=True` or `ref=True`.
    """
    with plain_variables():
        rngs = nnx.Rngs(key)
        if count is not None:
            releases.set_value(rngs.default.count, count)
        result = unpack_builder_result(port, builder(rngs), (nnx.Module,), "an nnx.Module")
    _prepare_module(result.model)
    for path, node in nnx.iter_graph(result.model):
        if isinstance(node, nnx.Variable) and (option := releases.reference_option(node)):
            raise PortError(
                f"{port}: {'.'.join(map(str, path))} is a variable with {option}.",
                fix="Make it without: its values are the same, and equiv then sees what is read and written.",
                port=port,
            )
    return result


def _prepare_module(module: nnx.Module) -> None:
    """Remove what the builder has sown, and make attributes that are arrays data.

    They are data where nothing is traced, and a tracer is not (flax 0.12.8, `nnx/graphlib.py`, `is_node_leaf`).
    """
    nnx.pop(module, nnx.Intermediate)
    for _, node in releases.iter_modules(module):
        for name, value in vars(node).items():
            if isinstance(value, jax.Array):
                setattr(node, name, nnx.data(value))


def _entries(state: nnx.State) -> Iterator[tuple[Words, str, Any]]:
    """Path, collection and value of every array, in the order of the pytree."""
    for path, node in jax.tree_util.tree_flatten_with_path(state, is_leaf=_is_variable)[0]:
        collection = next((name for kind, name in COLLECTIONS if isinstance(node, kind)), "state")
        for inside, leaf in jax.tree_util.tree_flatten_with_path(node)[0]:
            yield (*path_words(path), *path_words(inside)), collection, leaf


def nnx_annotations(tree: Any) -> list[Annotation | None]:
    """What the variables of a pytree keep of the sharding of each of its arrays, in order."""
    nodes = jax.tree.leaves(tree, is_leaf=_is_variable)
    return [_annotation(node) for node in nodes for _ in jax.tree.leaves(node)]


def _annotation(node: Any) -> Annotation | None:
    """What a variable keeps; before flax 0.12 it is `sharding` or `sharding_names`."""
    kept = node.get_metadata() if _is_variable(node) else {}
    names = next((kept[one] for one in ("out_sharding", "sharding_names", "sharding") if kept.get(one)), None)
    return None if names is None else make_annotation(names, kept.get("sharding_rules"))


def _arrays(state: nnx.State) -> dict[Words, Any]:
    """The arrays that are no variables."""
    paths, _ = jax.tree_util.tree_flatten_with_path(state, is_leaf=_is_variable)
    return {path_words(path): node for path, node in paths if not _is_variable(node)}


def _arrays_of(module: nnx.Module, wanted: Iterable[Words]) -> dict[Words, Any]:
    arrays = _arrays(nnx.state(module))
    return {words: arrays[words] for words in wanted}


def _origin(jaxpr: Any, variable: Any) -> Any:
    """The variable of a jaxpr that a variable of it is, looked up through calls that return what they are given."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "jit" and variable in eqn.outvars:
            inner = eqn.params["jaxpr"].jaxpr
            source = _origin(inner, inner.outvars[eqn.outvars.index(variable)])
            return _origin(jaxpr, eqn.invars[inner.invars.index(source)]) if source in inner.invars else variable
    return variable


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)


def _key(words: Words, collection: str) -> NativeKey:
    return NativeKey(collection, ".".join(words))
