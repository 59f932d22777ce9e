"""The worst utterances of a set, each aligned for every method."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
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
        alignments: Columns of words by method; of characters where the set is written without spaces.
    """

    id: str
    ref: str
    alignments: Mapping[str, Sequence[Op]]

    @property
    def n_errors(self) -> int:
        """Errors of all methods together."""
        return sum(op.kind != "correct" for ops in self.alignments.values() for op in ops)


def worst_utterances(summaries: Sequence[Summary], n_worst: int) -> dict[tuple[str, str, str], list[WorstUtterance]]:
    """Utterances with most errors, summed over the first run of each method, by (corpus, set, decoding).

    Errors are of words, and of characters where words have no boundaries.
    """
    groups: dict[str, dict[tuple[str, str, str], dict[str, Decoding]]] = {"wer": {}, "cer": {}}
    for s in summaries:
        corpus, name, metric, decode = s.key
        decoding = s.decodings[0]
        if metric in groups and decoding.folder is not None and (decoding.folder / "ref").exists():
            groups[metric].setdefault((corpus, name, decode), {})[s.method] = decoding
    found = {}
    for key, decodings in groups["wer"].items():
        of_characters = groups["cer"].get(key, {})
        spaced = len(of_characters) < len(decodings) or _has_spaces(next(iter(decodings.values())))
        found[key] = _worst(decodings, n_worst, str.split) if spaced else _worst(of_characters, n_worst, list)
    return found


def _has_spaces(decoding: Decoding) -> bool:
    """Whether words have boundaries; not where most references are of wide characters and without a space."""
    texts = read_scp(decoding.folder / "ref").values()
    joined = sum(" " not in text and any(unicodedata.east_asian_width(c) == "W" for c in text) for text in texts)
    return 2 * joined <= len(texts)


def _worst(
    decodings: Mapping[str, Decoding], n_worst: int, tokens: Callable[[str], Sequence[str]]
) -> list[WorstUtterance]:
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
            alignments={m: align(*map(tokens, pairs[key])) for m, pairs in texts.items() if key in pairs},
        )
        for key in ids
    ]


def _texts(decoding: Decoding, ids: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Normal reference and hypothesis, in the normal form that was scored."""
    form = decoding.signature.split("|norm:")[1].split("|")[0].split("+")
    options = {"case": form[1], "punctuation": "remove" if form[2].startswith("nopunct") else "keep"}
    refs, hyps = (read_scp(decoding.folder / name) for name in ("ref", "text"))
    return {k: (normalise(refs[k], **options), normalise(hyps.get(k, ""), **options)) for k in ids if k in refs}
