"""Miniature corpora in the exact published layouts, with synthesised audio.

Each builder writes below `dst` and returns the folder to give as `--src`. `odd=True` adds what the real corpora (or
broken copies of them) have and a tidy tree has not.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile

from bilevel.testing.aishell_tree import aishell_tree
from bilevel.testing.ami_tree import ami_tree
from bilevel.testing.audio import tones, write_sphere
from bilevel.testing.covost2_tree import covost2_tree
from bilevel.testing.mboshi_tree import mboshi_tree

WORDS = ("red", "sun", "milk", "tree", "go", "nine", "lamp", "open", "sky", "north", "it's", "echo", "bird", "wave")
LIBRISPEECH_SPLITS = (
    "train-clean-100", "train-clean-360", "train-other-500", "dev-clean", "dev-other", "test-clean", "test-other"
)  # fmt: skip


def sentence(rng: random.Random) -> str:
    """Two to four words."""
    return " ".join(rng.choices(WORDS, k=rng.randint(2, 4)))


def librispeech_tree(
    dst: Path,
    splits: Sequence[str] = LIBRISPEECH_SPLITS,
    n_speakers: int = 2,
    n_utterances: int = 2,
    odd: bool = False,
    seed: int = 0,
) -> Path:
    """LibriSpeech: `n_speakers` a split, two chapters a speaker, `n_utterances` a chapter."""
    rng, root = random.Random(seed), Path(dst) / "LibriSpeech"
    speakers = [";ID  |SEX| SUBSET           |MINUTES| NAME", "; comment | with | bars | in | it"]
    chapters = [";ID    |READER|MINUTES| SUBSET           | PROJ.|BOOK ID| CH. TITLE | PROJECT TITLE"]
    for n_split, split in enumerate(splits):
        for n in range(n_speakers):
            speaker = str(19 + 100 * n_split + 7 * n)
            name = "Reader | of | Bars" if n == 0 else "Ann O'Neill-Smith, \u00c9cole"
            speakers.append(f"{speaker:<5}| {'FM'[n % 2]} | {split:<16} | 25.03 | {name}")
            for chapter in (str(198 + 10 * n_split + n), str(5000 + 10 * n_split + n)):
                chapters.append(f"{chapter} | {speaker} | 12.1 | {split} | 8 | 9 | I | Book: a | b")
                _librispeech_chapter(root / split / speaker / chapter, n_utterances, 0.8 + 0.1 * n, rng)
    (root / "SPEAKERS.TXT").write_text("\n".join(speakers) + "\n", encoding="utf-8")
    (root / "CHAPTERS.TXT").write_text("\n".join(chapters) + "\n", encoding="utf-8")
    for name in ("README.TXT", "LICENSE.TXT", "BOOKS.TXT"):
        (root / name).write_text("1. General information\n", encoding="utf-8")
    if odd:
        _spoil_librispeech(root / splits[0])
    return root


def _librispeech_chapter(folder: Path, n_utterances: int, pitch: float, rng: random.Random) -> None:
    folder.mkdir(parents=True)
    stem, lines = f"{folder.parent.name}-{folder.name}", []
    for n in range(n_utterances):
        text = sentence(rng).upper()
        soundfile.write(folder / f"{stem}-{n:04d}.flac", tones(text, pitch=pitch), 16000)
        lines.append(f"{stem}-{n:04d} {text}\n")
    (folder / f"{stem}.trans.txt").write_text("".join(lines), encoding="utf-8")


def _spoil_librispeech(folder: Path) -> None:
    # In the first chapter: audio without a transcript, a transcript without audio, lower case, a stray file.
    chapter = min(folder.glob("*/*"))
    stem = f"{chapter.parent.name}-{chapter.name}"
    soundfile.write(chapter / f"{stem}-0090.flac", tones("lost"), 16000)
    soundfile.write(chapter / f"{stem}-0092.flac", tones("quiet it's"), 16000)
    (chapter / "notes.txt").write_text("checked\n", encoding="utf-8")
    with (chapter / f"{stem}.trans.txt").open("a", encoding="utf-8") as stream:
        stream.write(f"{stem}-0091 NEVER RECORDED\n{stem}-0092  Quiet IT'S\n")


# STM segments of the odd talk: speaker, start, end, label, text.
ODD_SEGMENTS = (
    ("S1", 0.0, 0.5, "<o,f0,male>", "ignore_time_segment_in_scoring"),
    ("S1", 0.55, 1.2, "<o,f0,male>", "it 's a(2) red <unk> sun"),
    ("S1", 1.2, 1.987, "<F0_M>", "{NOISE} we 're <sil> open {SMACK} (Odd_2010-1.2-1.987-F0_M-S1)"),
    ("S2", 1.9, 2.8, "<F0_F>", "the boys ' milk [LAUGH]"),
    ("S1", 2.5, 3.4, "<o,f0,male>", "'cause I Go north"),
    ("S1", 3.6, 4.29, "<o,f0,male>", "<unk>"),
    ("inter_segment_gap", 4.29, 4.5, "<o,f0,>", "ignore_time_segment_in_scoring"),
    ("S1", 4.5, 5.0, "<o,f0,male>", "nine (4.5)"),
)


def tedlium_tree(dst: Path, n_talks: int = 2, n_segments: int = 3, odd: bool = False, seed: int = 0) -> Path:
    """TED-LIUM release 2: `n_talks` a split; `odd` adds the talk Odd_2010 to train and to dev."""
    rng, root = random.Random(seed), Path(dst) / "TEDLIUM_release2"
    for split in ("train", "dev", "test"):
        for n in range(n_talks):
            talk = f"{split.title()}Talker_200{n}{'X' * (n % 2)}"
            texts = [sentence(rng).replace("'s", " 's") for _ in range(n_segments)]
            sounds = [tones(text, pitch=0.8 + 0.1 * n) for text in texts]
            ends = np.cumsum([len(s) for s in sounds]) / 16000
            write_sphere(root / split / "sph" / f"{talk}.sph", np.concatenate(sounds))
            rows = [
                ("S1", round(end - len(s) / 16000 + 0.05, 3), round(end - 0.05, 3), "<o,f0,male>", text)
                for s, end, text in zip(sounds, ends, texts, strict=True)
            ]
            _write_stm(root / split / "stm" / f"{talk}.stm", talk, rows)
        if odd and split != "test":
            write_sphere(root / split / "sph" / "Odd_2010.sph", np.resize(tones("odd talk"), int(5.05 * 16000)))
            _write_stm(root / split / "stm" / "Odd_2010.stm", "Odd_2010", ODD_SEGMENTS)
    for name in ("README", "TEDLIUM.152k.dic"):
        (root / name).write_text("TED-LIUM\n", encoding="utf-8")
    return root


def _write_stm(path: Path, talk: str, rows: Sequence[tuple[str, float, float, str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{talk} 1 {speaker} {start:g} {end:g} {label} {text}\n" for speaker, start, end, label, text in rows]
    path.write_text("".join(lines), encoding="utf-8")


def fsdd_tree(dst: Path, speakers: Sequence[str] = ("george", "jackson"), indices: Sequence[int] = (0, 5, 10)) -> Path:
    """FSDD: all ten digits of each speaker, at 8 kHz."""
    folder = Path(dst) / "free-spoken-digit-dataset" / "recordings"
    folder.mkdir(parents=True)
    for digit in range(10):
        for n, speaker in enumerate(speakers):
            for index in indices:
                sound = tones("abcdefghij"[digit] * 3, 8000, pitch=0.8 + 0.2 * n)
                soundfile.write(folder / f"{digit}_{speaker}_{index}.wav", sound, 8000)
    return folder.parent


def speechocean762_tree(dst: Path, n_speakers: int = 10, n_utterances: int = 2, seed: int = 0) -> Path:
    """speechocean762: `n_speakers` in train and in test; tables are separated by tabs, as published."""
    rng, root = random.Random(seed), Path(dst) / "speechocean762"
    for n_split, split in enumerate(("train", "test")):
        rows = []
        for n in range(n_speakers):
            speaker = f"{2 * n + n_split + 1:04d}"
            for k in range(n_utterances):
                key, text = f"0{speaker}{k + 11:04d}", sentence(rng).upper()
                path = f"WAVE/SPEAKER{speaker}/{key}.WAV"
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(root / path, tones(text, pitch=0.7 + 0.02 * n), 16000, format="WAV")
                rows.append((key, path, text, speaker))
        (root / split).mkdir()
        tables = {
            "wav.scp": [f"{key}\t{path}" for key, path, _, _ in rows],
            "text": [f"{key}\t{text}" for key, _, text, _ in rows],
            "utt2spk": [f"{key} {speaker}" for key, _, _, speaker in rows],
            "spk2gender": sorted({f"{speaker}\tm" for *_, speaker in rows}),
        }
        for name, lines in tables.items():
            (root / split / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def an4_tree(dst: Path) -> Path:
    """AN4 as espnet ships it: five training utterances, two for testing, one without a transcript."""
    root = Path(dst) / "an4"
    parts = {
        "train": ("an4_clstk", ["an251-fash-b", "an253-fash-b", "cen8-fbbh-b", "an152-mwhw-b", "cen8-mwhw-b"]),
        "test": ("an4test_clstk", ["cen8-fcaw-b", "cen8-mmxg-b"]),
    }
    rng = random.Random(0)
    (root / "etc").mkdir(parents=True)
    for part, (folder, sources) in parts.items():
        mark = "<s> {} </s>" if part == "train" else "{}"
        lines, paths = [], []
        for source in sources:
            text, path = sentence(rng).upper(), f"{folder}/{source.split('-')[1]}/{source}"
            lines.append(f"{mark.format(text)} ({source})\n")
            paths.append(f"{path}\n")
            write_sphere(root / "wav" / f"{path}.sph", tones(text))
        (root / "etc" / f"an4_{part}.transcription").write_text("".join(lines), encoding="ascii")
        (root / "etc" / f"an4_{part}.fileids").write_text("".join(paths), encoding="ascii")
    write_sphere(root / "wav" / "an4_clstk" / "fash" / "cen7-fash-b.sph", tones("untold"))
    return root


def kaldi_tree(dst: Path, splits: Sequence[str] = ("train", "dev", "test"), n_utterances: int = 3) -> Path:
    """One folder with wav.scp, text and utt2spk at its top, and an id list a split."""
    root, rng = Path(dst) / "own", random.Random(0)
    (root / "audio").mkdir(parents=True)
    rows = []
    for split in splits:
        ids = [f"{split}-{n}" for n in range(n_utterances)]
        for key in ids:
            rows.append((key, sentence(rng)))
            soundfile.write(root / "audio" / f"{key}.wav", tones(rows[-1][1]), 16000)
        (root / f"{split}.list").write_text("\n".join(ids) + "\n", encoding="utf-8")
    (root / "wav.scp").write_text("".join(f"{key} audio/{key}.wav\n" for key, _ in rows), encoding="utf-8")
    (root / "text").write_text("".join(f"{key} {text}\n" for key, text in rows), encoding="utf-8")
    (root / "utt2spk").write_text("".join(f"{key} {key.split('-')[0]}\n" for key, _ in rows), encoding="utf-8")
    return root


def multi_tree(dst: Path) -> Path:
    """Two sources; one has all splits, the other only train."""
    root = Path(dst) / "pool"
    for name, splits in (("books", ("train", "dev", "test")), ("meetings", ("train",))):
        kaldi_tree(root / name, splits, 2)
        for path in (root / name / "own").iterdir():
            path.rename(root / name / path.name)
        (root / name / "own").rmdir()
    return root


def librispeech_aishell_tree(dst: Path) -> Path:
    """LibriSpeech and AISHELL-1 side by side."""
    root = Path(dst) / "pair"
    librispeech_tree(root / "librispeech")
    aishell_tree(root / "aishell")
    return root


TREES: dict[str, Callable[[Path], Path]] = {
    "aishell": aishell_tree,
    "ami": ami_tree,
    "covost2": covost2_tree,
    "fsdd": fsdd_tree,
    "kaldi": kaldi_tree,
    "librispeech": librispeech_tree,
    "librispeech_aishell": librispeech_aishell_tree,
    "mboshi_french": mboshi_tree,
    "mini_an4": an4_tree,
    "multi": multi_tree,
    "speechocean762": speechocean762_tree,
    "tedlium": tedlium_tree,
}
