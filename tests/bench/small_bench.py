"""Shared by the tests of measuring: the smallest case of the suite, ready to be timed."""

from functools import cache

import helpers

from equiv.bench.case_costs import make_bench
from equiv.bench.stages import Bench


@cache
def bench() -> Bench:
    """Its ports, ready to be timed."""
    return make_bench(helpers.workshop_of("counter"), {})
