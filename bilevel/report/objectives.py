"""Trainings with several objectives: whether they conflict, in which level, and what weight each one got."""

from collections.abc import Mapping, Sequence

from bilevel.report.plots import Panel, Plot, Series, colour, curve_plots, points, series_plot
from bilevel.report.runs import Run, methods_of
from bilevel.report.tables import NONE, Cell, Table, fold_empty, mean_and_range


def objectives_of(run: Run) -> list[str]:
    """Names of the objectives: those that have a loss and a weight in some epoch; none for other trainings."""
    keys = dict.fromkeys(key for row in run.epochs for key in row)
    return [key[5:] for key in keys if key.startswith("loss_") and f"weight_{key[5:]}" in keys]


def levels_of(run: Run) -> dict[str, list[str]]:
    """Level -> its objectives, in the order of the levels; objectives in no known level stand under "".

    Of a training that has not recorded its levels, those that were logged are known by name; one alone has all.
    """
    names = objectives_of(run)
    found = {level: [name for name in own if name in names] for level, own in run.levels.items()}
    if not found:
        found = {level: [] for level in _logged_levels(run)}
        if len(found) == 1:
            return dict.fromkeys(found, names)
    left = [name for name in names if not any(name in own for own in found.values())]
    return {**found, "": left} if left else found


def level_table(runs: Sequence[Run]) -> Table:
    """One row for each method and level: its objectives, scale, and how they agree."""
    rows = []
    for (corpus, method), own in _groups(runs).items():
        levels = _levels(own)
        last = [run.epochs[-1] for run in own]
        passes = [float(run.cost["passes"]) for run in own if "passes" in run.cost]
        mean_passes = [sum(passes) / len(passes)] if passes else []
        for level, names in levels.items():
            if not level:
                continue
            curves = [points(run, f"cosine_{level}") for run in own]
            means = [sum(curve.values()) / len(curve) for curve in curves if curve]
            below = [sum(v < 0 for v in curve.values()) / len(curve) for curve in curves if curve]
            cells = [mean_and_range(_values(last, f"scale_{level}"), 1, ".2f")]
            cells += [mean_and_range(_values(last, f"cosine_{level}"), 1, ".3f"), mean_and_range(means, 1, ".3f")]
            cells += [mean_and_range(below, 100, ".0f"), mean_and_range(mean_passes, 1, ",.0f")]
            head = [Cell(corpus), Cell(method), Cell(str(len(own)), len(own)), Cell(level)]
            rows.append([*head, Cell(", ".join(names) or NONE), *cells])
    note = (
        "Cosine between the gradients of two objectives, mean over the pairs of a level: below 0 a step for one harms "
        "the other. A level of one objective has none. Mean over runs, and range. Scale and the first cosine "
        "are of the last epoch, the mean is over all epochs; below 0 is the share of epochs with a cosine below 0; "
        "passes are of the whole training, all levels together."
    )
    cosines = ("Cosine, end", "Cosine, mean", "Below 0, %")
    header = ("Corpus", "Method", "Runs", "Level", "Objectives", "Scale \u03b7", *cosines, "Passes")
    return fold_empty(header, rows, note, ("Corpus", "Runs"))


def weight_table(runs: Sequence[Run]) -> Table:
    """One row for each method and objective: weight, share of the step and of the audio, loss."""
    rows = []
    for (corpus, method), own in _groups(runs).items():
        last = [run.epochs[-1] for run in own]
        for level, names in _levels(own).items():
            for name in names:
                steps = [_share(row, "contribution_", name) for row in last]
                audio = [sum(points(run, f"mix_{name}").values()) / len(run.epochs) for run in own if _mixes(run)]
                cells = [mean_and_range(_values(last, f"weight_{name}"), 1, ".3f")]
                cells += [mean_and_range([v for v in steps if v is not None], 100, ".0f")]
                cells += [mean_and_range(audio, 100, ".0f")]
                cells += [mean_and_range(_values(last, f"valid_loss_{name}"), 1, ".3f")]
                rows.append([Cell(corpus), Cell(method), Cell(level or NONE), Cell(name), *cells])
    note = (
        "Weight is \u03b7 \u03bb, what an objective's gradient counts in a step; the share of the step is weight times "
        "norm of the gradient, of the sum over objectives. Mean over runs, and range, of the last epoch; the share of "
        "the audio is of the whole training. Losses compare only between methods with the same objective."
    )
    cells = ("Weight", "Share of step %", "Share of audio %", "Validation loss")
    header = ("Corpus", "Method", "Level", "Objective", *cells)
    return fold_empty(header, rows, note)


def objective_plots(runs: Sequence[Run], methods: Sequence[str]) -> list[Plot]:
    """Curves: weights, a plot a method; cosines and scales, a plot a level; losses, a plot an objective.

    Scales that never change in any run have no plot.

    Args:
        runs: All runs; those with one objective are passed over.
        methods: Of the whole report, whose places are the colours.
    """
    own = [run for run in runs if objectives_of(run)]
    names = list(dict.fromkeys(name for run in own for name in objectives_of(run)))
    levels = list(dict.fromkeys(level for run in own for level in _logged_levels(run)))
    panels = [Panel(f"Cosine in level {v}", "mean over pairs", ((f"cosine_{v}", "-", ""),)) for v in levels]
    moving = [v for v in levels if any(len(set(points(run, f"scale_{v}").values())) > 1 for run in own)]
    panels += [Panel(f"Scale of level {v}", "\u03b7", ((f"scale_{v}", "-", ""),)) for v in moving]
    for name in names:
        curves = ((f"loss_{name}", "-", "training"), (f"valid_loss_{name}", "--", "validation"))
        panels.append(Panel(f"Loss of {name}", "loss", curves))
    return _weight_plots(own, names) + curve_plots(own, panels, methods)


def _weight_plots(runs: Sequence[Run], names: Sequence[str]) -> list[Plot]:
    """Here objectives have the colours, as one plot shows one method."""
    plots = []
    for (corpus, method), own in _groups(runs).items():
        series = [
            Series(name, colour(name, names), [("-", [points(run, f"weight_{name}") for run in own])])
            for name in names
            if any(points(run, f"weight_{name}") for run in own)
        ]
        title = f"Weights of objectives: {method} \u00b7 {corpus}"
        plots.append(series_plot(title, Panel(title, "weight \u03b7 \u03bb", (("weight", "-", ""),)), series))
    return plots


def _groups(runs: Sequence[Run]) -> dict[tuple[str, str], list[Run]]:
    """Trainings with several objectives by (corpus, method), in report order."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for corpus in sorted({run.corpus for run in runs}):
        for method in methods_of(runs):
            own = [run for run in runs if (run.corpus, run.method) == (corpus, method) and objectives_of(run)]
            if own:
                groups[corpus, method] = own
    return groups


def _levels(runs: Sequence[Run]) -> dict[str, list[str]]:
    """`levels_of` of all runs of a method."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for level, names in levels_of(run).items():
            known = found.setdefault(level, [])
            known += [name for name in names if name not in known]
    return found


def _logged_levels(run: Run) -> list[str]:
    keys = dict.fromkeys(key for row in run.epochs for key in row)
    return [key[6:] for key in keys if key.startswith("scale_")]


def _values(rows: Sequence[Mapping], key: str) -> list[float]:
    return [float(row[key]) for row in rows if row.get(key) is not None]


def _share(row: Mapping, prefix: str, name: str) -> float | None:
    """One objective's part of the sum over all; None where it has none."""
    whole = sum(value for key, value in row.items() if key.startswith(prefix) and value is not None)
    return row[prefix + name] / whole if whole and row.get(prefix + name) is not None else None


def _mixes(run: Run) -> bool:
    return any(key.startswith("mix_") for row in run.epochs for key in row)
