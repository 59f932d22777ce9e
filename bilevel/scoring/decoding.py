"""Scores of decoded sets, beside their hypotheses."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bilevel.data.files import write_lines
from bilevel.data.normalise import normalise
from bilevel.data.tables import read_optional, read_scp
from bilevel.scoring import bleu, wer
from bilevel.scoring.result import RATES
from bilevel.scoring.table import format_score


def score_sets(
    decoded: Mapping[Path, Path], table: str, metrics: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Write `ref` and score_<metric>.json into the folder of each decoded set; the first metric is printed.

    Args:
        decoded: Dump directory of a set -> folder with its hypotheses, `text`.
        table: Of the dump directory, with references: `text`, or `text.<lang>`, where utterances may lack.
        metrics: Metric -> options of its scorer, in order.

    Returns:
        Rows of result.json: set, metric, value, low, high, n_utts, signature.
    """
    rows = []
    first = next(iter(metrics))
    for folder, out in decoded.items():
        refs, utt2spk = read_scp(folder / table), read_optional(folder / "utt2spk") or None
        hyps = read_scp(out / "text")
        if table != "text":
            refs = {key: text for key, text in refs.items() if text.strip()}
            if hyps.keys() - refs.keys():
                print(f"note: {folder / table}: none for {len(hyps.keys() - refs.keys())} of {len(hyps)} utterances")
            hyps = {key: text for key, text in hyps.items() if key in refs}
            utt2spk = utt2spk and {key: utt2spk[key] for key in refs}
        form = metrics[first] if first in RATES else None
        shown = {key: refs[key] if form is None else normalise(refs[key], **form) for key in sorted(refs)}
        write_lines(out / "ref", [f"{key} {text}".rstrip() for key, text in shown.items()])
        for metric, options in metrics.items():
            score = wer.score if metric in RATES else bleu.score
            found = score(refs, hyps, metric=metric, utt2spk=utt2spk, **options)
            found.write(out / f"score_{metric}.json")
            facts = {key: getattr(found, key) for key in ("value", "low", "high", "n_utts", "signature")}
            rows.append({"set": folder.name, "metric": metric} | facts)
            if metric == first:
                print(f"{out}\n{format_score(found)}", flush=True)
    return rows
