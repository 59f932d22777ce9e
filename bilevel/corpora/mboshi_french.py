"""Mboshi-French: 5,130 sentences of Mboshi (Bantu C25), spoken by three people, with French translations.

Layout: `full_corpus_newsplit/{train,dev}/<id>.<kind>`, as the repository has it; kinds are wav, mb (transcript), fr
(translation), mb.cleaned and fr.cleaned (lower case), mb.cleaned.split, fr.cleaned.noPunct and stm. The folder `all`
has train and dev together and is not read. `--src` is the repository or that folder.

Splits and rules
* `mb_test` is the published dev: there is no test set, and the literature reports dev.
* `mb_dev` is a twentieth of the published train, `mb_train` the rest: a sentence is of dev when the SHA-256 of its
  `.mb.cleaned` is a multiple of 20. Equal sentences thus stay together, as the published split keeps them
  (`script/make_new_split.py`: 514 sentences drawn at random, none equal to one of train). Speakers and recording
  sessions are in all three, as they are in the published two: nothing here tells how well an unheard speaker does.
  ESPnet takes the first 100 of train for its dev; Bansal et al. (arXiv 1809.01431) take 200 at random.
* Ids are the published ones; the speaker is what stands before the first `_` (abiayi, kouarata or martial), as in
  ESPnet. The STM has the full name, and ids that may lack that beginning, so it is not read.
* Text is `.mb` in Unicode form NFC and in one line, with its case; later stages normalise it. Vowels carry tones (á),
  so `wer` and `cer` count tones as well. `translations` has the French, `.fr`, with its case and marks.
* An utterance needs wav, mb, mb.cleaned and fr. Others are left out, and `missing` names the files.
* The headers of 78 wav files promise 726 to 2,178 bytes (up to 2.7 %) more than there are (`script/fix_wav.rdm`
  there), 11 of them in test. What is there is whole, so the recipe takes them (`--max_missing_share 0.03`).

EXPECTED: 514 for dev and 4,616 for train, by ESPnet's recipe and the repository's own lists, so `missing` counts these
folders. How train divides and the hours (4.46 in all; the literature says 4.4 to 4.5) are not published: they are
counted in the repository itself, at commit 83c5b428a, all of it 16 kHz mono.

Reference: P. Godard and others, A Very Low Resource Language Speech Corpus for Computational Language Documentation
Experiments, LREC 2018 (arXiv 1710.03501).
"""

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from bilevel.corpora import MissingSplitError, shorten
from bilevel.data.record import Utterance

LICENSE = "none stated: the repository has no licence file, its README makes it available for reproducible experiments"
HOMEPAGE = "https://github.com/besacier/mboshi-french-parallel-corpus"
RATE_HZ = 16000
FOLDERS = {"mb_train": "train", "mb_dev": "train", "mb_test": "dev"}
SETS = {split: (split,) for split in FOLDERS}
EXPECTED = {
    "mb_train": (4397, 3.8331),
    "mb_dev": (219, 0.1894),
    "mb_test": (514, 0.4405),
}
PUBLISHED = {"train": 4616, "dev": 514}

_KINDS = (".wav", ".mb", ".mb.cleaned", ".fr")
_ONE_DEV_IN = 20


def utterances(src: Path, split: str) -> Iterator[Utterance]:
    """Records of one split, sorted by id."""
    for stem in _whole(_folder(src, split)):
        if FOLDERS[split] == "dev" or _is_dev(stem) == (split == "mb_dev"):
            yield Utterance(
                id=stem.name,
                audio=f"{stem}.wav",
                text=_line(stem, ".mb"),
                speaker=stem.name.partition("_")[0],
                lang="mb",
                translations={"fr": _line(stem, ".fr")},
            )


def missing(src: Path, split: str) -> list[str]:
    """Files without which an utterance is left out, and how many utterances the folder lacks."""
    folder = _folder(src, split)
    present = {path.name for path in folder.iterdir()}
    absent = [f"{stem.name}{kind}" for stem in _stems(folder) for kind in _KINDS if stem.name + kind not in present]
    faults = [f"files {shorten(absent)}"] if absent else []
    n_found, n_published = len(_whole(folder)), PUBLISHED[folder.name]
    if n_found != n_published:
        whose = "mb_train and mb_dev together" if folder.name == "train" else split
        faults.append(f"{folder.name}/ has {n_found} utterances, expected {n_published} for {whose}")
    return faults


def download(dst: Path, splits: Sequence[str]) -> Path:
    """Say how to get the corpus: it has no licence that would let a script fetch it unasked.

    Raises:
        ValueError: Always.
    """
    raise ValueError(
        f"Mboshi-French is not downloaded, its repository states no licence: read {HOMEPAGE}, clone it to DIR, and "
        "give --src DIR"
    )


def _folder(src: Path, split: str) -> Path:
    roots = [Path(src), Path(src) / "full_corpus_newsplit"]
    for root in roots:
        if split in FOLDERS and (root / FOLDERS[split]).is_dir():
            return root / FOLDERS[split]
    found = [name for name, folder in FOLDERS.items() if any((root / folder).is_dir() for root in roots)]
    raise MissingSplitError(
        f"{src}: no split {split!r}; found: {', '.join(found) or 'none'}; expected "
        f"{roots[1]}/{FOLDERS.get(split, 'train')}/"
    )


def _stems(folder: Path) -> list[Path]:
    """Paths without their ending, of all utterances of which there is any of the needed files."""
    names = {path.name.removesuffix(kind) for kind in _KINDS for path in folder.glob(f"*{kind}")}
    return [folder / name for name in sorted(names)]


def _whole(folder: Path) -> list[Path]:
    present = {path.name for path in folder.iterdir()}
    return [stem for stem in _stems(folder) if all(stem.name + kind in present for kind in _KINDS)]


def _is_dev(stem: Path) -> bool:
    digest = hashlib.sha256(_line(stem, ".mb.cleaned").encode()).digest()
    return int.from_bytes(digest) % _ONE_DEV_IN == 0


def _line(stem: Path, kind: str) -> str:
    path = stem.with_name(stem.name + kind)
    try:
        return unicodedata.normalize("NFC", " ".join(path.read_text(encoding="utf-8").split()))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {error}; expected UTF-8; fetch the file again") from None
