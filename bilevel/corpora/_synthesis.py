"""From a plan of utterances to recordings and a manifest: synthesis by eSpeak NG, the same bytes on every run.

A corpus made this way is a module with
    SEED: a whole number, from which every random draw of a recording comes.
    Sizes: a frozen dataclass of whole numbers, one of them `n_voices`.
    plan(sizes): its `Item`s, those of test first, then those of dev.
eSpeak NG keeps state between utterances, so each shard of voices is rendered by a process of its own, in the order of
the plan, whatever the number of jobs. `manifest.tsv` has a checksum per utterance, the file `SHA256` one per split over
these, which is compared with the recorded one.
"""

import hashlib
import importlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import soundfile

from bilevel.corpora import MissingSplitError, _channel, _espeak, _voices
from bilevel.data.files import Stamp, write_lines
from bilevel.data.record import Utterance

RATE_HZ = 16000
SHARD_VOICES = _voices.N_HELD_OUT  # so that the first shard is test and the second dev, where all voices speak

_VOLUME = 50  # eSpeak's default of 100 clips with some variants
_COLUMNS = ("id", "split", "lang", "speaker", "audio", "n_samples", "noise", "snr_db", "low_hz", "high_hz", "peak_db")
_COLUMNS += ("pcm_sha256", "text", "translations")


@dataclass(frozen=True, slots=True)
class Item:
    """One utterance to be synthesised.

    Attributes:
        id: Its id.
        split: Its official split.
        lang: Code of its language.
        voice: Who speaks it.
        text: What is spoken.
        espeak: The language as eSpeak NG names it.
        tempo: Factor on the voice's rate.
        translations: The text in other languages, by code; a tuple of pairs, so that items can be compared.
    """

    id: str
    split: str
    lang: str
    voice: _voices.Voice
    text: str
    espeak: str
    tempo: float = 1.0
    translations: tuple[tuple[str, str], ...] = ()


def synthesise(
    corpus: str,
    dst: Path,
    nj: int,
    sizes: object,
    sources: Sequence[Path],
    recorded: Mapping[str, Mapping[str, str]] | None,
) -> Path:
    """Write `manifest.tsv`, `SHA256` and `audio/<split>/<id>.wav` (16 kHz, mono, 16 bit) in `dst`.

    Nothing is done when `dst` holds this corpus already.

    Args:
        corpus: Name of the corpus module.
        dst: Folder to write to.
        nj: Number of processes at a time; the result does not depend on it.
        sizes: A `Sizes` of the module.
        sources: Files of code that decide what is synthesised, next to those shared by all such corpora.
        recorded: Checksums for `verify`; None where none are known for these sizes.

    Returns:
        `dst`.

    Raises:
        OSError: eSpeak NG is not installed, or a process failed.
        ValueError: A checksum is not the recorded one.
    """
    dst, config = Path(dst), {"sizes": astuple(sizes), "wheel": _espeak.version()}
    shared = [Path(module.__file__) for module in (_channel, _espeak, _voices)] + [Path(__file__)]
    stamp = Stamp(dst / ".done" / f"{corpus}.json", [*shared, *sources], config)
    if _complete(dst) and stamp.fresh():
        return dst
    print(f"{corpus}: synthesising in {dst}", flush=True)
    shards = range(-(-sizes.n_voices // SHARD_VOICES))
    with ThreadPoolExecutor(max(1, nj)) as pool:
        rendered = pool.map(lambda shard: render_in_fresh_process(corpus, dst, shard, sizes), shards)
        write_manifest(dst, itertools.chain.from_iterable(rendered))
    digests = split_digests(dst)
    write_lines(dst / "SHA256", (f"{digest}  {split}" for split, digest in digests.items()))
    for split in digests:
        lengths = [int(row["n_samples"]) for row in rows(dst) if row["split"] == split]
        print(f"{corpus}: {split}: {len(lengths)} utterances, {sum(lengths) / RATE_HZ / 3600:.4f} h", flush=True)
    if recorded is not None:
        verify(corpus, dst, recorded)
    stamp.write()  # after the check: what failed it is no finished work, the next run shall not keep it
    return dst


def write_manifest(dst: Path, lines: Iterator[str]) -> None:
    """Write the lines of `render_in_fresh_process` as `manifest.tsv`."""
    write_lines(Path(dst) / "manifest.tsv", ["\t".join(_COLUMNS), *lines])


def rows(src: Path) -> Iterator[dict[str, str]]:
    """The rows of the manifest, by the names of its columns."""
    with (Path(src) / "manifest.tsv").open(encoding="utf-8") as stream:
        columns = next(stream).rstrip("\n").split("\t")
        for line in stream:
            yield dict(zip(columns, line.rstrip("\n").split("\t"), strict=True))


def utterances(corpus: str, src: Path, split: str, expected: Sequence[str]) -> Iterator[Utterance]:
    """Records of one split of the manifest.

    Raises:
        MissingSplitError: `src` holds no such split, or no `manifest.tsv`.
    """
    if not (Path(src) / "manifest.tsv").is_file():
        raise MissingSplitError(f"{corpus}: {src} has no manifest.tsv; without --src the corpus is synthesised")
    found = [row for row in rows(src) if row["split"] == split]
    if not found:
        raise MissingSplitError(f"{corpus}: no split {split!r} in {src}; expected one of {', '.join(expected)}")
    for row in found:
        audio, translations = str(Path(src) / row["audio"]), json.loads(row.get("translations", "{}"))
        yield Utterance(row["id"], audio, row["text"], row["speaker"], lang=row.get("lang"), translations=translations)


def split_digests(src: Path) -> dict[str, str]:
    """SHA-256 per split, over the SHA-256 of each utterance's samples (hex, in the order of the manifest)."""
    hashes: dict[str, hashlib._Hash] = {}
    for row in rows(src):
        hashes.setdefault(row["split"], hashlib.sha256()).update(row["pcm_sha256"].encode())
    return {split: state.hexdigest() for split, state in hashes.items()}


def verify(corpus: str, dst: Path, recorded: Mapping[str, Mapping[str, str]]) -> None:
    """Compare the checksums in `dst` with those recorded, by version of the wheel; without a record, print a note.

    Raises:
        ValueError: A checksum is not the recorded one.
    """
    wheel = _espeak.version()
    if wheel not in recorded:
        print(f"note: {corpus}: no checksums are recorded for {_espeak.WHEEL} {wheel}: {dst}/SHA256", flush=True)
        return
    for split, digest in split_digests(dst).items():
        if digest != recorded[wheel][split]:
            raise ValueError(
                f"{dst}/SHA256: {split}: found {digest}, expected {recorded[wheel][split]} for {_espeak.WHEEL} "
                f"{wheel}; remove {dst} and repeat; where sizes or recipe were changed on purpose, record the "
                "new checksums"
            )


def render_in_fresh_process(corpus: str, dst: Path, shard: int, sizes: object) -> list[str]:
    """Render the voices of one shard in a new interpreter; returns its lines of the manifest.

    Raises:
        ChildProcessError: The process failed.
    """
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", __name__, corpus, str(dst), *map(str, (shard, *astuple(sizes)))]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ChildProcessError(f"corpus {corpus}, shard {shard}: exit status {done.returncode}: {reason}")
    return done.stdout.splitlines()


def _complete(src: Path) -> bool:
    return (src / "manifest.tsv").is_file() and all((src / row["audio"]).is_file() for row in rows(src))


def _render_shard(items: Sequence[Item], dst: Path, shard: int, seed: int) -> Iterator[str]:
    """Write the audio of one shard, voice by voice; yields lines of the manifest."""
    by_voice: dict[_voices.Voice, list[Item]] = {}
    for item in items:
        by_voice.setdefault(item.voice, []).append(item)
    espeak = _espeak.Espeak(seed + shard)
    for spoken in list(by_voice.values())[shard * SHARD_VOICES : (shard + 1) * SHARD_VOICES]:
        for item in spoken:
            yield _render(espeak, item, dst, seed)


def _render(espeak: _espeak.Espeak, item: Item, dst: Path, seed: int) -> str:
    voice = item.voice
    # RandomState, not Generator: its streams are frozen for good, whatever the version of numpy.
    rng = np.random.RandomState([seed, *item.id.encode()])
    channel = _channel.draw(rng)
    speech = espeak.speak(
        item.text,
        voice.variant,
        wpm=round(item.tempo * voice.wpm * rng.uniform(0.94, 1.06) / voice.warp),
        pitch=voice.pitch + rng.randint(-5, 6),
        pitch_range=voice.pitch_range,
        volume=_VOLUME,
        language=item.espeak,
    )
    samples = _channel.transmit(speech, espeak.rate_hz, voice.warp, channel, RATE_HZ, rng)
    audio = Path("audio") / item.split / f"{item.id}.wav"
    (dst / audio).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(dst / audio, samples, RATE_HZ, subtype="PCM_16")
    drawn = (f"{value:.1f}" for value in (channel.snr_db, channel.low_hz, channel.high_hz, channel.peak_db))
    digest = hashlib.sha256(samples.tobytes()).hexdigest()
    fields = [item.id, item.split, item.lang, voice.name, audio, len(samples), channel.noise, *drawn, digest, item.text]
    return "\t".join(map(str, [*fields, json.dumps(dict(item.translations), ensure_ascii=False)]))


if __name__ == "__main__":  # one shard, called by render_in_fresh_process
    _corpus, _dst, _shard, *_sizes = sys.argv[1:]
    _module = importlib.import_module(f"bilevel.corpora.{_corpus}")
    sys.stdout.reconfigure(encoding="utf-8")
    _items = _module.plan(_module.Sizes(*map(int, _sizes)))
    for _line in _render_shard(_items, Path(_dst), int(_shard), _module.SEED):
        print(_line)
