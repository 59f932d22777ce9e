"""Atomic files and stamps of finished work."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it onto `path` on success, remove it on failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    temporary.chmod(0o644)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write one line per item, each ended by a newline, atomically."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        for line in lines:
            stream.write(line + "\n")


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


REPORTS = ("dropped.tsv", "overlap.json")  # of stage 4 on a set: they name other sets, and no stage reads them


class Stamp:
    """Remembers for which inputs and settings a stage was finished.

    Files of at most 64 MiB count by content, larger ones by size and time, so a stamp is cheap on a big corpus.

    Args:
        path: The stamp file, for instance `data/train/.done/format.json`.
        inputs: Files, or directories (their immediate files count).
        config: All settings that change the outcome; plain JSON types.
    """

    def __init__(self, path: Path, inputs: Iterable[Path], config: Mapping[str, object]) -> None:
        self.path = Path(path)
        self._state = {
            "inputs": {str(file): _fingerprint(file) for file in _expand(inputs)},
            "config": json.loads(json.dumps(dict(config), sort_keys=True, default=str)),
        }

    def fresh(self) -> bool:
        """Whether the work was finished for exactly these inputs and settings; says so when it was."""
        try:
            same = json.loads(self.path.read_text(encoding="utf-8")) == self._state
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        if same:
            print(f"skip: {self.path.parent.parent} {self.path.stem} is done for the same inputs", flush=True)
        return same

    def begin(self) -> None:
        """Record what the work is started with, for `changes` of a later attempt to finish it."""
        self._record(self._begun)

    def changes(self) -> dict[str, tuple[object, object]]:
        """What is not as it was when the work was begun: setting or file -> (then, now). Empty without a record.

        Large files are compared by size alone, since a copy has another time.
        """
        record = next((file for file in (self._begun, self.path) if file.exists()), None)
        if record is None:
            return {}
        then, now = _flat(json.loads(record.read_text(encoding="utf-8"))), _flat(self._state)
        names = sorted(then.keys() | now.keys())
        return {name: (then.get(name), now.get(name)) for name in names if then.get(name) != now.get(name)}

    def write(self) -> None:
        """Record the finished work."""
        self._record(self.path)

    @property
    def _begun(self) -> Path:
        return self.path.with_suffix(".begun.json")

    def _record(self, path: Path) -> None:
        write_text(path, json.dumps(self._state, indent=1, sort_keys=True) + "\n")


def _flat(state: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    """One level of names: files, and settings with dots for depth."""

    def visit(value: object, name: str) -> Iterator[tuple[str, object]]:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                yield from visit(inner, f"{name}.{key}" if name else key)
        else:
            yield name, value

    contents = {f"content of {name}": str(value).partition(":")[0] for name, value in state["inputs"].items()}
    return contents | dict(visit(state["config"], ""))


def _expand(inputs: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for item in map(Path, inputs):
        if item.is_dir():
            files += sorted(f for f in item.iterdir() if f.is_file() and f.name[0] != "." and f.name not in REPORTS)
        else:
            files.append(item)
    return files


def _fingerprint(path: Path) -> str:
    if not path.exists():
        return "missing"
    status = path.stat()
    return sha256(path) if status.st_size <= 64 << 20 else f"{status.st_size}:{status.st_mtime_ns}"
