"""`mini`: the embedded corpus, synthesised on the spot by eSpeak NG; nothing to fetch, no licence to sign.

Sentences come from a small grammar (`_sentences`), speakers are eSpeak variants with their own rate, pitch, melody and
spectral warp (`_voices`), and every recording has its own noise, band and level (`_channel`). The rules:

- Held-out voices: the variants of dev and test are used nowhere else.
- Every sentence of the corpus is different, so no two splits share one.
- The labelled set is the beginning of the unlabelled pool, as the 100 labelled hours of LibriSpeech are part of its
  960: `train_unlab` is `train_lab` and `train_rest`. Speakers take turns, so that both have all training voices.
- test and dev are drawn first and rendered apart: they stay the same when the training sizes change.
- The same bytes on every run: eSpeak keeps state between utterances, so each shard of voices is rendered in a fixed
  order by a process of its own, whatever the number of jobs. `manifest.tsv` has a checksum per utterance, the file
  `SHA256` one per split over these, which is compared with the recorded one.
"""

import hashlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import soundfile

from bilevel.corpora import MissingSplitError, _channel, _espeak, _sentences, _voices
from bilevel.data.files import Stamp, write_lines
from bilevel.data.record import Utterance

N_LABELLED, N_UNLABELLED, N_DEV, N_TEST = 1200, 3000, 120, 240
N_VOICES = 80

LICENSE = "Apache-2.0, like this repository (made here; the synthesiser eSpeak NG itself is GPL-3.0-or-later)"
HOMEPAGE = "https://github.com/espeak-ng/espeak-ng"
RATE_HZ = 16000
_POOL = ("train_lab", "train_rest")
SETS = {"train": _POOL, "train_unlab": _POOL, "train_lab": ("train_lab",), "dev": ("dev",), "test": ("test",)}
# Hours and checksums (by version of the wheel) belong to the sizes above: after a change of sizes or of the recipe,
# `prepare` prints the new ones.
EXPECTED = {
    "train_lab": (N_LABELLED, 0.7554),
    "train_rest": (N_UNLABELLED - N_LABELLED, 1.1477),
    "dev": (N_DEV, 0.0707),
    "test": (N_TEST, 0.1502),
}
PCM_SHA256 = {
    "0.2.4": {
        "test": "1f09f5f4c93f7a6b45f5e2a7ff0e9c1773dfe9b15be589aedff5719faa8e8268",
        "dev": "8b9784c59e4a8183a326f0b4b270e8aef17beb77842909c98ee66ce168457e40",
        "train_lab": "d72cf7ffe4a709e5f64f7cd1b8b977c0780a47f53d60cd7686db7c2ed13efc89",
        "train_rest": "ee809c5d303a477db850d5f37ec86a3db3579b913192b62a44b4c32527b29b97",
    }
}

_SEED = 2
_SHARD_VOICES = _voices.N_HELD_OUT  # so that the first shard is test and the second dev
_VOLUME = 50  # eSpeak's default of 100 clips with some variants
_COLUMNS = ("id", "split", "speaker", "audio", "n_samples", "noise", "snr_db", "low_hz", "high_hz", "peak_db")
_COLUMNS += ("pcm_sha256", "text")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of utterances and voices; `n_unlabelled` is the whole pool and includes `n_labelled`.

    Raises:
        ValueError: A number is not positive, the pool is smaller than its labelled part, or there are too few voices.
    """

    n_labelled: int = N_LABELLED
    n_unlabelled: int = N_UNLABELLED
    n_dev: int = N_DEV
    n_test: int = N_TEST
    n_voices: int = N_VOICES

    def __post_init__(self) -> None:
        n_voices_min = 3 * _voices.N_HELD_OUT
        if min(astuple(self)) < 1 or self.n_labelled > self.n_unlabelled or self.n_voices < n_voices_min:
            raise ValueError(
                "corpus mini: expected positive sizes, n_labelled <= n_unlabelled (the pool includes the labelled "
                f"part) and at least {n_voices_min} voices, found {self}"
            )


@dataclass(frozen=True, slots=True)
class Item:
    """One utterance to be synthesised."""

    id: str
    split: str
    voice: _voices.Voice
    text: str


def plan(sizes: Sizes | None = None) -> list[Item]:
    """All utterances of the corpus, split by split; speakers take turns."""
    sizes = sizes or Sizes()
    counts = {
        "test": sizes.n_test,
        "dev": sizes.n_dev,
        "train_lab": sizes.n_labelled,
        "train_rest": sizes.n_unlabelled - sizes.n_labelled,
    }
    texts = iter(_sentences.distinct_sentences(sum(counts.values()), np.random.RandomState(_SEED)))
    speakers: dict[str, list[_voices.Voice]] = {}
    for voice in _voices.voices(sizes.n_voices, np.random.RandomState(_SEED)):
        speakers.setdefault(voice.part, []).append(voice)
    items, n_done = [], dict.fromkeys(speakers, 0)
    for split, count in counts.items():
        part = split.split("_")[0]
        for k in range(n_done[part], n_done[part] + count):
            voice = speakers[part][k % len(speakers[part])]
            items.append(Item(f"{voice.name}-{k:05d}", split, voice, next(texts)))
        n_done[part] += count
    return items


def prepare(dst: Path, nj: int = 1, sizes: Sizes | None = None) -> Path:
    """Synthesise the corpus: `manifest.tsv`, `SHA256` and `audio/<split>/<id>.wav` (16 kHz, mono, 16 bit) in `dst`.

    Args:
        dst: Folder to write to; nothing is done when it already holds this corpus.
        nj: Number of processes at a time; the result does not depend on it.
        sizes: Numbers of utterances and voices; None for the default corpus, whose checksums are verified.

    Returns:
        `dst`.

    Raises:
        OSError: eSpeak NG is not installed, or a process failed.
        ValueError: A checksum is not the recorded one.
    """
    dst, sizes, wheel = Path(dst), sizes or Sizes(), _espeak.version()
    sources = [Path(module.__file__) for module in (_channel, _espeak, _sentences, _voices)] + [Path(__file__)]
    stamp = Stamp(dst / ".done" / "mini.json", sources, {"sizes": astuple(sizes), "wheel": wheel})
    if _complete(dst) and stamp.fresh():
        return dst
    print(f"mini: synthesising {sizes.n_unlabelled + sizes.n_dev + sizes.n_test} utterances in {dst}", flush=True)
    shards = range(-(-sizes.n_voices // _SHARD_VOICES))
    with ThreadPoolExecutor(max(1, nj)) as pool:
        rendered = pool.map(lambda shard: _in_fresh_process(dst, shard, sizes), shards)
        write_lines(dst / "manifest.tsv", ["\t".join(_COLUMNS), *itertools.chain.from_iterable(rendered)])
    digests = split_digests(dst)
    write_lines(dst / "SHA256", (f"{digest}  {split}" for split, digest in digests.items()))
    for split in digests:
        lengths = [int(row["n_samples"]) for row in _rows(dst) if row["split"] == split]
        print(f"mini: {split}: {len(lengths)} utterances, {sum(lengths) / RATE_HZ / 3600:.4f} h", flush=True)
    if sizes == Sizes():
        _verify(digests, wheel, dst)
    stamp.write()
    return dst


def download(dst: Path, splits: Sequence[str]) -> Path:
    """Synthesise the default corpus in `dst` on all cores; it is small, so always all splits."""
    return prepare(dst, nj=len(os.sched_getaffinity(0)))


def utterances(src: Path, split: str) -> Iterator[Utterance]:
    """Yield the utterances of train_lab, train_rest, dev or test, with their text.

    Raises:
        MissingSplitError: `src` holds no such split, or no `manifest.tsv`.
    """
    if not (Path(src) / "manifest.tsv").is_file():
        raise MissingSplitError(f"mini: {src} has no manifest.tsv; without --src the corpus is synthesised")
    rows = [row for row in _rows(src) if row["split"] == split]
    if not rows:
        raise MissingSplitError(f"mini: no split {split!r} in {src}; expected train_lab, train_rest, dev or test")
    for row in rows:
        yield Utterance(row["id"], str(Path(src) / row["audio"]), row["text"], row["speaker"], lang="en")


def split_digests(src: Path) -> dict[str, str]:
    """SHA-256 per split, over the SHA-256 of each utterance's samples (hex, in the order of the manifest)."""
    hashes: dict[str, hashlib._Hash] = {}
    for row in _rows(src):
        hashes.setdefault(row["split"], hashlib.sha256()).update(row["pcm_sha256"].encode())
    return {split: state.hexdigest() for split, state in hashes.items()}


def _complete(src: Path) -> bool:
    return (src / "manifest.tsv").is_file() and all((src / row["audio"]).is_file() for row in _rows(src))


def _rows(src: Path) -> Iterator[dict[str, str]]:
    with (Path(src) / "manifest.tsv").open(encoding="utf-8") as stream:
        columns = next(stream).rstrip("\n").split("\t")
        for line in stream:
            yield dict(zip(columns, line.rstrip("\n").split("\t"), strict=True))


def _verify(digests: Mapping[str, str], wheel: str, dst: Path) -> None:
    """Compare with the recorded checksums; a wheel without a record gets a note."""
    recorded = PCM_SHA256.get(wheel)
    if recorded is None:
        print(f"note: mini: no checksums are recorded for {_espeak.WHEEL} {wheel}: {dst}/SHA256", flush=True)
        return
    for split, digest in digests.items():
        if digest != recorded[split]:
            raise ValueError(
                f"{dst}/SHA256: {split}: found {digest}, expected {recorded[split]} for {_espeak.WHEEL} {wheel}; "
                f"remove {dst} and repeat; where sizes or recipe were changed on purpose, record the new checksums"
            )


def _in_fresh_process(dst: Path, shard: int, sizes: Sizes) -> list[str]:
    """Render one shard in a new interpreter; returns its manifest lines."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "bilevel.corpora.mini", str(dst), *map(str, (shard, *astuple(sizes)))]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ChildProcessError(f"corpus mini, shard {shard}: exit status {done.returncode}: {reason}")
    return done.stdout.splitlines()


def _render_shard(dst: Path, shard: int, sizes: Sizes) -> Iterator[str]:
    """Write the audio of one shard, voice by voice; yields manifest lines."""
    by_voice: dict[_voices.Voice, list[Item]] = {}
    for voice in _voices.voices(sizes.n_voices, np.random.RandomState(_SEED)):
        by_voice[voice] = []
    for item in plan(sizes):
        by_voice[item.voice].append(item)
    espeak = _espeak.Espeak(seed=_SEED + shard)
    for items in list(by_voice.values())[shard * _SHARD_VOICES : (shard + 1) * _SHARD_VOICES]:
        for item in items:
            yield _render(espeak, item, dst)


def _render(espeak: _espeak.Espeak, item: Item, dst: Path) -> str:
    voice = item.voice
    # RandomState, not Generator: its streams are frozen for good, whatever the version of numpy.
    rng = np.random.RandomState([_SEED, *item.id.encode()])
    channel = _channel.draw(rng)
    speech = espeak.speak(
        item.text,
        voice.variant,
        wpm=round(voice.wpm * rng.uniform(0.94, 1.06) / voice.warp),
        pitch=voice.pitch + rng.randint(-5, 6),
        pitch_range=voice.pitch_range,
        volume=_VOLUME,
    )
    samples = _channel.transmit(speech, espeak.rate_hz, voice.warp, channel, RATE_HZ, rng)
    audio = Path("audio") / item.split / f"{item.id}.wav"
    (dst / audio).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(dst / audio, samples, RATE_HZ, subtype="PCM_16")
    drawn = (f"{value:.1f}" for value in (channel.snr_db, channel.low_hz, channel.high_hz, channel.peak_db))
    digest = hashlib.sha256(samples.tobytes()).hexdigest()
    fields = [item.id, item.split, voice.name, audio, len(samples), channel.noise, *drawn, digest, item.text]
    return "\t".join(map(str, fields))


if __name__ == "__main__":  # one shard, called by _in_fresh_process
    _dst, _shard, *_sizes = sys.argv[1:]
    for _line in _render_shard(Path(_dst), int(_shard), Sizes(*map(int, _sizes))):
        print(_line)
