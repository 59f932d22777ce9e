"""Runs that are not speech recognition: one table and one plot for each problem, whatever its metrics are."""

import math
import statistics
from collections.abc import Callable, Sequence

from bilevel.report.plots import Plot, colour, draw_svg, legend
from bilevel.report.runs import Run, methods_of
from bilevel.report.tables import NONE, Cell, Table

# Of these the largest value of a column is marked. Nothing else is ranked: a loss at a point that breaks the
# constraints may be as low as one likes.
_MORE_IS_BETTER = ("accuracy_yg", "utility_yg")
_NAMES = {"yF": "y_F", "yg": "y_g", "inner": "inner y_g", "val_loss": "val. loss"}
# What a trace holds of the upper objective: itself, or its part that is measured.
_OBJECTIVES = {"upper": "upper objective", "val_loss": "validation loss", "utility": "utility"}
_CURVES = (("yF", "--", "at y_F"), ("yg", "-", "at y_g"))


def problem_tables(runs: Sequence[Run]) -> list[tuple[str, Table]]:
    """(corpus, table) with a row for each setting and method, and a column for each metric."""
    runs = [run for run in runs if run.kind == "problem"]
    return [(c, _table([run for run in runs if run.corpus == c])) for c in sorted({run.corpus for run in runs})]


def _table(runs: Sequence[Run]) -> Table:
    metrics = list(dict.fromkeys(d.metric for run in runs for d in run.decodings))
    groups: dict[tuple, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (_setting_order(_setting(run)), methods_of(runs).index(run.method))):
        groups.setdefault((_setting(run), run.method), []).append(run)
    rows = []
    for (setting, method), own in groups.items():
        values = [[d.value for run in own for d in run.decodings if d.metric == metric] for metric in metrics]
        seconds = [run.cost["wall_sec"] for run in own if "wall_sec" in run.cost]
        cells = [_cell(v) for v in (*values, seconds)]
        rows.append([Cell(setting), Cell(method), *cells, Cell(str(len(own)), len(own))])
    for n, metric in enumerate(metrics, 2):
        found = [row[n].order for row in rows if row[n].order is not None]
        if metric in _MORE_IS_BETTER and found:
            for row in rows:
                row[n] = row[n]._replace(best=row[n].order == max(found))
    header = ("Set", "Method", *(_name(metric) for metric in metrics), "Seconds", "Seeds")
    note = (
        "Mean and standard deviation over seeds. y_g is the lower level's solution, what a user gets; y_F is that of "
        "the penalised problem, which has seen the upper objective and may break the constraints as the column says."
    )
    return Table(header, tuple(tuple(row) for row in rows), note)


def trace_plots(runs: Sequence[Run]) -> list[Plot]:
    """Upper objective, or its measured part, against seconds: one plot for each problem and setting that has traces."""
    plots = []
    runs = [run for run in runs if run.kind == "problem"]
    keys = sorted({(run.corpus, _setting(run)) for run in runs}, key=lambda key: (key[0], _setting_order(key[1])))
    for corpus, setting in keys:
        own = [run for run in runs if (run.corpus, _setting(run)) == (corpus, setting)]
        for stem, name in _OBJECTIVES.items():
            if any(_points(run, f"{stem}_{point}") for run in own for point, _, _ in _CURVES):
                plots.append(_trace_plot(f"{name.capitalize()} \u00b7 {corpus}, {setting}", own, stem))
    return plots


def _trace_plot(title: str, runs: Sequence[Run], stem: str) -> Plot:
    methods = methods_of(runs)

    def draw(axes) -> None:
        for method in methods:
            label: str | None = method
            for point, style, _ in _CURVES:
                found = [_points(run, f"{stem}_{point}") for run in runs if run.method == method]
                curves = [points for points in found if points]
                if curves:
                    _band(axes, curves, style, colour(method, methods), label)
                    label = None
        axes.set_xscale("symlog", linthresh=0.1)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("seconds   (" + ", ".join(f"{_line(style)}: {name}" for _, style, name in _CURVES) + ")")
        axes.set_ylabel(_OBJECTIVES[stem])
        legend(axes)

    return Plot(title, f"{title} against seconds for {', '.join(methods)}", draw_svg(draw, (5.8, 3.7), title))


def _band(axes, curves: Sequence[Sequence[tuple[float, float]]], style: str, tint: str, label: str | None) -> None:
    """Mean over seeds at equal row numbers; the band reaches from the least to the greatest."""
    n_rows = min(len(points) for points in curves)
    seconds = [statistics.fmean(points[i][0] for points in curves) for i in range(n_rows)]
    values = [[points[i][1] for points in curves] for i in range(n_rows)]
    axes.fill_between(seconds, [min(v) for v in values], [max(v) for v in values], color=tint, alpha=0.14, lw=0)
    mark = "o" if n_rows == 1 else None
    axes.plot(seconds, [statistics.fmean(v) for v in values], style, color=tint, lw=1.6, label=label, marker=mark)


def _points(run: Run, key: str) -> list[tuple[float, float]]:
    rows = [(float(row["seconds"]), row.get(key)) for row in run.trace if "seconds" in row]
    return [(x, float(y)) for x, y in rows if isinstance(y, int | float) and math.isfinite(y)]


def _cell(values: Sequence[float]) -> Cell:
    if not values:
        return Cell(NONE)
    mean, form = statistics.fmean(values), _form(values)
    spread = f" \u00b1 {form(statistics.stdev(values))}" if len(values) > 1 else ""
    return Cell(form(mean) + spread, mean)


def _form(values: Sequence[float]) -> Callable[[float], str]:
    """Three decimals for values around 1, fewer for large ones, powers of ten for very small ones."""
    size = max(abs(v) for v in values)
    pattern = ".1f" if size >= 100 else ".2f" if size >= 10 else ".3f" if size >= 1e-3 or size == 0 else ".0e"
    return lambda value: f"{value:{pattern}}".replace("-", "\u2212")


def _setting(run: Run) -> str:
    return run.decodings[0].set if run.decodings else NONE


def _setting_order(setting: str) -> tuple[str, float]:
    """By the words, then by a number at the end: gamma 2 before gamma 10."""
    words, _, last = setting.rpartition(" ")
    try:
        return words, float(last)
    except ValueError:
        return setting, 0.0


def _name(metric: str) -> str:
    stem, _, point = metric.rpartition("_")
    words = f"{_NAMES.get(stem, stem)} {_NAMES[point]}" if point in _NAMES else metric
    return words[0].upper() + words[1:]


def _line(style: str) -> str:
    return "solid" if style == "-" else "dashed"
