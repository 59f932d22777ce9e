"""`mini_st`: English, German, French and Mandarin speech with translations, synthesised on the spot by eSpeak NG.

A sentence is drawn as a meaning and said in four languages, each with its own order of words (`_st_grammar`,
`_st_words`): verbs at the end of German clauses and second after a time, adjectives after French nouns, Mandarin
relative clauses before theirs. Every utterance has its transcript and translations to and from English: German, French
and Mandarin to English, English to the three. Sets are `<lang>_train`, `<lang>_dev` and `<lang>_test` for en, de, fr
and zh. The rules:

- Held-out combinations: a sentence has a pair of verb and thing and a pair of adjective and thing. Both are of the
  same part (`_st_grammar.part_of`), and no pair of one part occurs in another, in any language. So a test sentence
  (find + lamp, blue + lamp) has two pairs that no training sentence has, as a French test sentence not even as an
  English training sentence, though each of its words is in training in each language. All else (persons, times,
  places, kinds of sentence) is combined freely.
- Every meaning of the corpus is different. Languages therefore share none: each has its own, in train as in test, so
  there is no utterance of the same content in two languages.
- Held-out voices: the eSpeak variants of dev and test are used nowhere else (`_voices`). A voice speaks all languages.
- test and dev stay the same when the number of training sentences changes. Recordings have their own noise, band and
  level (`_channel`).
- The same bytes on every run, compared with recorded checksums (`_synthesis`).

What it is not: speech of people. Sentences are grammatical and often silly (nothing asks whether one draws umbrellas),
six kinds of them are easily learnt, and a translation is the only one there is, so BLEU is far above that of real
tasks. It shows whether methods train and how they rank here, no more.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from bilevel.corpora import _st_grammar, _st_words, _synthesis, _voices
from bilevel.corpora._synthesis import Item
from bilevel.data.record import Utterance

N_TRAIN, N_DEV, N_TEST = 800, 80, 160
N_VOICES = 80

LICENSE = "Apache-2.0, like this repository (made here; the synthesiser eSpeak NG itself is GPL-3.0-or-later)"
HOMEPAGE = "https://github.com/espeak-ng/espeak-ng"
RATE_HZ = _synthesis.RATE_HZ
PARTS = ("train", "dev", "test")
SETS = {f"{lang}_{part}": (f"{lang}_{part}",) for lang in _st_words.LANGUAGES for part in PARTS}
# Hours and checksums (by version of the wheel) belong to the sizes above: after a change of sizes or of the recipe,
# `prepare` prints the new ones.
EXPECTED = {
    "en_train": (N_TRAIN, 0.5856),
    "en_dev": (N_DEV, 0.0621),
    "en_test": (N_TEST, 0.1241),
    "de_train": (N_TRAIN, 0.7119),
    "de_dev": (N_DEV, 0.0746),
    "de_test": (N_TEST, 0.1519),
    "fr_train": (N_TRAIN, 0.5546),
    "fr_dev": (N_DEV, 0.0579),
    "fr_test": (N_TEST, 0.1162),
    "zh_train": (N_TRAIN, 0.6303),
    "zh_dev": (N_DEV, 0.0623),
    "zh_test": (N_TEST, 0.1363),
}
PCM_SHA256: dict[str, dict[str, str]] = {
    "0.2.4": {
        "en_train": "d442cafb7cc3512a6fb4aab405c6390aa26b71ef3205477670f8ac3df109dc0c",
        "en_dev": "714877efd77c0a871caa1f2a18bf59de42a0ea12ba4d525c4206f97197130fe0",
        "en_test": "1d0b74d6bfa55b4faa197918ce018a761679795e7109e3e2114423540abf0838",
        "de_train": "254c22512193a6be06befbd6dff322b2b65fe5113f7c3dfde7ab1d386ca84021",
        "de_dev": "cac43d7b2721ca3b0b065f2af70fdaf85100ac2f5af32aad4184aa7fc66b1baa",
        "de_test": "edc142aa6307e9b725685aec408f3cbded165ce7523e067f36483b61d5289130",
        "fr_train": "3b0062c2606504c8cb29da3881a4dd894ae6e8edecd61fe6b1916d0937577469",
        "fr_dev": "bc17bcddbd70c5b09d0ca6e9a4a0f26419f70963999febd5d4983a367a117051",
        "fr_test": "066922dfbf54c1e880f5d5c9ac2aed8bd7aa801e3e50dcd11ddffe186310bcb3",
        "zh_train": "f6f316945249b325bdf622d47a8469835b5d277b9bb5db104d1816224d27e7cc",
        "zh_dev": "2481ca3815e598925cdc4bc57eff405c2071690936c72d1e9c0705eae96c49cb",
        "zh_test": "3d5a633703d799426eba9cf46c6eb4a8ec750efc5258ef179f6dcefd2965a087",
    }
}

SEED = 5
# Name of the language and factor on the rate. German words are long: CTC needs a frame of 40 ms for each character.
_ESPEAK = {"en": ("en-us", 1.1), "de": ("de", 1.0), "fr": ("fr", 1.1), "zh": ("cmn", 1.4)}


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of sentences of each language, and of voices.

    Raises:
        ValueError: A number is not positive, or there are too few voices.
    """

    n_train: int = N_TRAIN
    n_dev: int = N_DEV
    n_test: int = N_TEST
    n_voices: int = N_VOICES

    def __post_init__(self) -> None:
        n_voices_min = 3 * _voices.N_HELD_OUT
        if min(astuple(self)) < 1 or self.n_voices < n_voices_min:
            raise ValueError(
                f"corpus mini_st: expected positive sizes and at least {n_voices_min} voices, found {self}"
            )


def plan(sizes: Sizes | None = None) -> list[Item]:
    """All utterances of the corpus; languages and speakers take turns."""
    return [item for _, item in meanings_and_items(sizes or Sizes())]


def meanings_and_items(sizes: Sizes) -> Iterator[tuple[_st_grammar.Meaning, Item]]:
    """What each utterance means, and the utterance; part by part."""
    voices = _voices.voices(sizes.n_voices, np.random.RandomState(SEED))
    languages = _st_words.LANGUAGES
    for number, (part, count) in enumerate((("test", sizes.n_test), ("dev", sizes.n_dev), ("train", sizes.n_train))):
        speakers = [voice for voice in voices if voice.part == part]
        drawn = _st_grammar.distinct_meanings(count * len(languages), part, np.random.RandomState([SEED, number]))
        for k, meaning in enumerate(drawn):
            turn, place = divmod(k, len(languages))
            lang, voice = languages[place], speakers[turn % len(speakers)]
            yield meaning, _item(meaning, lang, part, voice, turn)


def _item(meaning: _st_grammar.Meaning, lang: str, part: str, voice: _voices.Voice, turn: int) -> Item:
    others = [other for other in _st_words.LANGUAGES if other != lang] if lang == "en" else ["en"]
    espeak, tempo = _ESPEAK[lang]
    return Item(
        id=f"{voice.name}-{lang}-{turn:04d}",
        split=f"{lang}_{part}",
        lang=lang,
        voice=voice,
        text=_st_grammar.render(meaning, lang),
        espeak=espeak,
        tempo=tempo,
        translations=tuple((other, _st_grammar.render(meaning, other)) for other in others),
    )


def prepare(dst: Path, nj: int = 1, sizes: Sizes | None = None) -> Path:
    """Synthesise the corpus in `dst`; nothing is done when it is there already.

    Args:
        dst: Folder to write to.
        nj: Number of processes at a time; the result does not depend on it.
        sizes: Numbers of sentences and voices; None for the default corpus, whose checksums are verified.

    Returns:
        `dst`.

    Raises:
        OSError: eSpeak NG is not installed, or a process failed.
        ValueError: A checksum is not the recorded one.
    """
    sizes = sizes or Sizes()
    sources = [Path(__file__), Path(_st_grammar.__file__), Path(_st_words.__file__)]
    return _synthesis.synthesise("mini_st", dst, nj, sizes, sources, PCM_SHA256 if sizes == Sizes() else None)


def download(dst: Path, splits: Sequence[str]) -> Path:
    """Synthesise the default corpus in `dst` on all cores; it is small, so always all splits."""
    return prepare(dst, nj=len(os.sched_getaffinity(0)))


def utterances(src: Path, split: str) -> Iterator[Utterance]:
    """Records of one split, such as "de_train".

    Raises:
        MissingSplitError: `src` holds no such split, or no `manifest.tsv`.
    """
    return _synthesis.utterances("mini_st", src, split, list(SETS))
