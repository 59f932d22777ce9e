"""One plot of the report by name, for a page of its own."""

from collections.abc import Sequence

from bilevel.report.conflict import conflicts, pair_plot
from bilevel.report.plots import interval_plot
from bilevel.report.runs import Run, methods_of
from bilevel.report.summary import Summary
from bilevel.scoring.result import METRICS


def picture(runs: Sequence[Run], summaries: Sequence[Summary], wanted: str) -> str:
    """The SVG of one plot: of a set and metric, such as "test WER", or of a method's conflicts, "conflict METHOD".

    Raises:
        ValueError: There is none of that name; the message lists what there is.
    """
    maps = {f"conflict {c.method}": c for c in conflicts(runs)}
    if wanted in maps:
        return pair_plot(maps[wanted]).svg
    found = {f"{s.key[1]} {METRICS[s.key[2]].name}": s.key for s in summaries}
    if wanted not in found:
        there = sorted(found) + sorted(maps)
        known = f"expected one of {', '.join(there)}" if there else "there are no error rates to plot"
        raise ValueError(f"--picture_of {wanted!r}: {known}")
    key = found[wanted]
    methods = methods_of([run for run in runs if run.kind != "pretraining"])
    return interval_plot(key, [s for s in summaries if s.key == key], methods).svg
