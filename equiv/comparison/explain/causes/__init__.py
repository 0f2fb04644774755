"""Causes of a divergence that are tried: each is made as a change of the candidate's program, which is run again."""

from collections.abc import Callable, Iterator

from equiv.comparison.explain.causes.chains import other_chains
from equiv.comparison.explain.causes.constants import other_constants, other_settings
from equiv.comparison.explain.causes.functions import other_functions
from equiv.comparison.explain.causes.leaves import other_calls, other_groups, other_leaves, other_roles
from equiv.comparison.explain.causes.loops import other_carries, other_direction, other_filling
from equiv.comparison.explain.causes.operands import other_operands
from equiv.comparison.explain.causes.operations import (
    extra_operation,
    missing_operation,
    other_order,
    other_parameters,
)
from equiv.comparison.explain.causes.trial import Scene, Trial

TRIED_CAUSES: tuple[Callable[[Scene], Iterator[Trial]], ...] = (
    other_constants,
    other_settings,
    other_carries,
    other_filling,
    other_functions,
    other_groups,
    other_roles,
    other_calls,
    other_leaves,
    other_operands,
    other_order,
    other_parameters,
    other_direction,
    missing_operation,
    extra_operation,
    other_chains,
)
"""Kinds of cause, each a function of what is around a divergence to changes that could explain it."""
