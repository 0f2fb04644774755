"""equiv: shows that a model in Haiku, Flax Linen and Flax NNX is one and the same, or where it first is not.

Every public name is imported when it is asked for: a case file needs no pytest, a report no JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equiv import layers as layers
    from equiv import layouts as layouts
    from equiv.case import CallSequence as CallSequence
    from equiv.case import Case as Case
    from equiv.case import Depths as Depths
    from equiv.case import Deviation as Deviation
    from equiv.case import KnownDifference as KnownDifference
    from equiv.case import Layer as Layer
    from equiv.case import zero_debias as zero_debias
    from equiv.core.results import CaseResult as CaseResult
    from equiv.core.results import CheckResult as CheckResult
    from equiv.core.results import Finding as Finding
    from equiv.core.results import RunResult as RunResult
    from equiv.core.results_json import read_results as read_results
    from equiv.errors import CaseError as CaseError
    from equiv.errors import EquivError as EquivError
    from equiv.errors import NotRun as NotRun
    from equiv.errors import PortError as PortError
    from equiv.frontends.functions import compare as compare
    from equiv.frontends.functions import convert as convert
    from equiv.frontends.functions import freeze as freeze
    from equiv.frontends.functions import infer_layers as infer_layers
    from equiv.frontends.pytest_plugin.failures import Mismatch as Mismatch
    from equiv.frontends.pytest_plugin.failures import NotCompared as NotCompared
    from equiv.frontends.run import run as run

    __version__: str

PUBLIC_MODULES = {
    "equiv.case": ("CallSequence", "Case", "Depths", "Deviation", "KnownDifference", "Layer", "zero_debias"),
    "equiv.core.results": ("CaseResult", "CheckResult", "Finding", "RunResult"),
    "equiv.core.results_json": ("read_results",),
    "equiv.errors": ("CaseError", "EquivError", "NotRun", "PortError"),
    "equiv.frontends.functions": ("compare", "convert", "freeze", "infer_layers"),
    "equiv.frontends.run": ("run",),
    "equiv.frontends.pytest_plugin.failures": ("Mismatch", "NotCompared"),
}
"""Module to the public names that it has."""

__all__ = [
    "CallSequence",
    "Case",
    "CaseError",
    "CaseResult",
    "CheckResult",
    "Depths",
    "Deviation",
    "EquivError",
    "Finding",
    "KnownDifference",
    "Layer",
    "Mismatch",
    "NotCompared",
    "NotRun",
    "PortError",
    "RunResult",
    "compare",
    "convert",
    "freeze",
    "infer_layers",
    "layers",
    "layouts",
    "read_results",
    "run",
    "zero_debias",
]


def __getattr__(name: str) -> Any:
    """A public name, imported from its module; modules themselves are found as ever."""
    if name == "__version__":
        from importlib.metadata import version

        return version("equiv")
    if name in ("layers", "layouts"):
        return import_module(f"equiv.{name}")
    home = next((module for module, names in PUBLIC_MODULES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'equiv' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
