"""Meanings, and how English, German, French and Mandarin say them, each with its own order of words.

A meaning is six kinds of sentence filled with words (`Meaning`); `render` says it. What moves:

| kind     | English                                  | German                                            |
|----------|------------------------------------------|---------------------------------------------------|
| event    | the man sold a red book here yesterday   | yesterday has the man here a red book sold        |
| denial   | the man did not see the red book         | the man has the red book not seen                 |
| report   | the girl says that the man saw the book  | ... that the man the book seen has                |
| relative | the book that the man saw is red         | the book that the man seen has is red             |
| wish     | the man wants to sell a red book         | tomorrow wants the man a red book to sell         |
| reason   | the man sold the book because it was old | the man has the book sold because it old was      |

French puts the time first, most adjectives after the noun, "ne" and "pas" around the verb, and lets the participle
agree with the thing in a relative clause (la montre que l'homme a vendue). Mandarin puts time and place before the
verb, the relative clause with 的 before its noun, the reason before what it explains, and a measure word before every
noun.

Agreement: German articles, relative pronouns and endings by gender and case (einen roten hut, das rote buch), "er",
"sie", "es" by gender; French articles, adjectives and participles by gender, elision (l'homme, parce qu'elle, n'a) and
"vieil" before a vowel; English "a" and "an". All text is in lower case without marks, but for the apostrophe: as it is
spoken, and as recognition is scored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from bilevel.corpora._st_words import (
    ADJECTIVES,
    FUTURE,
    PAST,
    PERSONS,
    PLACES,
    SAYING,
    THINGS,
    VERBS,
    Adjective,
    Person,
    Phrase,
    Thing,
    Verb,
)  # fmt: skip

_T = TypeVar("_T")

KINDS = ("event", "denial", "report", "relative", "wish", "reason")
# The class of a pair of words, 0 to 7, says to which part it belongs.
_N_CLASSES = 8
_PART_OF_CLASS = ("test", "test", "dev", *("train",) * 5)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a sentence says, in no language.

    Attributes:
        kind: One of `KINDS`.
        person: Who does it.
        verb: What is done.
        thing: What it is done to.
        adjective: What the thing is like.
        time: When, or None; an event has a time or a place or both.
        place: Where (events alone), or None.
        speaker: Who says so (reports alone).
        saying: How it is said (reports alone).
    """

    kind: str
    person: Person
    verb: Verb
    thing: Thing
    adjective: Adjective
    time: Phrase | None = None
    place: Phrase | None = None
    speaker: Person | None = None
    saying: Phrase | None = None


def part_of(meaning: Meaning) -> str | None:
    """The part ("train", "dev" or "test") of both its pairs, verb and thing, adjective and thing; None if they differ.

    With the words numbered as in their tables, verb v and thing t have the class (v + t) mod 8, adjective a and thing
    t the class (a + 3 t) mod 8: classes 0 and 1 are test, 2 is dev, 3 to 7 are train. So every thing meets five of the
    eight verbs and five of the eight adjectives in training, two others in test and one in dev.
    """
    thing = THINGS.index(meaning.thing)
    parts = {
        _PART_OF_CLASS[(VERBS.index(meaning.verb) + thing) % _N_CLASSES],
        _PART_OF_CLASS[(ADJECTIVES.index(meaning.adjective) + 3 * thing) % _N_CLASSES],
    }
    return parts.pop() if len(parts) == 1 else None


def distinct_meanings(n: int, part: str, rng: np.random.RandomState) -> list[Meaning]:
    """Draw `n` meanings of a part of which no two are equal; kinds that allow fewer words come less often."""
    drawn: dict[Meaning, None] = {}
    while len(drawn) < n:
        meaning = _draw(rng)
        if _sensible(meaning) and part_of(meaning) == part:
            drawn.setdefault(meaning)
    return list(drawn)


def render(meaning: Meaning, language: str) -> str:
    """The meaning as a sentence of "en", "de", "fr" or "zh" (without blanks)."""
    return _RENDER[language](meaning)


def _draw(rng: np.random.RandomState) -> Meaning:
    def one(options: Sequence[_T]) -> _T:
        return options[rng.randint(len(options))]

    kind = one(KINDS)
    times = {"event": (None, *PAST), "denial": (None, *PAST), "wish": (None, *FUTURE)}.get(kind, (None,))
    return Meaning(
        kind,
        person=one(PERSONS),
        verb=one(VERBS),
        thing=one(THINGS),
        adjective=one(ADJECTIVES),
        time=one(times),
        place=one((None, *PLACES)) if kind == "event" else None,
        speaker=one(PERSONS) if kind == "report" else None,
        saying=one(SAYING) if kind == "report" else None,
    )


def _sensible(meaning: Meaning) -> bool:
    return {
        "event": meaning.time is not None or meaning.place is not None,
        "report": meaning.speaker != meaning.person,
        "wish": meaning.verb.wanted,
        "reason": meaning.verb.reasoned,
    }.get(meaning.kind, True)


def _words(*parts: str | Phrase | None, language: str = "") -> str:
    """Words with blanks between them; what is absent (None) leaves none."""
    return " ".join(getattr(part, language) if isinstance(part, Phrase) else part for part in parts if part)


# --- English


def _english(m: Meaning) -> str:
    person, verb, thing, adjective = m.person.en, m.verb, m.thing.en, m.adjective.en
    one = f"{'an' if adjective[0] in 'aeiou' else 'a'} {adjective} {thing}"
    the = f"the {adjective} {thing}"
    parts = {
        "event": (person, verb.en_past, one, m.place, m.time),
        "denial": (person, "did not", verb.en, the, m.time),
        "report": (m.speaker and m.speaker.en, m.saying, "that", person, verb.en_past, the),
        "relative": ("the", thing, "that", person, verb.en_past, "is", adjective),
        "wish": (person, "wants to", verb.en, one, m.time),
        "reason": (person, verb.en_past, "the", thing, "because it was", adjective),
    }[m.kind]
    return _words(*parts, language="en")


# --- German: article of the nominative, article of the accusative, "ein" and endings of the accusative, pronoun


_THE = {"m": "der", "f": "die", "n": "das"}
_THE_OBJECT = {"m": "den", "f": "die", "n": "das"}  # also the relative pronoun
_ONE_OBJECT = {"m": "einen", "f": "eine", "n": "ein"}
_ENDING_AFTER_THE = {"m": "en", "f": "e", "n": "e"}
_ENDING_AFTER_ONE = {"m": "en", "f": "e", "n": "es"}
_IT = {"m": "er", "f": "sie", "n": "es"}


def _german(m: Meaning) -> str:
    person, noun, gender = m.person.de, m.thing.de, m.thing.de_gender
    done, adjective, stem = m.verb.de_participle, m.adjective.de, m.adjective.de_stem
    one = f"{_ONE_OBJECT[gender]} {stem}{_ENDING_AFTER_ONE[gender]} {noun}"
    the = f"{_THE_OBJECT[gender]} {stem}{_ENDING_AFTER_THE[gender]} {noun}"
    parts = {
        "event": (*_verb_second(m.time, person, "hat"), m.place, one, done),
        "denial": (*_verb_second(m.time, person, "hat"), the, "nicht", done),
        "report": (m.speaker and m.speaker.de, m.saying, "dass", person, the, done, "hat"),
        "relative": (_THE[gender], noun, _THE_OBJECT[gender], person, done, "hat ist", adjective),
        "wish": (*_verb_second(m.time, person, "will"), one, m.verb.de),
        "reason": (person, "hat", _THE_OBJECT[gender], noun, done, "weil", _IT[gender], adjective, "war"),
    }[m.kind]
    return _words(*parts, language="de")


def _verb_second(time: Phrase | None, person: str, verb: str) -> tuple[str | Phrase, ...]:
    return (time, verb, person) if time else (person, verb)


# --- French


def _french(m: Meaning) -> str:
    person, noun, feminine = m.person.fr, m.thing.fr, m.thing.fr_gender == "f"
    done, done_to = m.verb.fr_participle, m.verb.fr_participle + ("e" if feminine else "")
    one = _french_object(m, "une" if feminine else "un")
    the, bare = _french_object(m, "la" if feminine else "le"), _elide("la" if feminine else "le", noun)
    adjective, it = (m.adjective.fr_feminine, "elle") if feminine else (m.adjective.fr, "il")
    parts = {
        "event": (m.time, person, "a", done, one, m.place),
        "denial": (m.time, person, "n'a pas", done, the),
        "report": (m.speaker and m.speaker.fr, m.saying, "que", person, "a", done, the),
        "relative": (bare, "que", person, "a", done_to, "est", adjective),
        "wish": (m.time, person, "veut", m.verb.fr, one),
        "reason": (person, "a", done, bare, f"parce qu'{it} était", adjective),
    }[m.kind]
    return _words(*parts, language="fr")


def _french_object(m: Meaning, article: str) -> str:
    noun, adjective = m.thing.fr, m.adjective
    word = adjective.fr_feminine if m.thing.fr_gender == "f" else adjective.fr
    if not adjective.fr_before:
        return f"{_elide(article, noun)} {word}"
    if m.thing.fr_gender == "m" and _begins_with_vowel(noun):
        word = adjective.fr_before_vowel
    return f"{_elide(article, word)} {noun}"


def _elide(article: str, word: str) -> str:
    return f"l'{word}" if article in ("le", "la") and _begins_with_vowel(word) else f"{article} {word}"


def _begins_with_vowel(word: str) -> bool:
    return word[0] in "aeiouéêè"


# --- Mandarin


def _mandarin(m: Meaning) -> str:
    person, verb, thing = m.person.zh, m.verb.zh, m.thing.zh
    one, that = f"一{m.thing.measure}{m.adjective.zh}{thing}", f"那{m.thing.measure}{m.adjective.zh}{thing}"
    bare = f"那{m.thing.measure}{thing}"
    parts = {
        "event": (person, m.time, m.place, verb, "了", one),
        "denial": (person, m.time, "没有", verb, that),
        "report": (m.speaker and m.speaker.zh, m.saying, person, verb, "了", that),
        "relative": (person, verb, "的", bare, m.adjective.zh_is),
        "wish": (person, m.time, "想", verb, one),
        "reason": ("因为", bare, m.adjective.zh_is, "所以", person, verb, "了它"),
    }[m.kind]
    return _words(*parts, language="zh").replace(" ", "")


_RENDER: dict[str, Callable[[Meaning], str]] = {"en": _english, "de": _german, "fr": _french, "zh": _mandarin}
