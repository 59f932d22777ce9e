"""One plot of the report by name, for a page of its own."""

from collections.abc import Sequence

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
        wanted: "SET METRIC" ("test WER"), "conflict METHOD", "expected conflict METHOD", or a title of curves.

    Raises:
        ValueError: There is none of that name; the message lists what there is.
    """
    kinds = "Conflict", "Expected conflict"
    maps = {f"{name.lower()} {c.method}": c for name in kinds for c in conflicts(runs, name)}
    if wanted in maps:
        return pair_plot(maps[wanted]).svg
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
