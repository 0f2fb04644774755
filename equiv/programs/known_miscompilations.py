"""Known miscompilations of jax releases, tried once per release and device: a few lines whose right answer is known.

They are told before anything else of a run: where one of them is wrong, so may be the model of a user. The results are
kept in `equiv/known_miscompilations.json` below `XDG_CACHE_HOME`, or below `~/.cache` where that is not set.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from equiv.compat import enable_x64
from equiv.core.budget import rounding_growth
from equiv.programs.probes import ulp

Answers = tuple[np.ndarray, np.ndarray]
"""What a compiled program gives, and what is right, in numpy."""


@dataclass(frozen=True)
class KnownMiscompilation:
    """A program that some release compiles wrong.

    Attributes:
        what: the program in words, after "compiles".
        releases: those that are known to be wrong.
        source: of the fact.
        terms: number of rounded operations in a row, from which the budget follows.
        answers: runs it.
    """

    what: str
    releases: str
    source: str
    terms: int
    answers: Callable[[], Answers]

    def is_right(self) -> bool:
        """Whether it is right here, within the rounding of its dtype."""
        computed, right = self.answers()
        if np.isnan(computed).tolist() != np.isnan(right).tolist():
            return False
        error = np.max(np.abs(computed.astype("float64") - right), initial=0.0, where=~np.isnan(right))
        size = np.max(np.abs(right), initial=0.0, where=~np.isnan(right))
        return bool(error <= rounding_growth(self.terms) * ulp(computed.dtype) * size)


def _multiply_rows() -> Answers:
    rng = np.random.default_rng(0)
    rows, matrix = (rng.normal(size=shape).astype("float32") for shape in ((40_000, 3), (3, 3)))
    computed = jax.jit(lambda rows, matrix: jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2))(rows))(rows, matrix)
    return np.asarray(computed), ((rows.astype("float64") @ matrix.astype("float64").T) ** 2).sum(1)


def _differentiate_products() -> Answers:
    weights, rows = jnp.array([1.0, 2.0, 3.0], "float32"), jnp.ones((10**6, 3), "float32")

    def of_row(x: jax.Array, row: jax.Array) -> jax.Array:
        return jnp.dot(row - x, weights) + jnp.dot(jnp.dot(row - x, jnp.zeros((3, 3), "float32")), row - x)

    computed = jax.jit(jax.grad(lambda x: jnp.mean(jax.vmap(lambda row: of_row(x, row))(rows))))(weights * 0 + 1)
    return np.asarray(computed), np.array([-1.0, -2.0, -3.0])


def _normalize_leading_axis() -> Answers:
    given = np.random.default_rng(0).normal(size=(3, 1, 1)).astype("float32")
    exact = np.exp(given.astype("float64"))
    return np.asarray(jax.jit(lambda x: jax.nn.softmax(x, axis=0))(given)), exact / exact.sum(0)


def _exponentiate_nan() -> Answers:
    with enable_x64(True):
        return np.asarray(jax.jit(lambda x: jnp.exp(x * jnp.nan))(np.array([0.123]))), np.array([np.nan])


KNOWN = (
    KnownMiscompilation(
        "the product of a matrix with every row of a batch, followed by a sum,",
        "0.10.2 on CPU",
        "https://github.com/jax-ml/jax/issues/39103",
        7,
        _multiply_rows,
    ),
    KnownMiscompilation(
        "the gradient of products with a million rows",
        "0.4.29 on CPU",
        "https://github.com/openxla/xla/issues/13054",
        10**6,
        _differentiate_products,
    ),
    KnownMiscompilation(
        "softmax along a leading axis",
        "0.4.26 on CPU",
        "https://github.com/jax-ml/jax/issues/20856",
        8,
        _normalize_leading_axis,
    ),
    KnownMiscompilation(
        "exp of a number that is NaN in float64",
        "0.6.2 on CPU",
        "https://github.com/jax-ml/jax/issues/29537",
        1,
        _exponentiate_nan,
    ),
)


def find_known_miscompilations() -> tuple[str, ...]:
    """Say which known miscompilations this jax has on this device; each is tried once per release and device."""
    device = jax.devices()[0]
    flags = os.environ.get("XLA_FLAGS", "")
    release = (
        f"jax {jax.__version__}, jaxlib {metadata.version('jaxlib')} on {device.platform} {device.device_kind} {flags}"
    )
    wrong = _wrong_here(release.strip(), tuple(one.what for one in KNOWN), cache_file())
    return tuple(
        f"jax {jax.__version__} compiles {one.what} wrong on this device ({device.device_kind}): {one.source}"
        for one in KNOWN
        if one.what in wrong
    )


@lru_cache(maxsize=8)
def _wrong_here(release: str, tried: tuple[str, ...], file: Path) -> frozenset[str]:
    """Which are wrong: as the file says, where it has all of them for this release, else as they turn out."""
    stored = _read_results(file)
    known = stored.get(release, {})
    if set(tried) <= set(known):
        return frozenset(name for name in tried if not known[name])
    found = {one.what: _try_one(one) for one in KNOWN if one.what in tried}
    _write_results(file, {**stored, release: found})
    return frozenset(name for name, right in found.items() if not right)


def _try_one(known: KnownMiscompilation) -> bool:
    try:
        return known.is_right()
    except Exception:  # noqa: BLE001 - what does not run at all gives no wrong result
        return True


def cache_file() -> Path:
    """The file with the results of earlier runs."""
    folder = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(folder) if folder else Path.home() / ".cache") / "equiv" / "known_miscompilations.json"


def _read_results(file: Path) -> dict[str, dict[str, bool]]:
    try:
        stored = json.loads(file.read_text())
        return {release: dict(found) for release, found in stored.items() if all(map(_is_flag, found.values()))}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return {}  # there is none, or somebody else wrote it: they are tried again


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _write_results(file: Path, results: dict[str, dict[str, bool]]) -> None:
    """Write the file as a whole or not at all; where it cannot be written they are tried again next time."""
    scratch = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(results, indent=1))
        scratch.replace(file)
    except OSError:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
