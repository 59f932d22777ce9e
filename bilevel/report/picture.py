"""One plot of the report by name, for a page of its own."""

from collections.abc import Sequence

import numpy as np

from bilevel.report.conflict import conflicts, pair_plot
from bilevel.report.plots import curve_plots, interval_plot
from bilevel.report.pretraining import pretraining_plots
from bilevel.report.runs import Run, methods_of
from bilevel.report.summary import Summary
from bilevel.scoring.result import METRICS


def picture(runs: Sequence[Run], summaries: Sequence[Summary], wanted: str) -> str:
    """The SVG of one plot.

    Args:
        runs: All runs.
        summaries: Theirs.
        wanted: "SET METRIC" ("test WER"), "conflict METHOD", "corrected conflict METHOD", or a title of curves.

    Raises:
        ValueError: There is none of that name; the message lists what there is.
    """
    maps = {f"conflict {c.method}": (c, False) for c in conflicts(runs)}
    maps |= {f"corrected {name}": (c, True) for name, (c, _) in maps.items() if np.isfinite(c.without_noise).any()}
    if wanted in maps:
        return pair_plot(*maps[wanted]).svg
    others = [run for run in runs if run.kind != "pretraining"]
    found = {f"{s.key[1]} {METRICS[s.key[2]].name}": s.key for s in summaries}
    if wanted not in found:
        plots = (*curve_plots(others), *pretraining_plots(runs))
        curves = {plot.title.partition(" \u00b7 ")[0]: plot for plot in plots}
        if wanted in curves:
            return curves[wanted].svg
        there = [*sorted(found), *sorted(maps), *sorted(curves)]
        known = f"expected one of {', '.join(there)}" if there else "there is nothing to plot"
        raise ValueError(f"--picture_of {wanted!r}: {known}")
    key = found[wanted]
    return interval_plot(key, [s for s in summaries if s.key == key], methods_of(others)).svg
