"""Kaldi archives: the one module that reads and writes them.

Uses kaldiio when it is installed and `omniio.kaldi`, which ESPnet brings, when it is not; the bytes are the same.
Both would run a shell for entries such as `command |`, so those are refused before either sees them.
"""

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from bilevel.data.files import atomic_path
from bilevel.data.tables import read_scp

try:
    import kaldiio as backend
except ImportError:
    from omniio import kaldi as backend


def write_archive(ark: Path, items: Iterable[tuple[str, np.ndarray]], final: Path | None = None) -> dict[str, str]:
    """Write matrices (T, F) one after the other, float32, uncompressed.

    Args:
        ark: The archive to write.
        items: Key and matrix; keys without blanks.
        final: Where the archive will lie in the end, if it is moved afterwards.

    Returns:
        The scp table: `<absolute path>:<offset>` by key.
    """
    table: dict[str, str] = {}
    with atomic_path(Path(ark)) as temporary, temporary.open("wb") as stream:
        for key, matrix in items:
            if not key or key.split() != [key]:
                raise ValueError(f"{ark}: key {key!r}: expected one word")
            table[key] = f"{Path(final or ark).absolute()}:{stream.tell() + len(key.encode()) + 1}"
            backend.save_ark(stream, {key: np.ascontiguousarray(matrix, dtype=np.float32)})
    return table


def read_matrix(entry: str) -> np.ndarray:
    """The matrix behind one scp entry, `<path>:<offset>`.

    Raises:
        ValueError: The entry is a command or standard input, or the file holds no matrix there.
    """
    entry = entry.strip()
    if not entry or entry == "-" or entry[0] == "|" or entry[-1] == "|":
        raise ValueError(f"archive entry {entry!r}: expected <file>:<offset>; commands are never run")
    path, _, offset = entry.rpartition(":")
    try:
        with Path(path if offset.isdecimal() else entry).open("rb") as stream:
            stream.seek(int(offset) if offset.isdecimal() else 0)
            return _read(stream, entry)
    except OSError as error:
        raise ValueError(f"archive entry {entry!r}: {error.strerror}; extract the features again") from None


def _read(stream, entry: str) -> np.ndarray:
    read = backend.matio.read_kaldi if backend.__name__ == "kaldiio" else backend.read_object
    try:
        found = read(stream)
    except (ValueError, RuntimeError, EOFError, AssertionError, struct.error) as error:
        raise ValueError(f"archive entry {entry!r}: damaged ({error}); extract the features again") from None
    if not isinstance(found, np.ndarray) or found.ndim != 2:
        raise ValueError(f"archive entry {entry!r}: expected a matrix; extract the features again")
    return found


def read_archive(scp: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Key and matrix (T, F) of every entry of an scp file, in its order."""
    for key, entry in read_scp(scp).items():
        yield key, read_matrix(entry)
