"""One run at a time in a folder."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the folder's `.lock`, which says who works there.

    The operating system drops the lock with the process, also when it is killed; what such a run leaves is the text.
    The file itself stays, empty: were it removed, two runs could each lock a file of that name.

    Raises:
        ValueError: A run in this folder is alive, or one of another host did not end by itself (a file system need not
            share locks between hosts, so it may be alive).
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, host = folder / ".lock", socket.gethostname()
    with path.open("a+", encoding="utf-8") as stream:
        stream.seek(0)
        owner = stream.read().strip()
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{folder} is in use by {owner or 'another process'}: wait for it, end it, or choose another folder"
            ) from None
        if owner and owner.split()[-1] != host:
            raise ValueError(f"{folder} was left by {owner}: if that no longer runs, delete {path} and start again")
        if owner:
            print(f"note: {folder} was left by {owner}, which was killed; taking over", flush=True)
        _write(stream, f"process {os.getpid()} on {host}\n")
        try:
            yield
        finally:
            _write(stream, "")


def _write(stream, text: str) -> None:
    stream.truncate(0)
    stream.write(text)
    stream.flush()
