"""The plots of a case; proved findings have no error to draw."""

from equiv.core.results import CaseResult
from equiv.report.html.plots.charts import Plot
from equiv.report.html.plots.difference_plots import map_plots, ulp_plot
from equiv.report.html.plots.line_plots import step_plot


def case_plots(case: CaseResult) -> tuple[Plot, ...]:
    """Return plots over train steps, in ulps, and as a map; `network_plot` is shown with the verdict instead."""
    made = (step_plot(case), ulp_plot(case), *map_plots(case))
    return tuple(plot for plot in made if plot is not None)
