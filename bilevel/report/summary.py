"""Runs of one method put together, and methods put against the baseline."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bilevel.report.runs import Decoding, Run, method_order
from bilevel.scoring.result import METRICS
from bilevel.scoring.significance import Comparison, compare_runs, mean_interval

# Words in the names of sets that say what a set is for.
_SPLITS = ("train", "dev", "valid", "test", "eval")
# Decodings of a model with several objectives: <decoding>_asr_<language> and <decoding>_st_<language>_<target>.
_OBJECTIVE = re.compile(r"(.+)_(?:asr_([^_]+)|st_([^_]+)_([^_]+))")


@dataclass(frozen=True)
class Summary:
    """One method on one set: mean over its runs.

    Attributes:
        key: (corpus, set, metric, decoding); what `_place` makes of the last two.
        method: Training method.
        seeds: Seed of each run.
        decodings: Result of each run.
        low: Lower end of the 95 % interval of the mean, or None when several runs lack score files.
        high: Upper end of it.
    """

    key: tuple[str, str, str, str]
    method: str
    seeds: tuple[int, ...]
    decodings: tuple[Decoding, ...]
    low: float | None
    high: float | None

    @property
    def values(self) -> tuple[float, ...]:
        """Value of each run."""
        return tuple(d.value for d in self.decodings)

    @property
    def mean(self) -> float:
        """Mean over the runs."""
        return sum(self.values) / len(self.values)


def summarise(runs: Sequence[Run]) -> list[Summary]:
    """One summary for each set, metric, decoding and method of recognition and translation, in report order."""
    groups: dict[tuple, list[tuple[int, Decoding]]] = {}
    for run in (run for run in runs if run.kind == "recognition"):
        for d in run.decodings:
            name, decode = _place(d)
            key = (d.corpus, name, _metric_order(d.metric), d.metric, decode, run.method)
            groups.setdefault(key, []).append((run.seed, d))
    summaries = []
    for key in sorted(groups, key=lambda key: (*key[:-1], method_order(key[-1]))):
        corpus, name, _, metric, decode, method = key
        seeds, decodings = zip(*groups[key], strict=True)
        summaries.append(Summary((corpus, name, metric, decode), method, seeds, decodings, *_interval(decodings)))
    return summaries


def averages(summaries: Sequence[Summary]) -> list[Summary]:
    """Plain means over the sets of one corpus, metric and decoding, for instance its languages, in report order.

    Test sets and development sets are told apart by their names: test_de goes with test_fr, not with dev_de. A run
    counts with its mean over the sets; one that lacks a set does not count. There is no interval, and no mean of one
    set alone.
    """
    groups: dict[tuple, list[Summary]] = {}
    for s in summaries:
        corpus, name, metric, decode = s.key
        groups.setdefault((corpus, split_of(name), _metric_order(metric), metric, decode), []).append(s)
    means = []
    for (corpus, split, _, metric, decode), own in sorted(groups.items(), key=lambda item: item[0]):
        sets = {s.key[1] for s in own}
        if len(sets) < 2:
            continue
        key = (corpus, f"mean of {len(sets)} {split} sets".replace("  ", " "), metric, decode)
        for method in sorted({s.method for s in own}, key=method_order):
            rows = [dict(zip(s.seeds, s.decodings, strict=True)) for s in own if s.method == method]
            seeds = tuple(sorted(set.intersection(*(set(row) for row in rows)))) if len(rows) == len(sets) else ()
            if seeds:
                decodings = tuple(_mean_decoding(key, [row[seed] for row in rows]) for seed in seeds)
                means.append(Summary(key, method, seeds, decodings, None, None))
    return means


def against_baseline(
    summaries: Sequence[Summary], baseline: str | None = None
) -> list[tuple[Summary, Summary, Comparison | str]]:
    """(baseline, other, comparison) of each method and the baseline on the same set, over the seeds of both.

    Instead of a comparison stands the reason when there can be none.

    Args:
        summaries: In report order.
        baseline: Method that the others are compared with; sets where it has no run are left out. None: the first
            method of each set.

    Raises:
        ValueError: No method is called so; the message lists those there are.
    """
    methods = sorted({s.method for s in summaries}, key=method_order)
    if baseline is not None and baseline not in methods:
        there = f"expected one of {', '.join(methods)}" if methods else "there are no error rates to compare"
        raise ValueError(f"--baseline {baseline!r}: no recognition run of this method; {there}")
    first: dict[tuple, Summary] = {}
    for summary in summaries:
        if baseline in (None, summary.method):
            first.setdefault(summary.key, summary)
    pairs = [(first[s.key], s) for s in summaries if s.key in first and s is not first[s.key]]
    return [(a, b, _compare(a, b)) for a, b in pairs]


def paired(a: Summary, b: Summary) -> list[tuple[int, Decoding, Decoding]]:
    """Runs of equal seed that both have score files: (seed, of a, of b)."""
    of_b = dict(zip(b.seeds, b.decodings, strict=True))
    return [
        (seed, d, of_b[seed])
        for seed, d in zip(a.seeds, a.decodings, strict=True)
        if seed in of_b and d.folder is not None and of_b[seed].folder is not None
    ]


def _compare(a: Summary, b: Summary) -> Comparison | str:
    pairs = paired(a, b)
    if not pairs:
        return "no score files of equal seed"
    try:
        return compare_runs([d.score for _, d, _ in pairs], [d.score for _, _, d in pairs])
    except ValueError as error:
        return str(error)


def _interval(decodings: Sequence[Decoding]) -> tuple[float | None, float | None]:
    if len(decodings) == 1:
        return decodings[0].low, decodings[0].high
    if any(d.folder is None for d in decodings):
        return None, None
    try:
        return mean_interval([d.score for d in decodings])
    except ValueError as error:
        raise ValueError(f"{decodings[1].folder.parents[1]}: not comparable with other seeds of it: {error}") from None


def _place(d: Decoding) -> tuple[str, str]:
    """Set and decoding without objective: "fr_test to en", "beam" for set fr_test of decoding beam_st_fr_en.

    So the languages of one model stand under one decoding, and have a mean.
    """
    if found := _OBJECTIVE.fullmatch(d.decode):
        decode, recognised, source, target = found.groups()
        if d.set.startswith(f"{recognised or source}_"):
            return (f"{d.set} to {target}" if target else d.set), decode
    return d.set, d.decode


def _metric_order(metric: str) -> int:
    return list(METRICS).index(metric)


def split_of(name: str) -> str:
    """The word of `_SPLITS` in the name of a set, or ""."""
    return next((word for word in re.split(r"[^a-z]+", name.lower()) if word in _SPLITS), "")


def _mean_decoding(key: tuple[str, str, str, str], decodings: Sequence[Decoding]) -> Decoding:
    """What one run has on average over its sets."""
    corpus, name, metric, decode = key
    return Decoding(
        corpus=corpus,
        set=name,
        metric=metric,
        decode=decode,
        value=sum(d.value for d in decodings) / len(decodings),
        low=None,
        high=None,
        n_utts=sum(d.n_utts for d in decodings),
        signature=decodings[0].signature,
        folder=None,
    )
