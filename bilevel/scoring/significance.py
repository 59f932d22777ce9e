"""Is one system better than another? Paired bootstrap on the same references.

Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from bilevel.scoring.bootstrap import group_sums, interval, resampled_sums, two_sided_p
from bilevel.scoring.result import Score


@dataclass(frozen=True)
class Comparison:
    """Difference of two systems, second minus first: below 0 the second is better.

    Attributes:
        value_a: Error rate of the first system (the mean over its runs).
        value_b: Error rate of the second system.
        difference: value_b - value_a.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end of it.
        p_value: Two-sided p-value of "no difference".
        n_utts: Utterances compared.
        n_runs: Pairs of runs that were averaged.
        signature: How it was computed.
    """

    value_a: float
    value_b: float
    difference: float
    low: float
    high: float
    p_value: float
    n_utts: int
    n_runs: int
    signature: str

    def to_json(self) -> dict[str, object]:
        """Plain types."""
        return asdict(self)


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

    Utterances (or speakers) are drawn with replacement, the same draw for both systems; of a system with several runs
    the errors of an utterance are summed over the runs, so the interval is that of the mean difference of these very
    runs on other utterances, not on other seeds. Utterances with an empty reference take no part.

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
    ids = [key for key, row in a[0].utterances.items() if row[1] > 0]
    n_ref = np.array([a[0].utterances[key][1] for key in ids]) * len(a)
    columns = np.stack([_errors(a, ids), _errors(b, ids), n_ref], axis=1)
    if resample == "speaker":
        columns = _by_speaker(columns, ids, a[0])
    errors_a, errors_b, total = columns.sum(axis=0).tolist()
    sums = resampled_sums(columns, n_bootstrap=n_bootstrap, seed=seed)
    differences = (sums[:, 1] - sums[:, 0]) / sums[:, 2]
    low, high = interval(differences)
    return Comparison(
        value_a=errors_a / total,
        value_b=errors_b / total,
        difference=(errors_b - errors_a) / total,
        low=low,
        high=high,
        p_value=two_sided_p(differences),
        n_utts=len(ids),
        n_runs=len(a),
        signature=f"paired|{_form(a[0])}|boot:{n_bootstrap}.{'utt' if resample == 'utterance' else 'spk'}.seed{seed}",
    )


def _errors(runs: Sequence[Score], ids: Sequence[str]) -> np.ndarray:
    return np.sum([[sum(run.utterances[key][2:]) for key in ids] for run in runs], axis=0, dtype=np.int64)


def _form(score: Score) -> str:
    """The part of a signature that two scores must share: metric, normal form, tokens."""
    return "|".join(score.signature.split("|")[:3])


def _check_same(a: Score, b: Score) -> None:
    if _form(a) != _form(b):
        raise ValueError(f"scored in different ways, {_form(a)} and {_form(b)}; score both with the same options")
    alone = sorted(a.utterances.keys() ^ b.utterances.keys())
    other = [key for key, row in a.utterances.items() if key in b.utterances and b.utterances[key][:2] != row[:2]]
    for keys, what in ((alone, "utterance ids in only one of the two"), (other, "utterances with another text")):
        if keys:
            raise ValueError(
                f"different references: {len(keys)} {what}, such as {', '.join(keys[:3])}; "
                "score both systems against the same reference file"
            )


def _by_speaker(columns: np.ndarray, ids: Sequence[str], score: Score) -> np.ndarray:
    if score.utt2spk is None:
        raise ValueError("the scores hold no speakers; score with --utt2spk to resample by speaker")
    names, group = np.unique([score.utt2spk[key] for key in ids], return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"resampling by speaker needs at least 2 speakers, found {len(names)}")
    return group_sums(columns, group, len(names))


def mean_interval(runs: Sequence[Score], *, n_bootstrap: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean error rate of several runs on the same references, by drawing utterances.

    Raises:
        ValueError: As `compare_runs`.
    """
    for other in runs[1:]:
        _check_same(runs[0], other)
    ids = [key for key, row in runs[0].utterances.items() if row[1] > 0]
    n_ref = np.array([runs[0].utterances[key][1] for key in ids]) * len(runs)
    sums = resampled_sums(np.stack([_errors(runs, ids), n_ref], axis=1), n_bootstrap=n_bootstrap, seed=seed)
    return interval(sums[:, 0] / sums[:, 1])
