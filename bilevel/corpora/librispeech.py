"""LibriSpeech (OpenSLR 12): read English audiobooks, 960 hours of training speech, 16 kHz.

Layout: `<split>/<speaker>/<chapter>/<speaker>-<chapter>-<nnnn>.flac` with one `<speaker>-<chapter>.trans.txt` a chapter
(`<id> <TEXT>`, upper case, no punctuation). `SPEAKERS.TXT` and `CHAPTERS.TXT` (comment lines start with `;`, fields are
separated by `|`, and a reader's name may itself hold `|`) say what belongs to which split; they are only used to name
what is missing.

Rules and conventions
* Utterance ids are the published ones, `<speaker>-<chapter>-<nnnn>`.
* The speaker id is `<speaker>-<chapter>`, as in Kaldi and ESPnet (one set of statistics a chapter). lhotse uses
  `<speaker>`; it is our id up to the first `-`.
* The transcript decides: audio without a transcript is left out, and so is a transcript without audio. lhotse does the
  same; Kaldi refuses such a chapter. `missing` names both.
* An id without words has an empty text (lhotse stops with an error there); later stages drop it from labelled sets.
* Text is yielded as published; case is a matter of `--case`.

EXPECTED: utterance counts are those of the corpus. The hours were read off the audio (totals printed by icefall's
`display_manifest_statistics.py`, with the three copies of its speed perturbation divided out), to 0.1 h. The paper's
table (Panayotov et al. 2015) differs for three splits: it has 496.7 for train-other-500, 5.3 for dev-other and 5.1 for
test-other.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bilevel.corpora import MissingSplitError, shorten
from bilevel.data.fetch import fetch_archive
from bilevel.data.record import Utterance
from bilevel.data.tables import read_lines, split_line

LICENSE = "CC BY 4.0, V. Panayotov, G. Chen, D. Povey, S. Khudanpur"
HOMEPAGE = "https://www.openslr.org/12"
RATE_HZ = 16000
MD5 = {
    "train-clean-100": "2a93770f6d5c6c964bc36631d331a522",
    "train-clean-360": "c0e676e450a7ff2f54aeade5171606fa",
    "train-other-500": "d1a0fd59409feb2c614ce4d30c387708",
    "dev-clean": "42e2234ba48799c1f50f24a7926300a1",
    "dev-other": "c8d0bcc9cca99d4f8b62fcc847357931",
    "test-clean": "32fa31d27d2e1cad72775fff3f4849a0",
    "test-other": "fb5a50374b501bb3bac4815ee91d3135",
}
SETS = {split.replace("-", "_"): (split,) for split in MD5} | {
    "train_460": ("train-clean-100", "train-clean-360"),
    "train_860": ("train-clean-360", "train-other-500"),
    "train_960": ("train-clean-100", "train-clean-360", "train-other-500"),
    "dev": ("dev-clean", "dev-other"),
}
EXPECTED = {
    "train-clean-100": (28539, 100.6),
    "train-clean-360": (104014, 363.6),
    "train-other-500": (148688, 496.9),
    "dev-clean": (2703, 5.4),
    "dev-other": (2864, 5.1),
    "test-clean": (2620, 5.4),
    "test-other": (2939, 5.3),
}


def utterances(src: Path, split: str) -> Iterator[Utterance]:
    """Records of one official split."""
    for transcript in _transcripts(_folder(src, split)):
        for key, text in _lines(transcript):
            audio = transcript.parent / f"{key}.flac"
            if audio.is_file():
                yield Utterance(key, str(audio), text, key.rpartition("-")[0])


def missing(src: Path, split: str) -> list[str]:
    """Speakers, chapters, transcripts and audio files that a complete split would have."""
    folder = _folder(src, split)
    faults = []
    speakers = {row[0] for row in _table(folder.parent / "SPEAKERS.TXT", 5) if row[2] == split}
    silent = sorted((s for s in speakers if not (folder / s).is_dir()), key=int)
    faults += [f"speakers of SPEAKERS.TXT: {shorten(silent)}"] if silent else []
    chapters = {f"{row[1]}/{row[0]}" for row in _table(folder.parent / "CHAPTERS.TXT", 8) if row[3] == split}
    absent = sorted(c for c in chapters if not (folder / c).is_dir() and c.split("/")[0] not in silent)
    faults += [f"chapters of CHAPTERS.TXT: {shorten(absent)}"] if absent else []
    for chapter in sorted(p for p in folder.glob("*/*") if p.is_dir()):
        heard = {p.stem for p in chapter.glob("*.flac")}
        written = {key for path in chapter.glob("*.trans.txt") for key, _ in _lines(path)}
        faults += [f"transcripts of {shorten(sorted(heard - written))}"] if heard - written else []
        faults += [f"audio of {shorten(sorted(written - heard))}"] if written - heard else []
    return faults


def download(dst: Path, splits: Sequence[str]) -> Path:
    """Fetch the archives of the splits (resumable, MD5 as published), unpack them; returns the corpus folder."""
    for split in splits:
        fetch_archive(f"https://www.openslr.org/resources/12/{split}.tar.gz", dst, f"md5:{MD5[split]}")
    return Path(dst) / "LibriSpeech"


def _folder(src: Path, split: str) -> Path:
    for root in (Path(src), Path(src) / "LibriSpeech"):
        if split in MD5 and (root / split).is_dir():
            return root / split
    found = [s for s in MD5 if any((r / s).is_dir() for r in (Path(src), Path(src) / "LibriSpeech"))]
    raise MissingSplitError(f"{src}: no split {split!r}; found: {', '.join(found) or 'none'}; expected {src}/{split}/")


def _transcripts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*/*.trans.txt"))


def _lines(transcript: Path) -> Iterator[tuple[str, str]]:
    prefix = transcript.name.removesuffix(".trans.txt") + "-"
    for number, line in enumerate(read_lines(transcript), 1):
        if not line.strip():
            continue
        key, text = split_line(line)
        if not key.startswith(prefix):
            raise ValueError(f"{transcript}:{number}: id {key!r}: expected one that starts with {prefix!r}")
        yield key, text


def _table(path: Path, n_fields: int) -> list[list[str]]:
    if not path.is_file():
        return []
    rows = [line.split("|", n_fields - 1) for line in read_lines(path) if line.strip() and line[0] != ";"]
    return [[field.strip() for field in row] for row in rows if len(row) == n_fields]
