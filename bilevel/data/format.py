"""From a data directory to the dump that training reads: scanned, cut, at one rate, whole files."""

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from bilevel.data.archive import write_archive
from bilevel.data.audio import is_pipe, write_flac
from bilevel.data.convert import FormatConfig, features_of, samples_of
from bilevel.data.datadir import is_table, make_tables, read_datadir
from bilevel.data.files import Stamp, write_lines, write_text
from bilevel.data.format_shard import Converted, Job, remove_others, run_jobs, shard_jobs
from bilevel.data.lock import lock
from bilevel.data.parallel import ordered_map, plain
from bilevel.data.record import Utterance
from bilevel.data.scan import Verdict, check_share, scan, summary, write_quarantine
from bilevel.data.shard import file_of, split
from bilevel.data.swap import atomic_dir
from bilevel.data.tables import read_optional

__all__ = ["FormatConfig", "format_datadir"]

_OWN = ("audio", "feats.ark", "feats.scp", "feats_dim", "feats_type", "quarantine.tsv")
_COUNTS = ("utt2num_samples", "utt2num_frames")


def format_datadir(src: Path, dst: Path, config: FormatConfig, *, nj: int = 1, progress: Callable = plain) -> bool:
    """Write the dump of `src` to `dst` unless that was done for the same inputs.

    Unusable utterances are left out and listed in `<dst>/quarantine.tsv`. Raw: files that are whole, mono and at the
    right rate are passed through by absolute path; all others become 16-bit FLAC under `<dst>/audio`. What lies in tar
    shards goes to `<dst>/shards`, each shard read once; finished shards stay when the run is killed or refused.

    Args:
        src: Data directory.
        dst: Dump directory; replaced in one move.
        config: What is accepted and made.
        nj: Number of processes; the result does not depend on it.
        progress: Wraps an iterable, as `bilevel.bin._cli.progress`.

    Returns:
        Whether anything was done.

    Raises:
        ValueError: More audio than `config.limits.max_bad_share` is unusable. The tables in `dst` are then as they
            were, and the list is in `<dst>.quarantine.tsv`.
    """
    src, dst = Path(src), Path(dst).absolute()
    rows = read_datadir(src)
    settings = asdict(config) | {"audio": _audio_state(rows), "src": str(src)}
    stamp = Stamp(dst / ".done" / "format.json", [src], settings)
    if (dst / "utt2spk").exists() and stamp.fresh():
        return False
    stamp.path.unlink(missing_ok=True)
    if config.channel is not None:
        rows = [u if u.channel is not None else replace(u, channel=config.channel) for u in rows]
    stored_sec = {key: float(value) for key, value in read_optional(src / "utt2dur").items()}
    jobs = shard_jobs([u for u in rows if split(u.audio)], stored_sec, dst / "shards", config)
    with lock(dst / "shards") if jobs else contextlib.nullcontext():
        files = [u for u in rows if not split(u.audio)]
        verdicts = scan(files, config.limits, nj=nj, stored_sec=stored_sec, progress=progress)
        good = [v for v in verdicts if not v.reason]
        packed = _convert_shards(jobs, len(verdicts) - len(good), len(rows), config, nj, progress)
        verdicts += [c.verdict for c in packed]
        _report(verdicts, src, dst, config)
        packed = [c for c in packed if not c.verdict.reason]
        with atomic_dir(dst, lambda name: is_table(name) or name in _OWN or name in _COUNTS) as folder:
            write = _write_raw if config.feats_type == "raw" else _write_fbank
            work = functools.partial(_convert, config=config, folder=folder)
            results = progress(ordered_map(work, good, nj), total=len(good), label=f"format {dst.name}")
            write(good, results, packed, folder, dst, config)
            write_text(folder / "feats_type", config.feats_type + "\n")
            write_quarantine(folder / "quarantine.tsv", verdicts)
        remove_others(dst / "shards", jobs)
    stamp.write()
    return True


def _audio_state(rows: Iterable[Utterance]) -> str:
    """Digest of name, size and time of every audio file, so that replaced audio is formatted again."""
    digest = hashlib.sha256()
    for path in sorted({file_of(u.audio) for u in rows}):
        status = Path(path).stat() if Path(path).exists() else None
        digest.update(f"{path} {status and (status.st_size, status.st_mtime_ns)}\n".encode())
    return digest.hexdigest()


def _convert_shards(
    jobs: Sequence[Job], n_bad: int, n_all: int, config: FormatConfig, nj: int, progress: Callable
) -> list[Converted]:
    """What was made of the shards; stops early when so much is bad that the whole set will be refused."""
    packed: list[Converted] = []
    for part in run_jobs(jobs, config, nj, progress):
        packed += part
        n_bad += sum(bool(c.verdict.reason) for c in part)
        if n_bad > config.limits.max_bad_share * n_all:
            break
    return packed


def _report(verdicts: Sequence[Verdict], src: Path, dst: Path, config: FormatConfig) -> None:
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


def _passes(verdict: Verdict, config: FormatConfig) -> bool:
    u, found = verdict.utterance, verdict.probe
    return (
        u.recording is None
        and u.speed == 1.0
        and found.n_channels == 1
        and found.rate_hz == config.limits.rate_hz
        and not found.missing_share  # others would stumble over the header
        and not is_pipe(u.audio)
    )


def _convert(verdict: Verdict, config: FormatConfig, folder: Path) -> tuple[np.ndarray | str, int]:
    """Features (T, F) of one utterance, or where its audio is; and how many samples it has."""
    u = verdict.utterance
    if config.feats_type == "raw" and _passes(verdict, config):
        return os.path.abspath(u.audio), verdict.probe.n_samples
    samples = samples_of(u, verdict.probe, u.audio, config)
    if config.feats_type == "fbank":
        return features_of(samples, config), len(samples)
    name = f"audio/{u.speaker or u.id}/{u.id}.flac"
    write_flac(folder / name, samples, config.limits.rate_hz)
    return name, len(samples)


def _write_raw(
    good: Sequence[Verdict],
    results: Iterable,
    packed: Sequence[Converted],
    folder: Path,
    dst: Path,
    config: FormatConfig,
) -> None:
    rows, n_samples = [], {}
    for verdict, (path, count) in zip(good, results, strict=True):
        rows.append(_whole(verdict.utterance, str(dst / path)))  # an absolute path stays as it is
        n_samples[verdict.utterance.id] = count
    for c in packed:
        rows.append(_whole(c.verdict.utterance, c.place))
        n_samples[c.verdict.utterance.id] = c.n_samples
    _write_tables(rows, {key: n / config.limits.rate_hz for key, n in n_samples.items()}, folder, dst)
    write_lines(folder / "utt2num_samples", (f"{key} {n_samples[key]}" for key in sorted(n_samples)))


def _write_fbank(
    good: Sequence[Verdict],
    results: Iterable,
    packed: Sequence[Converted],
    folder: Path,
    dst: Path,
    config: FormatConfig,
) -> None:
    n_frames = {c.verdict.utterance.id: c.n_frames for c in packed}
    durations_sec = {c.verdict.utterance.id: c.n_samples / config.limits.rate_hz for c in packed}

    def matrices() -> Iterator[tuple[str, np.ndarray]]:
        for verdict, (feats, n_samples) in zip(good, results, strict=True):
            n_frames[verdict.utterance.id] = len(feats)
            durations_sec[verdict.utterance.id] = n_samples / config.limits.rate_hz
            yield verdict.utterance.id, feats

    table = write_archive(folder / "feats.ark", matrices(), final=dst / "feats.ark")
    table |= {c.verdict.utterance.id: c.place for c in packed}
    rows = [_whole(v.utterance, v.utterance.audio) for v in [*good, *(c.verdict for c in packed)]]
    _write_tables(rows, durations_sec, folder, dst, skip="wav.scp")
    write_lines(folder / "feats.scp", (f"{key} {table[key]}" for key in sorted(table)))
    write_lines(folder / "utt2num_frames", (f"{key} {n_frames[key]}" for key in sorted(n_frames)))
    write_text(folder / "feats_dim", f"{config.n_mels}\n")


def _whole(u: Utterance, audio: str) -> Utterance:
    return replace(u, audio=audio, recording=None, start_sec=None, end_sec=None, channel=None, speed=1.0)


def _write_tables(
    rows: list[Utterance], durations_sec: dict[str, float], folder: Path, dst: Path, skip: str = ""
) -> None:
    for name, table in make_tables(rows, dst, durations_sec):
        if name != skip:
            write_lines(folder / name, (f"{key} {table[key]}".rstrip() for key in sorted(table)))
