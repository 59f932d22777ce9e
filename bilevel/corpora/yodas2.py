"""YODAS2 (espnet/yodas2 on the Hugging Face Hub): the videos of YODAS uncut, with timed captions, 24 kHz.

Layout, for each subset: `data/<subset>/audio/<nnnnnnnn>.tar.gz` (an audio file a video),
`data/<subset>/text/<nnnnnnnn>.json` (`[{"audio_id": <video>, "text": {<id>: <text>, ...}}, ...]`) and
`data/<subset>/duration/<nnnnnnnn>.txt` (`<video> <seconds>`). Subsets, sets, ids and the licence are those of YODAS
(see `yodas`), with other shards: there is no telling which shard of one holds what a shard of the other does.

Rules and conventions
* An utterance is a caption: the recording is its video, and its times are those of its id, in centiseconds. Captions
  may overlap. One that runs past the end of the video (by the duration file) ends there; one that begins after it, or
  has no length, is left out.
* A video without captions, such as `kWkl4Xx6t6o` of bi000, has no utterances; one without a duration is left out.
* Ids that start with `-`, repetitions, shards that are not whole and what is not in a tar: as in `yodas`. A video that
  comes again counts once.
* A text of several lines becomes one. Else it is yielded as published.
* The recipe's sampling rate is 16 kHz, so stage 3 wants `--resample true`.

EXPECTED: nobody published numbers of utterances, nor hours other than those of YODAS. The numbers of shards are
published (`meta.py` of the dataset), so a copy that lacks some is an error even without the index of the download.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from bilevel.corpora import _yodas
from bilevel.data.record import Utterance
from bilevel.data.shard import entry

LICENSE = "CC BY 3.0, the videos' authors; collected by X. Li, S. Takamichi, T. Saeki, W. Chen, S. Shiota, S. Watanabe"
HOMEPAGE = "https://huggingface.co/datasets/espnet/yodas2"
RATE_HZ = 24000
SETS: dict[str, tuple[str, ...]] = {}
EXPECTED: dict[str, tuple[int | None, float | None]] = {}

# Shards of a language's manual (0) or automatic (1) captions; a subset holds 500 and the last one the rest. Two if not
# said otherwise.
_PER_SUBSET = 500
_TWO = """aa ab af ak as ay ba bh bi bm bo br bs co cr cy dz ee et ff fj fo ga gd gn ho ia ie ig ik is iu jv kl ks ku
la lb lg ln lo lv mg mi mk mn my na nv oc om ps qu rm rn rw sa sc sd sm sn sq st su tg ti tk tn to tt ug ve vo wo xh yi
yo zu"""
_OTHERS = """am0 9 ar0 154 az0 4 be0 7 bg0 12 bn0 92 ca0 10 cs0 24 da0 6 de0 369 de1 1114 el0 18 en0 3937 en1 14562
eo0 4 es0 483 es1 4201 eu0 4 fa0 12 fi0 28 fr0 315 fr1 1901 fy0 1 gl0 3 gu0 8 ha0 4 hi0 182 hi1 7 hr0 5 ht0 3 hu0 32
hy0 3 id0 493 id1 919 it0 185 it1 932 iw0 21 ja0 211 ja1 303 ka0 4 ki0 1 kk0 6 km0 10 kn0 7 ko0 391 ko1 1787 ky0 4
lt0 4 ml0 12 mr0 18 ms0 8 nd0 1 ne0 6 nl0 52 nl1 263 no0 17 or0 3 pa0 5 pl0 140 pt0 202 pt1 1882 ro0 18 ru0 787
ru1 3439 sg0 1 sh0 1 si0 8 sk0 6 sl0 4 so0 4 sr0 4 sv0 17 sw0 4 ta0 40 te0 14 th0 113 th1 2 tr0 155 tr1 440 ts0 1
uk0 63 uk1 56 ur0 35 uz0 8 vi0 465 vi1 972 zh0 42"""


def utterances(src: Path, split: str) -> Iterator[Utterance]:
    """Records of the shards that a split names."""
    seen: set[str] = set()
    for shard in _yodas.shards(src, split, ".json"):
        lengths_sec = _yodas.read_durations(shard.duration)
        for video, captions in _read_captions(shard.text):
            if video in lengths_sec and video not in seen:
                seen.add(video)
                for key, text in sorted(captions.items()):
                    _, start_sec, end_sec = _yodas.parse_id(key, shard.text)
                    end_sec = min(end_sec, lengths_sec[video])
                    if start_sec < end_sec:
                        yield Utterance(
                            id=_yodas.safe(key),
                            audio=entry(shard.audio, video),
                            text=_yodas.one_line(text),
                            speaker=_yodas.safe(video),
                            recording=_yodas.safe(video),
                            start_sec=start_sec,
                            end_sec=end_sec,
                            lang=shard.lang,
                        )


def splits(src: Path) -> list[str]:
    """Subsets that the folder holds, sorted."""
    return _yodas.splits(src)


def missing(src: Path, split: str) -> list[str]:
    """Files of shards that a complete split would have."""
    return _yodas.missing(src, split, ".json", published_shards())


def published_shards() -> dict[str, int]:
    """Number of shards of each subset."""
    words = _OTHERS.split()
    series = {f"{lang}0": 2 for lang in _TWO.split()}
    series |= zip(words[::2], map(int, words[1::2]), strict=True)
    counts = {}
    for name, n_shards in series.items():
        for i, first in enumerate(range(0, n_shards, _PER_SUBSET)):
            counts[f"{name}{i:02d}"] = min(_PER_SUBSET, n_shards - first)
    return counts


def download(dst: Path, splits: Sequence[str]) -> Path:
    """Fetch the shards of the splits (resumable; SHA-256 as the Hub lists it); they are not unpacked.

    The licence allows copying with attribution.
    """
    print(f"YODAS2 is licensed {LICENSE}", flush=True)
    return _yodas.download("espnet/yodas2", dst, splits)


def _read_captions(path: Path) -> list[tuple[str, dict[str, object]]]:
    if not path.is_file():
        if path.with_suffix(".txt").is_file():
            raise ValueError(f"{path.with_suffix('.txt')}: this is the layout of yodas; use --corpus yodas")
        return []
    try:
        return [(item["audio_id"], dict(item["text"])) for item in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError, KeyError) as error:
        shape = '[{"audio_id": ..., "text": {...}}, ...]'
        raise ValueError(f"{path}: expected {shape}, found {type(error).__name__} {error}; fetch it again") from None
