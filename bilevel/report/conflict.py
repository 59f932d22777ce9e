"""How objectives agree in each layer: heat maps of cosines, and a table of the worst."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bilevel.report.plots import Plot, draw_svg
from bilevel.report.runs import Run, methods_of
from bilevel.report.tables import MINUS, NONE, Cell, Table, fold

# Cosines of gradients are small: the same colours in every map, from here on the darkest. Orange and purple differ with
# any colour vision.
_RANGE = 0.5
_PALETTE, _UNKNOWN = "PuOr", "#b4bac2"
# Of a figure: inches that labels and the colour bar take, and the points that a number needs.
_MARGIN_IN, _NUMBER_PT = 2.6, 22
_MAX_PAIRS_NARROW, _MAX_LAYER_NAMES, _N_STEPS = 8, 40, 6


@dataclass(frozen=True)
class Conflict:
    """Cosines of pairs of objectives, from all runs of a method.

    Attributes:
        corpus: Corpus of the runs.
        method: Their method.
        n_runs: How many there are.
        layers: L names, front to back, without the part that all share.
        pairs: P pairs of objectives.
        steps: S steps at which records end.
        cosines: (runs, S, L, P), nan where a pair was never found together.
        shares: (runs, S, L, P, 2) signal in the gradients of a pair; nan where it is unknown.
    """

    corpus: str
    method: str
    n_runs: int
    layers: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    steps: tuple[int, ...]
    cosines: np.ndarray
    shares: np.ndarray

    @property
    def by_pair(self) -> np.ndarray:
        """(L, P) mean over training and runs."""
        return _mean(self.cosines, (0, 1))

    @property
    def without_noise(self) -> np.ndarray:
        """(L, P) mean cosine corrected for attenuation, of records with both shares; nan if a mean share is below 0."""
        known = np.isfinite(self.shares).all(-1)
        cosines, signal = (
            _mean(np.where(mask, values, np.nan), (0, 1))
            for mask, values in ((known, self.cosines), (known[..., None], self.shares))
        )
        return cosines / np.sqrt(np.where(signal > 0, signal, np.nan).prod(-1))

    @property
    def signal(self) -> np.ndarray:
        """(L, P, 2) mean share of signal in the gradients of a pair."""
        return _mean(self.shares, (0, 1))

    @property
    def by_step(self) -> np.ndarray:
        """(L, S) mean over pairs and runs."""
        return _mean(self.cosines, (0, 3)).T

    @property
    def least(self) -> tuple[float, str, str]:
        """Least mean over training, its pair and its layer."""
        return self.least_of(self.by_pair)

    def least_of(self, means: np.ndarray) -> tuple[float, str, str]:
        """Least of (L, P), its pair and its layer."""
        layer, pair = np.unravel_index(np.nanargmin(means), means.shape)
        return float(means[layer, pair]), pair_name(self.pairs[pair]), self.layers[layer]


def conflicts(runs: Sequence[Run]) -> list[Conflict]:
    """One for each corpus and method with records of conflict that are not empty, in report order."""
    found = []
    for corpus in sorted({run.corpus for run in runs}):
        for method in methods_of(runs):
            own = [r for r in runs if (r.corpus, r.method) == (corpus, method) and r.conflict.get("records")]
            conflict = _merge(corpus, method, own) if own else None
            if conflict is not None and np.isfinite(conflict.cosines).any():
                found.append(conflict)
    return found


def conflict_table(runs: Sequence[Run]) -> Table:
    """One row a method: how many pairs and layers disagree, and the pair and layer that disagree most."""
    rows = []
    for c in conflicts(runs):
        means = c.by_pair
        least, pair, layer = c.least
        cells = [_share(_mean(means, (axis,)), names) for axis, names in ((0, c.pairs), (1, c.layers))]
        mean = float(np.nanmean(means))
        cosines = [Cell(_signed(mean, 3), mean), *cells, Cell(_signed(least, 3), least)]
        own = [Cell(c.corpus), Cell(c.method), Cell(str(c.n_runs), c.n_runs)]
        rows.append([*own, *cosines, Cell(pair), Cell(layer), *_without_noise(c)])
    note = (
        "Cosines between the gradients of two objectives, mean over training and runs, of all pairs, also of those in "
        "different levels; below 0 a step for one harms the other. Pairs count by their mean over layers, layers by "
        "their mean over pairs. Noise of small batches draws cosines to 0: signal is the part of a gradient's squared "
        "length that two independent batches share, and corrected cosines are those without noise."
    )
    counts = ("Pairs below 0", "Layers below 0")
    corrected = ("Signal %", "Corrected mean", "Corrected least")
    header = ("Corpus", "Method", "Runs", "Mean cosine", *counts, "Least cosine", "Its pair", "Its layer", *corrected)
    return fold(header, rows, note, ("Corpus", "Runs"))


def _without_noise(c: Conflict) -> list[Cell]:
    """Share of signal, and what the cosines are without noise: mean, and least with its pair; dashes where unknown."""
    cosines = c.without_noise
    if np.isnan(cosines).all():
        return [Cell(NONE)] * 3
    share, mean, (least, pair, _) = 100 * float(np.nanmean(c.signal)), float(np.nanmean(cosines)), c.least_of(cosines)
    return [
        Cell(f"{share:.0f}", share),
        Cell(_signed(mean, 2), mean),
        Cell(f"{_signed(least, 2)}, {pair}", least),
    ]


def conflict_plots(runs: Sequence[Run]) -> list[Plot]:
    """Layers by pairs for each method, as found and without noise, then layers by steps for each method."""
    found = conflicts(runs)
    corrected = [pair_plot(c, corrected=True) for c in found if np.isfinite(c.without_noise).any()]
    return [*map(pair_plot, found), *corrected, *map(step_plot, found)]


def pair_plot(c: Conflict, corrected: bool = False) -> Plot:
    """Layers by pairs of objectives, mean over training and runs, with numbers where there is room."""
    title = f"Conflict {'without noise' if corrected else 'between objectives'} \u00b7 {c.method} \u00b7 {c.corpus}"
    cosines = c.without_noise if corrected else c.by_pair
    wide = len(c.pairs) > _MAX_PAIRS_NARROW
    width = 11.9 if wide else 5.8
    room_pt = 72 * (width - _MARGIN_IN) / len(c.pairs)

    def draw(axes) -> None:
        _heat(axes, cosines, c.layers, numbers=room_pt >= _NUMBER_PT and len(c.layers) <= _MAX_LAYER_NAMES)
        names = [pair_name(pair) for pair in c.pairs]
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)

    least, pair, layer = c.least_of(cosines)
    below = _share(cosines.ravel(), cosines.ravel()).text
    alt = (
        f"{title}: mean cosine of gradients in {len(c.layers)} layers, from front to back, for {len(c.pairs)} pairs; "
        f"least {_signed(least, 2)}, {pair} in {layer}; {below} cells below 0"
    )
    return Plot(title, alt, draw_svg(draw, (width, _height(c) + 1.0), title), wide)


def step_plot(c: Conflict) -> Plot:
    """Layers by steps, mean over pairs and runs."""
    title = f"Conflict over training \u00b7 {c.method} \u00b7 {c.corpus}"

    def draw(axes) -> None:
        _heat(axes, c.by_step, c.layers, numbers=False)
        places = sorted({round(i) for i in np.linspace(0, len(c.steps) - 1, _N_STEPS)})
        axes.set_xticks(places, [f"{c.steps[i]:,}" for i in places])
        axes.set_xlabel("step")

    first, last = (float(np.nanmean(column)) for column in _ends(c.by_step))
    alt = (
        f"{title}: cosine of gradients, mean over pairs, in {len(c.layers)} layers over {c.steps[-1]:,} steps; "
        f"mean over layers {_signed(first, 2)} at first, {_signed(last, 2)} at last"
    )
    return Plot(title, alt, draw_svg(draw, (5.8, _height(c)), title))


def pair_name(pair: Sequence[str]) -> str:
    """A pair as people read it."""
    return " \u00b7 ".join(pair)


def _merge(corpus: str, method: str, runs: Sequence[Run]) -> Conflict:
    """Put the records of several runs together by names and steps; they may lack some of each other's."""
    records = [(n, r["step"], run.conflict, r) for n, run in enumerate(runs) for r in run.conflict["records"]]
    layers = list(dict.fromkeys(name for run in runs for name in run.conflict["layers"]))
    pairs = list(dict.fromkeys(tuple(pair) for run in runs for pair in run.conflict["pairs"]))
    steps = sorted({step for _, step, _, _ in records})
    cosines = np.full((len(runs), len(steps), len(layers), len(pairs)), np.nan)
    shares = np.full((*cosines.shape, 2), np.nan)
    for n, step, facts, record in records:
        place = np.ix_([layers.index(v) for v in facts["layers"]], [pairs.index(tuple(p)) for p in facts["pairs"]])
        cosines[n, steps.index(step)][place] = np.array(record["cosine"], dtype=float)
        if "signal_share" in record:
            own = [[facts["objectives"].index(name) for name in pair] for pair in facts["pairs"]]
            shares[n, steps.index(step)][place] = np.array(record["signal_share"], dtype=float)[:, own]
    return Conflict(corpus, method, len(runs), _shortened(layers), tuple(pairs), tuple(steps), cosines, shares)


def _shortened(names: Sequence[str]) -> tuple[str, ...]:
    """Without the leading parts that all share, but the last part stays."""
    parts = [name.split(".") for name in names]
    shortest = min(map(len, parts)) - 1
    differs = (i for i, column in enumerate(zip(*parts, strict=False)) if len(set(column)) > 1)
    n_shared = min(next(differs, shortest), shortest)
    return tuple(".".join(part[n_shared:]) for part in parts)


def _mean(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Mean of what is not nan; nan where nothing is."""
    seen = np.isfinite(values)
    counts = seen.sum(axes)
    return np.where(counts > 0, np.where(seen, values, 0.0).sum(axes) / np.maximum(counts, 1), np.nan)


def _share(means: np.ndarray, everything: Sequence) -> Cell:
    """How many are below 0."""
    below = int((means < 0).sum())
    return Cell(f"{below} of {len(everything)}", below / len(everything))


def _ends(by_step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last column that knows anything."""
    known = [column for column in by_step.T if np.isfinite(column).any()]
    return known[0], known[-1]


def _height(c: Conflict) -> float:
    """Inches of a map with a title and one line of labels."""
    return 1.1 + 0.21 * min(max(len(c.layers), 6), _MAX_LAYER_NAMES)


def _heat(axes, values: np.ndarray, layers: Sequence[str], numbers: bool) -> None:
    """Fill the axes with (L, K) cosines, and name the layers."""
    from matplotlib import colormaps

    tints = colormaps[_PALETTE].with_extremes(bad=_UNKNOWN)
    image = axes.imshow(values, cmap=tints, vmin=-_RANGE, vmax=_RANGE, aspect="auto", interpolation="none")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    every = -(-len(layers) // _MAX_LAYER_NAMES)
    axes.set_yticks(range(0, len(layers), every), layers[::every], fontsize=8)
    axes.set_ylabel("layer, front to back")
    if numbers:
        for (row, column), value in np.ndenumerate(values):
            red, green, blue, _ = image.to_rgba(value)
            ink = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "#22262b"  # by the eye's brightness
            text = _signed(value, 2) if np.isfinite(value) else "\u2013"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)
    bar = axes.figure.colorbar(image, ax=axes, extend="both", pad=0.015, aspect=24)
    bar.set_label("cosine; grey: unknown" if np.isnan(values).any() else "cosine")
    bar.outline.set_visible(False)


def _signed(value: float, digits: int) -> str:
    return f"{value:z.{digits}f}".replace("-", MINUS)
