"""Rules that one table of a data directory can break by itself."""

import itertools
import math
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bilevel.data.issue import Issue
from bilevel.data.record import is_safe_id
from bilevel.data.tables import split_line

Rows = dict[str, list[tuple[int, str]]]  # id -> (line number, value) of every line with that id


@dataclass
class Table:
    """A table as it stands in the file, faults and all."""

    name: str
    rows: Rows = field(default_factory=dict)
    issues: list[Issue] = field(default_factory=list)

    def report(self, line: int, reason: str, remedy: str, *, fixable: bool = False) -> None:
        """Note one fault of this file."""
        self.issues.append(Issue(self.name, line, reason, remedy, fixable))


def is_text(name: str) -> bool:
    """Whether the table holds transcripts."""
    return name == "text" or name.startswith("text.")


def check_table(path: Path, *, allow_pipes: bool = False) -> Table:
    """Read one table and note every fault that can be seen without the others."""
    table = Table(path.name)
    data = path.read_bytes()
    if not data.strip():
        table.report(0, "the file is empty", "write it again from the corpus, or delete it if it is optional")
        return table
    _check_bytes(table, data)
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            line = raw.rstrip(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            found = f"byte {raw[error.start]:#04x} is not UTF-8"
            table.report(number, found, "convert the file, for instance: iconv -f LATIN1 -t UTF-8")
            continue
        if line.strip(" \t"):
            key, value = split_line(line)
            table.rows.setdefault(key, []).append((number, value))
            _check_row(table, number, key, value, allow_pipes)
    _check_keys(table)
    return table


def _check_bytes(table: Table, data: bytes) -> None:
    if data.startswith(b"\xef\xbb\xbf"):
        table.report(1, "byte order mark at the start", "remove it", fixable=True)
    n_crlf = data.count(b"\r\n")
    if n_crlf:
        first = data[: data.index(b"\r\n")].count(b"\n") + 1
        table.report(first, f"{n_crlf} lines end in CRLF, expected LF", "remove the carriage returns", fixable=True)
    if not data.endswith(b"\n"):
        table.report(data.count(b"\n") + 1, "the last line has no newline", "add it", fixable=True)


def _check_keys(table: Table) -> None:
    order = sorted((number, key) for key, rows in table.rows.items() for number, _ in rows)
    for (_, before), (number, key) in itertools.pairwise(order):
        if key < before:
            table.report(number, f"unsorted: {key} after {before}", "sort in the C locale", fixable=True)
            break
    for key, rows in table.rows.items():
        for number, value in rows[1:]:
            if value == rows[0][1]:
                table.report(number, f"duplicate of line {rows[0][0]}: {key}", "drop one", fixable=True)
            else:
                found = f"id {key} again, with other content than line {rows[0][0]}"
                table.report(number, found, "rename or remove one of them")


def _check_row(table: Table, number: int, key: str, value: str, allow_pipes: bool) -> None:
    names = [key]
    if table.name in _N_FIELDS and len(value.split()) != _N_FIELDS[table.name] - 1:
        found = f"{key}: {len(value.split()) + 1} fields, expected {_N_FIELDS[table.name]}"
        table.report(number, found, "write the line again")
    elif table.name in ("wav.scp", "spk2utt") and not value:
        table.report(number, f"{key}: 1 field, expected at least 2", "write the line again")
    elif table.name in _VALUE_RULES:
        _VALUE_RULES[table.name](table, number, key, value)
    elif table.name == "wav.scp" and (value.endswith("|") or value == "-") and not allow_pipes:
        found = f"{key}: a command instead of a file, {value!r}"
        table.report(number, found, "convert to audio files, or trust the commands with --allow_pipes")
    elif is_text(table.name):
        _check_text(table, number, key, value)
    if table.name in ("utt2spk", "segments"):
        names += value.split()[:1]
    for name in names:
        if not is_safe_id(name):
            found = f"unsafe id {name[:80]!r} ({len(name)} characters)"
            table.report(number, found, "use 1-200 letters, digits or any of _.+=@%,- without '..'")


def _check_text(table: Table, number: int, key: str, value: str) -> None:
    if not value:
        if table.name == "text":
            table.report(number, f"{key}: empty transcript", "remove the utterance or write its transcript")
        return
    if not unicodedata.is_normalized("NFC", value):
        table.report(number, f"{key}: the text is not in Unicode form NFC", "normalise it", fixable=True)
    odd = sorted({f"U+{ord(c):04X}" for c in value if is_odd(c)})
    if odd:
        found = f"{key}: {', '.join(odd)} in the text (odd space, zero-width or control character)"
        table.report(number, found, "make it a plain space or remove it", fixable=True)


def is_odd(char: str) -> bool:
    """White space other than the plain space, zero-width and control characters."""
    return (char.isspace() and char != " ") or unicodedata.category(char) in ("Cf", "Cc")


def _check_positive(table: Table, number: int, key: str, value: str) -> None:
    if not _is_positive(value):
        fixable = table.name == "utt2dur"
        remedy = "measure it again" if fixable else "write a positive number"
        table.report(number, f"{key}: {value!r}, expected a positive number", remedy, fixable=fixable)


def _is_positive(value: str) -> bool:
    try:
        return 0 < float(value) < math.inf
    except ValueError:
        return False


def _check_channel(table: Table, number: int, key: str, value: str) -> None:
    if not value.isdecimal():
        table.report(number, f"{key}: channel {value!r}, expected 0, 1, 2 ...", "write the channel's number")


def _check_segment(table: Table, number: int, key: str, value: str) -> None:
    _, start, end = value.split()
    try:
        good = 0 <= float(start) < float(end) < math.inf
    except ValueError:
        good = False
    if not good:
        table.report(number, f"{key}: segment {start} .. {end}, expected 0 <= start < end", "correct the times")


_N_FIELDS = {
    "utt2spk": 2,
    "segments": 4,
    "utt2dur": 2,
    "utt2lang": 2,
    "utt2source": 2,
    "utt2speed": 2,
    "utt2channel": 2,
}
_VALUE_RULES: dict[str, Callable[[Table, int, str, str], None]] = {
    "utt2dur": _check_positive,
    "utt2speed": _check_positive,
    "utt2channel": _check_channel,
    "segments": _check_segment,
}
