"""One's own corpus: an existing Kaldi data directory, id lists beside one, or a TSV/JSONL manifest.

`--src DIR` may hold, for a split called `train`, any of

* `DIR/train/`: a Kaldi data directory (`wav.scp`, and where there are some `text`, `utt2spk`, `segments` ...);
* `DIR/train.tsv`: a header line, then one utterance a line, columns separated by tabs (no quoting);
* `DIR/train.jsonl`: one JSON object a line;
* `DIR/wav.scp` (and `text` ...) with `DIR/train.list`: one id a line.

A Kaldi data directory without lists is the split `all`. The columns of a manifest are `id` and `audio` and, if wanted,
`text`, `speaker`, `lang`, `source`, `start` and `end` (seconds) and `recording`. Relative audio paths start at the
folder of the file that names them, else at DIR, else at the current directory. A `wav.scp` entry that is a command
(`... |`) is refused: it would be run. An empty text cell is an empty transcript; without a text column the set is
unlabelled.
"""

import difflib
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from bilevel.corpora import MissingSplitError, shorten
from bilevel.data.datadir import read_datadir, resolve_audio
from bilevel.data.record import Utterance
from bilevel.data.tables import read_lines

LICENSE = "whatever licence your data has"
HOMEPAGE = "https://kaldi-asr.org/doc/data_prep.html"
RATE_HZ = None
SETS: dict[str, tuple[str, ...]] = {}
EXPECTED: dict[str, tuple[int, float | None]] = {}

COLUMNS = ("id", "audio", "text", "speaker", "lang", "source", "start", "end", "recording")


def utterances(src: Path, split: str) -> Iterator[Utterance]:
    """Records of one split, in whichever form `src` holds it.

    Raises:
        MissingSplitError: `src` has no such split; names those it has.
        ValueError: A broken table, a command in wav.scp, or an id in a list that has no audio.
    """
    src = Path(src)
    if split not in splits(src):
        raise MissingSplitError(
            f"{src}: no split {split!r}; found: {', '.join(splits(src)) or 'none'}; expected {split}/wav.scp, "
            f"{split}.tsv, {split}.jsonl, or wav.scp with {split}.list"
        )
    if (src / split / "wav.scp").is_file():
        # Paths may also start at the corpus, as those of speechocean762 do.
        rows = [replace(u, audio=resolve_audio(u.audio, src)) for u in read_datadir(src / split)]
    elif (src / f"{split}.tsv").is_file():
        rows = _manifest(src / f"{split}.tsv", _tsv_rows)
    elif (src / f"{split}.jsonl").is_file():
        rows = _manifest(src / f"{split}.jsonl", _json_rows)
    elif (src / f"{split}.list").is_file():
        rows = _listed(src, src / f"{split}.list")
    else:
        rows = read_datadir(src)
    pipes = [u.id for u in rows if u.audio.rstrip().endswith("|")]
    if pipes:
        raise ValueError(
            f"{src}: split {split}: commands instead of files in wav.scp for {shorten(pipes)}; they are not run: "
            "write the audio to files first"
        )
    yield from rows


def splits(src: Path) -> list[str]:
    """Names of the splits that a folder holds, sorted."""
    src = Path(src)
    if not src.is_dir():
        raise ValueError(f"{src}: no such folder; give the folder of your corpus as --src")
    found = {p.parent.name for p in src.glob("*/wav.scp")}
    found |= {p.stem for ending in ("tsv", "jsonl") for p in src.glob(f"*.{ending}")}
    if (src / "wav.scp").is_file():
        found |= {p.stem for p in src.glob("*.list")} or {"all"}
    return sorted(found)


def has_tables(src: Path) -> bool:
    """Whether a Kaldi data directory lies at the top of the folder."""
    return (Path(src) / "wav.scp").is_file()


def _listed(src: Path, ids_file: Path) -> list[Utterance]:
    table = {u.id: u for u in read_datadir(src)}
    ids = [line.split()[0] for line in read_lines(ids_file) if line.strip()]
    lost = [key for key in ids if key not in table]
    if lost:
        raise ValueError(f"{ids_file}: ids without audio in {src / 'wav.scp'}: {shorten(lost)}; add or unlist them")
    return [table[key] for key in ids]


def _tsv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    lines = read_lines(path)
    header = lines[0].split("\t") if lines else []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) != len(header):
            raise ValueError(f"{path}:{number}: {len(cells)} columns, expected {len(header)} ({', '.join(header)})")
        yield number, dict(zip(header, cells, strict=True))


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: not JSON ({error}); expected one object a line") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number}: {type(row).__name__} found, expected a JSON object")
        yield number, {key: str(value) for key, value in row.items() if value is not None}


def _manifest(path: Path, rows: Callable[[Path], Iterator[tuple[int, Mapping[str, str]]]]) -> list[Utterance]:
    found = []
    for number, row in rows(path):
        try:
            found.append(_record(row, path.parent))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
    return found


def _record(row: Mapping[str, str], folder: Path) -> Utterance:
    for column in row:
        if column not in COLUMNS:
            near = difflib.get_close_matches(column, COLUMNS, n=1, cutoff=0.0)[0]
            raise ValueError(f"unknown column {column!r}; the nearest one is {near!r}, all: {', '.join(COLUMNS)}")
    if not row.get("id") or not row.get("audio"):
        raise ValueError(f"expected at least the columns id and audio, found {', '.join(row) or 'nothing'}")
    audio = resolve_audio(row["audio"], folder)
    start, end = row.get("start") or None, row.get("end") or None
    return Utterance(
        id=row["id"],
        audio=audio,
        text=row.get("text"),
        speaker=row.get("speaker", ""),
        recording=None if start is None and end is None else row.get("recording") or _recording_id(audio),
        start_sec=None if start is None else float(start),
        end_sec=None if end is None else float(end),
        lang=row.get("lang") or None,
        source=row.get("source") or None,
    )


def _recording_id(audio: str) -> str:
    # Two folders may hold files of one name: the checksum of the path keeps them apart.
    return f"{re.sub(r'[^A-Za-z0-9_]+', '_', Path(audio).stem)[:100]}-{zlib.crc32(audio.encode()):08x}"
