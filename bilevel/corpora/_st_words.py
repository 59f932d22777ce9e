"""The words of `mini_st` in English, German, French and Mandarin; `_st_grammar` puts them in order.

Order matters: the place of a word in its table decides which pairs of words are held out (`_st_grammar.part_of`).

Rules kept by hand: no two words for different things sound alike (so no "weiß" for white beside "weiß" for knows, and
卖掉 for sell, because 买 and 卖 differ in tone alone); every verb goes with every thing, and so does every adjective;
things can be carried, so that they can be lost, hidden and stolen anywhere. eSpeak NG reads each Mandarin word here
with the right syllables and tones; that was checked word by word in its phonemes.
"""

from dataclasses import dataclass

LANGUAGES = ("en", "de", "fr", "zh")


@dataclass(frozen=True, slots=True)
class Person:
    """Who does it; in German always the subject, hence with its nominative article."""

    en: str
    de: str
    fr: str
    zh: str


@dataclass(frozen=True, slots=True)
class Thing:
    """What it is done to.

    Attributes:
        en: English noun.
        de: German noun.
        de_gender: "m", "f" or "n".
        fr: French noun.
        fr_gender: "m" or "f".
        zh: Mandarin noun.
        measure: Its measure word.
    """

    en: str
    de: str
    de_gender: str
    fr: str
    fr_gender: str
    zh: str
    measure: str


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb with an object; all have "haben" in German and "avoir" in French, and 了 after them in Mandarin.

    Attributes:
        en: Infinitive.
        en_past: Simple past.
        de: Infinitive.
        de_participle: Past participle.
        fr: Infinitive.
        fr_participle: Past participle, masculine; the feminine has an e more.
        zh: The verb.
        wanted: Whether one can want to do it.
        reasoned: Whether one does it for a reason.
    """

    en: str
    en_past: str
    de: str
    de_participle: str
    fr: str
    fr_participle: str
    zh: str
    wanted: bool = True
    reasoned: bool = True


@dataclass(frozen=True, slots=True)
class Adjective:
    """A property of a thing.

    Attributes:
        en: English.
        de: German, after "ist".
        de_stem: What the endings go to.
        fr: French masculine.
        fr_feminine: French feminine.
        fr_before: Whether it goes before the noun.
        fr_before_vowel: Masculine before a vowel.
        zh: Before the noun.
        zh_is: As a predicate, with its 是 or 很.
    """

    en: str
    de: str
    de_stem: str
    fr: str
    fr_feminine: str
    fr_before: bool
    fr_before_vowel: str
    zh: str
    zh_is: str


@dataclass(frozen=True, slots=True)
class Phrase:
    """A time, a place or a verb of saying: the same words wherever it stands."""

    en: str
    de: str
    fr: str
    zh: str


PERSONS = (
    Person("the man", "der mann", "l'homme", "男人"),
    Person("the woman", "die frau", "la femme", "女人"),
    Person("the boy", "der junge", "le garçon", "男孩"),
    Person("the girl", "das mädchen", "la fille", "女孩"),
    Person("the teacher", "der lehrer", "le professeur", "老师"),
    Person("the doctor", "der arzt", "le médecin", "医生"),
    Person("the student", "der student", "l'étudiant", "学生"),
    Person("the farmer", "der bauer", "le fermier", "农民"),
)
THINGS = (
    Thing("book", "buch", "n", "livre", "m", "书", "本"),
    Thing("chair", "stuhl", "m", "chaise", "f", "椅子", "把"),
    Thing("lamp", "lampe", "f", "lampe", "f", "灯", "盏"),
    Thing("hat", "hut", "m", "chapeau", "m", "帽子", "顶"),
    Thing("knife", "messer", "n", "couteau", "m", "刀", "把"),
    Thing("watch", "uhr", "f", "montre", "f", "手表", "块"),
    Thing("computer", "computer", "m", "ordinateur", "m", "电脑", "台"),
    Thing("shirt", "hemd", "n", "chemise", "f", "衬衫", "件"),
    Thing("table", "tisch", "m", "table", "f", "桌子", "张"),
    Thing("cup", "tasse", "f", "tasse", "f", "杯子", "个"),
    Thing("bicycle", "fahrrad", "n", "vélo", "m", "自行车", "辆"),
    Thing("umbrella", "regenschirm", "m", "parapluie", "m", "雨伞", "把"),
)
VERBS = (
    Verb("buy", "bought", "kaufen", "gekauft", "acheter", "acheté", "买"),
    Verb("lose", "lost", "verlieren", "verloren", "perdre", "perdu", "丢", wanted=False, reasoned=False),
    Verb("sell", "sold", "verkaufen", "verkauft", "vendre", "vendu", "卖掉"),
    Verb("see", "saw", "sehen", "gesehen", "voir", "vu", "看见", wanted=False, reasoned=False),
    Verb("hide", "hid", "verstecken", "versteckt", "cacher", "caché", "藏"),
    Verb("find", "found", "finden", "gefunden", "trouver", "trouvé", "找到", reasoned=False),
    Verb("draw", "drew", "zeichnen", "gezeichnet", "dessiner", "dessiné", "画"),
    Verb("steal", "stole", "stehlen", "gestohlen", "voler", "volé", "偷"),
)
ADJECTIVES = (
    Adjective("red", "rot", "rot", "rouge", "rouge", False, "rouge", "红色的", "是红色的"),
    Adjective("old", "alt", "alt", "vieux", "vieille", True, "vieil", "旧", "很旧"),
    Adjective("blue", "blau", "blau", "bleu", "bleue", False, "bleu", "蓝色的", "是蓝色的"),
    Adjective("small", "klein", "klein", "petit", "petite", True, "petit", "小", "很小"),
    Adjective("green", "grün", "grün", "vert", "verte", False, "vert", "绿色的", "是绿色的"),
    Adjective("new", "neu", "neu", "neuf", "neuve", False, "neuf", "新", "很新"),
    Adjective("black", "schwarz", "schwarz", "noir", "noire", False, "noir", "黑色的", "是黑色的"),
    Adjective("expensive", "teuer", "teur", "cher", "chère", False, "cher", "很贵的", "很贵"),
)
PAST = (
    Phrase("yesterday", "gestern", "hier", "昨天"),
    Phrase("today", "heute", "aujourd'hui", "今天"),
    Phrase("last week", "letzte woche", "la semaine dernière", "上个星期"),
    Phrase("on monday", "am montag", "lundi", "星期一"),
)
FUTURE = (
    Phrase("tomorrow", "morgen", "demain", "明天"),
    Phrase("next week", "nächste woche", "la semaine prochaine", "下个星期"),
)
PLACES = (
    Phrase("at the market", "auf dem markt", "au marché", "在市场"),
    Phrase("in the garden", "im garten", "dans le jardin", "在花园里"),
    Phrase("in the kitchen", "in der küche", "dans la cuisine", "在厨房里"),
    Phrase("at the station", "am bahnhof", "à la gare", "在车站"),
    Phrase("at school", "in der schule", "à l'école", "在学校"),
    Phrase("at the hotel", "im hotel", "à l'hôtel", "在酒店"),
)
SAYING = (
    Phrase("says", "sagt", "dit", "说"),
    Phrase("thinks", "glaubt", "pense", "觉得"),
    Phrase("knows", "weiß", "sait", "知道"),
)
