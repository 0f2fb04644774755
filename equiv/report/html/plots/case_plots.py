"""The plots of a case that have something to show: what is proved has no error to draw."""

from equiv.core.results import CaseResult
from equiv.report.html.plots.charts import Plot
from equiv.report.html.plots.difference_plots import maps, ulps
from equiv.report.html.plots.line_plots import steps


def plots(case: CaseResult) -> tuple[Plot, ...]:
    """Over train steps, in ulps, and as a map; the way through the network stands with the verdict (`along.walk`)."""
    made = (steps(case), ulps(case), *maps(case))
    return tuple(plot for plot in made if plot is not None)
