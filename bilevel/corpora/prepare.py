"""Stage 1: from a corpus to checked data directories."""

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from types import ModuleType

from bilevel.corpora import MissingSplitError, kaldi, load, shorten
from bilevel.corpora.share import divide
from bilevel.data.datadir import utterance_durations, write_datadir
from bilevel.data.files import Stamp
from bilevel.data.normalise import normalise_all
from bilevel.data.record import Utterance


@dataclass(frozen=True)
class Pool:
    """A set to divide: `share` of its duration, with text, goes to `labelled_set`, the rest to `unlabelled_set`."""

    pool_set: str
    share: float
    labelled_set: str
    unlabelled_set: str
    seed: int = 0


@dataclass(frozen=True)
class Options:
    """How to prepare: the text's normal form, and whether an incomplete corpus will do."""

    case: str = "lower"
    punctuation: str = "remove"
    allow_partial: bool = False


def prepare(
    corpus: str,
    src: Path | None,
    sets: Sequence[str],
    data_dir: Path,
    download_dir: Path = Path("downloads"),
    unlabelled_sets: Iterable[str] = (),
    pool: Pool | None = None,
    options: Options = Options(),
) -> None:
    """Write `data_dir/<set>` for each set, and the two parts of the pool; skips what is done for the same inputs.

    Args:
        corpus: Name of a module of `bilevel.corpora`.
        src: Folder of the corpus; None downloads it below `download_dir`, where the corpus can be downloaded.
        sets: Names in the corpus's SETS (or splits of the folder, where SETS is empty).
        data_dir: Where data directories go.
        download_dir: Where downloads go.
        unlabelled_sets: Those of `sets` that are written without text.
        pool: A set to divide into labelled and unlabelled.
        options: See `Options`.

    Raises:
        ValueError: An unknown corpus or set; a split that is missing or not of its published size.
    """
    module, unlabelled_sets = load(corpus), set(unlabelled_sets)
    wanted = [*sets, *([pool.pool_set] if pool else [])]
    parts = {name: official_splits(module, name) for name in wanted}
    if unlabelled_sets - set(sets):
        raise ValueError(f"unlabelled sets {sorted(unlabelled_sets - set(sets))} are not among the sets {list(sets)}")
    if pool and len({pool.labelled_set, pool.unlabelled_set, *sets}) < 2 + len(set(sets)):
        raise ValueError(f"labelled set {pool.labelled_set}, unlabelled set {pool.unlabelled_set}: expected new names")
    src = _source(module, src, Path(download_dir) / corpus, [s for part in parts.values() for s in part])
    for name in dict.fromkeys(sets):
        config = {"corpus": corpus, "splits": parts[name], "text": name not in unlabelled_sets}
        stamp = _stamp(Path(data_dir) / name, src, config, options)
        if not stamp.fresh():
            rows = collect(module, src, parts[name], options)[0]
            _write(Path(data_dir) / name, _unlabelled(rows) if name in unlabelled_sets else rows, stamp)
    if pool:
        _prepare_pool(module, src, parts[pool.pool_set], Path(data_dir), pool, options)


def official_splits(module: ModuleType, name: str) -> tuple[str, ...]:
    """The official splits a set is made of.

    Raises:
        ValueError: The corpus has no such set.
    """
    if not module.SETS:
        return (name,)
    if name not in module.SETS:
        near = difflib.get_close_matches(name, module.SETS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"{module.__name__.rpartition('.')[2]}: no set {name!r}; the nearest one is {near!r}, "
            f"all: {', '.join(module.SETS)}"
        )
    return module.SETS[name]


def collect(
    module: ModuleType, src: Path, splits: Sequence[str], options: Options
) -> tuple[list[Utterance], dict[str, float]]:
    """Utterances of the splits, their text in its normal form, and their durations.

    Raises:
        ValueError: Splits are missing or not of their published size (all are named), and `allow_partial` is off.
    """
    rows: list[Utterance] = []
    durations_sec: dict[str, float] = {}
    faults = []
    for split in splits:
        try:
            found = list(module.utterances(src, split))
        except MissingSplitError as error:
            faults.append(str(error))
            continue
        lengths_sec = utterance_durations(found)
        _check_audio(found, lengths_sec, split)
        print(f"{split}: {len(found)} utterances, {sum(lengths_sec.values()) / 3600:.2f} h", flush=True)
        faults += _size_faults(module, src, split, len(found), sum(lengths_sec.values()) / 3600)
        rows += found
        durations_sec |= lengths_sec
        del found, lengths_sec
    if faults and rows and options.allow_partial:
        print(f"note: partial corpus: {'; '.join(faults)}", flush=True)
    elif faults:
        raise ValueError(
            f"{'; '.join(faults)}; complete {src}" + (", or continue with --allow_partial" if rows else "")
        )
    _normalise(rows, options)
    return rows, durations_sec


def _source(module: ModuleType, src: Path | None, dst: Path, splits: Sequence[str]) -> Path:
    if src is not None:
        if not Path(src).is_dir():
            raise ValueError(f"{src}: no such folder; give the folder of the corpus as --src")
        return Path(src)
    download = vars(module).get("download")
    if download is None:
        raise ValueError(f"{module.__name__.rpartition('.')[2]} is not downloaded; give its folder as --src")
    return download(dst, list(dict.fromkeys(splits)))


def _prepare_pool(
    module: ModuleType, src: Path, splits: Sequence[str], data_dir: Path, pool: Pool, options: Options
) -> None:
    folders = data_dir / pool.labelled_set, data_dir / pool.unlabelled_set
    config = {"corpus": module.__name__, "splits": splits, "share": pool.share, "seed": pool.seed}
    stamps = [_stamp(f, src, {**config, "part": n}, options) for n, f in enumerate(folders)]
    fresh = [stamp.fresh() for stamp in stamps]
    if all(fresh):
        return
    rows, durations_sec = collect(module, src, splits, options)
    bare = [u.id for u in rows if u.text is None]
    if bare:
        raise ValueError(f"{pool.pool_set}: a labelled share needs text, and {len(bare)} utterances have none: "
                         f"{shorten(bare)}")  # fmt: skip
    labelled, rest = divide(rows, durations_sec, pool.share, pool.seed)
    _write(folders[0], labelled, stamps[0])
    _write(folders[1], _unlabelled(rest), stamps[1])


def _stamp(folder: Path, src: Path, config: Mapping[str, object], options: Options) -> Stamp:
    inputs = [src, *(src / split for split in config["splits"] if (src / split).is_dir())]
    config = {**config, "options": vars(options), "src": str(Path(src).absolute()), "inventory": _inventory(src)}
    return Stamp(folder / ".done" / "data.json", inputs, config)


def _inventory(src: Path) -> list[int]:
    # How many entries there are and when a folder last changed: enough to see that files came or went.
    n_files, newest_ns, seen = 0, 0, set()
    for folder, folders, files in os.walk(src, followlinks=True):
        if os.path.realpath(folder) in seen:  # links may lead in a circle
            folders.clear()
            continue
        seen.add(os.path.realpath(folder))
        n_files += len(files)
        newest_ns = max(newest_ns, os.stat(folder).st_mtime_ns)
    return [n_files, newest_ns]


def _write(folder: Path, rows: Sequence[Utterance], stamp: Stamp) -> None:
    write_datadir(folder, rows)
    stamp.write()
    n_speakers = len({u.speaker or u.id for u in rows})
    text = "with text" if rows[0].text is not None else "without text"
    print(f"{folder}: {len(rows)} utterances {text}, {n_speakers} speakers", flush=True)


def _unlabelled(rows: Sequence[Utterance]) -> list[Utterance]:
    return [replace(u, text=None, translations={}) for u in rows]


def _normalise(rows: list[Utterance], options: Options) -> None:
    texts = [u.text for u in rows if u.text is not None]
    normal = iter(normalise_all(texts, case=options.case, punctuation=options.punctuation))
    for i, u in enumerate(rows):  # in place: corpora of millions of utterances are not held twice
        rows[i] = replace(u, text=None if u.text is None else next(normal), audio=os.path.abspath(u.audio))


def _check_audio(rows: Sequence[Utterance], durations_sec: Mapping[str, float], split: str) -> None:
    closed = [u for u in rows if u.id not in durations_sec]
    if closed and len(closed) == len(rows):
        raise ValueError(
            f"{split}: no audio file opens, for instance {closed[0].audio} of {closed[0].id}; check the paths"
        )
    if closed:
        print(f"note: {split}: {len(closed)} of {len(rows)} audio files do not open; stage 3 lists and "
              f"quarantines them: {shorten([u.id for u in closed])}", flush=True)  # fmt: skip


def _size_faults(module: ModuleType, src: Path, split: str, n_found: int, hours: float) -> list[str]:
    # A Kaldi folder has its own splits: the published counts say nothing about it.
    if kaldi.has_tables(src):
        return []
    n_published, published_hours = module.EXPECTED.get(split, (None, None))
    faults = [f"{n_found} utterances, expected {n_published}"] if n_published not in (None, n_found) else []
    if published_hours is not None:
        # Within 1 %, or within the rounding of the published figure where that is more.
        rounding = 0.5 * 10.0 ** Decimal(str(published_hours)).as_tuple().exponent
        slack = max(vars(module).get("HOURS_TOLERANCE", 0.01) * published_hours, rounding)
        if abs(hours - published_hours) > slack:
            faults.append(f"{hours:.2f} h, expected {published_hours} h +- {slack:.2g} h")
    # Where no count is published, what the module misses is all there is to go by.
    tell = vars(module).get("missing") if faults or n_published is None else None
    absent = tell(src, split) if tell else []
    if not faults and not absent:
        return []
    return [f"{split}: {', '.join(faults) or 'incomplete'}" + (f" (missing: {shorten(absent)})" if absent else "")]
