"""Several corpora as the sources of one: every folder in `--src` is a source, named like the folder.

Each holds its splits as `--corpus kaldi` takes them (Kaldi data directories, manifests, id lists); links to folders
elsewhere will do, so a pool of prepared data directories is a folder of links:

    mkdir -p pool/meetings pool/books
    ln -s /corpora/ami/data/train pool/meetings/train
    ln -s /corpora/librispeech/data/train_960 pool/books/train

A source without the split is left out of it, as long as one has it. Ids and speakers get the source's name as a prefix,
and every utterance carries its source (`utt2source`). Texts are dropped when only some of the sources have any.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bilevel.corpora import MissingSplitError, kaldi
from bilevel.data.record import Utterance

LICENSE = "whatever licences your data have"
HOMEPAGE = kaldi.HOMEPAGE
RATE_HZ = None
SETS: dict[str, tuple[str, ...]] = {}
EXPECTED: dict[str, tuple[int, float | None]] = {}


def utterances(src: Path, split: str) -> Iterator[Utterance]:
    """Records of one split of all sources that have it.

    Raises:
        MissingSplitError: None has it; names those that there are.
    """
    found = {folder.name: list(kaldi.utterances(folder, split)) for folder in _sources(src, split)}
    if not found:
        raise MissingSplitError(
            f"{src}: no folder in it has a split {split!r}; splits found: {', '.join(splits(src)) or 'none'}"
        )
    labelled = all(u.text is not None for rows in found.values() for u in rows)
    for name, rows in found.items():
        for u in rows:
            yield replace(
                u,
                id=f"{name}-{u.id}",
                speaker=f"{name}-{u.speaker or u.id}",
                recording=u.recording and f"{name}-{u.recording}",
                source=name,
                text=u.text if labelled else None,
            )


def splits(src: Path) -> list[str]:
    """Splits that at least one source has."""
    return sorted({split for folder in _folders(src) for split in kaldi.splits(folder)})


def _sources(src: Path, split: str) -> list[Path]:
    return [folder for folder in _folders(src) if split in kaldi.splits(folder)]


def _folders(src: Path) -> list[Path]:
    return sorted(path for path in Path(src).iterdir() if path.is_dir())
