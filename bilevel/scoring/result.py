"""What scoring yields: counts, the score of a system, and its JSON file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from bilevel.data.files import write_text


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


@dataclass(frozen=True)
class Score:
    """Error rate of one system on one set.

    Attributes:
        metric: "wer" or "cer".
        value: Corpus-level error rate, a fraction.
        low: Lower end of the 95 % bootstrap interval.
        high: Upper end of it.
        signature: Everything that changes the value: normal form, tokens, bootstrap, version.
        total: Counts over all utterances whose reference has a token.
        empty: Counts over the utterances with an empty reference; not part of `value` and `total`.
        missing: Ids without a hypothesis, all of whose tokens count as deletions.
        extra: Ids of hypotheses without a reference; they count nowhere.
        speakers: Counts of each speaker; empty when no speakers were given.
        lengths: Counts by number of reference tokens, for instance "6-10".
        utterances: For each id (CRC-32 of the normal reference, n_ref, S, D, I); empty references included.
        utt2spk: Speaker of each utterance, or None.
    """

    metric: str
    value: float
    low: float
    high: float
    signature: str
    total: Counts
    empty: Counts
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    speakers: Mapping[str, Counts]
    lengths: Mapping[str, Counts]
    utterances: Mapping[str, tuple[int, int, int, int, int]]
    utt2spk: Mapping[str, str] | None = None

    @property
    def n_utts(self) -> int:
        """Utterances that `value` is taken over."""
        return self.total.n_utts

    @property
    def value_with_empty(self) -> float:
        """Error rate with the insertions of empty references counted in, as sclite has it."""
        return (self.total.errors + self.empty.errors) / self.total.n_ref

    def to_json(self) -> dict[str, object]:
        """Plain types; `from_json` is the inverse."""
        return asdict(self) | {"n_utts": self.n_utts}

    @staticmethod
    def from_json(record: Mapping[str, object]) -> "Score":
        """Read what `to_json` made.

        Raises:
            ValueError: A key is missing.
        """
        try:
            return Score(
                **{key: record[key] for key in ("metric", "value", "low", "high", "signature", "utt2spk")},
                **{key: Counts(**record[key]) for key in ("total", "empty")},
                **{key: tuple(record[key]) for key in ("missing", "extra")},
                **{key: {name: Counts(**c) for name, c in record[key].items()} for key in ("speakers", "lengths")},
                utterances={key: tuple(row) for key, row in record["utterances"].items()},
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
