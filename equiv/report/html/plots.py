"""The plots of a case that have something to show: what is proved has no error to draw."""

from equiv.report.html.along import steps
from equiv.report.html.charts import Plot
from equiv.report.html.spreads import maps, ulps
from equiv.results import CaseResult


def plots(case: CaseResult) -> tuple[Plot, ...]:
    """Over train steps, in ulps, and as a map; the way through the network stands with the verdict (`along.walk`)."""
    made = (steps(case), ulps(case), *maps(case))
    return tuple(plot for plot in made if plot is not None)
