"""Plots as SVG: results with intervals, and training curves. Matplotlib is imported when one is drawn."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bilevel.report.runs import Run, methods_of
from bilevel.report.summary import Summary

_STYLES = {"-": "solid", "--": "dashed", ":": "dotted"}
# Okabe and Ito's palette, without the yellow that vanishes on white: told apart with any colour vision.
# Okabe and Ito's, told apart by the colour-blind; then darker ones for reports of many methods.
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
    """A drawn plot: title, words for those who cannot see it, SVG text."""

    title: str
    alt: str
    svg: str


@dataclass(frozen=True)
class _Panel:
    """What one plot of curves shows: title, axis label, (key, line style, name) of each curve, scale."""

    title: str
    label: str
    curves: tuple[tuple[str, str, str], ...]
    log: bool = False
    factor: float = 1.0


_PANELS = (
    _Panel(
        "Supervised loss (upper level)",
        "loss",
        (("train_upper_loss", "-", "training"), ("valid_upper_loss", "--", "validation")),
    ),
    _Panel(
        "Self-supervised loss (lower level)",
        "loss",
        (("train_lower_loss", "-", "training"), ("valid_lower_loss", "--", "validation")),
    ),
    _Panel("Penalty weight \u03b3", "\u03b3", (("gamma", "-", ""),)),
    _Panel(
        "Gradient norm",
        "norm",
        (("grad_norm_upper", "-", "upper level"), ("grad_norm_lower", "--", "lower level"), ("grad_norm", ":", "sum")),
        log=True,
    ),
    _Panel("Validation WER, greedy CTC", "%", (("valid_wer_ctc", "-", ""),), factor=100),
    _Panel("Validation CER, greedy CTC", "%", (("valid_cer_ctc", "-", ""),), factor=100),
    _Panel("Validation CER, attention", "%", (("valid_cer", "-", ""),), factor=100),
    _Panel("Validation accuracy, attention", "%", (("valid_acc", "-", ""),), factor=100),
    _Panel(
        "Label perplexity (self-supervised)",
        "codes",
        (("ssl_label_perplexity", "-", "anchor"), ("ssl_enhanced_perplexity", "--", "enhanced")),
    ),
    _Panel("Spread of the states (self-supervised)", "deviation", (("ssl_feature_std", "-", ""),)),
    _Panel("Learning rate", "learning rate", (("lr", "-", ""),)),
)


def interval_plots(summaries: Sequence[Summary], methods: Sequence[str]) -> list[Plot]:
    """One plot for each set: the methods' mean, 95 % interval and single runs. WER where there is any."""
    shown = [s for s in summaries if s.key[2] == "wer"] or list(summaries)
    keys = list(dict.fromkeys(s.key for s in shown))
    return [_interval_plot(key, [s for s in shown if s.key == key], methods) for key in keys]


def picture(runs: Sequence[Run], summaries: Sequence[Summary], wanted: str) -> str:
    """The SVG of one interval plot, such as that of "test WER".

    Raises:
        ValueError: No run has that set and metric; the message lists what there is.
    """
    found = {f"{s.key[1]} {s.key[2].upper()}": s.key for s in summaries}
    if wanted not in found:
        raise ValueError(f"--picture_of {wanted!r}: expected one of {', '.join(sorted(found))}")
    key = found[wanted]
    return _interval_plot(key, [s for s in summaries if s.key == key], methods_of(runs)).svg


def curve_plots(runs: Sequence[Run]) -> list[Plot]:
    """One plot for each quantity that some run has logged, all methods of a corpus in one."""
    plots = []
    methods = methods_of(runs)
    for corpus in sorted({run.corpus for run in runs}):
        own = [run for run in runs if run.corpus == corpus]
        panels = [p for p in _PANELS if any(_points(run, key) for run in own for key, _, _ in p.curves)]
        plots += [_curve_plot(corpus, panel, own, methods) for panel in panels]
    return plots


def _interval_plot(key: tuple[str, str, str, str], rows: Sequence[Summary], methods: Sequence[str]) -> Plot:
    corpus, name, metric, decode = key
    factor = 100 if metric in ("wer", "cer") else 1
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
        axes.set_xlabel(f"{metric.upper()} %" if factor == 100 else metric)

    alt = "; ".join(f"{s.method} {factor * s.mean:.2f}" for s in rows)
    return Plot(title, f"{metric.upper()} on {title}: {alt}", draw_svg(draw, (5.8, 1.1 + 0.42 * len(rows)), title))


def _curve_plot(corpus: str, panel: _Panel, runs: Sequence[Run], methods: Sequence[str]) -> Plot:
    drawn = [curve for curve in panel.curves if any(_points(run, curve[0]) for run in runs)]
    names = [f"{_STYLES[style]}: {name}" for _, style, name in drawn if name]

    def draw(axes) -> None:
        for method in methods:
            label: str | None = method
            for key, style, _ in drawn:
                epochs, low, mean, high = _band([_points(run, key) for run in runs if run.method == method])
                if not epochs:
                    continue
                tint = colour(method, methods)
                low, mean, high = ([panel.factor * value for value in row] for row in (low, mean, high))
                if style == "-":
                    axes.fill_between(epochs, low, high, color=tint, alpha=0.14, lw=0)
                mark = "o" if len(epochs) == 1 else None
                axes.plot(epochs, mean, style, color=tint, lw=1.8, label=label, marker=mark)
                label = None
        if panel.log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("epoch" + (f"   ({', '.join(names)})" if len(names) > 1 else ""))
        axes.set_ylabel(panel.label)
        axes.margins(x=0.02)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.figure.legend(loc="outside lower center", ncols=min(4, len(methods)), frameon=False, fontsize=9)

    title = f"{panel.title} \u00b7 {corpus}"
    return Plot(title, f"{title} per epoch for {', '.join(methods)}", draw_svg(draw, (5.8, 3.7), title))


def _points(run: Run, key: str) -> dict[int, float]:
    """Value at each epoch, where there is a finite number."""
    values = {int(row["epoch"]): row.get(key) for row in run.epochs if "epoch" in row}
    return {e: float(v) for e, v in values.items() if isinstance(v, int | float) and abs(v) < float("inf")}


def _band(curves: Sequence[Mapping[int, float]]) -> tuple[list[int], list[float], list[float], list[float]]:
    """Epochs, and least, mean and greatest value over the runs that reached the epoch."""
    epochs = sorted({epoch for curve in curves for epoch in curve})
    columns = [[curve[epoch] for curve in curves if epoch in curve] for epoch in epochs]
    return epochs, [min(c) for c in columns], [sum(c) / len(c) for c in columns], [max(c) for c in columns]


def colour(method: str, methods: Sequence[str]) -> str:
    """Colour of a method, the same in every plot of a report."""
    return _COLOURS[list(methods).index(method) % len(_COLOURS)]


def draw_svg(draw: Callable, size: tuple[float, float], title: str) -> str:
    """SVG of one pair of axes that `draw` fills; the same input gives the same text."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold", pad=10)
        draw(axes)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
