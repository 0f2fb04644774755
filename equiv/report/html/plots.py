"""The plots of a case that have something to show: what is proved has no error to draw."""

from equiv.report.html.along import steps, walk
from equiv.report.html.charts import Plot
from equiv.report.html.spreads import maps, ulps
from equiv.results import CaseResult


def plots(case: CaseResult) -> tuple[Plot, ...]:
    """Along the network, over train steps, in ulps, and as a map."""
    made = (walk(case), steps(case), ulps(case), *maps(case))
    return tuple(plot for plot in made if plot is not None)
