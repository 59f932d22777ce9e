"""What yodas and yodas2 share: subsets of numbered shards, names for a part of them, their tables, the download."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bilevel.corpora import MissingSplitError, _hub, shorten
from bilevel.data.files import write_text
from bilevel.data.tables import read_lines, split_line

_SUBSET = re.compile(r"[a-z]{2}\d{3}")
_PART = re.compile(r"([a-z]{2}\d{3})(?:_(\d+)(-?)(\d*))?")
_FILE = re.compile(r"data/[a-z]{2}\d{3}/(audio|text|duration)/(\d{8})\.(tar\.gz|txt|json)")


@dataclass(frozen=True)
class Part:
    """Shards `first` to `last` of a subset; `last` None means to its end."""

    subset: str
    first: int = 0
    last: int | None = None

    def __contains__(self, number: int) -> bool:
        return self.first <= number and (self.last is None or number <= self.last)


@dataclass(frozen=True)
class Shard:
    """One shard: its language and its three files, of which `text` need not be there."""

    lang: str
    audio: Path
    text: Path
    duration: Path


def parse(split: str) -> list[Part]:
    """The parts that a split names.

    Raises:
        MissingSplitError: It is no name of shards.
    """
    parts = []
    for name in split.split("+"):
        found = _PART.fullmatch(name)
        if found is None or (found[4] and not found[3]):
            raise MissingSplitError(
                f"no split {split!r}: expected a subset such as en000, or some of its shards, en000_7, en000_0-49 or "
                "en000_1-; several are joined by +"
            )
        subset, first, dash, last = found.groups()
        if first is None:
            parts.append(Part(subset))
        else:
            parts.append(Part(subset, int(first), int(last) if last else None if dash else int(first)))
    return parts


def splits(src: Path) -> list[str]:
    """Subsets that the folder holds, sorted."""
    return sorted(p.name for p in _data(src).glob("*") if _SUBSET.fullmatch(p.name) and (p / "audio").is_dir())


def shards(src: Path, split: str, suffix: str) -> Iterator[Shard]:
    """The shards of a split that have audio and durations, in their order; texts end in `suffix`.

    Raises:
        MissingSplitError: There is no audio of one of its parts.
    """
    for part in parse(split):
        folder = _data(src) / part.subset
        numbers = [n for n in sorted(_numbers(folder / "audio", ".tar.gz")) if n in part]
        if not numbers:
            found = ", ".join(splits(src)) or "none"
            raise MissingSplitError(f"{src}: no split {split!r}; found: {found}; expected {folder}/audio/*.tar.gz")
        for name in (f"{n:08d}" for n in numbers):
            audio, duration = folder / "audio" / f"{name}.tar.gz", folder / "duration" / f"{name}.txt"
            if duration.is_file():
                yield Shard(part.subset[:2], audio, folder / "text" / f"{name}{suffix}", duration)


def missing(src: Path, split: str, suffix: str, published: Mapping[str, int]) -> list[str]:
    """Files of shards that are not there, or not of the size in the index that `download` keeps.

    Without an index a subset has as many shards as `published` says; where that says nothing, as many as its highest
    number tells, so a gap is seen and a missing end is not.
    """
    faults = []
    for part in parse(split):
        folder, index = _data(src) / part.subset, _read_index(src, part.subset)
        kinds = {"audio": ".tar.gz", "text": suffix, "duration": ".txt"}
        here = {kind: _numbers(folder / kind, end) for kind, end in kinds.items()}
        if index:
            n_shards = 1 + max(int(_FILE.fullmatch(name)[2]) for name in index)
        else:
            n_shards = published.get(part.subset, 1 + max(set().union(*here.values()), default=-1))
        expected = {n for n in range(max(n_shards, 1 + (part.last or 0))) if n in part}
        for kind, end in kinds.items():
            absent = [f"{n:08d}" for n in sorted(expected - here[kind])]
            faults += [f"{part.subset}: {kind} of shard {shorten(absent)}"] if absent else []
            paths = {f"{n:08d}": folder / kind / f"{n:08d}{end}" for n in sorted(expected & here[kind])}
            sizes = {name: index.get(f"data/{part.subset}/{kind}/{path.name}") for name, path in paths.items()}
            odd = [name for name, path in paths.items() if sizes[name] and path.stat().st_size != sizes[name][0]]
            faults += [f"{part.subset}: {kind} of shard {shorten(odd)} in its published size"] if odd else []
    return faults


def read_table(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, key and the rest of each line; a key that comes again counts once, the first time."""
    seen = set()
    for number, line in enumerate(read_lines(path), 1):
        key, value = split_line(line)
        if key and key not in seen:
            seen.add(key)
            yield number, key, value


def read_durations(path: Path) -> dict[str, float]:
    """Lengths in seconds by key; what has no length is left out.

    Raises:
        ValueError: A line that is not `<key> <seconds>`.
    """
    lengths_sec = {}
    for number, key, value in read_table(path):
        try:
            length_sec = float(value)
        except ValueError:
            length_sec = math.nan
        if not 0 <= length_sec < math.inf:
            raise ValueError(f"{path}:{number}: expected `<id> <seconds>`, found {key!r} {value!r}")
        if length_sec:
            lengths_sec[key] = length_sec
    return lengths_sec


def parse_id(key: str, where: Path) -> tuple[str, float, float]:
    """Video, start and end in seconds of an utterance id, `<video>-<nnnnn>-<start>-<end>` in centiseconds.

    Raises:
        ValueError: It is no such id.
    """
    fields = key.rsplit("-", 3)
    if len(fields) < 4 or not all(f.isascii() and f.isdecimal() for f in fields[1:]):
        raise ValueError(f"{where}: id {key!r}: expected <video>-<number>-<start>-<end>")
    return fields[0], int(fields[2]) / 100, int(fields[3]) / 100


def safe(key: str) -> str:
    """Our id for a published one: `=` in front of a leading `-`. Published ids have no `=`, so no two become one."""
    return f"={key}" if key.startswith("-") else key


def one_line(text: object) -> str:
    """A caption in one line."""
    return " ".join(str(text).splitlines()).strip()


def download(repository: str, dst: Path, splits: Sequence[str]) -> Path:
    """Fetch the files of the splits; what the Hub lists of a subset is kept in `dst/index`, delete that to ask again.

    Raises:
        ValueError: There is no such subset, or a checksum is wrong.
        OSError: The Hub cannot be reached or refuses, or the connection broke; call again to continue.
    """
    dst = Path(dst)
    for part in (part for split in splits for part in parse(split)):
        index = _read_index(dst, part.subset)
        if not index:
            listed = _hub.list_files(repository, f"data/{part.subset}")
            index = {name: listed[name] for name in sorted(listed) if _FILE.fullmatch(name)}
            if not index:
                raise ValueError(f"{repository}: no subset {part.subset!r} at {_hub.endpoint()}; its card lists them")
            write_text(_index(dst, part.subset), json.dumps(index, indent=1) + "\n")
        files = {name: row for name, row in index.items() if int(_FILE.fullmatch(name)[2]) in part}
        _hub.fetch_files(repository, files, dst)
    return dst


def _index(src: Path, subset: str) -> Path:
    return Path(src) / "index" / f"{subset}.json"


def _read_index(src: Path, subset: str) -> dict[str, tuple[int, str]]:
    path = _index(src, subset)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _data(src: Path) -> Path:
    return Path(src) / "data" if (Path(src) / "data").is_dir() else Path(src)


def _numbers(folder: Path, suffix: str) -> set[int]:
    names = (p.name.removesuffix(suffix) for p in folder.glob(f"*{suffix}") if p.is_file())
    return {int(name) for name in names if re.fullmatch(r"\d{8}", name)}
