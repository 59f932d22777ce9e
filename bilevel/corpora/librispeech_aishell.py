"""LibriSpeech and AISHELL-1 together: English and Mandarin, the two-language study of M2ASR and Objective Soups.

Layout: `--src` holds two folders, or links to folders elsewhere: `librispeech` as `--corpus librispeech` takes it
(`train-clean-100/` and so on, or `LibriSpeech/` with these), and `aishell` as `--corpus aishell` takes it (`wav/` and
`transcript/`, or `data_aishell/` with these).

Sets: `en_train` is all 960 hours and `en_train_100` the clean 100, `en_dev` and `en_test` are dev-clean and
test-clean, `en_test_other` is test-other; `zh_train`, `zh_dev` and `zh_test` are those of AISHELL-1, and `zh_train_100`
is `zh_train` once more, for `--train_part train_100`. Official splits have the folder before them, such as
`librispeech/dev-clean`. Ids are the published ones: those of LibriSpeech begin with a digit, those of AISHELL-1 with
"BAC", so none clash. Mandarin is written without blanks: look at its CER, not at its WER.

All else (rules, checks, sources of the figures) is in `librispeech.py` and `aishell.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from bilevel.corpora import MissingSplitError, aishell, librispeech
from bilevel.data.record import Utterance

LICENSE = f"English: {librispeech.LICENSE}; Mandarin: {aishell.LICENSE}"
HOMEPAGE = f"{librispeech.HOMEPAGE} and {aishell.HOMEPAGE}"
RATE_HZ = 16000
_CORPORA: dict[str, tuple[ModuleType, str]] = {"librispeech": (librispeech, "en"), "aishell": (aishell, "zh")}
SETS = {
    "en_train": tuple(f"librispeech/{split}" for split in librispeech.SETS["train_960"]),
    "en_train_100": ("librispeech/train-clean-100",),
    "en_dev": ("librispeech/dev-clean",),
    "en_test": ("librispeech/test-clean",),
    "en_test_other": ("librispeech/test-other",),
    "zh_train": ("aishell/train",),
    "zh_train_100": ("aishell/train",),
    "zh_dev": ("aishell/dev",),
    "zh_test": ("aishell/test",),
}
EXPECTED = {
    f"{name}/{split}": size
    for name, (corpus, _) in _CORPORA.items()
    for split, size in corpus.EXPECTED.items()
    if f"{name}/{split}" in {part for parts in SETS.values() for part in parts}
}


def utterances(src: Path, split: str) -> Iterator[Utterance]:
    """Records of one official split, with their language."""
    name, part = _find(src, split)
    corpus, lang = _CORPORA[name]
    for utterance in corpus.utterances(Path(src) / name, part):
        yield replace(utterance, lang=lang)


def missing(src: Path, split: str) -> list[str]:
    """What can be told of a split that is not complete."""
    name, part = _find(src, split)
    return _CORPORA[name][0].missing(Path(src) / name, part)


def download(dst: Path, splits: Sequence[str]) -> Path:
    """Fetch what the splits need of both corpora, each into its own folder."""
    for name, (corpus, _) in _CORPORA.items():
        parts = [part for part in splits if part.startswith(f"{name}/")]
        if parts:
            corpus.download(Path(dst) / name, [part.partition("/")[2] for part in parts])
    return Path(dst)


def _find(src: Path, split: str) -> tuple[str, str]:
    name, _, part = split.partition("/")
    if split not in EXPECTED:
        raise MissingSplitError(f"{src}: no split {split!r}; expected one of {', '.join(EXPECTED)}")
    if not (Path(src) / name).is_dir():
        found = [folder for folder in _CORPORA if (Path(src) / folder).is_dir()]
        raise MissingSplitError(
            f"{src}: no split {split!r}; found folders: {', '.join(found) or 'none'}; expected {src}/{name}/, as "
            f"--corpus {name} takes it, or a link to it"
        )
    return name, part
