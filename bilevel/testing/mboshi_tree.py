"""Mboshi-French in miniature, in the layout of its repository, with synthesised audio."""

import random
import struct
from pathlib import Path

import soundfile

from bilevel.testing.audio import tones

WORDS = ("Ibéá", "lá", "máa", "dí", "ídí", "twέbhέlέ", "mwána", "ya", "ngá", "etongo", "yá", "mbía", "owonga", "wóo")
FRENCH = ("ce", "puits", "d'eau", "est", "profond", "l'enfant", "sait", "jouer", "tam-tam", "très")
SESSIONS = {
    "abiayi": "2015-09-08-11-33-57_samsung-SM-T530_mdw_elicit_Dico18",
    "kouarata": "2015-08-13-13-48-39_samsung-SM-T530_mdw_elicit_Part1",
    "martial": "2015-09-07-15-24-49_samsung-SM-T530_mdw_elicit_Dico19",
}


def mboshi_tree(dst: Path, n_train: int = 60, n_dev: int = 6, odd: bool = False) -> Path:
    """The repository with `n_train` and `n_dev` utterances in its two folders, and all of them in `all`.

    `odd` adds to train, all spoken by martial: an utterance that repeats the sentence of the first (801), one each
    without translation (802), without transcript (803) and without audio (804), a wav file whose header promises 726
    bytes more than there are, as some published ones do (805), and a transcript with letters in decomposed form, white
    space and a line break (806).
    """
    rng, root = random.Random(0), Path(dst) / "mboshi-french-parallel-corpus"
    corpus = root / "full_corpus_newsplit"
    (root / "README.md").parent.mkdir(parents=True)
    (root / "README.md").write_text("# mboshi-french-parallel-corpus\n", encoding="utf-8")
    for split, count in (("train", n_train), ("dev", n_dev)):
        for n in range(count):
            speaker = tuple(SESSIONS)[n % len(SESSIONS)]
            key = f"{speaker}_{SESSIONS[speaker]}_{n + (1 if split == 'train' else 501)}"
            mboshi, french = " ".join(rng.choices(WORDS, k=6)), " ".join(rng.choices(FRENCH, k=5))
            for folder in (split, "all"):
                _write(corpus / folder / key, mboshi, french.capitalize())
    if odd:
        _spoil(corpus / "train")
    return root


def _write(stem: Path, mboshi: str, french: str) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    sound = tones(mboshi[:12])
    soundfile.write(f"{stem}.wav", sound, 16000, subtype="PCM_16")
    speaker, _, stm_id = stem.name.partition("_")  # some of the published STM files lack the speaker in the id
    lines = {
        "mb": mboshi,
        "mb.cleaned": mboshi.lower(),
        "mb.cleaned.split": " ".join(mboshi.lower().replace(" ", "_")),
        "fr": french,
        "fr.cleaned": french.lower(),
        "fr.cleaned.noPunct": french.lower().replace("'", " "),
        "stm": f"{stm_id} 1 {speaker}_jean_claude    0.000    {len(sound) / 16000:.3f} {mboshi} \n ",
    }
    for kind, line in lines.items():
        Path(f"{stem}.{kind}").write_text(f"{line}\n", encoding="utf-8")


def _spoil(train: Path) -> None:
    first = min(train.glob("*.mb")).read_text(encoding="utf-8").strip()
    stems = {n: train / f"martial_{SESSIONS['martial']}_{n}" for n in range(801, 807)}
    for n, stem in stems.items():
        _write(stem, first if n == 801 else f"Mwána {'ya ' * (n - 800)}wóo", "Encore une fois")
    Path(f"{stems[802]}.fr").unlink()
    Path(f"{stems[803]}.mb").unlink()
    Path(f"{stems[804]}.wav").unlink()
    wav = bytearray(Path(f"{stems[805]}.wav").read_bytes())
    for place in (4, wav.index(b"data") + 4):
        wav[place : place + 4] = struct.pack("<I", struct.unpack("<I", wav[place : place + 4])[0] + 726)
    Path(f"{stems[805]}.wav").write_bytes(wav)
    Path(f"{stems[806]}.mb").write_text("Ibe\u0301a\u0301 \t la\u0301\r\n  ma\u0301a \n", encoding="utf-8")
