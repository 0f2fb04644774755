"""The entries of a recorded environment: versions, device and settings."""

from collections.abc import Mapping

COMPILER_DISTRIBUTIONS = ("equiv", "jax", "jaxlib")
OTHER_DISTRIBUTIONS = ("optax", "numpy")


NUMERIC_SETTINGS = (
    "jax_default_matmul_precision",
    "jax_enable_x64",
    "jax_threefry_partitionable",
    "jax_default_prng_impl",
)


MACHINE_FACTS = ("python", "platform", "device", "devices", "machine", "XLA_FLAGS", "commit")


def library_distributions(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The packages of model libraries in an environment, sorted: every entry that is of no other sort.

    Which libraries there are is known to the backends only.
    """
    known = {*COMPILER_DISTRIBUTIONS, *OTHER_DISTRIBUTIONS, *NUMERIC_SETTINGS, *MACHINE_FACTS}
    return tuple(sorted(name for name in environment if name not in known))
