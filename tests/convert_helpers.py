"""Shared by the tests of conversion: small models, trained, and saved as users of each library save them."""

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
from equiv.backends.registry import load_library
from equiv.conversion.convert import ConversionRequest, convert_checkpoint
from equiv.conversion.manifest import Manifest
from equiv.conversion.plan.plan import Choices
from equiv.conversion.plan.random_state import parse_random_policy
from equiv.conversion.source.expected_leaves import LibraryModel, build_library_model, saved_form
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
    """A case of the suite; `optimizer` is for a case without a train step of its own."""
    case = helpers.loaded(name).case
    return replace(case, optimizer=OPTIMIZERS[optimizer]) if optimizer else case


@cache
def model(name: str, backend: str, optimizer: str = "") -> LibraryModel:
    """Build one library's model of a case."""
    return build_library_model(case_of(name, optimizer), backend)


@cache
def batches(name: str) -> dict[str, np.ndarray]:
    """Batches by entry name, one for each step that any test takes."""
    case = case_of(name)
    table = model(name, next(iter(case.models))).table
    return make_probe("0", 1, table, parse_batch(case.batch), 3 * STEPS).batches


def quick(function: Callable) -> Callable:
    """Compile without optimization, for what is run a few times."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": "0"})


def begun(port: Port, seed: int):
    """The training carry before the first step, with the library's own initial values."""
    return quick(lambda key: port.init_training(port.init(key), key))(jax.random.key(seed))


@cache
def step_of(name: str, backend: str, optimizer: str = "") -> Callable:
    """Compile a model's train step, once."""
    return quick(model(name, backend, optimizer).port.step)


def train(name: str, backend: str, carry, steps: range, optimizer: str = ""):
    """Train for some steps: the carry after them, and the outputs of each."""
    losses = []
    for index in steps:
        batch = {entry: array[index] for entry, array in batches(name).items()}
        carry, outputs = step_of(name, backend, optimizer)(carry, batch, jax.random.key(index))
        losses.append(jax.tree.map(np.asarray, outputs))
    return carry, losses


@cache
def trained(name: str, backend: str, optimizer: str = ""):
    """The training carry after `STEPS` steps, computed once."""
    port = model(name, backend, optimizer).port
    carry = begun(port, 3)
    return train(name, backend, carry, range(STEPS), optimizer)[0]


def leaves_of(tree) -> dict[str, np.ndarray]:
    """Path to array of a pytree, random keys as their data."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): _plain(leaf) for path, leaf in flat}


def _plain(leaf) -> np.ndarray:
    typed = jax.numpy.issubdtype(jax.numpy.asarray(leaf).dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if typed else leaf)


def save_orbax(file: Path, tree) -> Path:
    """Save with orbax, as the libraries' guides do."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(file, tree)
    return file


def save_msgpack(file: Path, tree) -> Path:
    """Save with `flax.serialization`, as Linen's guides do; see `save_nnx_msgpack` for a State of NNX."""
    file.write_bytes(serialization.to_bytes(jax.tree.map(_plain, tree)))
    return file


def save_nnx_msgpack(file: Path, tree) -> Path:
    """Save States of NNX as msgpack, converted to dicts of arrays first."""
    pure = {name: nnx.to_pure_dict(jax.tree.map(_plain, state)) for name, state in tree.items()}
    return save_msgpack(file, jax.tree.map(np.asarray, pure))


def save_npz(file: Path, tree) -> Path:
    """Save flat names to npz, as scripts do."""
    np.savez(file, **leaves_of(tree))
    return file


def save(file: Path, backend: str, carry) -> Path:
    """Save a carry as a user of the library does, in the format of the suffix."""
    tree = saved_form(carry, load_library(backend).training_parts)
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
    """Convert a checkpoint to another library through a case of the suite, and return the manifest."""
    loaded = LoadedCase(name, "", case_of(name, optimizer))
    choices = Choices(parse_random_policy(random) if random else None, step)
    manifest = convert_checkpoint(ConversionRequest(file, loaded, to, out, choices=choices, **options))
    assert manifest is not None
    return manifest


def restored(file: Path, name: str, backend: str, optimizer: str = ""):
    """Restore a converted orbax checkpoint with orbax into the pytree of the library's own objects."""
    like = trained(name, backend, optimizer)
    with ocp.StandardCheckpointer() as checkpointer:
        found = checkpointer.restore(
            file, jax.tree.map(ocp.utils.to_shape_dtype_struct, saved_form(like, load_library(backend).training_parts))
        )
    return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(found))


def loaded_npz(file: Path, name: str, backend: str, optimizer: str = ""):
    """Load a converted npz file with numpy into the pytree of the library's own objects."""
    like = trained(name, backend, optimizer)
    with np.load(file) as arrays:
        assert set(arrays.files) == set(leaves_of(saved_form(like, load_library(backend).training_parts)))
        return jax.tree.unflatten(
            jax.tree.structure(like),
            [arrays[path] for path in leaves_of(saved_form(like, load_library(backend).training_parts))],
        )
