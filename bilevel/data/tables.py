"""The text files of `<key> <value>` lines that data directories are made of."""

import re
from collections.abc import Iterator
from pathlib import Path


def read_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 file without their ends; a byte order mark and carriage returns are dropped.

    Raises:
        ValueError: Undecodable bytes, with file and line number.
    """
    return list(_lines(path))


def _lines(path: Path) -> Iterator[str]:
    with Path(path).open("rb") as file:
        for number, row in enumerate(file, 1):
            row = row.removeprefix(b"\xef\xbb\xbf") if number == 1 else row
            try:
                yield row.rstrip(b"\n").rstrip(b"\r").decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}:{number}: byte {row[error.start]:#04x} is not UTF-8; find the file's encoding and convert "
                    f"it, for instance: iconv -f LATIN1 -t UTF-8"
                ) from None


def split_line(line: str) -> tuple[str, str]:
    """Key and value of a line; only ASCII blanks separate, so a no-break space stays in the value."""
    key, *value = re.split("[ \t]+", line.strip(" \t"), maxsplit=1)
    return key, value[0] if value else ""


def read_scp(path: Path) -> dict[str, str]:
    """Read any Kaldi file of `<key> <value>` lines, in the file's order; a key alone has the value ''.

    Identical repeated lines count once.

    Raises:
        ValueError: Undecodable bytes, or one key with two values (all such keys are named).
    """
    table: dict[str, str] = {}
    clashes = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        key, value = split_line(line)
        if table.setdefault(key, value) != value:
            clashes.append(f"{key} (line {number})")
    if clashes:
        raise ValueError(f"{path}: two different entries for {', '.join(clashes)}; keep one of each")
    return table


def read_optional(path: Path) -> dict[str, str]:
    """As `read_scp`, empty when there is no such file."""
    return read_scp(path) if Path(path).exists() else {}


def invert(utt2spk: dict[str, str]) -> dict[str, str]:
    """The spk2utt table of a utt2spk table."""
    members: dict[str, list[str]] = {}
    for key in sorted(utt2spk):
        members.setdefault(utt2spk[key], []).append(key)
    return {speaker: " ".join(keys) for speaker, keys in members.items()}
