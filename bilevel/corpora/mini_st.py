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
- The same bytes on every run (`_synthesis`). `manifest.tsv` has a checksum per utterance, the file `SHA256` one per
  split over these, which is compared with the recorded one.

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
    "en_train": (N_TRAIN, 0.5834),
    "en_dev": (N_DEV, 0.0621),
    "en_test": (N_TEST, 0.1234),
    "de_train": (N_TRAIN, 0.6121),
    "de_dev": (N_DEV, 0.0641),
    "de_test": (N_TEST, 0.1300),
    "fr_train": (N_TRAIN, 0.5575),
    "fr_dev": (N_DEV, 0.0578),
    "fr_test": (N_TEST, 0.1160),
    "zh_train": (N_TRAIN, 0.6302),
    "zh_dev": (N_DEV, 0.0626),
    "zh_test": (N_TEST, 0.1363),
}
PCM_SHA256: dict[str, dict[str, str]] = {
    "0.2.4": {
        "en_train": "fd94ed92df8f6411d3aa3b3c9deda394dcfd33e35a87cdbe6d3596eef2391447",
        "en_dev": "8bb95550613d8add0f0206ab3c176f7dbfd1005be23788faa1ad93bd32e33ce1",
        "en_test": "a6417dc811c1f2c397ae8bd6a90da5c7098fcd3cb50ded6dc747de9b5833d89f",
        "de_train": "a1db8c18d2f349e2cb5d05ddee13d53722b73c66419366fe692d6a46eab23c68",
        "de_dev": "a59283b4a8d010225cf19313055a50c8a8fb2ff89e184392617808c3754fc97b",
        "de_test": "cdbd7af27e8301d4ae8f8b9d21ea234945c4097e2a00936f9d56501799524a28",
        "fr_train": "50d731535aabb2492f7c01bd77a1bf7a369162dbce226d8b902a04a4e230a89f",
        "fr_dev": "b0d75fe2ac749ba3d7bbd3510cc1d35fb3a0b005929d3b60e50eac9408115729",
        "fr_test": "2a474e348db8a6b88ca96da93d3cb8250676128d9b5c38d77cf04da1d7880ea0",
        "zh_train": "e46133beedfce79fccb3c044f9f7cd4018f53b1c879d0e6770428efb1f0bc48f",
        "zh_dev": "b00481d24ac5ab651eb1acc3c345d4998839962866e3906199b0a636a90f2586",
        "zh_test": "3fc2ff43c42fe6b1897b59075e85158dfc303890bc7b81342e23122bd2b4a616",
    }
}

_SEED = 5
# Name of the language and factor on the rate: words differ in length, and sentences shall last about as long in all.
_ESPEAK = {"en": ("en-us", 1.1), "de": ("de", 1.2), "fr": ("fr", 1.1), "zh": ("cmn", 1.4)}


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
    voices = _voices.voices(sizes.n_voices, np.random.RandomState(_SEED))
    languages = _st_words.LANGUAGES
    for number, (part, count) in enumerate((("test", sizes.n_test), ("dev", sizes.n_dev), ("train", sizes.n_train))):
        speakers = [voice for voice in voices if voice.part == part]
        drawn = _st_grammar.distinct_meanings(count * len(languages), part, np.random.RandomState([_SEED, number]))
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
    dst, sizes = Path(dst), sizes or Sizes()
    sources = [Path(__file__), Path(_st_grammar.__file__), Path(_st_words.__file__)]
    if _synthesis.synthesise("mini_st", dst, nj, sizes, sources) and sizes == Sizes():
        _synthesis.verify("mini_st", dst, PCM_SHA256)
    return dst


def download(dst: Path, splits: Sequence[str]) -> Path:
    """Synthesise the default corpus in `dst` on all cores; it is small, so always all splits."""
    return prepare(dst, nj=len(os.sched_getaffinity(0)))


def utterances(src: Path, split: str) -> Iterator[Utterance]:
    """Records of one split, such as "de_train".

    Raises:
        MissingSplitError: `src` holds no such split, or no `manifest.tsv`.
    """
    return _synthesis.utterances("mini_st", src, split, list(SETS))
