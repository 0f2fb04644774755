"""Do both libraries start a leaf alike? Their own initial values as samples, leaf by leaf."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from equiv.backends.build import Built, guarded
from equiv.core.results import Start
from equiv.programs.built_case import Workshop
from equiv.programs.compiled import QUICK

LEVEL = 1e-6
"""How often chance alone may call any leaf of a case different (Holm 1979, over all leaves and candidates)."""


KEYS = 32
"""How often every model is initialised: a leaf of few elements needs many."""


LARGEST = 50_000
"""Elements of a leaf that are looked at: twelve per cent of scale are certain at the level above."""


TRUNCATED = 0.8796256610342398
"""Standard deviation of a standard normal cut off at two: sqrt(1 - 4 phi(2) / (2 Phi(2) - 1))."""


Samples = Mapping[str, np.ndarray]


def initial(workshop: Workshop) -> tuple[Start, ...]:
    """Every parameter of every candidate beside the reference.

    Args:
        workshop: the case; ports that could not be built are left out.

    Raises:
        EquivError: a port cannot be initialised.
    """
    reference = next(iter(workshop.case.models))
    ours = samples(workshop.built[reference])
    starts = [
        _start(leaf, candidate, ours[leaf], array)
        for candidate, built in workshop.built.items()
        if candidate != reference
        for leaf, array in samples(built).items()
        if leaf in ours
    ]
    return _judged(starts)


def samples(built: Built) -> Samples:
    """Canonical parameter to its initial values, float64[number of values]."""
    port, leaves = (
        built.port,
        [leaf for leaf in built.table.leaves if leaf.spec.collection == "params" and not leaf.own],
    )

    def make(key: Any) -> dict[str, Any]:
        native = port.fresh(key)
        return {leaf.name: leaf.to_canonical(native[leaf.key]) for leaf in leaves}

    compiled = guarded(port.backend, "initialising", lambda: jax.jit(make, compiler_options=QUICK))
    made: dict[str, list[np.ndarray]] = {leaf.name: [] for leaf in leaves}
    for seed in range(KEYS):
        values = guarded(port.backend, "initialising", partial(compiled, jax.random.key(seed)))
        for name, array in values.items():
            if sum(map(np.size, made[name])) < LARGEST:
                made[name].append(np.asarray(array, "float64").reshape(-1))
    return {name: np.concatenate(arrays)[:LARGEST] for name, arrays in made.items()}


def _start(leaf: str, candidate: str, ours: np.ndarray, theirs: np.ndarray) -> Start:
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
    return Start(leaf, candidate, True, p, described(ours), described(theirs), ratio, hint(ours))


def _judged(starts: list[Start]) -> tuple[Start, ...]:
    """Holm's procedure: the smallest p against the level over all, the next against the level over the rest."""
    apart: set[int] = set()
    for rank, index in enumerate(sorted(range(len(starts)), key=lambda index: starts[index].p)):
        if starts[index].p > LEVEL / (len(starts) - rank):
            break
        apart.add(index)
    return tuple(
        replace(start, same=False) if index in apart else replace(start, hint="") for index, start in enumerate(starts)
    )


def family(values: np.ndarray) -> str:
    """`constant`, `uniform`, `truncated normal` or `normal`: by the largest distance from the mean, in sd.

    It is 1.73 for a uniform distribution, 2.27 for a normal cut off at two, and above 3 for a normal as soon as there
    are a few hundred values; of fewer nothing is said.
    """
    spread = float(np.std(values))
    if not spread:
        return "constant"
    if values.size < 300:
        return "few values"
    farthest = float(np.max(np.abs(values - np.mean(values)))) / spread
    bounds = (("uniform", math.sqrt(3)), ("truncated normal", 2 / TRUNCATED), ("normal", math.inf))
    # Halfway between one family's bound and the next.
    if farthest < (bounds[0][1] + bounds[1][1]) / 2:
        return "uniform"
    return "truncated normal" if farthest < (bounds[1][1] + 3) / 2 else "normal"


def described(values: np.ndarray) -> str:
    """Family, mean and standard deviation."""
    if family(values) == "constant":
        return f"constant {values[0]:.3g}"
    mean, spread = float(np.mean(values)), float(np.std(values))
    # A mean within four of its own standard errors of 0 is 0.
    shown = "0" if abs(mean) < 4 * spread / math.sqrt(values.size) else f"{mean:.3g}"
    return f"{family(values)}, mean {shown}, sd {spread:.3g}"


def hint(values: np.ndarray) -> str:
    """The initialiser of jax.nn that draws as these values are drawn (jax.nn.initializers, jax 0.10)."""
    mean, spread = float(np.mean(values)), float(np.std(values))
    forms = {
        "constant": f"constant({values[0]:.4g})",
        "normal": f"normal({spread:.3g})",
        # jax.nn.initializers.truncated_normal does not correct for what is cut off.
        "truncated normal": f"truncated_normal({spread / TRUNCATED:.3g})",
    }
    form = forms.get(family(values))
    if form is None or (family(values) != "constant" and abs(mean) > 4 * spread / math.sqrt(values.size)):
        return ""
    return f"To start as the reference: jax.nn.initializers.{form}."
