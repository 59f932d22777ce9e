"""What scoring yields: counts, the score of a system, and its JSON file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bilevel.data.files import write_text


class Metric(NamedTuple):
    """How the values of a metric read.

    Attributes:
        name: As people write it.
        factor: Shown is factor times value, 100 where the value is a fraction.
        more_is_better: Direction.
    """

    name: str
    factor: int
    more_is_better: bool

    @property
    def label(self) -> str:
        """Name and unit of what is shown."""
        return f"{self.name} %" if self.factor == 100 else self.name

    def better(self, value: float, other: float) -> bool:
        """Whether `value` is strictly better than `other`."""
        return value > other if self.more_is_better else value < other


# Error rates are fractions; BLEU and chrF run from 0 to 100, as the field writes them.
RATES = ("wer", "cer")
METRICS = {
    "wer": Metric("WER", 100, more_is_better=False),
    "cer": Metric("CER", 100, more_is_better=False),
    "bleu": Metric("BLEU", 1, more_is_better=True),
    "chrf": Metric("chrF2", 1, more_is_better=True),
}


@dataclass(frozen=True)
class Counts:
    """Errors summed over utterances; a token is a word (WER) or a character (CER).

    Attributes:
        n_utts: Utterances.
        n_wrong_utts: Utterances with at least one error.
        n_ref: Tokens in the references.
        substitutions: Tokens replaced by another.
        deletions: Reference tokens without a counterpart.
        insertions: Hypothesis tokens without a counterpart.
    """

    n_utts: int
    n_wrong_utts: int
    n_ref: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def correct(self) -> int:
        """Reference tokens found again: n_ref - S - D."""
        return self.n_ref - self.substitutions - self.deletions

    @property
    def errors(self) -> int:
        """S + D + I."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def error_rate(self) -> float:
        """(S + D + I) / n_ref, a fraction that can pass 1; nan without reference tokens."""
        return self.errors / self.n_ref if self.n_ref else float("nan")

    @property
    def sentence_error_rate(self) -> float:
        """Share of utterances with an error; nan without utterances."""
        return self.n_wrong_utts / self.n_utts if self.n_utts else float("nan")


@dataclass(frozen=True, kw_only=True)
class Score:
    """Score of one system on one set.

    Attributes:
        metric: A key of `METRICS`.
        value: Corpus-level value: a fraction for error rates, 0 to 100 for BLEU and chrF.
        low: Lower end of the 95 % bootstrap interval.
        high: Upper end of it.
        signature: Everything that changes the value, then "|boot:" and how the interval was drawn.
        extra: Ids of hypotheses without a reference; they count nowhere.
        utterances: For each id the CRC-32 of its reference, then the counts that `value` is made of. BLEU: length of
            hypothesis and of reference, matches of order 1 to 4, n-grams of order 1 to 4. chrF: n-grams of hypothesis,
            of reference and matches, for each order 1 to 6.
        utt2spk: Speaker of each utterance, or None.
    """

    metric: str
    value: float
    low: float
    high: float
    signature: str
    extra: tuple[str, ...]
    utterances: Mapping[str, tuple[int, ...]]
    utt2spk: Mapping[str, str] | None = None

    @property
    def n_utts(self) -> int:
        """Utterances that `value` is taken over."""
        return len(self.utterances)

    @property
    def scored_ids(self) -> list[str]:
        """Their ids."""
        return list(self.utterances)

    def statistics(self, ids: Sequence[str]) -> np.ndarray:
        """Counts whose sums over utterances decide the value, (len(ids), n_counts) int64."""
        return np.array([self.utterances[key][1:] for key in ids], dtype=np.int64)

    def to_json(self) -> dict[str, object]:
        """Plain types; `from_json` is the inverse."""
        return asdict(self) | {"n_utts": self.n_utts}

    @staticmethod
    def from_json(record: Mapping[str, object]) -> "Score":
        """Read what `to_json` made; an `ErrorRate` where the metric is one.

        Raises:
            ValueError: A key is missing, or the metric is unknown.
        """
        try:
            facts = {key: record[key] for key in ("metric", "value", "low", "high", "signature", "utt2spk")}
            facts |= {
                "extra": tuple(record["extra"]),
                "utterances": {key: tuple(row) for key, row in record["utterances"].items()},
            }
            if facts["metric"] not in METRICS:
                raise ValueError(f"metric {facts['metric']!r}: expected one of {', '.join(METRICS)}")
            if facts["metric"] not in RATES:
                return Score(**facts)
            return ErrorRate(
                **facts,
                **{key: Counts(**record[key]) for key in ("total", "empty")},
                missing=tuple(record["missing"]),
                **{key: {name: Counts(**c) for name, c in record[key].items()} for key in ("speakers", "lengths")},
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a score: {error}; expected what `bilevel score --json` writes") from None

    def write(self, path: Path) -> None:
        """Write the score as JSON, atomically."""
        write_text(path, json.dumps(self.to_json(), ensure_ascii=False) + "\n")

    @staticmethod
    def read(path: Path) -> "Score":
        """Read a file that `write` made.

        Raises:
            ValueError: The file is no score; the message names it.
        """
        try:
            return Score.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class ErrorRate(Score):
    """Word or character error rate; a row of `utterances` is (CRC-32 of the normal reference, n_ref, S, D, I).

    Attributes:
        total: Counts over all utterances whose reference has a token.
        empty: Counts over the utterances with an empty reference; in `utterances`, but not in `value` and `total`.
        missing: Ids without a hypothesis, all of whose tokens count as deletions.
        speakers: Counts of each speaker; empty when no speakers were given.
        lengths: Counts by number of reference tokens, for instance "6-10".
    """

    total: Counts
    empty: Counts
    missing: tuple[str, ...]
    speakers: Mapping[str, Counts]
    lengths: Mapping[str, Counts]

    @property
    def n_utts(self) -> int:
        """Utterances that `value` is taken over."""
        return self.total.n_utts

    @property
    def scored_ids(self) -> list[str]:
        """Ids whose reference has a token."""
        return [key for key, row in self.utterances.items() if row[1] > 0]

    @property
    def value_with_empty(self) -> float:
        """Error rate with the insertions of empty references counted in, as sclite has it."""
        return (self.total.errors + self.empty.errors) / self.total.n_ref

    def statistics(self, ids: Sequence[str]) -> np.ndarray:
        """Errors and reference tokens, (len(ids), 2) int64."""
        rows = super().statistics(ids)
        return np.stack([rows[:, 1:].sum(axis=1), rows[:, 0]], axis=1)
