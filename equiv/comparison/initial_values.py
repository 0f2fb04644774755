"""Compare the distributions of initial parameter values between libraries, leaf by leaf."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from equiv.backends.build import MappedPort, call_user_code
from equiv.compat import jit_with_options
from equiv.core.results import InitialValues
from equiv.programs.built_case import BuiltCase
from equiv.programs.compiled import FAST_COMPILE_OPTIONS
from equiv.programs.probes import split_parts

FAMILYWISE_LEVEL = 1e-6
"""Familywise error rate: of a false difference in any leaf of a case (Holm 1979, over all leaves and candidates)."""

INITIALISATIONS = 32
"""Number of keys that every model is initialised with: a leaf of few elements needs many."""

MAX_SAMPLES = 50_000
"""Most values of a leaf that are tested: enough to detect a difference in scale of 12 % at the level above."""

TRUNCATED_SD = 0.8796256610342398
"""Standard deviation of a standard normal truncated at two: sqrt(1 - 4 phi(2) / (2 Phi(2) - 1))."""

InitialSamples = Mapping[str, np.ndarray]


def compare_initial_values(built_case: BuiltCase) -> tuple[InitialValues, ...]:
    """Compare every parameter of every candidate with the reference.

    Args:
        built_case: the case; ports that could not be built are left out.

    Raises:
        EquivError: a port cannot be initialised.
    """
    reference = next(iter(built_case.case.models))
    ours = initial_samples(built_case.built[reference])
    compared = [
        _compare_leaf_values(leaf, candidate, ours[leaf], array)
        for candidate, built in built_case.built.items()
        if candidate != reference
        for leaf, array in initial_samples(built).items()
        if leaf in ours
    ]
    return _apply_holm(compared)


def initial_samples(built: MappedPort) -> InitialSamples:
    """Initialise a port with `INITIALISATIONS` keys: parameter name to its values, float64[number of values]."""
    port, leaves = (
        built.port,
        [leaf for leaf in built.table.leaves if leaf.spec.collection == "params" and not leaf.library_only],
    )

    def make(key: Any) -> dict[str, Any]:
        native = port.init(key)
        return {leaf.name: leaf.to_canonical(native[leaf.key]) for leaf in leaves}

    compiled = call_user_code(port.name, "initialising", lambda: jit_with_options(make, FAST_COMPILE_OPTIONS))
    made: dict[str, list[np.ndarray]] = {leaf.name: [] for leaf in leaves}
    for seed in range(INITIALISATIONS):
        values = call_user_code(port.name, "initialising", partial(compiled, jax.random.key(seed)))
        for name, array in values.items():
            if sum(map(np.size, made[name])) < MAX_SAMPLES:
                made[name] += [part.astype("float64").reshape(-1) for part in split_parts(np.asarray(array))]
    return {name: np.concatenate(arrays)[:MAX_SAMPLES] for name, arrays in made.items()}


def _compare_leaf_values(leaf: str, candidate: str, ours: np.ndarray, theirs: np.ndarray) -> InitialValues:
    constant = [bool(np.ptp(array) == 0) for array in (ours, theirs)]
    if all(constant):
        p = float(ours[0] == theirs[0])
    elif any(constant):
        p = 0.0
    else:
        from scipy import stats  # its import takes a second, and only --initial asks

        _, p = map(float, stats.ks_2samp(ours, theirs, method="asymp"))
    spread = float(np.std(ours))
    ratio = float(np.std(theirs)) / spread if spread else None
    return InitialValues(
        leaf,
        candidate,
        True,
        p,
        describe_distribution(ours),
        describe_distribution(theirs),
        ratio,
        initialiser_hint(ours),
    )


def _apply_holm(compared: list[InitialValues]) -> tuple[InitialValues, ...]:
    """Apply Holm's procedure: the smallest p against the level over all, the next against the level over the rest."""
    different: set[int] = set()
    for rank, index in enumerate(sorted(range(len(compared)), key=lambda index: compared[index].p_value)):
        if compared[index].p_value > FAMILYWISE_LEVEL / (len(compared) - rank):
            break
        different.add(index)
    return tuple(
        replace(item, same=False) if index in different else replace(item, hint="")
        for index, item in enumerate(compared)
    )


def distribution_family(values: np.ndarray) -> str:
    """Name a distribution (`constant`, `uniform`, `truncated normal`, `normal`) by its largest distance from the mean.

    In standard deviations it is 1.73 for a uniform distribution, 2.27 for a normal truncated at two, and above 3 for a
    normal of 300 or more values; with fewer the result is `few values`.
    """
    spread = float(np.std(values))
    if not spread:
        return "constant"
    if values.size < 300:
        return "few values"
    farthest = float(np.max(np.abs(values - np.mean(values)))) / spread
    bounds = (("uniform", math.sqrt(3)), ("truncated normal", 2 / TRUNCATED_SD), ("normal", math.inf))
    # Halfway between one family's bound and the next.
    if farthest < (bounds[0][1] + bounds[1][1]) / 2:
        return "uniform"
    return "truncated normal" if farthest < (bounds[1][1] + 3) / 2 else "normal"


def describe_distribution(values: np.ndarray) -> str:
    """Describe values by family, mean and standard deviation."""
    if distribution_family(values) == "constant":
        return f"constant {values[0]:.3g}"
    mean, spread = float(np.mean(values)), float(np.std(values))
    # A mean within four of its own standard errors of 0 is 0.
    shown = "0" if abs(mean) < 4 * spread / math.sqrt(values.size) else f"{mean:.3g}"
    return f"{distribution_family(values)}, mean {shown}, sd {spread:.3g}"


def initialiser_hint(values: np.ndarray) -> str:
    """Name the initialiser of `jax.nn.initializers` (jax 0.10) with the distribution of these values."""
    mean, spread = float(np.mean(values)), float(np.std(values))
    forms = {
        "constant": f"constant({values[0]:.4g})",
        "normal": f"normal({spread:.3g})",
        # jax.nn.initializers.truncated_normal does not correct for what is cut off.
        "truncated normal": f"truncated_normal({spread / TRUNCATED_SD:.3g})",
    }
    form = forms.get(distribution_family(values))
    if form is None or (distribution_family(values) != "constant" and abs(mean) > 4 * spread / math.sqrt(values.size)):
        return ""
    return f"To start as the reference: jax.nn.initializers.{form}."
