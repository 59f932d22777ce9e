"""From a data directory to the dump that training reads: scanned, cut, at one rate, whole files."""

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from bilevel.data.archive import write_archive
from bilevel.data.audio import change_rate, change_speed, is_pipe, read_audio, write_flac
from bilevel.data.datadir import is_table, make_tables, read_datadir
from bilevel.data.features import fbank
from bilevel.data.files import Stamp, write_lines, write_text
from bilevel.data.parallel import ordered_map, plain
from bilevel.data.record import Utterance
from bilevel.data.scan import Limits, Verdict, check_share, scan, summary, write_quarantine
from bilevel.data.swap import atomic_dir
from bilevel.data.tables import read_optional

_OWN = ("audio", "feats.ark", "feats.scp", "feats_dim", "feats_type", "quarantine.tsv")
_COUNTS = ("utt2num_samples", "utt2num_frames")


@dataclass(frozen=True)
class FormatConfig:
    """Settings that change the dump.

    Fbank features need at least one window of 25 ms, whatever `limits` says.

    Attributes:
        limits: What audio is accepted.
        feats_type: "raw" (audio files) or "fbank" (log-mel archives).
        channel: Channel to take of files with several, where the corpus names none.
        n_mels: Filters of the fbank features.
    """

    limits: Limits = field(default_factory=Limits)
    feats_type: str = "raw"
    channel: int | None = None
    n_mels: int = 80

    def __post_init__(self) -> None:
        """Refuse unknown kinds of features."""
        if self.feats_type not in ("raw", "fbank"):
            raise ValueError(f"feats_type {self.feats_type!r}: expected raw or fbank")
        if self.feats_type == "fbank" and self.limits.min_sec < 0.03:
            object.__setattr__(self, "limits", replace(self.limits, min_sec=0.03))


def format_datadir(src: Path, dst: Path, config: FormatConfig, *, nj: int = 1, progress: Callable = plain) -> bool:
    """Write the dump of `src` to `dst` unless that was done for the same inputs.

    Unusable utterances are left out and listed in `<dst>/quarantine.tsv`. Raw: files that are whole, mono and at the
    right rate are passed through by absolute path; all others become 16-bit FLAC under `<dst>/audio`.

    Args:
        src: Data directory.
        dst: Dump directory; replaced in one move.
        config: What is accepted and made.
        nj: Number of processes; the result does not depend on it.
        progress: Wraps an iterable, as `bilevel.bin._cli.progress`.

    Returns:
        Whether anything was done.

    Raises:
        ValueError: More audio than `config.limits.max_bad_share` is unusable. `dst` is then as it was, and the list
            is in `<dst>.quarantine.tsv`.
    """
    src, dst = Path(src), Path(dst).absolute()
    rows = read_datadir(src)
    settings = asdict(config) | {"audio": _audio_state(rows), "src": str(src)}
    stamp = Stamp(dst / ".done" / "format.json", [src], settings)
    if (dst / "utt2spk").exists() and stamp.fresh():
        return False
    stamp.path.unlink(missing_ok=True)
    verdicts = _scan(rows, src, dst, config, nj, progress)
    good = [v for v in verdicts if not v.reason]
    with atomic_dir(dst, lambda name: is_table(name) or name in _OWN or name in _COUNTS) as folder:
        write = _write_raw if config.feats_type == "raw" else _write_fbank
        work = functools.partial(_convert, config=config, folder=folder)
        results = progress(ordered_map(work, good, nj), total=len(good), label=f"format {dst.name}")
        write(good, results, folder, dst, config)
        write_text(folder / "feats_type", config.feats_type + "\n")
        write_quarantine(folder / "quarantine.tsv", verdicts)
    stamp.write()
    return True


def _audio_state(rows: Iterable[Utterance]) -> str:
    """Digest of name, size and time of every audio file, so that replaced audio is formatted again."""
    digest = hashlib.sha256()
    for path in sorted({u.audio for u in rows}):
        status = Path(path).stat() if Path(path).exists() else None
        digest.update(f"{path} {status and (status.st_size, status.st_mtime_ns)}\n".encode())
    return digest.hexdigest()


def _scan(
    rows: list[Utterance], src: Path, dst: Path, config: FormatConfig, nj: int, progress: Callable
) -> list[Verdict]:
    if config.channel is not None:
        rows = [u if u.channel is not None else replace(u, channel=config.channel) for u in rows]
    stored_sec = {key: float(value) for key, value in read_optional(src / "utt2dur").items()}
    verdicts = scan(rows, config.limits, nj=nj, stored_sec=stored_sec, progress=progress)
    for line in summary(verdicts):
        print(f"{src}: {line}", flush=True)
    report = dst.with_name(dst.name + ".quarantine.tsv")
    try:
        check_share(verdicts, config.limits, src)
    except ValueError:
        write_quarantine(report, verdicts)
        raise
    report.unlink(missing_ok=True)
    n_changed = sum(not v.reason and v.probe.rate_hz != config.limits.rate_hz for v in verdicts)
    if n_changed:
        print(f"{src}: {n_changed} utterances resampled to {config.limits.rate_hz} Hz", flush=True)
    return verdicts


def _passes(verdict: Verdict, config: FormatConfig) -> bool:
    u, found = verdict.utterance, verdict.probe
    return (
        u.recording is None
        and u.speed == 1.0
        and found.n_channels == 1
        and found.rate_hz == config.limits.rate_hz
        and not is_pipe(u.audio)
    )


def _convert(verdict: Verdict, config: FormatConfig, folder: Path) -> tuple[np.ndarray | str, int]:
    """Features (T, F) of one utterance, or where its audio is; and how many samples it has."""
    u, rate_hz = verdict.utterance, config.limits.rate_hz
    if config.feats_type == "raw" and _passes(verdict, config):
        return os.path.abspath(u.audio), verdict.probe.n_samples
    channel = u.channel if verdict.probe.n_channels > 1 else 0
    allow_pipes = config.limits.allow_pipes
    samples, file_hz = read_audio(u.audio, u.start_sec, u.end_sec, channel=channel, allow_pipes=allow_pipes)
    if file_hz != rate_hz or u.speed != 1.0:
        with _one_thread():
            samples = change_speed(change_rate(samples, file_hz, rate_hz), u.speed)
    if config.feats_type == "fbank":
        with _one_thread():
            return fbank(samples, rate_hz, config.n_mels), len(samples)
    name = f"audio/{u.speaker or u.id}/{u.id}.flac"
    write_flac(folder / name, samples, rate_hz)
    return name, len(samples)


@contextlib.contextmanager
def _one_thread():
    """Sums split over threads round differently, and processes share the cores already."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _write_raw(good: Sequence[Verdict], results: Iterable, folder: Path, dst: Path, config: FormatConfig) -> None:
    rows, n_samples = [], {}
    for verdict, (path, count) in zip(good, results, strict=True):
        rows.append(_whole(verdict.utterance, str(dst / path)))  # an absolute path stays as it is
        n_samples[verdict.utterance.id] = count
    _write_tables(rows, {key: n / config.limits.rate_hz for key, n in n_samples.items()}, folder, dst)
    write_lines(folder / "utt2num_samples", (f"{key} {n_samples[key]}" for key in sorted(n_samples)))


def _write_fbank(good: Sequence[Verdict], results: Iterable, folder: Path, dst: Path, config: FormatConfig) -> None:
    n_frames: dict[str, int] = {}
    durations_sec: dict[str, float] = {}

    def matrices() -> Iterable[tuple[str, np.ndarray]]:
        for verdict, (feats, n_samples) in zip(good, results, strict=True):
            n_frames[verdict.utterance.id] = len(feats)
            durations_sec[verdict.utterance.id] = n_samples / config.limits.rate_hz
            yield verdict.utterance.id, feats

    table = write_archive(folder / "feats.ark", matrices(), final=dst / "feats.ark")
    rows = [_whole(v.utterance, v.utterance.audio) for v in good]
    _write_tables(rows, durations_sec, folder, dst, skip="wav.scp")
    write_lines(folder / "feats.scp", (f"{key} {table[key]}" for key in sorted(table)))
    write_lines(folder / "utt2num_frames", (f"{key} {n_frames[key]}" for key in sorted(n_frames)))
    write_text(folder / "feats_dim", f"{config.n_mels}\n")


def _whole(u: Utterance, audio: str) -> Utterance:
    return replace(u, audio=audio, recording=None, start_sec=None, end_sec=None, channel=None, speed=1.0)


def _write_tables(
    rows: list[Utterance], durations_sec: dict[str, float], folder: Path, dst: Path, skip: str = ""
) -> None:
    for name, table in make_tables(rows, dst, durations_sec).items():
        if name != skip:
            write_lines(folder / name, (f"{key} {table[key]}".rstrip() for key in sorted(table)))
