"""The report's tables, as cells that Markdown and HTML both render."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bilevel.report.runs import Run, method_order
from bilevel.report.summary import Summary, against_baseline, averages, split_of
from bilevel.scoring.result import METRICS

NONE = "\u2013"
MINUS = "\u2212"
# Columns that go into the note when all their cells are the same.
_FOLDED = ("Corpus", "Decoding", "Against", "Seeds")


class Cell(NamedTuple):
    """Text of a cell, the number it sorts by (None sorts by text), and whether it is the best of its kind."""

    text: str
    order: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table: column names, rows of cells, and a note that says how to read it."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str


def methods_table(summaries: Sequence[Summary]) -> Table:
    """Every method on every set, then on average over sets: mean, interval, range over seeds."""
    rows = []
    signatures = sorted({d.signature for s in summaries for d in s.decodings})
    metrics = [metric for metric in METRICS if any(s.key[2] == metric for s in summaries)]
    means = averages(summaries)
    summaries = sorted([*summaries, *means], key=lambda s: s.key[0])
    groups: dict[tuple, list[float]] = {}
    for s in summaries:
        groups.setdefault(s.key, []).append(s.mean)
    best = {key: (max if METRICS[key[2]].more_is_better else min)(values) for key, values in groups.items()}
    for s in summaries:
        corpus, name, metric, decode = s.key
        spread = f"{rate(min(s.values), metric)} \u2013 {rate(max(s.values), metric)}" if len(s.values) > 1 else NONE
        rows.append(
            (
                *_names(corpus, name, decode),
                Cell(METRICS[metric].label),
                Cell(s.method),
                Cell(rate(s.mean, metric), s.mean, best=s.mean == best[s.key]),
                Cell(NONE if s.low is None else f"{rate(s.low, metric)} \u2013 {rate(s.high, metric)}", s.low),
                Cell(spread, max(s.values) - min(s.values)),
                Cell(str(len(s.seeds)), len(s.seeds)),
                Cell(f"{s.decodings[0].n_utts:,}", s.decodings[0].n_utts),
            )
        )
    header = (
        "Corpus",
        "Set",
        "Decoding",
        "Metric",
        "Method",
        "Mean",
        "95 % interval",
        "Range over seeds",
        "Seeds",
        "Utt.",
    )
    note = (
        f"Mean over seeds; {_directions(metrics)}. The interval is a bootstrap over utterances; it does not cover the "
        f"choice of seed, which the range shows. Signatures: {'; '.join(signatures)}."
    )
    if means:
        note = f"Rows of several sets are plain means over them. {note}"
    return fold(header, rows, note)


def overview_tables(summaries: Sequence[Summary]) -> list[tuple[str, Table]]:
    """(metric, table) of the corpora that have a mean over sets: a row a method, a column a set, then the mean.

    Development sets show where a corpus has several of them and no several test sets.
    """
    means = averages(summaries)
    keys = {(s.key[0], split_of(s.key[1])) for s in means}
    held_out = {corpus for corpus, split in keys if split in ("test", "eval")}
    keys = {key for key in keys if key[1] in ("test", "eval") or key[0] not in held_out}
    shown = [s for s in [*summaries, *means] if (s.key[0], split_of(s.key[1])) in keys]
    tables = []
    for corpus in sorted({corpus for corpus, _ in keys}):
        for metric, facts in METRICS.items():
            if own := [s for s in shown if (s.key[0], s.key[2]) == (corpus, metric)]:
                title = facts.label if len({c for c, _ in keys}) == 1 else f"{facts.label}, {corpus}"
                tables.append((title, _overview(own, metric)))
    return tables


def _overview(summaries: Sequence[Summary], metric: str) -> Table:
    """Sets of one corpus and metric side by side."""
    sets = list(dict.fromkeys(s.key[1] for s in summaries))
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for s in sorted(summaries, key=lambda s: (s.key[3], method_order(s.method))):
        rows.setdefault((s.key[3], s.method), {})[s.key[1]] = s.mean
    best = {
        name: (max if METRICS[metric].more_is_better else min)(row[name] for row in rows.values() if name in row)
        for name in sets
    }
    cells = [
        [Cell(decode.removeprefix("decode_") or NONE), Cell(method), *(_rate(row, name, metric, best) for name in sets)]
        for (decode, method), row in rows.items()
    ]
    return fold(("Decoding", "Method", *sets), cells, f"Means over seeds; {_directions([metric])}.")


def _rate(row: Mapping[str, float], name: str, metric: str, best: Mapping[str, float]) -> Cell:
    return Cell(rate(row[name], metric), row[name], row[name] == best[name]) if name in row else Cell(NONE)


def significance_table(summaries: Sequence[Summary], baseline: str | None = None) -> Table:
    """Every method against the baseline (by default the first one there) on the same set, by utterance and seed."""
    rows = []
    metrics = [metric for metric in METRICS if any(s.key[2] == metric for s in summaries)]
    for first, other, result in against_baseline(summaries, baseline):
        corpus, name, metric, decode = other.key
        names = (*_names(corpus, name, decode), Cell(METRICS[metric].label), Cell(other.method), Cell(first.method))
        if isinstance(result, str):
            rows.append((*names, *[Cell(NONE)] * 4, Cell(result)))
            continue
        of_first = dict(zip(first.seeds, first.values, strict=True))
        better = sum(
            METRICS[metric].better(value, of_first[seed])
            for seed, value in zip(other.seeds, other.values, strict=True)
            if seed in of_first
        )
        rows.append(
            (
                *names,
                Cell(_signed(result.difference, metric), result.difference),
                Cell(f"{_signed(result.low, metric)} \u2026 {_signed(result.high, metric)}", result.low),
                Cell("< 0.001" if result.p_value < 0.001 else f"{result.p_value:.3f}", result.p_value),
                Cell(f"{better} of {result.n_runs}", better / result.n_runs),
                Cell(result.verdict),
            )
        )
    result_names = ("Difference", "95 % interval", "p", "Seeds better", "Verdict")
    header = ("Corpus", "Set", "Decoding", "Metric", "Method", "Against", *result_names)
    note = (
        f"Difference in points, method minus baseline; {_directions(metrics)}. Paired bootstrap over utterances, mean "
        "over the seeds that both have; p is two-sided, not corrected for many comparisons."
    )
    met = {s.key for s in summaries if baseline in (None, s.method)}
    if unmet := sorted({f"{s.key[0]} / {s.key[1]}" for s in summaries if s.key not in met}):
        note += f" Not compared, as {baseline} has no run there: {', '.join(unmet)}."
    return fold(header, rows, note)


def cost_table(runs: Sequence[Run]) -> Table:
    """What each method costs, mean over its runs; in seconds where no run took a tenth of an hour."""
    longest_sec = max((run.cost.get("wall_sec", 0.0) for run in runs), default=0.0)
    unit_sec, unit, time_form = (3600, "h", ",.2f") if longest_sec >= 360 else (1, "s", ",.1f")
    columns = (
        ("Updates", "updates", 1, ",.0f"),
        ("Passes", "passes", 1, ",.0f"),
        ("Audio h", "audio_hours", 1, ",.1f"),
        (f"CPU {unit}", "cpu_sec", unit_sec, time_form),
        (f"Wall {unit}", "wall_sec", unit_sec, time_form),
        ("Peak MB", "peak_mem_mb", 1, ",.0f"),
    )
    rows = []
    groups: dict[tuple[str, bool, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.corpus, run.kind == "pretraining", run.method), []).append(run)
    for corpus, pretraining, method in sorted(groups, key=lambda key: (*key[:2], method_order(key[2]))):
        own = groups[corpus, pretraining, method]
        shown = f"{method} (pre-training)" if pretraining else method
        cells = [Cell(corpus), Cell(shown), Cell(str(len(own)), len(own))]
        cells.append(_mean([run.params for run in own if run.params is not None], 1e6, ",.2f"))
        cells += [_mean([r.cost[key] for r in own if key in r.cost], size, form) for _, key, size, form in columns]
        rows.append(tuple(cells))
    header = ("Corpus", "Method", "Runs", "Parameters M", *(name for name, *_ in columns))
    note = "Mean of a run. A pass is one forward and backward of the encoder over one batch; audio counts every pass."
    if any(run.kind == "pretraining" for run in runs):
        note += " Recognition from a pre-training does not count the pre-training."
    return Table(header, tuple(rows), note)


def rate(value: float, metric: str) -> str:
    """Error rates as per cent, BLEU and chrF as they are."""
    return f"{METRICS[metric].factor * value:.2f}"


def fold(header: Sequence[str], rows: Sequence[Sequence[Cell]], note: str, folded: Sequence[str] = _FOLDED) -> Table:
    """Move those columns of `folded` that say the same everywhere into the note."""
    same = [n for n, name in enumerate(header) if rows and name in folded and len({row[n].text for row in rows}) == 1]
    facts = [f"{header[n]}: {rows[0][n].text}." for n in same]
    kept = [n for n in range(len(header)) if n not in same]
    cells = tuple(tuple(row[n] for n in kept) for row in rows)
    return Table(tuple(header[n] for n in kept), cells, " ".join([*facts, note]))


def fold_empty(
    header: Sequence[str], rows: Sequence[Sequence[Cell]], note: str, folded: Sequence[str] = _FOLDED
) -> Table:
    """`fold`, without the columns that no row fills."""
    kept = [n for n in range(len(header)) if any(row[n].text != NONE for row in rows)]
    return fold([header[n] for n in kept], [[row[n] for n in kept] for row in rows], note, folded)


def mean_and_range(values: Sequence[float], factor: float, form: str) -> Cell:
    """Mean and, where values differ in what is shown, the range; shown is factor times value."""
    if not values:
        return Cell(NONE)
    if not all(map(math.isfinite, values)):
        return Cell("not finite")
    low, mean, high = (factor * value for value in (min(values), sum(values) / len(values), max(values)))
    low, shown, high = (f"{value:z{form}}".replace("-", MINUS) for value in (low, mean, high))
    return Cell(shown if low == high else f"{shown} ({low} \u2013 {high})", mean)


def _names(corpus: str, name: str, decode: str) -> tuple[Cell, Cell, Cell]:
    return Cell(corpus), Cell(name), Cell(decode.removeprefix("decode_") or NONE)


def _directions(metrics: Sequence[str]) -> str:
    """Which way is better, for the notes: "less is better (WER, CER), more is better (BLEU)"."""
    names = {more: [METRICS[m].name for m in metrics if METRICS[m].more_is_better == more] for more in (False, True)}
    return ", ".join(f"{'more' if more else 'less'} is better ({', '.join(n)})" for more, n in names.items() if n)


def _signed(value: float, metric: str) -> str:
    return f"{METRICS[metric].factor * value:+.2f}".replace("-", MINUS)


def _mean(values: Sequence[float], unit: float, form: str) -> Cell:
    if not values:
        return Cell(NONE, -1.0)
    mean = sum(values) / len(values)
    return Cell(f"{mean / unit:{form}}", mean)
