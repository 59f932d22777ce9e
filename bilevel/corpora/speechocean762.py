"""speechocean762 (OpenSLR 101): English sentences read by speakers of Mandarin, half of them children.

Layout: `train/` and `test/` are Kaldi data directories whose wav.scp paths (`WAVE/SPEAKER0001/000010011.WAV`) start at
the top of the corpus; some files under WAVE have no transcript and belong to no split. Published: 2500 + 2500
utterances, 125 + 125 speakers, 20 utterances each. There is no official dev set: ours are the speakers at positions 10,
20, ..., 120 of the sorted list of training speakers (12 speakers, 240 utterances); they are not in our train. Ids and
speaker ids are the published ones: `000010011`, `0001`. Texts are upper case.

A folder with wav.scp at its top is read as `kaldi` does, with its own splits and counts.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bilevel.corpora import MissingSplitError, kaldi
from bilevel.data.fetch import checkout
from bilevel.data.record import Utterance
from bilevel.data.tables import read_scp

LICENSE = "CC BY 4.0 (OpenSLR 101); free for commercial and non-commercial use (README)"
HOMEPAGE = "https://github.com/jimbozhang/speechocean762"
COMMIT = "613968e3b0b789fc33936fb5eba1973176ba7d11"
RATE_HZ = 16000
SETS = {"train": ("train",), "dev": ("dev",), "test": ("test",)}
# Counts are published; the hours were measured on the commit above.
EXPECTED = {"train": (2260, 2.6), "dev": (240, 0.276), "test": (2500, 2.691)}

_FOLDER = {"train": "train", "dev": "train", "test": "test"}


def utterances(src: Path, split: str) -> Iterator[Utterance]:
    """Records of one split; those whose audio file is not there are left out, `missing` names them."""
    src = Path(src)
    if kaldi.has_tables(src):
        yield from kaldi.utterances(src, split)
        return
    for key, path, text, speaker in _rows(src, split):
        if path.is_file():
            yield Utterance(key, str(path), text, speaker)


def missing(src: Path, split: str) -> list[str]:
    """Utterances of the split's tables whose audio is not there."""
    return [f"audio {path}" for _, path, _, _ in _rows(Path(src), split) if not path.is_file()]


def download(dst: Path, splits: Sequence[str]) -> Path:
    """Check out the pinned commit; git verifies every file against the commit id."""
    return checkout(f"{HOMEPAGE}.git", COMMIT, dst)


def _rows(src: Path, split: str) -> Iterator[tuple[str, Path, str, str]]:
    if split not in _FOLDER or not (src / _FOLDER[split] / "wav.scp").is_file():
        found = [name for name, folder in _FOLDER.items() if (src / folder / "wav.scp").is_file()]
        raise MissingSplitError(f"{src}: no split {split!r}; found: {', '.join(found) or 'none'}")
    folder = src / _FOLDER[split]
    text, speakers = read_scp(folder / "text"), read_scp(folder / "utt2spk")
    held_out = set(sorted(set(speakers.values()))[9::10]) if folder.name == "train" else set()
    for key, path in read_scp(folder / "wav.scp").items():
        if (speakers[key] in held_out) == (split == "dev"):
            yield key, src / path, text[key], speakers[key]
