"""Repair what can be repaired without guessing."""

import shutil
import unicodedata
from pathlib import Path

from bilevel.data.check_table import Table, check_table, is_odd, is_text
from bilevel.data.datadir import is_table, read_datadir, resolve_audio, utterance_durations
from bilevel.data.files import write_lines
from bilevel.data.shard import file_of
from bilevel.data.tables import invert, read_lines, read_scp, split_line
from bilevel.data.validate import audio_ids


def fix(path: Path, *, drop_missing: bool = False) -> list[str]:
    """Mend the fixable faults of a data directory, keeping the files as they were under `.backup/<n>/`.

    Cleans line ends, byte order marks, order, exact duplicates and Unicode form; rebuilds spk2utt; measures bad
    durations again. What needs a decision (two contents for one id, bad bytes, unsafe ids) is left alone.

    Args:
        path: The data directory.
        drop_missing: Also drop utterances that lack audio, text or speaker in a set where others have it.

    Returns:
        What was done, a line per changed file; empty if nothing had to change.
    """
    path = Path(path)
    before = {file.name: file.read_bytes() for file in sorted(path.iterdir()) if is_table(file.name)}
    backup = _backup(path, before)
    dropped: list[str] = []
    for name in before:
        _clean(path / name)
    _make_speakers(path)
    if drop_missing:
        dropped = _drop(path)
    _measure(path)
    _make_speakers(path)
    after = {file.name: file.read_bytes() for file in sorted(path.iterdir()) if is_table(file.name)}
    changed = [name for name in after if before.get(name) != after[name]]
    if not changed:
        shutil.rmtree(backup)
        return []
    notes = [f"{path / name}: {'rewritten' if name in before else 'added'}, backup in {backup}" for name in changed]
    return notes + [f"{path}: dropped {key}" for key in dropped]


def _backup(path: Path, before: dict[str, bytes]) -> Path:
    taken = [int(folder.name) for folder in (path / ".backup").glob("*") if folder.name.isdecimal()]
    backup = path / ".backup" / str(max(taken, default=0) + 1)
    backup.mkdir(parents=True)
    for name in before:
        shutil.copy2(path / name, backup / name)
    return backup


def _clean(file: Path) -> None:
    """Line ends, byte order mark, order, exact duplicates, Unicode form; a file with bad bytes stays as it is."""
    try:
        lines = {line.strip(" \t"): None for line in read_lines(file) if line.strip(" \t")}
    except ValueError:
        return
    if is_text(file.name):
        lines = {_plain(line): None for line in lines}
    if lines:
        write_lines(file, sorted(lines, key=lambda line: (split_line(line)[0], line)))


def _plain(line: str) -> str:
    head, text = split_line(line)
    text = unicodedata.normalize("NFC", text)
    chars = (" " if c.isspace() else c for c in text if c.isspace() or not is_odd(c))
    return f"{head} {' '.join(''.join(chars).split())}".rstrip()


def _load(path: Path) -> dict[str, Table]:
    return {file.name: check_table(file) for file in sorted(path.iterdir()) if is_table(file.name)}


def _make_speakers(path: Path) -> None:
    tables = _load(path)
    if "utt2spk" not in tables and "wav.scp" in tables:
        write_lines(path / "utt2spk", (f"{key} {key}" for key in sorted(audio_ids(tables))))
        tables = _load(path)
    if "utt2spk" in tables and not tables["utt2spk"].issues:
        inverse = invert({key: rows[0][1] for key, rows in tables["utt2spk"].rows.items()})
        lines = [f"{speaker} {inverse[speaker]}" for speaker in sorted(inverse)]
        if not (path / "spk2utt").exists() or read_lines(path / "spk2utt") != lines:
            write_lines(path / "spk2utt", lines)


def _drop(path: Path) -> list[str]:
    """Drop what is not in all of audio, text and utt2spk; returns the ids."""
    tables = _load(path)
    if "wav.scp" not in tables:
        return []
    here = {key for key, rows in tables["wav.scp"].rows.items() if _exists(rows[0][1], path)}
    if "segments" in tables:
        rows = tables["segments"].rows
        keep = {key for key in rows if here.intersection(rows[key][0][1].split()[:1])}
    else:
        keep = set(here)
    for name in {"text", "utt2spk"} & tables.keys():
        keep &= tables[name].rows.keys()
    dropped: set[str] = set()
    for name in tables.keys() - {"spk2utt"}:
        kept = here if name == "wav.scp" and "segments" in tables else keep
        dropped |= tables[name].rows.keys() - kept
        lines = [line for line in read_lines(path / name) if line.strip(" \t") and split_line(line)[0] in kept]
        write_lines(path / name, lines)
    return sorted(dropped)


def _exists(value: str, path: Path) -> bool:
    return value.endswith("|") or Path(file_of(resolve_audio(value, path))).is_file()


def _measure(path: Path) -> None:
    """Replace unusable durations; an utterance whose file does not open gets none."""
    tables = _load(path)
    bad = [issue.line for issue in tables["utt2dur"].issues if issue.fixable] if "utt2dur" in tables else []
    if not bad:
        return
    try:
        measured_sec = utterance_durations(read_datadir(path))
    except ValueError:
        return  # the tables contradict each other: that has to be decided first
    durations = read_scp(path / "utt2dur")
    for key, rows in tables["utt2dur"].rows.items():
        if {number for number, _ in rows} & set(bad):
            durations.pop(key)
            if key in measured_sec:
                durations[key] = f"{measured_sec[key]:.6f}"
    write_lines(path / "utt2dur", (f"{key} {durations[key]}" for key in sorted(durations)))
