"""BLEU and chrF of one system, by sacreBLEU.

Conventions:
    * One reference. The value is sacreBLEU's own of the corpus, 0 to 100; more is better.
    * The text is scored as it is, with case and marks; nothing but sacreBLEU's tokenizer and lower-casing touches it.
    * A missing hypothesis is an error, since sacreBLEU has no rule for it; an empty one counts as it stands.
    * An empty reference takes part, as in sacreBLEU: what is put against it lowers the precision.
    * The bootstrap draws utterances (or speakers) and sums their counts of n-grams; no text is looked at twice. The
      interval is a percentile interval as for error rates, where sacreBLEU prints mean and half width.

References: Papineni et al., ACL 2002 (BLEU); Popovic, WMT 2015 (chrF); Post, WMT 2018 (sacreBLEU and its signatures);
Koehn, EMNLP 2004 (bootstrap).
"""

import zlib
from collections.abc import Mapping

import numpy as np

from bilevel.scoring.bootstrap import draws, group_sums, interval, resampled_sums
from bilevel.scoring.check import check_input
from bilevel.scoring.result import METRICS, Score

# Of sacreBLEU's, those that need no download; ja-mecab needs packages of its own.
TOKENIZERS = ("13a", "char", "ja-mecab", "none", "zh")


def score(
    refs: Mapping[str, str],
    hyps: Mapping[str, str],
    *,
    metric: str = "bleu",
    tokenize: str | None = None,
    case: str = "keep",
    utt2spk: Mapping[str, str] | None = None,
    resample: str = "utterance",
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> Score:
    """BLEU or chrF of hypotheses, with a 95 % bootstrap interval.

    Args:
        refs: Reference text by utterance id, not tokenized.
        hyps: Hypothesis text by utterance id, not tokenized.
        metric: "bleu" or "chrf".
        tokenize: One of `TOKENIZERS`, for BLEU alone; None: 13a. Take zh or char for Chinese, ja-mecab or char for
            Japanese, none for text with a blank after every token.
        case: "keep" or "lower".
        utt2spk: Speaker by utterance id, for `resample="speaker"`.
        resample: What the bootstrap draws, "utterance" or "speaker".
        n_bootstrap: Number of resamples.
        seed: Seed of the resampling.

    Raises:
        ValueError: There is nothing to score, a hypothesis or a speaker is missing, or an option is unknown.
    """
    scorer = _scorer(metric, tokenize, case)
    check_input(refs, hyps, utt2spk, resample)
    if lost := sorted(refs.keys() - hyps.keys()):
        raise ValueError(
            f"{len(lost)} utterances without hypothesis, such as {', '.join(lost[:3])}; decode them (an empty "
            "hypothesis is a line with the id alone)"
        )
    if not any(text.strip() for text in refs.values()):
        raise ValueError(f"none of the {len(refs)} references has a word; check the reference file")
    ids = sorted(refs)
    # Not public, but what sacreBLEU's own paired tests are made of; setup.py holds its version.
    rows = scorer._extract_corpus_statistics([hyps[i] for i in ids], [[refs[i] for i in ids]])
    statistics = np.array(rows, dtype=np.int64)
    units = statistics
    if resample == "speaker":
        names, group = np.unique([utt2spk[i] for i in ids], return_inverse=True)
        units = group_sums(statistics, group, len(names))
    low, high = interval(values(metric, resampled_sums(units, n_bootstrap=n_bootstrap, seed=seed)))
    checksums = [zlib.crc32(refs[i].encode()) for i in ids]
    return Score(
        metric=metric,
        value=float(values(metric, statistics.sum(axis=0, keepdims=True))[0]),
        low=low,
        high=high,
        signature=f"{METRICS[metric].name}|{scorer.get_signature()}|{draws(n_bootstrap, resample, seed)}",
        extra=tuple(sorted(hyps.keys() - refs.keys())),
        utterances={i: (crc, *row) for i, crc, row in zip(ids, checksums, rows, strict=True)},
        utt2spk=None if utt2spk is None else {i: utt2spk[i] for i in ids},
    )


def values(metric: str, sums: np.ndarray) -> np.ndarray:
    """SacreBLEU's value of sums of counts: (n, n_counts) of the rows of `Score.utterances` give (n,)."""
    scorer = _scorer(metric)
    return np.array([scorer._compute_score_from_stats(row).score for row in sums.tolist()], dtype=float)


def verbose(result: Score) -> str:
    """SacreBLEU's own line, for BLEU with precisions, brevity penalty and lengths."""
    sums = result.statistics(result.scored_ids).sum(axis=0).tolist()
    return _scorer(result.metric)._compute_score_from_stats(sums).format(width=2)


def _scorer(metric: str, tokenize: str | None = None, case: str = "keep"):
    """SacreBLEU's object for a metric; imported here, since most commands never need it."""
    from sacrebleu.metrics import BLEU, CHRF

    if case not in ("keep", "lower"):
        raise ValueError(f"case {case!r}: sacreBLEU has keep and lower")
    if metric == "chrf":
        if tokenize is not None:
            raise ValueError(f"tokenizer {tokenize!r}: chrF counts characters; tokenizers are for BLEU")
        return CHRF(lowercase=case == "lower")
    if metric != "bleu":
        raise ValueError(f"metric {metric!r}: expected bleu or chrf")
    if tokenize not in (None, *TOKENIZERS):
        raise ValueError(f"tokenizer {tokenize!r}: expected one of {', '.join(TOKENIZERS)}")
    try:
        return BLEU(lowercase=case == "lower", tokenize=tokenize or "13a")
    except RuntimeError:
        raise ValueError(f"tokenizer {tokenize}: its packages are missing; pip install 'sacrebleu[ja]'") from None
