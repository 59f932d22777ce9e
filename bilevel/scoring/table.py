"""A score as plain text."""

from collections.abc import Mapping

from bilevel.scoring import bleu
from bilevel.scoring.result import METRICS, Counts, ErrorRate, Score

_N_SPEAKERS = 10


def format_score(score: Score) -> str:
    """Value, interval, signature, tables by length and speaker, and all ids that had no counterpart."""
    metric = METRICS[score.metric]
    value, low, high = (f"{metric.factor * value:.2f}" for value in (score.value, score.low, score.high))
    unit = " %" if metric.factor == 100 else ""
    parts = [f"{metric.name} {value}{unit}   95 % interval {low} .. {high}", score.signature]
    if isinstance(score, ErrorRate):
        parts += _rate_parts(score)
    else:
        parts.append(f"{bleu.verbose(score)}   {score.n_utts} utterances")
    if score.extra:
        parts.append(f"\n{len(score.extra)} hypotheses without reference, ignored: {' '.join(score.extra)}")
    return "\n".join(part for part in parts if part)


def _rate_parts(score: ErrorRate) -> list[str]:
    unit = "words" if score.metric == "wer" else "characters"
    worst = sorted(score.speakers.items(), key=lambda item: (-item[1].error_rate, item[0]))[:_N_SPEAKERS]
    parts = [
        _format_table("", {"all": score.total}),
        _format_table(f"by {unit} in the reference", score.lengths),
        _format_table(f"worst {len(worst)} of {len(score.speakers)} speakers", dict(worst)),
    ]
    if score.missing:
        parts.append(f"\n{len(score.missing)} missing hypotheses, counted as deletions: {' '.join(score.missing)}")
    if score.empty.n_utts:
        parts.append(
            f"\n{score.empty.n_utts} empty references, counted apart: {score.empty.insertions} insertions "
            f"({METRICS[score.metric].name} with them, as sclite counts: {100 * score.value_with_empty:.2f} %)"
        )
    return parts


def _format_table(title: str, rows: Mapping[str, Counts]) -> str:
    if not rows:
        return ""
    width = max(30, len(title), *(len(name) for name in rows))
    lines = [f"\n{title:{width}}    Snt      Ref   Corr    Sub    Del    Ins    Err  S.Err"]
    for name, c in rows.items():
        parts = (c.correct, c.substitutions, c.deletions, c.insertions, c.errors)
        percent = "".join(f"{100 * part / c.n_ref:7.2f}" for part in parts)
        lines.append(f"{name:{width}}{c.n_utts:7}{c.n_ref:9}{percent}{100 * c.sentence_error_rate:7.2f}")
    return "\n".join(lines)
