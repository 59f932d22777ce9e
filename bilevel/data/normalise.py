"""The one text normaliser, for training text and for scoring alike.

The version goes into every score signature: change the function and you change the version.
"""

import string
import unicodedata
from collections.abc import Iterator, Sequence

VERSION = "1"

# Marks that belong inside a word; everything else of Unicode class P or S ends a word.
_IN_WORD = {"'", "<", ">"}
# ASCII characters that `normalise` leaves alone, by case; an apostrophe is one of them inside a word only.
_PLAIN = {
    case: (letters + string.digits + "' ").encode()
    for case, letters in (
        ("lower", string.ascii_lowercase),
        ("upper", string.ascii_uppercase),
        ("keep", string.ascii_letters),
    )
}
_BLOCK_TEXTS = 1024
_APOSTROPHES = {"\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u0060": "'", "\u00b4": "'"}


def normalise(text: str, *, case: str = "lower", punctuation: str = "remove") -> str:
    """Bring a transcript into its normal form.

    NFC, then case, then punctuation, then white space. Zero-width and control characters vanish, any Unicode space
    is one ASCII space. Idempotent: `normalise(normalise(t)) == normalise(t)`.

    Args:
        text: Any transcript.
        case: "lower", "upper" or "keep".
        punctuation: "remove" turns marks into spaces, but keeps apostrophes inside words and tags such as <unk>;
            "keep" leaves all.

    Raises:
        ValueError: An unknown value of `case` or `punctuation`.
    """
    if case not in ("lower", "upper", "keep"):
        raise ValueError(f"case {case!r}: expected lower, upper or keep")
    if punctuation not in ("remove", "keep"):
        raise ValueError(f"punctuation {punctuation!r}: expected remove or keep")
    text = unicodedata.normalize("NFC", text)
    if case != "keep":
        text = unicodedata.normalize("NFC", text.lower() if case == "lower" else text.upper())
    chars = []
    for char in text:
        char = _APOSTROPHES.get(char, char)
        category = unicodedata.category(char)
        if char.isspace():
            chars.append(" ")
        elif category in ("Cf", "Cc"):
            continue
        elif punctuation == "remove" and category[0] in "PS" and char not in _IN_WORD:
            chars.append(" ")
        else:
            chars.append(char)
    words = "".join(chars).split()
    if punctuation == "remove":
        words = [word for word in (w if _is_tag(w) else w.strip("'<>") for w in words) if word]
    return " ".join(words)


def normalise_all(texts: Sequence[str], *, case: str = "lower", punctuation: str = "remove") -> list[str]:
    """`[normalise(t) for t in texts]`, quickly: plain blocks pass as they are, any other word is looked at once.

    Exact, because no step of `normalise` looks past white space.

    Raises:
        ValueError: As `normalise`.
    """
    normalise("", case=case, punctuation=punctuation)
    known: dict[str, str] = {}

    def words(text: str) -> Iterator[str]:
        for word in text.split():
            normal = known.get(word)
            if normal is None:
                normal = known[word] = normalise(word, case=case, punctuation=punctuation)
            if normal:
                yield normal

    normal_texts: list[str] = []
    for start in range(0, len(texts), _BLOCK_TEXTS):
        block = texts[start : start + _BLOCK_TEXTS]
        joined = f" {' '.join(block)} "
        plain = not joined.encode(errors="replace").translate(None, delete=_PLAIN[case])
        plain = plain and not any(odd in joined for odd in ("  ", " '", "' "))
        normal_texts += block if plain else [" ".join(words(text)) for text in block]
    return normal_texts


def _is_tag(word: str) -> bool:
    return len(word) > 2 and word[0] == "<" and word[-1] == ">" and not set(word[1:-1]) & {"<", ">"}


def signature(*, case: str = "lower", punctuation: str = "remove") -> str:
    """Name of the normal form, for score signatures: `nfc+lower+nopunct.v1`."""
    return f"nfc+{case}+{'nopunct' if punctuation == 'remove' else 'punct'}.v{VERSION}"
