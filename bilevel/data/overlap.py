"""Whether an evaluation set leaks from a training set."""

import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import soundfile

from bilevel.data.archive import read_matrix
from bilevel.data.filter import DumpSet, unknown_characters
from bilevel.data.parallel import ordered_map

_SPEED_PREFIX = re.compile(r"^sp\d+(\.\d+)?-")


@dataclass(frozen=True)
class Overlap:
    """Evaluation utterances that are in training too: (evaluation id, training id) each.

    Attributes:
        same_id: Of the same id; a speed-perturbed copy counts as its original.
        same_audio: Of the same samples (or features), whatever the file.
        same_text_speaker: The same speaker says the same words.
    """

    same_id: tuple[tuple[str, str], ...] = ()
    same_audio: tuple[tuple[str, str], ...] = ()
    same_text_speaker: tuple[tuple[str, str], ...] = ()

    def counts(self) -> dict[str, int]:
        """Number of utterances of each kind."""
        return {
            "same_id": len(self.same_id),
            "same_audio": len(self.same_audio),
            "same_text_speaker": len(self.same_text_speaker),
        }


def find_overlap(train: Sequence[DumpSet], other: DumpSet, *, nj: int = 1) -> Overlap:
    """Compare one evaluation set with all training sets."""
    return Overlap(
        _pairs([_by_id(d) for d in train], _by_id(other)),
        _same_audio(train, other, nj),
        _pairs([_by_text(d) for d in train], _by_text(other)),
    )


def check_overlap(
    train: Sequence[DumpSet], others: Sequence[DumpSet], *, allow: bool, refuse_same_text: bool, nj: int = 1
) -> dict[str, dict[str, object]]:
    """What each evaluation set shares with training, for the result, by the name of its directory.

    Args:
        train: Labelled and unlabelled training sets.
        others: Validation and test sets.
        allow: Report only.
        refuse_same_text: Whether one speaker's repeating the same words counts; small digit corpora do so by design.
        nj: Number of processes.

    Raises:
        ValueError: An evaluation set leaks, and that is not allowed.
    """
    known = {char for dump in train for text in dump.table("text").values() for char in text}
    reports, leaks = {}, []
    for dump in others:
        name = dump.path.name
        overlap = find_overlap(train, dump, nj=nj)
        rate, unknown = unknown_characters(known, dump.table("text"))
        print(f"{name}: overlap {overlap.counts()}, unknown characters {rate:.2%} {unknown}".rstrip(), flush=True)
        reports[name] = {
            "train_sets": [d.path.name for d in train],
            **overlap.counts(),
            "overlap_allowed": allow,
            "unknown_character_rate": rate,
        }
        refused = [*overlap.same_id, *overlap.same_audio, *(overlap.same_text_speaker if refuse_same_text else ())]
        leaks += [f"{name}: {key} is {twin}" for key, twin in dict(refused).items()]
    if leaks and not allow:
        raise ValueError(
            f"{len(leaks)} evaluation utterances are in training too, {'; '.join(leaks[:5])}; remove them, pass "
            "--same_text warn if a speaker may repeat a sentence, or --allow_overlap"
        )
    return reports


def _pairs(train: Sequence[dict], other: dict) -> tuple[tuple[str, str], ...]:
    """Where keys of content are equal; the tables give the utterance by content."""
    found = {}
    for table in train:
        for content in table.keys() & other.keys():
            for key in other[content]:
                found.setdefault(key, table[content][0])
    return tuple(sorted(found.items()))


def _group(items) -> dict:
    groups: dict = {}
    for content, key in items:
        groups.setdefault(content, []).append(key)
    return groups


def _by_id(dump: DumpSet) -> dict:
    return _group((_SPEED_PREFIX.sub("", key), key) for key in dump.ids)


def _by_text(dump: DumpSet) -> dict:
    speakers = dump.tables["utt2spk"]
    texts = dump.table("text")
    return _group(((_SPEED_PREFIX.sub("", speakers[key]), texts[key]), key) for key in sorted(texts) if texts[key])


def _same_audio(train: Sequence[DumpSet], other: DumpSet, nj: int) -> tuple[tuple[str, str], ...]:
    """Only audio of equal length can be equal, so that only those few files are decoded."""
    lengths = [_lengths(d) for d in [*train, other]]
    common = set(lengths[-1].values()) & {n for table in lengths[:-1] for n in table.values()}
    tables = []
    for dump, table in zip([*train, other], lengths, strict=True):
        keys = [key for key in dump.ids if table.get(key) in common]
        kind = "feats.scp" if "feats.scp" in dump.tables else "wav.scp"
        entries = [dump.tables[kind][key] for key in keys]
        digests = ordered_map(functools.partial(_digest, is_archive=kind == "feats.scp"), entries, nj)
        tables.append(_group(zip(digests, keys, strict=True)))
    return _pairs(tables[:-1], tables[-1])


def _lengths(dump: DumpSet) -> dict[str, str]:
    return dump.table("utt2num_samples") or dump.table("utt2num_frames")


def _digest(entry: str, is_archive: bool) -> str:
    """Hash of the content, not of the file: the same samples in WAV and in FLAC are equal."""
    content = read_matrix(entry) if is_archive else soundfile.read(entry, dtype="int16")[0]
    return hashlib.sha256(content.tobytes()).hexdigest()
