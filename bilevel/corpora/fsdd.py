"""Free Spoken Digit Dataset: six speakers, the digits zero to nine, 8 kHz.

Layout: `recordings/{digit}_{speaker}_{index}.wav`. The README calls recordings 0-4 of each digit and speaker the test
set and 5-49 the training set. There is no official dev set; ours is 5-9, so train is 10-49. All speakers are in all
sets. Ids are `{speaker}-{digit}-{index:02d}`, so that they sort by speaker. The commit below has 3000 recordings; older
releases have fewer speakers (use --allow_partial).

A folder with wav.scp at its top is read as `kaldi` does, with its own splits and counts.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from bilevel.corpora import MissingSplitError, kaldi
from bilevel.data.fetch import checkout
from bilevel.data.record import Utterance

LICENSE = "CC BY-SA 4.0, Z. Jackson and others"
HOMEPAGE = "https://github.com/Jakobovski/free-spoken-digit-dataset"
COMMIT = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"
RATE_HZ = 8000
SETS = {"train": ("train",), "dev": ("dev",), "test": ("test",)}
# Counts follow from the README; the hours were measured on the commit above.
EXPECTED = {"train": (2400, 0.2919), "dev": (300, 0.0367), "test": (300, 0.0359)}

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
INDICES = {"test": range(5), "dev": range(5, 10), "train": range(10, 50)}
_NAME = re.compile(r"([0-9])_([A-Za-z]+)_([0-9]+)\.wav")


def utterances(src: Path, split: str) -> Iterator[Utterance]:
    """Records of one split; other files in the folder are ignored."""
    if kaldi.has_tables(src):
        yield from kaldi.utterances(src, split)
        return
    if split not in INDICES:
        raise MissingSplitError(f"fsdd: no split {split!r}; found: {', '.join(INDICES)}")
    for path in sorted(_recordings(src).glob("*.wav")):
        match = _NAME.fullmatch(path.name)
        if match and int(match[3]) in INDICES[split]:
            digit, speaker, index = match.groups()
            yield Utterance(f"{speaker}-{digit}-{int(index):02d}", str(path), WORDS[int(digit)], speaker)


def missing(src: Path, split: str) -> list[str]:
    """Recordings of the published speakers that are not there."""
    folder = _recordings(src)
    wanted = [f"{d}_{s}_{i}.wav" for s in SPEAKERS for d in range(10) for i in INDICES[split]]
    return [f"recording {name}" for name in wanted if not (folder / name).is_file()]


def download(dst: Path, splits: Sequence[str]) -> Path:
    """Check out the pinned commit; git verifies every file against the commit id."""
    return checkout(f"{HOMEPAGE}.git", COMMIT, dst)


def _recordings(src: Path) -> Path:
    for folder in (Path(src) / "recordings", Path(src)):
        if any(folder.glob("*_*_*.wav")):
            return folder
    raise MissingSplitError(
        f"{src}: expected recordings/{{digit}}_{{speaker}}_{{index}}.wav, or wav.scp; found neither"
    )
