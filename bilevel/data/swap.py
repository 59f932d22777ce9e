"""Directories that change in one move."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_dir(path: Path, owned: Callable[[str], bool]) -> Iterator[Path]:
    """Yield a new folder beside `path`; on success it takes the place of `path`, on failure it goes.

    Args:
        path: The directory to write.
        owned: Tells by its name whether an entry of the old directory is replaced; all others move into the new one.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    old = path.with_name(f".{path.name}.old")
    _absorb(old, path, owned)  # a run that was killed within the swap left it
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    folder.chmod(0o755)
    try:
        yield folder
        if path.exists():
            os.rename(path, old)
        os.rename(folder, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _absorb(old, path, owned)


def _absorb(old: Path, path: Path, owned: Callable[[str], bool]) -> None:
    if not old.exists():
        return
    if not path.exists():
        os.rename(old, path)
        return
    for item in sorted(old.iterdir()):
        if not owned(item.name) and not (path / item.name).exists():
            os.rename(item, path / item.name)
    shutil.rmtree(old)
