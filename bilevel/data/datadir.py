"""Kaldi-style data directories: the tables that every later stage reads.

One `<key> <value>` line an entry, UTF-8, LF, sorted in the C locale (by code point, which for UTF-8 is by byte).
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import soundfile

from bilevel.data.files import write_lines
from bilevel.data.record import Utterance
from bilevel.data.shard import file_of
from bilevel.data.swap import atomic_dir
from bilevel.data.tables import invert, read_optional, read_scp

TABLES = ("wav.scp", "text", "utt2spk", "spk2utt", "segments", "utt2dur")
OPTIONAL_TABLES = ("utt2lang", "utt2source", "utt2speed", "utt2channel")
# A language code, so that text.orig or text.backup is not taken for a translation.
_TRANSLATION = re.compile(r"text\.([a-z]{2,3}(?:[-_][A-Za-z0-9]+)*)")


def is_table(name: str) -> bool:
    """Whether `name` is a file that `write_datadir` owns; all others survive a rewrite."""
    return name in TABLES or name in OPTIONAL_TABLES or bool(_TRANSLATION.fullmatch(name))


def resolve_audio(path: str, folder: Path) -> str:
    """Where a wav.scp path leads: a relative one into the data directory if it is there, else as given."""
    here = not os.path.isabs(path) and (Path(folder) / file_of(path)).exists()
    return str(Path(folder) / path) if here else path


def read_datadir(path: Path) -> list[Utterance]:
    """All utterances of a data directory, sorted by id.

    The set is unlabelled (`text` is None) when there is no file `text`. Without utt2spk, each utterance is its own
    speaker.

    Raises:
        ValueError: The tables contradict each other; `bilevel validate` lists everything.
    """
    path = Path(path)
    if not (path / "wav.scp").exists():
        raise ValueError(f"{path}: no wav.scp there; expected a Kaldi-style data directory")
    audio = {key: resolve_audio(value, path) for key, value in read_scp(path / "wav.scp").items()}
    segments = {key: _segment(key, row, path) for key, row in read_optional(path / "segments").items()}
    lost = sorted({recording for recording, _, _ in segments.values()} - audio.keys())
    _refuse(lost, path, "segments names recordings that are not in wav.scp")
    ids = sorted(segments or audio)

    def column(name: str) -> list[str | None]:
        table = read_optional(path / name)  # one at a time: each has the keys once more
        if name == "text" and (path / name).exists():
            _refuse(sorted(table.keys() - set(ids)), path, "text without audio")
            _refuse(sorted(set(ids) - table.keys()), path, "audio without text")
        return [table.get(key) for key in ids]

    text, speaker = column("text"), column("utt2spk")
    lang, source, speed, channel = (column(name) for name in OPTIONAL_TABLES)
    in_other = {
        match[1]: column(file.name) for file in sorted(path.iterdir()) if (match := _TRANSLATION.fullmatch(file.name))
    }
    utterances = []
    for i, key in enumerate(ids):
        recording, start_sec, end_sec = segments.get(key, (None, None, None))
        utterances.append(
            Utterance(
                id=key,
                audio=audio[recording or key],
                text=text[i],
                speaker=key if speaker[i] is None else speaker[i],
                recording=recording,
                start_sec=start_sec,
                end_sec=end_sec,
                channel=None if channel[i] is None else int(channel[i]),
                speed=1.0 if speed[i] is None else float(speed[i]),
                lang=lang[i],
                source=source[i],
                translations={name: texts[i] for name, texts in in_other.items() if texts[i] is not None},
            )
        )
    return utterances


def _segment(key: str, row: str, path: Path) -> tuple[str, float, float]:
    try:
        recording, start_sec, end_sec = row.split()[:3]
        return recording, float(start_sec), float(end_sec)
    except ValueError:
        raise ValueError(f"{path}/segments: {key}: expected `<recording> <start> <end>`, found {row!r}") from None


def _refuse(ids: list[str], path: Path, what: str) -> None:
    if ids:
        raise ValueError(
            f"{path}: {what}: {', '.join(ids)}; mend it, or drop them: bilevel validate {path} --fix --drop_missing"
        )


def write_datadir(
    path: Path, utterances: Iterable[Utterance], *, durations_sec: Mapping[str, float] | None = None
) -> None:
    """Write a data directory in one move: a reader sees the old one or the new one, never a half.

    Sorts; drops identical duplicates with a note. Files in an existing directory that are no tables of this module
    are kept. The text is written as given (but white space at its ends goes).

    Args:
        path: The directory.
        utterances: All utterances of the set.
        durations_sec: Lengths by utterance id where they are known already; else every header is read.

    Raises:
        ValueError: Nothing to write; one id with different contents; only a part of the set has text; a path that
            wav.scp cannot hold.
    """
    path = Path(path)
    rows = _unique(utterances, path)
    tables = make_tables(rows, path, utterance_durations(rows) if durations_sec is None else durations_sec)
    with atomic_dir(path, is_table) as folder:
        for name, table in tables:
            write_lines(folder / name, (f"{key} {table[key]}".rstrip() for key in sorted(table)))


def _unique(utterances: Iterable[Utterance], path: Path) -> list[Utterance]:
    rows: dict[str, Utterance] = {}
    n_same, clashes = 0, set()
    for utterance in utterances:
        if utterance.id not in rows:
            rows[utterance.id] = utterance
        elif rows[utterance.id] == utterance:
            n_same += 1
        else:
            clashes.add(utterance.id)
    if clashes:
        raise ValueError(f"{path}: ids with two different contents: {', '.join(sorted(clashes))}; rename or remove one")
    if not rows:
        raise ValueError(f"{path}: not one utterance to write; check the source folder and the split's name")
    if n_same:
        print(f"{path}: {n_same} identical duplicates dropped", flush=True)
    return [rows[key] for key in sorted(rows)]


def make_tables(
    rows: list[Utterance], path: Path, durations_sec: Mapping[str, float]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Name and content of each table of a data directory, one at a time in memory; `path` serves the messages only."""
    labelled = any(u.text is not None for u in rows)
    _refuse(sorted(u.id for u in rows if labelled and u.text is None), path, "a labelled set with audio without text")
    yield "wav.scp", _wav_scp(rows)
    utt2spk = {u.id: u.speaker or u.id for u in rows}
    yield "utt2spk", utt2spk
    yield "spk2utt", invert(utt2spk)
    del utt2spk
    yield "utt2dur", {u.id: f"{durations_sec[u.id]:.6f}" for u in rows if u.id in durations_sec}
    if any(u.recording for u in rows):
        yield "segments", {u.id: _segment_row(u, durations_sec) for u in rows}
    if labelled:
        yield "text", {u.id: _one_line(u.text, u.id) for u in rows}
    if any(u.speed != 1.0 for u in rows):
        yield "utt2speed", {u.id: repr(u.speed) for u in rows}
    for name, value in (("utt2channel", "channel"), ("utt2lang", "lang"), ("utt2source", "source")):
        table = {u.id: str(getattr(u, value)) for u in rows if getattr(u, value) is not None}
        if table:
            yield name, table
    for lang in sorted({lang for u in rows for lang in u.translations}):
        if not _TRANSLATION.fullmatch(f"text.{lang}"):
            raise ValueError(f"{path}: translation language {lang!r}: expected a code such as de or pt-BR")
        yield f"text.{lang}", {u.id: _one_line(u.translations[lang], u.id) for u in rows if lang in u.translations}


def _wav_scp(rows: list[Utterance]) -> dict[str, str]:
    table: dict[str, str] = {}
    for u in rows:
        if u.audio != u.audio.strip() or set(u.audio) & set("\n\r\0") or not u.audio:
            raise ValueError(f"utterance {u.id}: audio path {u.audio!r}: wav.scp cannot hold it; rename the file")
        key = u.recording or u.id
        if table.setdefault(key, u.audio) != u.audio:
            raise ValueError(f"recording {key}: two audio files, {table[key]} and {u.audio}; give each its own id")
    return table


def _segment_row(u: Utterance, durations_sec: Mapping[str, float]) -> str:
    if u.recording:
        return f"{u.recording} {u.start_sec:.6f} {u.end_sec:.6f}"
    if u.id not in durations_sec:  # Kaldi wants a segment for all or for none
        raise ValueError(f"utterance {u.id}: {u.audio} does not open, so its segment has no end; repair or remove it")
    return f"{u.id} 0.000000 {durations_sec[u.id] * u.speed:.6f}"


def _one_line(text: str, key: str) -> str:
    if "\n" in text or "\r" in text:
        raise ValueError(f"utterance {key}: the transcript has a line break, {text!r}; expected one line")
    return text.strip(" \t")


def utterance_durations(rows: Iterable[Utterance]) -> dict[str, float]:
    """Length in seconds of each utterance, after its speed factor.

    Segments by their times, whole files by what the corpus states, else by the header; a file that does not open has
    no entry (the scan judges it).
    """
    rows = list(rows)
    lengths_sec = {u.id: length / u.speed for u in rows if (length := _stated_sec(u)) is not None}
    unknown = [u for u in rows if u.id not in lengths_sec]
    with ThreadPoolExecutor(8) as pool:  # bound by the disk, and libsndfile releases the lock
        for u, length in zip(unknown, pool.map(_header_sec, unknown), strict=True):
            if length is not None:
                lengths_sec[u.id] = length / u.speed
    return lengths_sec


def _stated_sec(u: Utterance) -> float | None:
    return u.duration_sec if u.start_sec is None else u.end_sec - u.start_sec


def _header_sec(u: Utterance) -> float | None:
    try:
        info = soundfile.info(u.audio)
    except (soundfile.SoundFileError, OSError):
        return None
    return info.frames / info.samplerate
