"""What `mini_st` says: sentences written by hand, agreement and order over the whole corpus, and what is held out."""

import itertools
import re

import numpy as np
import pytest

from bilevel.corpora._st_grammar import KINDS, Meaning, distinct_meanings, part_of, render
from bilevel.corpora._st_words import ADJECTIVES, FUTURE, LANGUAGES, PAST, PERSONS, PLACES, SAYING, THINGS, VERBS
from bilevel.corpora._synthesis import Item
from bilevel.corpora.mini_st import PARTS, Sizes, meanings_and_items
from bilevel.data.normalise import normalise


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Meaning, Item]]:
    return list(meanings_and_items(Sizes()))


def named(words, english):
    return next(word for word in words if word.en == english)


def meaning(kind, person, verb, thing, adjective, **phrases):
    return Meaning(
        kind, named(PERSONS, person), named(VERBS, verb), named(THINGS, thing), named(ADJECTIVES, adjective), **phrases
    )


def said(item):
    """All that an utterance says: language -> sentence."""
    return {item.lang: item.text} | dict(item.translations)


def words_of(sentence, lang):
    return set(sentence if lang == "zh" else sentence.split())


@pytest.mark.parametrize(
    ("what", "sentences"),
    [
        (
            meaning("event", "the man", "sell", "hat", "red", time=PAST[0], place=PLACES[0]),
            (
                "the man sold a red hat at the market yesterday",
                "gestern hat der mann auf dem markt einen roten hut verkauft",
                "hier l'homme a vendu un chapeau rouge au marché",
                "男人昨天在市场卖掉了一顶红色的帽子",
            ),
        ),
        (
            meaning("event", "the teacher", "find", "computer", "old", place=PLACES[4]),
            (
                "the teacher found an old computer at school",
                "der lehrer hat in der schule einen alten computer gefunden",
                "le professeur a trouvé un vieil ordinateur à l'école",
                "老师在学校找到了一台旧电脑",
            ),
        ),
        (
            meaning("denial", "the student", "lose", "watch", "expensive", time=PAST[3]),
            (
                "the student did not lose the expensive watch on monday",
                "am montag hat der student die teure uhr nicht verloren",
                "lundi l'étudiant n'a pas perdu la montre chère",
                "学生星期一没有丢那块很贵的手表",
            ),
        ),
        (
            meaning("denial", "the girl", "see", "computer", "blue"),
            (
                "the girl did not see the blue computer",
                "das mädchen hat den blauen computer nicht gesehen",
                "la fille n'a pas vu l'ordinateur bleu",
                "女孩没有看见那台蓝色的电脑",
            ),
        ),
        (
            meaning("report", "the man", "steal", "lamp", "new", speaker=PERSONS[7], saying=SAYING[2]),
            (
                "the farmer knows that the man stole the new lamp",
                "der bauer weiß dass der mann die neue lampe gestohlen hat",
                "le fermier sait que l'homme a volé la lampe neuve",
                "农民知道男人偷了那盏新灯",
            ),
        ),
        (
            meaning("relative", "the woman", "sell", "chair", "old"),
            (
                "the chair that the woman sold is old",
                "der stuhl den die frau verkauft hat ist alt",
                "la chaise que la femme a vendue est vieille",
                "女人卖掉的那把椅子很旧",
            ),
        ),
        (
            meaning("relative", "the doctor", "draw", "computer", "green"),
            (
                "the computer that the doctor drew is green",
                "der computer den der arzt gezeichnet hat ist grün",
                "l'ordinateur que le médecin a dessiné est vert",
                "医生画的那台电脑是绿色的",
            ),
        ),
        (
            meaning("wish", "the boy", "buy", "shirt", "small", time=FUTURE[1]),
            (
                "the boy wants to buy a small shirt next week",
                "nächste woche will der junge ein kleines hemd kaufen",
                "la semaine prochaine le garçon veut acheter une petite chemise",
                "男孩下个星期想买一件小衬衫",
            ),
        ),
        (
            meaning("reason", "the woman", "hide", "knife", "black"),
            (
                "the woman hid the knife because it was black",
                "die frau hat das messer versteckt weil es schwarz war",
                "la femme a caché le couteau parce qu'il était noir",
                "因为那把刀是黑色的所以女人藏了它",
            ),
        ),
        (
            meaning("reason", "the boy", "steal", "cup", "expensive"),
            (
                "the boy stole the cup because it was expensive",
                "der junge hat die tasse gestohlen weil sie teuer war",
                "le garçon a volé la tasse parce qu'elle était chère",
                "因为那个杯子很贵所以男孩偷了它",
            ),
        ),
    ],
)
def test_four_languages_say_it_as_people_do(what, sentences):
    assert tuple(render(what, language) for language in LANGUAGES) == sentences


# Genders from a dictionary, beside those in the tables.
GENDER = {"stuhl": "m", "hut": "m", "computer": "m", "tisch": "m", "regenschirm": "m", "lampe": "f", "uhr": "f"}
GENDER |= {"tasse": "f", "buch": "n", "messer": "n", "hemd": "n", "fahrrad": "n"}
GENRE = dict.fromkeys(("livre", "chapeau", "couteau", "ordinateur", "vélo", "parapluie"), "m")
GENRE |= dict.fromkeys(("chaise", "lampe", "montre", "chemise", "table", "tasse"), "f")


def test_german_phrases_agree_in_gender_and_case(drawn):
    phrase = re.compile(rf"(\S+) (\S+) ({'|'.join(GENDER)})\b")
    right = {"m": {"einen -en", "den -en"}, "f": {"eine -e", "die -e"}, "n": {"ein -es", "das -e"}}
    seen = set()
    for m, item in drawn:
        found = phrase.search(said(item)["de"]) if item.lang in ("de", "en") else None
        if found and m.kind in ("event", "denial", "report", "wish"):
            article, adjective, noun = found.groups()
            ending = re.fullmatch(r"(?:rot|alt|blau|klein|grün|neu|schwarz|teur)(\w+)", adjective)[1]
            assert f"{article} -{ending}" in right[GENDER[noun]], found[0]
            seen.add(f"{article} -{ending}")
    assert seen == set().union(*right.values())


def test_german_verbs_stand_second_and_last(drawn):
    for m, item in drawn:
        if item.lang not in ("de", "en"):
            continue
        words = said(item)["de"].split()
        finite = words.index("will" if m.kind == "wish" else "hat")
        if m.kind in ("event", "denial", "wish"):
            before = m.time.de if m.time else m.person.de
            assert " ".join(words[:finite]) == before  # one part of the sentence, then the verb
            assert words[-1] == (m.verb.de if m.kind == "wish" else m.verb.de_participle)
        elif m.kind == "report":
            assert words[-2:] == [m.verb.de_participle, "hat"]
        elif m.kind == "relative":
            assert words[finite - 1 : finite + 2] == [m.verb.de_participle, "hat", "ist"]
        else:
            assert words[-1] == "war"


def test_french_agrees_and_elides(drawn):
    feminine = {"verte", "noire", "bleue", "petite", "vieille", "neuve", "chère", "une"}
    masculine = {"vert", "noir", "bleu", "petit", "vieux", "vieil", "neuf", "cher", "un"}
    sentences = [(m, said(item)["fr"]) for m, item in drawn if item.lang in ("fr", "en")]
    for m, sentence in sentences:
        assert not re.search(r"\b(le|la|que|ne|de) [aeiouhéê]", sentence), sentence
        words = set(re.split(r"[ ']", sentence))
        wrong = masculine if GENRE[m.thing.fr] == "f" else feminine
        assert not words & wrong, sentence
        if m.kind == "relative":
            assert (f"{m.verb.fr_participle}e" in words) == (GENRE[m.thing.fr] == "f")
    assert any("vieil ordinateur" in sentence for _, sentence in sentences)


def test_english_articles_and_mandarin_measure_words(drawn):
    for m, item in drawn:
        for lang, sentence in said(item).items():
            if lang == "en":
                assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", sentence), sentence
            if lang == "zh":
                assert re.search(rf"[一那]{m.thing.measure}(\w*[的旧小新])?{m.thing.zh}", sentence), sentence
                assert " " not in sentence
                if m.place and m.time:
                    assert sentence.index(m.time.zh) < sentence.index(m.place.zh) < sentence.index(m.verb.zh)


def test_sentences_are_spoken_as_written_and_tell_meanings_apart(drawn):
    for lang in LANGUAGES:
        sentences = [render(m, lang) for m, _ in drawn]
        assert len(set(sentences)) == len(sentences)
        assert all(normalise(sentence) == sentence for sentence in sentences)
    assert {m.kind for m, _ in drawn} == set(KINDS)


# --- what is held out


def test_every_thing_meets_verbs_and_adjectives_of_all_parts_and_no_pair_is_of_two():
    meanings = {
        part: [
            Meaning("denial", PERSONS[0], verb, thing, adjective)
            for verb, thing, adjective in itertools.product(VERBS, THINGS, ADJECTIVES)
            if part_of(Meaning("denial", PERSONS[0], verb, thing, adjective)) == part
        ]
        for part in PARTS
    }
    for pick in (lambda m: (m.verb, m.thing), lambda m: (m.adjective, m.thing)):
        pairs = {part: {pick(m) for m in found} for part, found in meanings.items()}
        assert {part: len(found) for part, found in pairs.items()} == {"train": 60, "dev": 12, "test": 24}
        assert len(set().union(*pairs.values())) == 96
        for found in pairs.values():
            assert {thing for _, thing in found} == set(THINGS)
            assert len({word for word, _ in found}) == 8


def test_no_pair_of_words_of_dev_or_test_is_in_training_in_any_language(drawn):
    """Read off the English sentences, where each of these words is known by its spelling."""
    verbs = {form: verb.en for verb in VERBS for form in (verb.en, verb.en_past)}
    pairs = {part: set() for part in PARTS}
    for _, item in drawn:
        words = words_of(said(item)["en"], "en")
        (thing,) = words & {thing.en for thing in THINGS}
        (verb,) = (verbs[word] for word in words & verbs.keys())
        (adjective,) = words & {adjective.en for adjective in ADJECTIVES}
        pairs[item.split.split("_")[1]] |= {(verb, thing), (adjective, thing)}
    for one, other in itertools.combinations(PARTS, 2):
        assert not pairs[one] & pairs[other]


def test_every_word_of_dev_and_test_is_in_training_in_each_language(drawn):
    known: dict[tuple[str, str], set[str]] = {}
    for _, item in drawn:
        for lang, sentence in said(item).items() if item.split.endswith("train") else ():
            known.setdefault((item.lang, lang), set()).update(words_of(sentence, lang))
    assert len(known) == 4 + 6
    assert all(60 <= len(words) <= 110 for words in known.values())
    for _, item in drawn:
        for lang, sentence in said(item).items():
            assert words_of(sentence, lang) <= known[item.lang, lang], sentence


def test_no_meaning_occurs_twice_not_even_in_another_language(drawn):
    assert len({m for m, _ in drawn}) == len(drawn) == 4 * (800 + 80 + 160)
    assert len({said(item)["en"] for _, item in drawn}) == len(drawn)


def test_a_part_has_as_many_meanings_as_asked_for():
    found = distinct_meanings(50, "dev", np.random.RandomState(0))
    assert len(set(found)) == 50
    assert {part_of(m) for m in found} == {"dev"}
