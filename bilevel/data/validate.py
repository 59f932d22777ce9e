"""Every fault of a data directory at once."""

from pathlib import Path

import soundfile

from bilevel.data.check_table import Table, check_table
from bilevel.data.datadir import is_table, resolve_audio
from bilevel.data.issue import Issue
from bilevel.data.shard import file_of

# A segment may overrun its recording by this much: times are rounded, and so are compressed files' lengths.
_TOLERANCE_SEC = 0.05


def validate(path: Path, *, allow_pipes: bool = False) -> list[Issue]:
    """All faults of a data directory, by file and line; an empty list means it is sound.

    A set without `text` is an unlabelled one, which is no fault.

    Args:
        path: The data directory.
        allow_pipes: Accept `command |` entries in wav.scp (they are not run here).
    """
    path = Path(path)
    if not path.is_dir():
        return [Issue(".", 0, "no such directory", "check the path, or run the data stage")]
    tables = {
        file.name: check_table(file, allow_pipes=allow_pipes) for file in sorted(path.iterdir()) if is_table(file.name)
    }
    issues = [issue for table in tables.values() for issue in table.issues]
    issues += _missing_files(tables)
    if "wav.scp" in tables:
        issues += _missing_audio(tables["wav.scp"], path)
        issues += _segments(tables, path)
        issues += _one_sided(tables)
    issues += _speakers(tables)
    return sorted(issues)


def _missing_files(tables: dict[str, Table]) -> list[Issue]:
    issues = []
    if "wav.scp" not in tables:
        issues.append(Issue("wav.scp", 0, "missing file", "write it: `<id> <audio file>` a line"))
    if "utt2spk" not in tables:
        issues.append(Issue("utt2spk", 0, "missing file", "make each utterance its own speaker", fixable=True))
    elif "spk2utt" not in tables:
        issues.append(Issue("spk2utt", 0, "missing file", "derive it from utt2spk", fixable=True))
    return issues


def _missing_audio(table: Table, path: Path) -> list[Issue]:
    return [
        Issue("wav.scp", number, f"{key}: no such file: {value}", "correct the path, or drop it: --fix --drop_missing")
        for key, rows in table.rows.items()
        for number, value in rows
        if value
        and value != "-"
        and not value.endswith("|")
        and not Path(file_of(resolve_audio(value, path))).is_file()
    ]


def _segments(tables: dict[str, Table], path: Path) -> list[Issue]:
    """Recordings that are not there, and times beyond a recording's end."""
    if "segments" not in tables:
        return []
    issues, lengths_sec = [], {}
    audio = tables["wav.scp"].rows
    for key, rows in tables["segments"].rows.items():
        for number, value in rows:
            recording, *times = value.split() or [""]
            if recording not in audio:
                found = f"{key}: recording {recording!r} is not in wav.scp"
                issues.append(Issue("segments", number, found, "add it, or drop it: --fix --drop_missing"))
                continue
            if recording not in lengths_sec:
                lengths_sec[recording] = _length_sec(resolve_audio(audio[recording][0][1], path))
            try:
                end_sec = float(times[1])
            except (IndexError, ValueError):
                continue  # reported by the table's own rule
            if lengths_sec[recording] is not None and end_sec > lengths_sec[recording] + _TOLERANCE_SEC:
                found = f"{key}: ends at {end_sec} s, but {recording} at {lengths_sec[recording]:.3f} s"
                issues.append(Issue("segments", number, found, "correct the times"))
    return issues


def _length_sec(path: str) -> float | None:
    """Length by the header, or None: unreadable files are the scan's matter."""
    try:
        info = soundfile.info(path)
    except (soundfile.SoundFileError, OSError):
        return None
    return info.frames / info.samplerate


def audio_ids(tables: dict[str, Table]) -> set[str]:
    """Utterances: those of segments if there is such a file, else those of wav.scp."""
    return set(tables["segments" if "segments" in tables else "wav.scp"].rows)


def _one_sided(tables: dict[str, Table]) -> list[Issue]:
    """Ids of one table that another lacks."""
    remedy = "complete the tables, or drop these utterances: --fix --drop_missing"
    main = "segments" if "segments" in tables else "wav.scp"
    ids = audio_ids(tables)
    issues = []
    for name, table in tables.items():
        if name in ("wav.scp", "segments", "spk2utt"):
            continue
        issues += [
            Issue(name, rows[0][0], f"{key}: not in {main}", remedy)
            for key, rows in table.rows.items()
            if key not in ids
        ]
        if name in ("text", "utt2spk"):
            lacking = sorted(ids - table.rows.keys())
            issues += [Issue(main, tables[main].rows[key][0][0], f"{key}: not in {name}", remedy) for key in lacking]
    return issues


def _speakers(tables: dict[str, Table]) -> list[Issue]:
    """utt2spk and spk2utt tell the same."""
    if not {"utt2spk", "spk2utt"} <= tables.keys():
        return []
    expected: dict[str, set[str]] = {}
    for key, rows in tables["utt2spk"].rows.items():
        expected.setdefault(rows[0][1], set()).add(key)
    issues = []
    for speaker, rows in tables["spk2utt"].rows.items():
        for number, value in rows:
            different = sorted(expected.get(speaker, set()) ^ set(value.split()))
            if different:
                found = f"{speaker}: disagrees with utt2spk about {' '.join(different)}"
                issues.append(Issue("spk2utt", number, found, "derive it from utt2spk", fixable=True))
    lacking = sorted(expected.keys() - tables["spk2utt"].rows.keys())
    issues += [Issue("spk2utt", 0, f"{s}: a speaker of utt2spk only", "derive it from utt2spk", True) for s in lacking]
    return issues
