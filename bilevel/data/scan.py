"""Open and decode every audio file before anything is computed from it."""

import functools
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

from bilevel.data.audio import is_pipe, open_source
from bilevel.data.container import truncation
from bilevel.data.files import write_lines
from bilevel.data.parallel import ordered_map, plain
from bilevel.data.record import Utterance

_BLOCK_FRAMES = 1 << 18
_CLIPPED = 32767 / 32768
# A segment or a stored duration may differ from the file by this much: times are rounded.
_TOLERANCE_SEC = 0.05


@dataclass(frozen=True)
class Limits:
    """What audio is accepted.

    Attributes:
        rate_hz: Expected sampling rate.
        resample: Accept other rates (they are converted later).
        min_sec: Shortest utterance.
        max_sec: Longest utterance; the far stricter limits of training come later (`bilevel filter`).
        silence_peak: A recording that never exceeds this share of full scale is silent (1e-4 is -80 dB).
        max_missing_share: Accept files that lack at most this share of the bytes that their headers promise, as they
            are; for corpora published with wrong headers.
        max_bad_share: Stop when more than this share of the utterances is bad.
        allow_pipes: Run `command |` entries.
    """

    rate_hz: int = 16000
    resample: bool = False
    min_sec: float = 0.02
    max_sec: float = 3600.0
    silence_peak: float = 1e-4
    max_missing_share: float = 0.0
    max_bad_share: float = 0.01
    allow_pipes: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """What decoding a whole file showed; `error` is empty if it could be decoded.

    Attributes:
        error: Why the file is unusable.
        n_samples: Samples of one channel, counted while decoding.
        rate_hz: Sampling rate.
        n_channels: Number of channels.
        low: Smallest sample value, of full scale 1.
        high: Largest sample value.
        clipped_share: Share of samples at full scale.
        missing_share: Share of the promised bytes that the file lacks.
    """

    error: str = ""
    n_samples: int = 0
    rate_hz: int = 0
    n_channels: int = 0
    low: float = 0.0
    high: float = 0.0
    clipped_share: float = 0.0
    missing_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Judgement on one utterance: usable if `reason` is empty."""

    utterance: Utterance
    probe: Probe
    reason: str = ""


def probe(path: str | io.BytesIO, allow_pipes: bool = False, max_missing_share: float = 0.0) -> Probe:
    """Decode a file (or its content) from beginning to end, in constant memory."""
    missing = None
    try:
        content = isinstance(path, io.BytesIO)
        if content or not is_pipe(path):
            if (path.getbuffer().nbytes if content else Path(path).stat().st_size) == 0:
                return Probe("empty file")
            missing = truncation(path if content else Path(path))
            if missing and missing.share > max_missing_share:
                limit = f"--max_missing_share {max_missing_share:g}"
                return Probe(f"truncated: {missing.text} ({missing.share:.1%} are missing, {limit})")
        with soundfile.SoundFile(open_source(path, allow_pipes=allow_pipes)) as file:
            return replace(_decode(file), missing_share=missing.share if missing else 0.0)
    except FileNotFoundError:
        return Probe("no such file")
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        return Probe(f"unreadable: {' '.join(str(error).split())}")


def _decode(file: soundfile.SoundFile) -> Probe:
    n_samples = n_clipped = 0
    low, high = math.inf, -math.inf
    while True:
        block = file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)
        if not len(block):
            break
        if not np.isfinite(block).all():
            return Probe(f"NaN or infinite samples within the {len(block)} from sample {n_samples} on")
        n_samples += len(block)
        low, high = min(low, float(block.min())), max(high, float(block.max()))
        n_clipped += int((np.abs(block) >= _CLIPPED).sum())
    if not n_samples:
        return Probe("no samples")
    if n_samples < file.frames:
        return Probe(f"truncated: {n_samples} samples decoded, its header promises {file.frames}")
    share = n_clipped / (n_samples * file.channels)
    return Probe("", n_samples, file.samplerate, file.channels, low, high, share)


def judge(utterance: Utterance, found: Probe, limits: Limits, stored_sec: float | None = None) -> str:
    """Why the utterance is unusable, '' if it is fine; `stored_sec` is its length according to the corpus."""
    if found.error:
        return found.error
    if found.rate_hz != limits.rate_hz and not limits.resample:
        return f"rate {found.rate_hz} Hz, expected {limits.rate_hz} Hz (convert with --resample true, or set --fs)"
    if found.n_channels > 1 and utterance.channel is None:
        return f"{found.n_channels} channels, expected 1 (choose one with --channel 0)"
    if (utterance.channel or 0) >= found.n_channels:
        return f"channel {utterance.channel} asked for, but it has {found.n_channels}"
    if found.low == found.high:
        return f"all samples equal {found.low:g}"
    if max(-found.low, found.high) < limits.silence_peak:
        return f"silent: peak {max(-found.low, found.high):.1e} of full scale"
    file_sec = found.n_samples / found.rate_hz
    if utterance.end_sec is not None and utterance.end_sec > file_sec + _TOLERANCE_SEC:
        return f"segment ends at {utterance.end_sec:.3f} s, the recording at {file_sec:.3f} s"
    length_sec = (file_sec if utterance.end_sec is None else utterance.end_sec - utterance.start_sec) / utterance.speed
    if stored_sec is not None and length_sec < stored_sec - max(_TOLERANCE_SEC, 0.005 * stored_sec):
        return f"truncated: {length_sec:.3f} s, utt2dur promises {stored_sec:.3f} s"
    if length_sec < limits.min_sec:
        return f"too short: {length_sec:.4f} s, expected at least {limits.min_sec:g} s"
    if length_sec > limits.max_sec:
        return f"too long: {length_sec:.1f} s, expected at most {limits.max_sec:g} s"
    return ""


def scan(
    utterances: Sequence[Utterance],
    limits: Limits,
    *,
    nj: int = 1,
    stored_sec: Mapping[str, float] | None = None,
    progress=plain,
) -> list[Verdict]:
    """Judge every utterance, in their order; a file that several share is decoded once."""
    paths = list(dict.fromkeys(u.audio for u in utterances))
    look = functools.partial(probe, allow_pipes=limits.allow_pipes, max_missing_share=limits.max_missing_share)
    results = ordered_map(look, paths, nj)
    probes = dict(zip(paths, progress(results, total=len(paths), label="scan"), strict=True))
    stored_sec = stored_sec or {}
    return [Verdict(u, probes[u.audio], judge(u, probes[u.audio], limits, stored_sec.get(u.id))) for u in utterances]


def write_quarantine(path: Path, verdicts: Iterable[Verdict]) -> None:
    """Write `<utterance> TAB <audio> TAB <reason>` of the unusable ones."""
    write_lines(path, (f"{v.utterance.id}\t{v.utterance.audio}\t{v.reason}" for v in verdicts if v.reason))


def summary(verdicts: Sequence[Verdict]) -> list[str]:
    """Counts for people to read."""
    n_bad = sum(bool(v.reason) for v in verdicts)
    n_clipped = sum(v.probe.clipped_share > 0.01 for v in verdicts)
    lines = [f"{len(verdicts)} utterances, {n_bad} quarantined, {n_clipped} with more than 1 % clipped samples"]
    shares = [v.probe.missing_share for v in verdicts if v.probe.missing_share]
    if shares:
        lines.append(f"{len(shares)} shorter than their headers say, by at most {max(shares):.1%}: taken as they are")
    return lines


def check_share(verdicts: Sequence[Verdict], limits: Limits, where: Path) -> None:
    """Stop when too much is bad for the rest to be trusted.

    Raises:
        ValueError: With the first bad file and the counts of each kind.
    """
    bad = [v for v in verdicts if v.reason]
    if not bad or (len(bad) <= limits.max_bad_share * len(verdicts) and len(bad) < len(verdicts)):
        return
    first = bad[0]
    raise ValueError(
        f"{where}: {len(bad)} of {len(verdicts)} utterances are unusable, at most {limits.max_bad_share:.1%} may be; "
        f"first {first.utterance.id} ({first.utterance.audio}): {first.reason}; all are in the quarantine list; "
        f"mend them, or raise --max_bad_share"
    )
