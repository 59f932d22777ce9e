"""AISHELL-1 (OpenSLR 33): read Mandarin, 400 speakers, 151 hours of training speech, 16 kHz.

Layout: `data_aishell/wav/{train,dev,test}/<speaker>/<id>.wav` and, for all splits together,
`data_aishell/transcript/aishell_transcript_v0.8.txt` (`<id> <words>`). The published archive holds one archive a
speaker, `wav/S0002.tar.gz`, which unpacks to `wav/train/S0002/`; `download` unpacks these too.

Rules, those of Kaldi's `aishell/s5` and ESPnet's `aishell/asr1`
* Ids are the published ones, `BAC009S0002W0122`; the speaker is the folder, `S0002`. The split is the folder above it.
* Audio without a transcript is left out: 141,925 files have 141,600 transcripts. So is a transcript without audio.
* The blanks between words go, as in ESPnet: Chinese is written without them, and errors are counted in characters.
  (Kaldi's recipe has a word lexicon and keeps them.) A sentence is then one word, so look at CER and not at WER.
* An id without words has an empty text; later stages drop it from labelled sets.
* Letters stay as published, some of them full-width; case is a matter of `--case`.

lhotse (`prepare_aishell`) has the same ids, speakers and durations. Its texts have capitals and turn five full-width
letters (a, b, c, k, t) into plain ones.

EXPECTED: numbers of utterances are those of the corpus, as every recipe has them. Hours are the totals printed by
icefall's `display_manifest_statistics.py` to 0.1 h, for train with the two copies of its speed perturbation divided
out (455.6 h by 1/0.9 + 1 + 1/1.1). The transcript does not say which split a speaker belongs to, so `missing` names
those who are in none.

Reference: H. Bu, J. Du, X. Na, B. Wu, H. Zheng, AISHELL-1, 2017 (arXiv 1709.05522).
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from bilevel.corpora import MissingSplitError, shorten
from bilevel.data.fetch import extract, fetch_archive
from bilevel.data.record import Utterance
from bilevel.data.tables import read_scp

LICENSE = "Apache License 2.0, Beijing Shell Shell Technology Co., Ltd."
HOMEPAGE = "https://www.openslr.org/33"
RATE_HZ = 16000
SETS = {"train": ("train",), "dev": ("dev",), "test": ("test",)}
EXPECTED = {"train": (120098, 150.9), "dev": (14326, 18.1), "test": (7176, 10.0)}
URL = "https://www.openslr.org/resources/33/data_aishell.tgz"
# Not published by OpenSLR; PaddleSpeech and many others state it.
MD5 = "2f494334227864a8a8fec932999db9d8"

_TRANSCRIPT = Path("transcript/aishell_transcript_v0.8.txt")
_ID = re.compile(r"BAC009(S\d{4})W\d{4}")


def utterances(src: Path, split: str) -> Iterator[Utterance]:
    """Records of one official split."""
    root = _root(src, split)
    texts = _texts(root)
    for audio in _audio(root, split):
        if audio.stem in texts:
            text = "".join(texts[audio.stem].split())
            yield Utterance(audio.stem, str(audio), text, audio.parent.name, lang="zh")


def missing(src: Path, split: str) -> list[str]:
    """Archives of speakers not unpacked yet, speakers of the transcript in no split, and audio files of this split."""
    root = _root(src, split)
    packed = sorted(path.name for path in (root / "wav").glob("*.tar.gz"))
    faults = [f"contents of {shorten(packed)} in {root / 'wav'}: unpack them there"] if packed else []
    speakers = {key: found[1] for key in _texts(root) if (found := _ID.fullmatch(key))}
    present = {path.name for path in (root / "wav").glob("*/*") if path.is_dir()}
    absent = sorted(set(speakers.values()) - present - {name.removesuffix(".tar.gz") for name in packed})
    faults += [f"speakers of the transcript in no split: {shorten(absent)}"] if absent else []
    here = {path.name for path in (root / "wav" / split).iterdir()}
    heard = {path.stem for path in _audio(root, split)}
    silent = sorted(key for key, speaker in speakers.items() if speaker in here and key not in heard)
    return faults + ([f"audio of {shorten(silent)}"] if silent else [])


def download(dst: Path, splits: Sequence[str]) -> Path:
    """Fetch the archive (15 GB, resumable, MD5 as PaddleSpeech has it), unpack it and the archives of its speakers.

    All splits are in one archive. A speaker's archive goes when it is unpacked, so an interrupted call is continued.
    """
    print(f"AISHELL-1 is licensed {LICENSE}", flush=True)
    fetch_archive(URL, dst, f"md5:{MD5}")
    root = Path(dst) / "data_aishell"
    for archive in sorted((root / "wav").glob("*.tar.gz")):
        extract(archive, archive.parent)
        archive.unlink()
    return root


def _root(src: Path, split: str) -> Path:
    roots = [root for root in (Path(src), Path(src) / "data_aishell") if (root / "wav").is_dir()]
    found = [root for root in roots if split in SETS and (root / "wav" / split).is_dir()]
    if not found:
        splits = [s for s in SETS if any((root / "wav" / s).is_dir() for root in roots)]
        packed = any(root.glob("wav/*.tar.gz") for root in roots)
        remedy = " (its speakers are still packed: unpack wav/*.tar.gz in wav/)" if packed and not splits else ""
        raise MissingSplitError(
            f"{src}: no split {split!r}; found: {', '.join(splits) or 'none'}{remedy}; expected {src}/wav/{split}/"
        )
    return found[0]


def _texts(root: Path) -> dict[str, str]:
    if not (root / _TRANSCRIPT).is_file():
        raise ValueError(f"{root}: no {_TRANSCRIPT}; it comes with the archive {URL}, unpack that again")
    return read_scp(root / _TRANSCRIPT)


def _audio(root: Path, split: str) -> list[Path]:
    return sorted((root / "wav" / split).glob("*/*.wav"))
