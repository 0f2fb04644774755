"""equiv: shows that a model in Haiku, Flax Linen and Flax NNX is one and the same, or where it first is not."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equiv.frontends.pytest_plugin.failures import Mismatch, NotCompared


__all__ = ["Mismatch", "NotCompared"]


def __getattr__(name: str) -> Any:
    """The exceptions of the pytest fixture, imported when they are asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'equiv' has no attribute {name!r}")
    from equiv.frontends.pytest_plugin import failures as outcome

    return getattr(outcome, name)
