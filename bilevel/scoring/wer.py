"""Word and character error rate of one system.

Conventions:
    * The alignment is one of least S + D + I with all costs 1 (Kaldi, jiwer); sclite's costs 4/3/3 can split the same
      number of errors in another way.
    * The tokens of CER are characters, blanks between words among them (jiwer, ESPnet's <space>).
    * The rate is of the corpus: all errors over all reference tokens, not a mean of rates.
    * A missing hypothesis is an empty one; a hypothesis without reference counts nowhere. Both are listed.
    * An utterance whose normal reference is empty is counted apart (`ErrorRate.empty`): it has no error rate, and its
      insertions are errors on nothing. sclite and jiwer add these insertions to the corpus rate, which
      `ErrorRate.value_with_empty` gives.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from rapidfuzz.distance.Levenshtein import editops

import bilevel
from bilevel.data import normalise
from bilevel.scoring.bootstrap import draws, group_sums, interval, resampled_sums
from bilevel.scoring.check import check_input
from bilevel.scoring.result import Counts, ErrorRate

_KINDS = {"replace": "substitution", "delete": "deletion", "insert": "insertion"}
# Upper ends of the reference-length classes, in tokens.
_LENGTHS = {"wer": (5, 10, 20, 40), "cer": (25, 50, 100, 200)}


class Op(NamedTuple):
    """One column of an alignment; `ref` is empty for an insertion, `hyp` for a deletion."""

    kind: str
    ref: str
    hyp: str


def score(
    refs: Mapping[str, str],
    hyps: Mapping[str, str],
    *,
    metric: str = "wer",
    case: str = "lower",
    punctuation: str = "remove",
    utt2spk: Mapping[str, str] | None = None,
    resample: str = "utterance",
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> ErrorRate:
    """Error rate (S + D + I) / N of hypotheses, with a 95 % bootstrap interval.

    Args:
        refs: Reference text by utterance id.
        hyps: Hypothesis text by utterance id.
        metric: "wer" or "cer".
        case: Case of the normal form, see `bilevel.data.normalise`.
        punctuation: Punctuation of the normal form.
        utt2spk: Speaker by utterance id, for the table of speakers and for `resample="speaker"`.
        resample: What the bootstrap draws, "utterance" or "speaker" (wider and more honest when speakers differ).
        n_bootstrap: Number of resamples.
        seed: Seed of the resampling.

    Raises:
        ValueError: There is nothing to score, no id in common, an unknown option, or a speaker is missing.
    """
    if metric not in _LENGTHS:
        raise ValueError(f"metric {metric!r}: expected wer or cer")
    check_input(refs, hyps, utt2spk, resample)
    ids = sorted(refs)
    form = {"case": case, "punctuation": punctuation}
    ref_texts = normalise.normalise_all([refs[i] for i in ids], **form)
    hyp_texts = normalise.normalise_all([hyps.get(i, "") for i in ids], **form)
    rows = count(ref_texts, hyp_texts, metric)
    full = rows[:, 2] > 0
    if not full.any():
        raise ValueError(f"none of the {len(ids)} references has a word after normalisation; check the reference file")
    scored = rows[full]
    names, speaker = _speakers(ids, utt2spk, full)
    units = scored if resample == "utterance" else group_sums(scored, speaker, len(names))
    sums = resampled_sums(np.stack([units[:, 3:].sum(axis=1), units[:, 2]], 1), n_bootstrap=n_bootstrap, seed=seed)
    low, high = interval(sums[:, 0] / sums[:, 1])
    total = _total(scored)
    checksums = [zlib.crc32(text.encode()) for text in ref_texts]
    return ErrorRate(
        metric=metric,
        value=total.error_rate,
        low=low,
        high=high,
        signature=f"{metric.upper()}|norm:{normalise.signature(**form)}|tok:{'space' if metric == 'wer' else 'char'}"
        f"|{draws(n_bootstrap, resample, seed)}|v:{bilevel.__version__}",
        total=total,
        empty=_total(rows[~full]),
        missing=tuple(i for i in ids if i not in hyps),
        extra=tuple(sorted(hyps.keys() - refs.keys())),
        speakers=_table(scored, names, speaker),
        lengths=_length_table(scored, _LENGTHS[metric]),
        utterances=dict(zip(ids, zip(checksums, *rows[:, 2:].T.tolist(), strict=True), strict=True)),
        utt2spk=None if utt2spk is None else {i: utt2spk[i] for i in ids},
    )


def align(ref: Sequence[str], hyp: Sequence[str]) -> list[Op]:
    """The alignment that is counted, as columns from left to right; for CER give strings."""
    columns: list[Op] = []
    i = j = 0
    for tag, i_op, j_op in editops(ref, hyp).as_list():
        while i < i_op or j < j_op:
            columns.append(Op("correct", ref[i], hyp[j]))
            i, j = i + 1, j + 1
        columns.append(Op(_KINDS[tag], "" if tag == "insert" else ref[i], "" if tag == "delete" else hyp[j]))
        i, j = i + (tag != "insert"), j + (tag != "delete")
    return columns + [Op("correct", *pair) for pair in zip(ref[i:], hyp[j:], strict=True)]


def count(refs: Sequence[str], hyps: Sequence[str], metric: str) -> np.ndarray:
    """Count the errors of each pair of normal texts; the hot loop, see bench/score.py.

    Returns:
        One row (1, is wrong, n_ref, S, D, I) for each pair, (n, 6).
    """
    split = str.split if metric == "wer" else str
    flat: list[int] = []
    for ref, hyp in zip(map(split, refs), map(split, hyps), strict=True):
        tags = [op.tag for op in editops(ref, hyp)]
        flat += (len(ref), len(hyp), len(tags), tags.count("replace"))
    n_ref, n_hyp, errors, substitutions = np.array(flat, dtype=np.int64).reshape(-1, 4).T
    # S + D + I = errors and D - I = n_ref - n_hyp.
    deletions = (errors - substitutions + n_ref - n_hyp) // 2
    insertions = errors - substitutions - deletions
    return np.stack([np.ones_like(errors), errors > 0, n_ref, substitutions, deletions, insertions], axis=1)


def _total(rows: np.ndarray) -> Counts:
    return Counts(*rows.sum(axis=0).tolist())


def _speakers(ids: list[str], utt2spk: Mapping | None, full: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Speaker names in order, and the number of the speaker of each scored utterance."""
    if utt2spk is None:
        return [], np.zeros(0, dtype=np.int64)
    names, number = np.unique([utt2spk[i] for i, kept in zip(ids, full, strict=True) if kept], return_inverse=True)
    return names.tolist(), number


def _table(rows: np.ndarray, names: Sequence[str], group: np.ndarray) -> dict[str, Counts]:
    if not names:
        return {}
    sums = group_sums(rows, group, len(names)).tolist()
    return {name: Counts(*row) for name, row in zip(names, sums, strict=True) if row[0]}


def _length_table(rows: np.ndarray, ends: Sequence[int]) -> dict[str, Counts]:
    names = [f"{low + 1}-{high}" for low, high in zip((0, *ends), ends, strict=False)] + [f">{ends[-1]}"]
    return _table(rows, names, np.searchsorted(ends, rows[:, 2]))
