"""AISHELL-1 in miniature, with synthesised audio."""

import random
import shutil
import tarfile
from pathlib import Path

import soundfile

from bilevel.testing.audio import tones

WORDS = ("而", "对", "楼市", "成交", "抑制", "作用", "最", "大", "的", "限", "购", "公司", "名义", "二零一五")
_FIRST_SPEAKER = {"train": 2, "dev": 724, "test": 764}


def aishell_tree(dst: Path, n_speakers: int = 2, n_utterances: int = 2, odd: bool = False, seed: int = 0) -> Path:
    """AISHELL-1, unpacked: `n_speakers` a split, `n_utterances` each.

    `odd` adds to the first training speaker: audio without a transcript (W0900), a transcript without audio (W0901),
    full-width, small and capital letters between irregular blanks (W0902), and a stray file.
    """
    rng, root = random.Random(seed), Path(dst) / "data_aishell"
    lines = []
    for split, first in _FIRST_SPEAKER.items():
        for n in range(n_speakers):
            speaker = f"S{first + n:04d}"
            folder = root / "wav" / split / speaker
            folder.mkdir(parents=True)
            for k in range(n_utterances):
                key, words = f"BAC009{speaker}W{k + 121:04d}", rng.choices(WORDS, k=rng.randint(3, 5))
                soundfile.write(folder / f"{key}.wav", tones("".join(words), pitch=0.8 + 0.1 * n), 16000)
                lines.append(f"{key} {' '.join(words)}")
    if odd:
        folder = root / "wav" / "train" / "S0002"
        soundfile.write(folder / "BAC009S0002W0900.wav", tones("lost"), 16000)
        soundfile.write(folder / "BAC009S0002W0902.wav", tones("abc"), 16000)
        (folder / "notes.txt").write_text("checked\n", encoding="utf-8")
        lines += ["BAC009S0002W0901 没有 声音", "BAC009S0002W0902   ｔ恤  Vip  ａｂｃｋ 卡拉 OK "]
    (root / "transcript").mkdir()
    (root / "transcript" / "aishell_transcript_v0.8.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def pack_aishell(root: Path) -> Path:
    """The tree as it is published: one archive a speaker in wav/, all in `data_aishell.tgz`; the tree goes."""
    for folder in sorted((root / "wav").glob("*/*")):
        with tarfile.open(root / "wav" / f"{folder.name}.tar.gz", "w:gz") as tar:
            tar.add(folder, f"./{folder.parent.name}/{folder.name}")
    for split in _FIRST_SPEAKER:
        shutil.rmtree(root / "wav" / split)
    archive = root.parent / "data_aishell.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root, root.name)
    shutil.rmtree(root)
    return archive
