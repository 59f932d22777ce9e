"""Miniature YODAS and YODAS2 in the layouts of the Hugging Face Hub, with synthesised audio in tar shards."""

import io
import json
import random
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

from bilevel.testing.audio import tones
from bilevel.testing.trees import sentence

# Videos of shard 0 when `odd`: one that starts with a dash, one with both other marks of such ids.
ODD_VIDEOS = ("-Ab_3cDeF-g", "x_-9_uVwXyZ")


def write_shard(path: Path, files: Mapping[str, bytes], folder: str = ".") -> None:
    """Write a .tar.gz of files, by name, after the entry of their folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        top = tarfile.TarInfo(folder)
        top.type = tarfile.DIRTYPE
        tar.addfile(top)
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def wav(samples: np.ndarray, rate_hz: int = 16000) -> bytes:
    """The content of a 16-bit WAV file."""
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate_hz, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def yodas_tree(
    dst: Path, subsets: Sequence[str] = ("en000", "de100"), n_shards: int = 2, n_videos: int = 2, odd: bool = False
) -> Path:
    """YODAS: `n_shards` a subset, `n_videos` a shard, two clips a video; `odd` spoils shard 0 of the first subset."""
    root, rng = Path(dst) / "yodas", random.Random(0)
    for subset in subsets:
        for number in range(n_shards):
            clips = {}
            for n in range(n_videos):
                video = f"{subset}Vid{number:02d}{n}"[:11].ljust(11, "q")
                for k in range(2):
                    text = sentence(rng)
                    sound = tones(text, pitch=0.7 + 0.05 * n)
                    start = 500 * k
                    key = f"{video}-{k:05d}-{start:08d}-{start + len(sound) // 160:08d}"
                    clips[key] = (text, sound)
            _write_yodas(root / "data" / subset, number, clips)
    if odd:
        _spoil(root / "data" / subsets[0])
    return root


def _write_yodas(folder: Path, number: int, clips: Mapping[str, tuple[str, np.ndarray]]) -> None:
    write_shard(folder / "audio" / f"{number:08d}.tar.gz", {f"{key}.wav": wav(s) for key, (_, s) in clips.items()})
    _write_lines(folder / "text" / f"{number:08d}.txt", [f"{key} {text}" for key, (text, _) in clips.items()])
    lengths = [f"{key} {len(sound) / 16000:.2f}" for key, (_, sound) in clips.items()]
    _write_lines(folder / "duration" / f"{number:08d}.txt", lengths)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _spoil(folder: Path) -> None:
    """Shard 0 with all that is odd; the published rows of it stay as they are."""
    first, second = ODD_VIDEOS
    sound, silence = tones("odd one"), np.zeros(16000, np.float32)
    files = {
        f"{first}-00000-00000000-00000200.wav": wav(sound),
        f"{first}-00001-00000200-00000250.wav": wav(sound[:0]),  # empty, though 0.5 s by the duration file
        f"{second}-00007-00000000-00000100.wav": wav(silence),
        f"{second}-00008-00000100-00000200.wav": wav(sound),  # no text
        f"{second}-00009-00000200-00000300.wav": wav(sound),  # in no table
    }
    seconds = len(sound) / 16000
    lengths = [
        f"{first}-00000-00000000-00000200 {seconds:.2f}",
        f"{first}-00000-00000000-00000200 {seconds:.2f}",  # again
        f"{first}-00001-00000200-00000250 0.50",
        f"{second}-00007-00000000-00000100 1.00",
        f"{second}-00008-00000100-00000200 {seconds:.2f}",
        f"{second}-00010-00000300-00000500 2.00",  # not in the tar
        f"{second}-00011-00000500-00000500 0.00",  # no length
    ]
    texts = [
        f"{first}-00000-00000000-00000200 Odd\tONE\u2028two",
        f"{first}-00000-00000000-00000200 another text",
        f"{first}-00001-00000200-00000250 nothing to hear",
        f"{second}-00007-00000000-00000100 quiet",
        f"{second}-00010-00000300-00000500 lost",
        f"{second}-00012-00000600-00000700 never cut",  # no duration
    ]
    with tarfile.open(folder / "audio" / "00000000.tar.gz") as tar:
        old = {Path(m.name).name: tar.extractfile(m).read() for m in tar if m.isfile()}
    write_shard(folder / "audio" / "00000000.tar.gz", old | files, folder="00000000")
    for kind, lines in (("duration", lengths), ("text", texts)):
        path = folder / kind / "00000000.txt"
        path.write_text(path.read_text(encoding="utf-8") + "\n".join(lines), encoding="utf-8")  # no last newline


def yodas2_tree(dst: Path, subsets: Sequence[str] = ("en000", "bi000"), n_shards: int = 2, odd: bool = False) -> Path:
    """YODAS2: two videos a shard, three captions a video, FLAC; `odd` adds a video with all that is odd to shard 0."""
    root, rng = Path(dst) / "yodas2", random.Random(1)
    for subset in subsets:
        for number in range(n_shards):
            videos = {f"{subset}Long{number}{n}": [sentence(rng) for _ in range(3)] for n in range(2)}
            captions, files, lengths = [], {}, []
            for video, texts in videos.items():
                sounds = [tones(text, 24000) for text in texts]
                ends = [0, *(round(end / 240) for end in np.cumsum([len(s) for s in sounds]))]
                times = [f"{video}-{k:05d}-{ends[k]:08d}-{ends[k + 1]:08d}" for k in range(3)]
                captions.append({"audio_id": video, "text": dict(zip(times, texts, strict=True))})
                files[f"{video}.flac"] = _flac(np.concatenate(sounds))
                lengths.append(f"{video} {sum(len(s) for s in sounds) / 24000:.2f}")
            if odd and number == 0 and subset == subsets[0]:
                _add_odd_video(captions, files, lengths)
            write_shard(root / "data" / subset / "audio" / f"{number:08d}.tar.gz", files)
            _write_lines(root / "data" / subset / "duration" / f"{number:08d}.txt", lengths)
            _write_lines(root / "data" / subset / "text" / f"{number:08d}.json", [json.dumps(captions)])
    return root


def _add_odd_video(captions: list[dict], files: dict[str, bytes], lengths: list[str]) -> None:
    video = ODD_VIDEOS[0]
    sound = np.resize(tones("odd one", 24000), 48000)
    files |= {f"{video}.flac": _flac(sound), "uncaptionedQ.flac": _flac(sound)}
    lengths += [f"{video} 2.00", "uncaptionedQ 2.00", "neverLoaded 2.00"]
    text = {
        f"{video}-00000-00000000-00000120": "first line\nsecond line",
        f"{video}-00001-00000100-00000190": "over lap",
        f"{video}-00002-00000190-00000260": "past the end",
        f"{video}-00003-00000250-00000300": "after the end",
        f"{video}-00004-00000150-00000150": "no length",
    }
    captions += [
        {"audio_id": video, "text": text},
        {"audio_id": "uncaptionedQ", "text": {}},
        {"audio_id": "noDurationX", "text": {"noDurationX-00000-00000000-00000100": "lost"}},
        {"audio_id": "neverLoaded", "text": {"neverLoaded-00000-00000000-00000100": "not in the tar"}},
    ]


def _flac(samples: np.ndarray) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, 24000, format="FLAC", subtype="PCM_16")
    return stream.getvalue()
