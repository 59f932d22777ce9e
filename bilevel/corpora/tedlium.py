"""TED-LIUM release 2 (OpenSLR 19): TED talks, 207 hours of training speech, 16 kHz.

Layout: `TEDLIUM_release2/{train,dev,test}/{sph,stm}/<talk>.{sph,stm}`. A talk is one NIST SPHERE recording; a line of
its STM file is one segment, `<talk> <channel> <speaker> <start> <end> <label> <text>`, the label being `<o,f0,male>`
or `<F0_M>`.

Rules, those of Kaldi's `tedlium/s5_r2` and ESPnet's `tedlium2` recipes unless said otherwise
* `;;` lines and `ignore_time_segment_in_scoring` segments are no utterances; a repeated line counts once.
* Ids are `<talk>-<start>-<end>` with seven digits of centiseconds each, cut off and not rounded (12.348 s is 0001234,
  and 1.15 s is 0000114, because 1.15 * 100 is just below 115 in floating point, in awk as here). Segment times are
  those of the id, as in Kaldi. The speaker is the talk; ESPnet then cuts talks into pseudo-speakers
  of at most 180 s, which we do not.
* Training segments get 0.15 s more at the start and 0.1 s more at the end; where neighbours then overlap, or overlapped
  before, both end at the middle of the overlap. We also cut at the end of the recording (Kaldi does so when it reads
  the audio). Dev and test keep their times, so overlapping speakers stay overlapping.
* `(2)` after a word marks a pronunciation variant and goes; so do `<sil>` and a last `(...)` with the segment's name.
* A word that starts with an apostrophe joins the word before it: `it 's` is `it's`, `boys '` is `boys'`. Kaldi's script
  also joins a leading `'cause` to the label, and so loses it; here it stays.
* `<unk>` stays: it is one word, and the token lists know it.
* `{NOISE}`, `[SMACK]` and the like are no words and go. Kaldi writes them all as `[NOISE]`, for its dictionary.
* Text is yielded in its published case (lower).

lhotse (`prepare_tedlium2`) numbers segments by line instead, keeps the STM's exact times and never pads them. It leaves
`(2)`, `<sil>` and names in the text. Its normalize_text="kaldi" removes `<unk>`, removes `[...]` like us (but not
`{SMACK}`: only {NOISE} becomes [NOISE]), joins `it 's` like us, but joins a lone apostrophe to the next word.

EXPECTED: utterances are Kaldi's counts. Hours of dev and test, and 206.8 h of train before the padding, are from RWTH's
statistics (returnn-experiments, 2019-asr-e2e-trafo-vs-lstm: 744,339 s; 5,753 s; 9,424 s). The padding adds between 0
and 0.25 s to each segment, which makes 206.8 to 213.2 h; so hours are checked against 210 h to 2 %.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bilevel.corpora import MissingSplitError, shorten
from bilevel.data.audio import length_sec
from bilevel.data.fetch import fetch_archive
from bilevel.data.record import Utterance
from bilevel.data.tables import read_lines

LICENSE = "CC BY-NC-ND 3.0; talks and text are property of TED Conferences LLC"
HOMEPAGE = "https://www.openslr.org/19"
SHA256 = "93281b5fcaaae5c88671c9d000b443cb3c7ea3499ad12010b3934ca41a7b9c58"
RATE_HZ = 16000
SETS = {"train": ("train",), "dev": ("dev",), "test": ("test",)}
EXPECTED = {"train": (92973, 210.0), "dev": (507, 1.6), "test": (1155, 2.6)}
HOURS_TOLERANCE = 0.02
N_TALKS = {"train": 1495, "dev": 8, "test": 11}

_START_PADDING_SEC, _END_PADDING_SEC = 0.15, 0.1


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of an STM file; `centisec` are the start and end that the id shows."""

    talk: str
    centisec: tuple[int, int]
    text: str
    start_sec: float
    end_sec: float


def utterances(src: Path, split: str) -> Iterator[Utterance]:
    """Records of one split; a talk whose SPHERE file is not there is left out, `missing` names it."""
    folder = _folder(src, split)
    for stm in sorted((folder / "stm").glob("*.stm")):
        segments = read_stm(stm)
        audio = folder / "sph" / f"{segments[0].talk if segments else stm.stem}.sph"
        if not audio.is_file():
            continue
        if split == "train":
            segments = pad(segments)
        audio_sec = length_sec(audio)
        for s in segments:
            yield Utterance(
                id=f"{s.talk}-{s.centisec[0]:07d}-{s.centisec[1]:07d}",
                audio=str(audio),
                text=s.text,
                speaker=s.talk,
                recording=s.talk,
                start_sec=s.start_sec,
                end_sec=min(s.end_sec, audio_sec),
            )


def read_stm(path: Path) -> list[Segment]:
    """Segments of an STM file, sorted by time.

    Raises:
        ValueError: A line without the six leading fields, with times that are no numbers or not in order, or of
            another talk than the first.
    """
    found: list[Segment] = []
    seen = set()
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip() or ";;" in line or "ignore_time_segment_in_scoring" in line or line in seen:
            continue
        seen.add(line)
        fields = line.split(None, 6)
        try:
            talk, _, _, start, end, _ = fields[:6]
            centisec = (int(float(start) * 100), int(float(end) * 100))
        except ValueError:
            raise ValueError(
                f"{path}:{number}: expected `<talk> <channel> <speaker> <start> <end> <label> <text>`, found {line!r}"
            ) from None
        expected = found[0].talk if found else talk
        if talk != expected or not 0 <= centisec[0] < centisec[1]:
            raise ValueError(f"{path}:{number}: expected talk {expected} and 0 <= start < end, found {line!r}")
        text = clean(fields[6] if len(fields) > 6 else "")
        found.append(Segment(talk, centisec, text, centisec[0] / 100, centisec[1] / 100))
    return sorted(found, key=lambda s: s.centisec)


def clean(text: str) -> str:
    """Transcript of a segment without variants, silences, noises and names, suffixes joined to their words."""
    text = re.sub(r"\([0-9]\)", "", text.strip()).replace("<sil>", "")
    text = re.sub(r"\([^ ]*\)$", "", text)
    words: list[str] = []
    joined = True  # nothing joins the start of the line
    for word in text.split():
        if word[0] == "'" and not joined:
            words[-1] += word
            joined = True
        else:
            words.append(word)
            joined = False
    return " ".join(re.sub(r"[\[{][^\]}]*[\]}]", " ", " ".join(words)).split())


def pad(segments: Sequence[Segment]) -> list[Segment]:
    """Longer segments for training: Kaldi's extend_segment_times.py, 0.15 s before and 0.1 s after.

    Segments are taken in the order of their middles. The last one gets as much as the others; overlapping neighbours
    both end at the middle of their overlap. A segment that has no length left is dropped.
    """
    rows = sorted(segments, key=lambda s: s.start_sec + s.end_sec)
    starts = [max(0.0, s.start_sec - _START_PADDING_SEC) for s in rows]
    ends = [s.end_sec + _END_PADDING_SEC for s in rows]
    for n in range(len(rows) - 1):
        if ends[n] > starts[n + 1]:
            ends[n] = starts[n + 1] = (ends[n] + starts[n + 1]) / 2
    padded = (replace(s, start_sec=a, end_sec=b) for s, a, b in zip(rows, starts, ends, strict=True) if a < b)
    return sorted(padded, key=lambda s: s.centisec)


def missing(src: Path, split: str) -> list[str]:
    """Talks that have only half of their files, and how many talks there are if not as many as published."""
    folder = _folder(src, split)
    heard = {p.stem for p in (folder / "sph").glob("*.sph")}
    written = {p.stem for p in (folder / "stm").glob("*.stm")}
    faults = [f"audio of {shorten(sorted(written - heard))}"] if written - heard else []
    faults += [f"transcripts of {shorten(sorted(heard - written))}"] if heard - written else []
    n_talks = len(heard & written)
    return faults + ([f"{n_talks} talks found, {N_TALKS[split]} published"] if n_talks != N_TALKS[split] else [])


def download(dst: Path, splits: Sequence[str]) -> Path:
    """Fetch the archive (34 GB, resumable, SHA-256 as torchaudio has it) and unpack it; all splits are in one.

    The licence allows copying for non-commercial use, unchanged and with attribution.
    """
    print(f"TED-LIUM release 2 is licensed {LICENSE}", flush=True)
    fetch_archive("https://www.openslr.org/resources/19/TEDLIUM_release2.tar.gz", dst, f"sha256:{SHA256}")
    return Path(dst) / "TEDLIUM_release2"


def _folder(src: Path, split: str) -> Path:
    roots = (Path(src), Path(src) / "TEDLIUM_release2")
    for root in roots:
        if split in SETS and (root / split / "stm").is_dir():
            return root / split
    found = [s for s in SETS if any((root / s / "stm").is_dir() for root in roots)]
    raise MissingSplitError(
        f"{src}: no split {split!r}; found: {', '.join(found) or 'none'}; expected {src}/{split}/stm/"
    )
