"""`mini`: the embedded corpus, synthesised on the spot by eSpeak NG; nothing to fetch, no licence to sign.

Sentences come from a small grammar (`_sentences`), speakers are eSpeak variants with their own rate, pitch, melody and
spectral warp (`_voices`), and every recording has its own noise, band and level (`_channel`). The rules:

- Held-out voices: the variants of dev and test are used nowhere else.
- Every sentence of the corpus is different, so no two splits share one.
- The labelled set is the beginning of the unlabelled pool, as the 100 labelled hours of LibriSpeech are part of its
  960: `train_unlab` is `train_lab` and `train_rest`. Speakers take turns, so that both have all training voices.
- test and dev are drawn first and rendered apart: they stay the same when the training sizes change.
- The same bytes on every run, compared with recorded checksums (`_synthesis`).
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from bilevel.corpora import _sentences, _synthesis, _voices
from bilevel.corpora._synthesis import Item
from bilevel.data.record import Utterance

N_LABELLED, N_UNLABELLED, N_DEV, N_TEST = 1200, 3000, 120, 240
N_VOICES = 80

LICENSE = "Apache-2.0, like this repository (made here; the synthesiser eSpeak NG itself is GPL-3.0-or-later)"
HOMEPAGE = "https://github.com/espeak-ng/espeak-ng"
RATE_HZ = _synthesis.RATE_HZ
_POOL = ("train_lab", "train_rest")
SETS = {"train": _POOL, "train_unlab": _POOL, "train_lab": ("train_lab",), "dev": ("dev",), "test": ("test",)}
# Hours and checksums (by version of the wheel) belong to the sizes above: after a change of sizes or of the recipe,
# `prepare` prints the new ones.
EXPECTED = {
    "train_lab": (N_LABELLED, 0.7554),
    "train_rest": (N_UNLABELLED - N_LABELLED, 1.1477),
    "dev": (N_DEV, 0.0707),
    "test": (N_TEST, 0.1502),
}
PCM_SHA256 = {
    "0.2.4": {
        "test": "1f09f5f4c93f7a6b45f5e2a7ff0e9c1773dfe9b15be589aedff5719faa8e8268",
        "dev": "8b9784c59e4a8183a326f0b4b270e8aef17beb77842909c98ee66ce168457e40",
        "train_lab": "d72cf7ffe4a709e5f64f7cd1b8b977c0780a47f53d60cd7686db7c2ed13efc89",
        "train_rest": "ee809c5d303a477db850d5f37ec86a3db3579b913192b62a44b4c32527b29b97",
    }
}

SEED = 2


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of utterances and voices; `n_unlabelled` is the whole pool and includes `n_labelled`.

    Raises:
        ValueError: A number is not positive, the pool is smaller than its labelled part, or there are too few voices.
    """

    n_labelled: int = N_LABELLED
    n_unlabelled: int = N_UNLABELLED
    n_dev: int = N_DEV
    n_test: int = N_TEST
    n_voices: int = N_VOICES

    def __post_init__(self) -> None:
        n_voices_min = 3 * _voices.N_HELD_OUT
        if min(astuple(self)) < 1 or self.n_labelled > self.n_unlabelled or self.n_voices < n_voices_min:
            raise ValueError(
                "corpus mini: expected positive sizes, n_labelled <= n_unlabelled (the pool includes the labelled "
                f"part) and at least {n_voices_min} voices, found {self}"
            )


def plan(sizes: Sizes | None = None) -> list[Item]:
    """All utterances of the corpus, split by split; speakers take turns."""
    sizes = sizes or Sizes()
    counts = {
        "test": sizes.n_test,
        "dev": sizes.n_dev,
        "train_lab": sizes.n_labelled,
        "train_rest": sizes.n_unlabelled - sizes.n_labelled,
    }
    texts = iter(_sentences.distinct_sentences(sum(counts.values()), np.random.RandomState(SEED)))
    speakers: dict[str, list[_voices.Voice]] = {}
    for voice in _voices.voices(sizes.n_voices, np.random.RandomState(SEED)):
        speakers.setdefault(voice.part, []).append(voice)
    items, n_done = [], dict.fromkeys(speakers, 0)
    for split, count in counts.items():
        part = split.split("_")[0]
        for k in range(n_done[part], n_done[part] + count):
            voice = speakers[part][k % len(speakers[part])]
            items.append(Item(f"{voice.name}-{k:05d}", split, "en", voice, next(texts), espeak="en-us"))
        n_done[part] += count
    return items


def prepare(dst: Path, nj: int = 1, sizes: Sizes | None = None) -> Path:
    """Synthesise the corpus in `dst`; nothing is done when it is there already.

    Args:
        dst: Folder to write to.
        nj: Number of processes at a time; the result does not depend on it.
        sizes: Numbers of utterances and voices; None for the default corpus, whose checksums are verified.

    Returns:
        `dst`.

    Raises:
        OSError: eSpeak NG is not installed, or a process failed.
        ValueError: A checksum is not the recorded one.
    """
    sizes, sources = sizes or Sizes(), [Path(__file__), Path(_sentences.__file__)]
    return _synthesis.synthesise("mini", dst, nj, sizes, sources, PCM_SHA256 if sizes == Sizes() else None)


def download(dst: Path, splits: Sequence[str]) -> Path:
    """Synthesise the default corpus in `dst` on all cores; it is small, so always all splits."""
    return prepare(dst, nj=len(os.sched_getaffinity(0)))


def utterances(src: Path, split: str) -> Iterator[Utterance]:
    """Yield the utterances of train_lab, train_rest, dev or test, with their text.

    Raises:
        MissingSplitError: `src` holds no such split, or no `manifest.tsv`.
    """
    return _synthesis.utterances("mini", src, split, list(EXPECTED))
