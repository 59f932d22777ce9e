"""CoVoST 2 on Common Voice in miniature, with synthesised audio."""

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

import soundfile

from bilevel.testing.audio import tones

LANGS = (
    "en", "fr", "de", "es", "ca", "it", "ru", "zh-CN", "pt", "fa", "et", "mn", "nl", "tr", "ar", "sv-SE", "lv", "sl",
    "ta", "ja", "id", "cy",
)  # fmt: skip
TO = ("de", "tr", "fa", "sv-SE", "mn", "zh-CN", "cy", "ca", "sl", "et", "id", "ar", "ta", "lv", "ja")
_SHARED = ("client_id", "path", "sentence", "up_votes", "down_votes", "age", "gender")
COLUMNS = (*_SHARED, "accent")
NEWER_COLUMNS = (*_SHARED, "accents", "variant", "locale", "segment")
_WORDS = ("Red", "sun,", "milk", "tree", "l'été", "nine", "Öl", "open!", "sky", "north")
# Clip, transcript (None: no row in validated.tsv), translation and part (None: no row in the table), and whether there
# is audio.
ODD_CLIPS = (
    ("added", "in CoVoST's own part", ("by CoVoST", "train_covost"), True),
    ("dropped", "in a part that is none", ("not used", "dev_covost"), True),
    ("spoken", "never translated", None, True),
    ("unknown", None, ("of another release", "train"), True),
    ("silent", "never recorded", ("no clip", "train"), False),
    ("quoted", 'she said: \\"go  on\\", "twice" \u00a0\\\\', ('\\"Go\\"  "on', "train"), True),
    ("accented", "e\u0301te\u0301", ("e\u0301te\u0301", "train"), True),
    ("untold", "no words in English", ("", "train"), True),
)


def covost2_tree(
    dst: Path, langs: Sequence[str] = LANGS, n_clips: int = 1, odd: bool = False, newer: bool = False
) -> Path:
    """CoVoST 2: `n_clips` a part of each spoken language.

    Args:
        dst: Where the tree goes.
        langs: Spoken languages.
        n_clips: Clips of train, of dev and of test.
        odd: Add `ODD_CLIPS` to the first language, and a row of which only the first cells are there.
        newer: Columns of Common Voice's releases from 7 on.
    """
    rng, root = random.Random(0), Path(dst) / "covost2"
    for number, lang in enumerate(langs):
        columns = NEWER_COLUMNS if newer else COLUMNS
        rows: list[Sequence[str]] = [columns]
        parts: list[tuple[str, str, str]] = []
        for n in range(3 * n_clips):
            clip, text = f"common_voice_{lang}_{17000000 + 100 * number + n}.mp3", " ".join(rng.choices(_WORDS, k=3))
            _write_clip(root / lang / "clips" / clip, text)
            rows.append(_row(columns, f"{lang}{n % 2}", clip, text))
            parts.append((clip, text, ("train", "dev", "test")[n % 3]))
        if odd and number == 0:
            for name, text, translated, audible in ODD_CLIPS:
                clip = f"common_voice_{lang}_{name}.mp3"
                rows += [_row(columns, f"{lang}0", clip, text)] if text is not None else []
                parts += [(clip, *translated)] if translated else []
                if audible:
                    _write_clip(root / lang / "clips" / clip, name)
            rows.append(_row(columns, f"{lang}1", f"common_voice_{lang}_short.mp3", "short row")[:3])
            parts.append((f"common_voice_{lang}_short.mp3", "short", "test"))
            _write_clip(root / lang / "clips" / f"common_voice_{lang}_short.mp3", "short")
        _write_table(root / lang / "validated.tsv", rows)
        for target in TO if lang == "en" else ("en",):
            table = [(clip, f"{text} [{target}]" if text else "", part) for clip, text, part in parts]
            _write_table(root / f"covost_v2.{lang}_{target}.tsv", [("path", "translation", "split"), *table])
    return root


def _write_clip(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tones(text, 48000), 48000, format="MP3")


def _row(columns: Sequence[str], speaker: str, clip: str, text: str) -> list[str]:
    cells = {"client_id": hashlib.sha512(speaker.encode()).hexdigest(), "path": clip, "sentence": text}
    return [cells.get(column, {"up_votes": "2", "down_votes": "0"}.get(column, "")) for column in columns]


def _write_table(path: Path, rows: Sequence[Sequence[str]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
