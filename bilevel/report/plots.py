"""Plots as SVG: results with intervals, and training curves. Matplotlib is imported when one is drawn."""

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bilevel.report.runs import Run, methods_of
from bilevel.report.summary import Summary
from bilevel.scoring.result import METRICS

# Metrics that have a plot of their own only where the set lacks the other one.
_SECOND = {"cer": "wer", "chrf": "bleu"}
_STYLES = {"-": "solid", "--": "dashed", ":": "dotted"}
# Okabe and Ito's palette, told apart with any colour vision, without the yellow that vanishes on white; then four more
# for reports of many methods.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_COLOURS += ("#7F3C8D", "#A5AA99", "#80461B", "#4B6A1D")
_INK, _GREY = "#22262b", "#6b7280"
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _INK,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "text.color": _INK,
    "svg.fonttype": "path",
}


@dataclass(frozen=True)
class Plot:
    """A drawn plot: title, words for those who cannot see it, SVG text, whether it takes a row of its own."""

    title: str
    alt: str
    svg: str
    wide: bool = False


@dataclass(frozen=True)
class Panel:
    """What one plot of curves shows.

    Attributes:
        title: Heading.
        label: Of the vertical axis.
        curves: (key in train.jsonl, line style, name) of each curve.
        log: Whether the vertical axis is logarithmic.
        factor: What values are multiplied by, for instance 100 for per cent.
    """

    title: str
    label: str
    curves: tuple[tuple[str, str, str], ...]
    log: bool = False
    factor: float = 1.0


class Series(NamedTuple):
    """Curves of one colour: name in the legend, colour, and of each curve the line style and the points of all runs."""

    name: str
    tint: str
    curves: Sequence[tuple[str, Sequence[Mapping[int, float]]]]


_PANELS = (
    Panel(
        "Supervised loss (upper level)",
        "loss",
        (("train_upper_loss", "-", "training"), ("valid_upper_loss", "--", "validation")),
    ),
    Panel(
        "Self-supervised loss (lower level)",
        "loss",
        (("train_lower_loss", "-", "training"), ("valid_lower_loss", "--", "validation")),
    ),
    Panel("Penalty weight \u03b3", "\u03b3", (("gamma", "-", ""),)),
    Panel(
        "Gradient norm",
        "norm",
        (("grad_norm_upper", "-", "upper level"), ("grad_norm_lower", "--", "lower level"), ("grad_norm", ":", "sum")),
        log=True,
    ),
    Panel("Validation WER, greedy CTC", "%", (("valid_wer_ctc", "-", ""),), factor=100),
    Panel("Validation CER, greedy CTC", "%", (("valid_cer_ctc", "-", ""),), factor=100),
    Panel("Validation CER, attention", "%", (("valid_cer", "-", ""),), factor=100),
    Panel("Validation accuracy, attention", "%", (("valid_acc", "-", ""),), factor=100),
    Panel(
        "Label perplexity (self-supervised)",
        "codes",
        (("ssl_label_perplexity", "-", "anchor"), ("ssl_enhanced_perplexity", "--", "enhanced")),
    ),
    Panel("Spread of the states (self-supervised)", "deviation", (("ssl_feature_std", "-", ""),)),
    Panel("Learning rate", "learning rate", (("lr", "-", ""),)),
)


def interval_plots(summaries: Sequence[Summary], methods: Sequence[str]) -> list[Plot]:
    """One plot for each set: the methods' mean, 95 % interval and single runs. CER and chrF where nothing else is."""
    keys = list(dict.fromkeys(s.key for s in summaries))
    keys = [(c, name, metric, d) for c, name, metric, d in keys if (c, name, _SECOND.get(metric), d) not in keys]
    return [interval_plot(key, [s for s in summaries if s.key == key], methods) for key in keys]


def curve_plots(
    runs: Sequence[Run], panels: Sequence[Panel] = _PANELS, methods: Sequence[str] | None = None
) -> list[Plot]:
    """One plot for each of the panels of which some run has logged a curve, all methods of a corpus in one.

    Args:
        runs: Whose curves are drawn.
        panels: What is drawn.
        methods: Whose places are the colours; None: the methods of `runs`.
    """
    plots = []
    methods = methods_of(runs) if methods is None else methods
    for corpus in sorted({run.corpus for run in runs}):
        own = [run for run in runs if run.corpus == corpus]
        logged = [p for p in panels if any(points(run, key) for run in own for key, _, _ in p.curves)]
        plots += [_curve_plot(corpus, panel, own, methods) for panel in logged]
    return plots


def interval_plot(key: tuple[str, str, str, str], rows: Sequence[Summary], methods: Sequence[str]) -> Plot:
    """The methods on one set: mean, 95 % interval and single runs."""
    corpus, name, metric, decode = key
    factor = METRICS[metric].factor
    title = f"{corpus} / {name}" + (f" \u00b7 {decode.removeprefix('decode_')}" if decode else "")

    def draw(axes) -> None:
        for y, s in enumerate(rows):
            tint = colour(s.method, methods)
            if s.low is not None:
                axes.plot([factor * s.low, factor * s.high], [y, y], color=tint, lw=7, alpha=0.3, solid_capstyle="butt")
            if len(s.values) > 1:
                runs = [factor * value for value in s.values]
                axes.plot(runs, [y] * len(runs), "o", ms=5, mfc="white", mec=tint, mew=1.3)
            axes.plot(factor * s.mean, y, "D", ms=8, color=tint, mec="white", mew=1)
            top = max(factor * s.mean if s.high is None else factor * s.high, *(factor * v for v in s.values))
            axes.annotate(f"{factor * s.mean:.1f}", (top, y), (8, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(rows)), [s.method for s in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=0.12)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(METRICS[metric].label)

    alt = "; ".join(f"{s.method} {factor * s.mean:.2f}" for s in rows)
    alt = f"{METRICS[metric].name} on {title}: {alt}"
    return Plot(title, alt, draw_svg(draw, (5.8, 1.1 + 0.42 * len(rows)), title))


def _curve_plot(corpus: str, panel: Panel, runs: Sequence[Run], methods: Sequence[str]) -> Plot:
    drawn = [curve for curve in panel.curves if any(points(run, curve[0]) for run in runs)]
    series = []
    for method in (method for method in methods if any(run.method == method for run in runs)):
        own = [run for run in runs if run.method == method]
        curves = [(style, [points(run, key, panel.factor) for run in own]) for key, style, _ in drawn]
        series.append(Series(method, colour(method, methods), curves))
    return series_plot(f"{panel.title} \u00b7 {corpus}", panel, series)


def series_plot(title: str, panel: Panel, series: Sequence[Series]) -> Plot:
    """Curves over epochs: lines are means over runs, bands of solid lines reach from the least to the greatest run."""
    styles = {style for s in series for style, found in s.curves if any(found)}
    names = [f"{_STYLES[style]}: {name}" for _, style, name in panel.curves if name and style in styles]

    def draw(axes) -> None:
        for name, tint, curves in series:
            label: str | None = name
            for style, found in curves:
                epochs, low, mean, high = _band(found)
                if not epochs:
                    continue
                if style == "-":
                    axes.fill_between(epochs, low, high, color=tint, alpha=0.14, lw=0)
                mark = "o" if len(epochs) == 1 else None
                axes.plot(epochs, mean, style, color=tint, lw=1.8, label=label, marker=mark)
                label = None
        if panel.log:
            _log_scale(axes)
        axes.set_xlabel("epoch" + (f"   ({', '.join(names)})" if len(names) > 1 else ""))
        axes.set_ylabel(panel.label)
        axes.margins(x=0.02)
        axes.xaxis.get_major_locator().set_params(integer=True)
        legend(axes)

    drawn = [s.name for s in series if any(any(found) for _, found in s.curves)]
    alt = f"{title} per epoch for {', '.join(drawn)}"
    return Plot(title, alt, draw_svg(draw, (5.8, 3.7), title))


def points(run: Run, key: str, factor: float = 1.0) -> dict[int, float]:
    """Value at each epoch times the factor, where there is a finite number."""
    values = {int(row["epoch"]): row.get(key) for row in run.epochs if "epoch" in row}
    return {e: factor * v for e, v in values.items() if isinstance(v, int | float) and abs(v) < float("inf")}


def _band(curves: Sequence[Mapping[int, float]]) -> tuple[list[int], list[float], list[float], list[float]]:
    """Epochs, and least, mean and greatest value over the runs that reached the epoch."""
    epochs = sorted({epoch for curve in curves for epoch in curve})
    columns = [[curve[epoch] for curve in curves if epoch in curve] for epoch in epochs]
    return epochs, [min(c) for c in columns], [sum(c) / len(c) for c in columns], [max(c) for c in columns]


def colour(method: str, methods: Sequence[str]) -> str:
    """Colour of a method, the same in every plot of a report."""
    return _COLOURS[list(methods).index(method) % len(_COLOURS)]


def _log_scale(axes) -> None:
    """A logarithmic vertical axis whose numbers are plain; within a decade those between powers of ten show, too."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(Plain(minor_thresholds=(1, 0.4)))


def legend(axes) -> None:
    """A legend below the axes, of as many columns as the figure is wide enough for; many rows make it taller."""
    names = axes.get_legend_handles_labels()[1]
    # At 9 points: a line and the gaps take 45, a character 5.8 on average.
    n_fitting = int(axes.figure.get_figwidth() * 72 / (45 + 5.8 * max(map(len, names), default=0)))
    n_columns = max(1, min(4, len(names), n_fitting))
    n_rows = math.ceil(len(names) / n_columns)
    axes.figure.set_figheight(axes.figure.get_figheight() + 0.18 * max(0, n_rows - 2))
    axes.figure.legend(loc="outside lower center", ncols=n_columns, frameon=False, fontsize=9)


def draw_svg(draw: Callable, size: tuple[float, float], title: str) -> str:
    """SVG of one pair of axes that `draw` fills; the same input gives the same text."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        # Of the figure, not of the axes, which long names of methods push to the right.
        heading = textwrap.fill(title, int(9.8 * size[0]))
        figure.suptitle(heading, x=0.116 / size[0], ha="left", fontsize=11, fontweight="bold")
        draw(axes)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
