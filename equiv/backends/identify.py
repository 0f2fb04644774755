"""Identify the library of a model without importing any library."""

import inspect
from typing import Any

RNGS_PARAMETERS = ("rngs", "rng", "key")
"""Names of the parameter of an NNX builder."""

LIBRARY_MODULES = {"haiku": "haiku", "flax.linen": "linen", "flax.nnx": "nnx"}
"""Module that defines a library's model classes, to backend."""


def library_of(model: Any) -> str | None:
    """The backend of a model or model class; None if it is of no known library."""
    classes = model.__mro__ if inspect.isclass(model) else type(model).__mro__
    for one in classes:
        for module, backend in LIBRARY_MODULES.items():
            if one.__module__ == module or one.__module__.startswith(f"{module}."):
                return backend
    return None
