"""Identify."""

import inspect
from typing import Any

RNGS = ("rngs", "rng", "key")
"""What the parameter of an NNX builder is called."""


MODULES = {"haiku": "haiku", "flax.linen": "linen", "flax.nnx": "nnx"}
"""Where the classes of a library's models come from: no library has to be imported to know one."""


def library(model: Any) -> str | None:
    """The backend whose library a model, or the class of one, is of."""
    classes = model.__mro__ if inspect.isclass(model) else type(model).__mro__
    for one in classes:
        for module, backend in MODULES.items():
            if one.__module__ == module or one.__module__.startswith(f"{module}."):
                return backend
    return None
