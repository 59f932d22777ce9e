"""The worst utterances of a set, each aligned for every method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bilevel.data.normalise import normalise
from bilevel.data.tables import read_scp
from bilevel.report.runs import Decoding
from bilevel.report.summary import Summary
from bilevel.scoring.wer import Op, align


@dataclass(frozen=True)
class WorstUtterance:
    """An utterance and the alignment of each method.

    Attributes:
        id: Utterance id.
        ref: Reference text, normal form.
        alignments: Columns of words by method.
    """

    id: str
    ref: str
    alignments: Mapping[str, Sequence[Op]]

    @property
    def n_errors(self) -> int:
        """Errors of all methods together."""
        return sum(op.kind != "correct" for ops in self.alignments.values() for op in ops)


def worst_utterances(summaries: Sequence[Summary], n_worst: int) -> dict[tuple[str, str, str], list[WorstUtterance]]:
    """Utterances with most word errors, summed over the first run of each method, by (corpus, set, decoding)."""
    groups: dict[tuple[str, str, str], dict[str, Decoding]] = {}
    for s in summaries:
        corpus, name, metric, decode = s.key
        decoding = s.decodings[0]
        if metric == "wer" and decoding.folder is not None and (decoding.folder / "ref").exists():
            groups.setdefault((corpus, name, decode), {})[s.method] = decoding
    return {key: _worst(decodings, n_worst) for key, decodings in groups.items()}


def _worst(decodings: Mapping[str, Decoding], n_worst: int) -> list[WorstUtterance]:
    errors: dict[str, int] = {}
    for decoding in decodings.values():
        for key, row in decoding.score.utterances.items():
            errors[key] = errors.get(key, 0) + sum(row[2:])
    ids = [key for key in sorted(errors, key=lambda key: (-errors[key], key))[:n_worst] if errors[key]]
    texts = {method: _texts(decoding, ids) for method, decoding in decodings.items()}
    return [
        WorstUtterance(
            id=key,
            ref=next(pairs[key][0] for pairs in texts.values() if key in pairs),
            alignments={m: align(*map(str.split, pairs[key])) for m, pairs in texts.items() if key in pairs},
        )
        for key in ids
    ]


def _texts(decoding: Decoding, ids: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Normal reference and hypothesis, in the normal form that was scored."""
    form = decoding.signature.split("|norm:")[1].split("|")[0].split("+")
    options = {"case": form[1], "punctuation": "remove" if form[2].startswith("nopunct") else "keep"}
    refs, hyps = (read_scp(decoding.folder / name) for name in ("ref", "text"))
    return {k: (normalise(refs[k], **options), normalise(hyps.get(k, ""), **options)) for k in ids if k in refs}
