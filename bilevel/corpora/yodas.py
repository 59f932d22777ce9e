"""YODAS (espnet/yodas on the Hugging Face Hub): captions of YouTube videos, cut, 369,510 h in 149 languages, 16 kHz.

Layout, for each subset: `data/<subset>/audio/<nnnnnnnn>.tar.gz` (a wav file an utterance),
`data/<subset>/text/<nnnnnnnn>.txt` (`<id> <text>`) and `data/<subset>/duration/<nnnnnnnn>.txt` (`<id> <seconds>`).
A subset is a language (YouTube's code, so Hebrew is `iw`) and three digits: `en000`, `en001` ... have captions that a
user uploaded, `en100` ... automatic ones. Each holds at most 500 GB: en000 is about 5,000 h.

Sets: a subset (`en000`), one of its shards (`en000_0`), a range (`en000_1-49`) or all from one on (`en000_1-`); `+`
joins (`en000+en001`). There is no official split into training and validation: keep a shard for that, as the recipe
does.

Rules and conventions
* Nothing is unpacked: the audio of an utterance is `<shard>::<id>`, which stage 3 reads shard by shard.
* Ids are the published ones, `<video>-<nnnnn>-<start>-<end>` in centiseconds; the numbers need not start at 00000, and
  the time between start and end may differ from the duration by 0.01 s. The video's id is not YouTube's. It may start
  with `-`, which would be an option on a command line: ours then has `=` in front. The speaker is the video.
* The duration file decides what there is, and how long it is: stage 1 opens no audio. A text without a duration is
  left out, and so is a clip of no length; a clip without a text has an empty one, which later stages drop from labelled
  sets. A shard without its duration file is left out (once `en108` had neither text nor durations); `missing` names it.
* Of an id that comes again, in the same shard or another, the first one counts.
* A member that is not in the tar, or empty, silent, or behind the break of a truncated tar, is quarantined in stage 3;
  members that no table names are counted there.
* Text is yielded as published, in one line.

EXPECTED: nobody published numbers of utterances. Those of ba000 and bm000 were counted in the duration files, to try
the recipe on a few MB; the hours of ru000 are those of the dataset's card, which has more. So completeness is a matter
of files: the download keeps the list of them, with sizes and checksums, and each that a split lacks is an error. A copy
given as --src without `index/` is only known to be complete up to its highest shard.

Reference: X. Li et al., YODAS: Youtube-Oriented Dataset for Audio and Speech, 2024 (arXiv 2406.00899).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bilevel.corpora import _yodas
from bilevel.data.record import Utterance
from bilevel.data.shard import entry

LICENSE = "CC BY 3.0, the videos' authors; collected by X. Li, S. Takamichi, T. Saeki, W. Chen, S. Shiota, S. Watanabe"
HOMEPAGE = "https://huggingface.co/datasets/espnet/yodas"
RATE_HZ = 16000
SETS: dict[str, tuple[str, ...]] = {}
EXPECTED = {"ba000": (37, None), "bm000": (4, None), "ru000": (None, 4968.37)}


def utterances(src: Path, split: str) -> Iterator[Utterance]:
    """Records of the shards that a split names."""
    seen: set[str] = set()
    for shard in _yodas.shards(src, split, ".txt"):
        _refuse_yodas2(shard.text)
        texts = {key: text for _, key, text in _yodas.read_table(shard.text)} if shard.text.is_file() else {}
        for key, length_sec in _yodas.read_durations(shard.duration).items():
            video, _, _ = _yodas.parse_id(key, shard.duration)
            if key in seen:
                continue
            seen.add(key)
            yield Utterance(
                id=_yodas.safe(key),
                audio=entry(shard.audio, key),
                text=_yodas.one_line(texts.get(key, "")),
                speaker=_yodas.safe(video),
                lang=shard.lang,
                duration_sec=length_sec,
            )


def splits(src: Path) -> list[str]:
    """Subsets that the folder holds, sorted."""
    return _yodas.splits(src)


def missing(src: Path, split: str) -> list[str]:
    """Files of shards that a complete split would have."""
    return _yodas.missing(src, split, ".txt", {})


def download(dst: Path, splits: Sequence[str]) -> Path:
    """Fetch the shards of the splits (resumable; SHA-256 as the Hub lists it); they are not unpacked.

    The licence allows copying with attribution.
    """
    print(f"YODAS is licensed {LICENSE}", flush=True)
    return _yodas.download("espnet/yodas", dst, splits)


def _refuse_yodas2(text: Path) -> None:
    if text.with_suffix(".json").is_file():
        raise ValueError(f"{text.with_suffix('.json')}: this is the layout of yodas2; use --corpus yodas2")
