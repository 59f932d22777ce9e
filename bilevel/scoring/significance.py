"""Is one system better than another? Paired bootstrap on the same references.

Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from bilevel.scoring import bleu
from bilevel.scoring.bootstrap import draws, group_sums, interval, resampled_sums, two_sided_p
from bilevel.scoring.result import METRICS, RATES, Score


@dataclass(frozen=True)
class Comparison:
    """Difference of two systems, second minus first, in the unit of the metric.

    Attributes:
        metric: A key of `METRICS`, which says whether more or less is better.
        value_a: Value of the first system (the mean over its runs).
        value_b: Value of the second system.
        difference: value_b - value_a.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end of it.
        p_value: Two-sided p-value of "no difference".
        n_utts: Utterances compared.
        n_runs: Pairs of runs that were averaged.
        signature: How it was computed.
    """

    metric: str
    value_a: float
    value_b: float
    difference: float
    low: float
    high: float
    p_value: float
    n_utts: int
    n_runs: int
    signature: str

    @property
    def verdict(self) -> str:
        """What the second system is: "better" or "worse" (p < 0.05), else "not significant"."""
        if self.p_value >= 0.05:
            return "not significant"
        return "better" if METRICS[self.metric].better(self.difference, 0) else "worse"

    def to_json(self) -> dict[str, object]:
        """Plain types, the verdict among them."""
        return asdict(self) | {"verdict": self.verdict}


def compare(a: Score, b: Score, *, resample: str = "utterance", n_bootstrap: int = 10000, seed: int = 0) -> Comparison:
    """Paired bootstrap of two scores, see `compare_runs`."""
    return compare_runs([a], [b], resample=resample, n_bootstrap=n_bootstrap, seed=seed)


def compare_runs(
    a: Sequence[Score],
    b: Sequence[Score],
    *,
    resample: str = "utterance",
    n_bootstrap: int = 10000,
    seed: int = 0,
) -> Comparison:
    """Paired bootstrap of two systems, each of which may have several runs (seeds).

    Utterances (or speakers) are drawn with replacement, the same draw for all runs of both systems, and the metric is
    computed anew from the sums of their counts. With several runs the interval is that of the mean difference of these
    very runs on other utterances, not on other seeds. In error rates, empty references take no part.

    Args:
        a: Runs of the first system.
        b: Runs of the second system, as many as of the first.
        resample: What is drawn, "utterance" or "speaker".
        n_bootstrap: Number of resamples.
        seed: Seed of the resampling.

    Raises:
        ValueError: The references, metrics or normal forms differ, or speakers are missing.
    """
    if not a or len(a) != len(b):
        raise ValueError(f"expected as many runs of both systems, found {len(a)} and {len(b)}")
    if resample not in ("utterance", "speaker"):
        raise ValueError(f"resample {resample!r}: expected utterance or speaker")
    for other in (*a[1:], *b):
        _check_same(a[0], other)
    ids = a[0].scored_ids
    statistics = np.concatenate([_statistics(a, ids), _statistics(b, ids)], axis=2)
    if resample == "speaker":
        statistics = _by_speaker(statistics, ids, a[0])
    value_a, value_b = _halves(_values(statistics.sum(axis=0, keepdims=True), a[0].metric))[:, 0].tolist()
    resampled = _halves(_resampled(statistics, a[0].metric, n_bootstrap, seed))
    differences = resampled[1] - resampled[0]
    low, high = interval(differences)
    return Comparison(
        metric=a[0].metric,
        value_a=value_a,
        value_b=value_b,
        difference=value_b - value_a,
        low=low,
        high=high,
        p_value=two_sided_p(differences),
        n_utts=len(ids),
        n_runs=len(a),
        signature=f"paired|{_form(a[0])}|{draws(n_bootstrap, resample, seed)}",
    )


def _statistics(runs: Sequence[Score], ids: Sequence[str]) -> np.ndarray:
    """Counts of each run, (n_utts, n_counts, n_runs)."""
    counts = np.stack([run.statistics(ids) for run in runs], axis=2)
    # Runs share their references, so the rate of summed errors is the mean of the rates, with less to draw.
    return counts.sum(axis=2, keepdims=True) if runs[0].metric in RATES else counts


def _values(sums: np.ndarray, metric: str) -> np.ndarray:
    """Metric of sums, (n, n_counts, n_runs), as (n, n_runs)."""
    if metric in RATES:
        return sums[:, 0] / sums[:, 1]
    n, n_counts, n_runs = sums.shape
    return bleu.values(metric, sums.transpose(0, 2, 1).reshape(-1, n_counts)).reshape(n, n_runs)


def _resampled(statistics: np.ndarray, metric: str, n_bootstrap: int, seed: int) -> np.ndarray:
    """Values of each run on resampled units, (n_bootstrap, n_runs)."""
    columns = statistics.reshape(len(statistics), -1)
    sums = resampled_sums(columns, n_bootstrap=n_bootstrap, seed=seed)
    return _values(sums.reshape(-1, *statistics.shape[1:]), metric)


def _halves(values: np.ndarray) -> np.ndarray:
    """Mean over the runs of the first and of the second system: (n, 2 n_runs) gives (2, n)."""
    return values.reshape(len(values), 2, -1).mean(axis=2).T


def _form(score: Score) -> str:
    """The part of a signature that two scores must share: metric, normal form, tokens."""
    return score.signature.split("|boot:")[0]


def _check_same(a: Score, b: Score) -> None:
    if _form(a) != _form(b):
        raise ValueError(f"scored in different ways, {_form(a)} and {_form(b)}; score both with the same options")
    alone = sorted(a.utterances.keys() ^ b.utterances.keys())
    other = [key for key, row in a.utterances.items() if key in b.utterances and b.utterances[key][0] != row[0]]
    for keys, what in ((alone, "utterance ids in only one of the two"), (other, "utterances with another text")):
        if keys:
            raise ValueError(
                f"different references: {len(keys)} {what}, such as {', '.join(keys[:3])}; "
                "score both systems against the same reference file"
            )


def _by_speaker(statistics: np.ndarray, ids: Sequence[str], score: Score) -> np.ndarray:
    if score.utt2spk is None:
        raise ValueError("the scores hold no speakers; score with --utt2spk to resample by speaker")
    names, group = np.unique([score.utt2spk[key] for key in ids], return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"resampling by speaker needs at least 2 speakers, found {len(names)}")
    sums = group_sums(statistics.reshape(len(ids), -1), group, len(names))
    return sums.reshape(-1, *statistics.shape[1:])


def mean_interval(runs: Sequence[Score], *, n_bootstrap: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean value of several runs on the same references, by drawing utterances.

    Raises:
        ValueError: As `compare_runs`.
    """
    for other in runs[1:]:
        _check_same(runs[0], other)
    statistics = _statistics(runs, runs[0].scored_ids)
    return interval(_resampled(statistics, runs[0].metric, n_bootstrap, seed).mean(axis=1))
