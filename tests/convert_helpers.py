"""What the tests of conversion share: small models really trained, and saved as users of each library save them."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import helpers
import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx, serialization

from equiv.backends.base import Port
from equiv.convert.conversion import Request, convert
from equiv.convert.manifest import Manifest
from equiv.convert.plan.plan import Choices
from equiv.convert.plan.random_state import chosen
from equiv.convert.source.expected_leaves import Model, model_of, rooted
from equiv.core.batch_spec import parse_batch
from equiv.core.case import Case
from equiv.core.case_files import LoadedCase
from equiv.programs.probes import make_probe

STEPS = 4
ADAM = "optimizer_adam"
"""The case that most tests use: adam, batch norm and dropout, with the case's own train step in all libraries."""

OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adam": lambda: optax.adam(0.01),
    "adamw": lambda: optax.adamw(0.01, weight_decay=0.1),
    "momentum": lambda: optax.sgd(0.05, momentum=0.9),
    "chain": lambda: optax.chain(
        optax.clip_by_global_norm(0.5), optax.adamw(optax.cosine_decay_schedule(0.01, 50), weight_decay=0.01)
    ),
    "clip, schedule, momentum": lambda: optax.chain(
        optax.clip(0.1), optax.trace(0.9), optax.scale_by_schedule(optax.linear_schedule(-0.1, -0.01, 20))
    ),
    "injected": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.01),
}


@cache
def case_of(name: str, optimizer: str = "") -> Case:
    """A case, with an optimizer for the train step that it has not itself."""
    case = helpers.loaded(name).case
    return replace(case, optimizer=OPTIMIZERS[optimizer]) if optimizer else case


@cache
def model(name: str, backend: str, optimizer: str = "") -> Model:
    """One library's side of a case."""
    return model_of(case_of(name, optimizer), backend)


@cache
def batches(name: str) -> dict[str, np.ndarray]:
    """Batches for as many steps as any test takes."""
    case = case_of(name)
    table = model(name, next(iter(case.models))).table
    return make_probe("0", 1, table, parse_batch(case.batch), 3 * STEPS).batches


def quick(function: Callable) -> Callable:
    """Compiled as fast as can be, for what is run a few times."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": "0"})


def begun(port: Port, seed: int):
    """The carry of training from the library's own fresh parameters."""
    return quick(lambda key: port.begin(port.fresh(key), key))(jax.random.key(seed))


@cache
def step_of(name: str, backend: str, optimizer: str = "") -> Callable:
    """The train step, compiled."""
    return quick(model(name, backend, optimizer).port.step)


def train(name: str, backend: str, carry, steps: range, optimizer: str = ""):
    """Some steps of training: the carry after them, and the outputs of each."""
    losses = []
    for index in steps:
        batch = {entry: array[index] for entry, array in batches(name).items()}
        carry, outputs = step_of(name, backend, optimizer)(carry, batch, jax.random.key(index))
        losses.append(jax.tree.map(np.asarray, outputs))
    return carry, losses


@cache
def trained(name: str, backend: str, optimizer: str = ""):
    """The carry of training after a few real steps."""
    port = model(name, backend, optimizer).port
    carry = begun(port, 3)
    return train(name, backend, carry, range(STEPS), optimizer)[0]


def leaves_of(tree) -> dict[str, np.ndarray]:
    """Path to array, random keys as their data."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): _plain(leaf) for path, leaf in flat}


def _plain(leaf) -> np.ndarray:
    typed = jax.numpy.issubdtype(jax.numpy.asarray(leaf).dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if typed else leaf)


def save_orbax(file: Path, tree) -> Path:
    """As the libraries' guides do."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(file, tree)
    return file


def save_msgpack(file: Path, tree) -> Path:
    """As Linen's guides do; a State of NNX has to be made a dict of arrays first."""
    file.write_bytes(serialization.to_bytes(jax.tree.map(_plain, tree)))
    return file


def save_nnx_msgpack(file: Path, tree) -> Path:
    """States of NNX as dicts of arrays."""
    pure = {name: nnx.to_pure_dict(jax.tree.map(_plain, state)) for name, state in tree.items()}
    return save_msgpack(file, jax.tree.map(np.asarray, pure))


def save_npz(file: Path, tree) -> Path:
    """Flat names, as scripts do."""
    np.savez(file, **leaves_of(tree))
    return file


def save(file: Path, backend: str, carry) -> Path:
    """The carry as a user of the library saves it, in the format of the suffix."""
    tree = rooted(carry)
    if file.suffix == ".npz":
        return save_npz(file, tree)
    if file.suffix == ".msgpack":
        return save_nnx_msgpack(file, tree) if backend == "nnx" else save_msgpack(file, tree)
    return save_orbax(file, tree)


def take_over(
    file: Path,
    name: str,
    to: str,
    out: Path,
    optimizer: str = "",
    random: str = "",
    step: int | None = None,
    **options,
) -> Manifest:
    """Convert through a case."""
    loaded = LoadedCase(name, "", case_of(name, optimizer))
    choices = Choices(chosen(random) if random else None, step)
    _, manifest = convert(Request(file, loaded, to, out, choices=choices, **options))
    assert manifest is not None
    return manifest


def restored(file: Path, name: str, backend: str, optimizer: str = ""):
    """A converted orbax checkpoint in the library's own live objects, by orbax itself."""
    like = trained(name, backend, optimizer)
    with ocp.StandardCheckpointer() as checkpointer:
        found = checkpointer.restore(file, jax.tree.map(ocp.utils.to_shape_dtype_struct, rooted(like)))
    return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(found))


def loaded_npz(file: Path, name: str, backend: str, optimizer: str = ""):
    """A converted npz file in the library's own live objects, by numpy."""
    like = trained(name, backend, optimizer)
    with np.load(file) as arrays:
        assert set(arrays.files) == set(leaves_of(rooted(like)))
        return jax.tree.unflatten(jax.tree.structure(like), [arrays[path] for path in leaves_of(rooted(like))])
