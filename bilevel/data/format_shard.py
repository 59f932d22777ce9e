"""The part of a dump that comes out of tar shards: judged and converted in one pass over each shard.

A process takes whole shards and holds one member at a time. A finished shard is a folder of its own, named after a
digest of all that decides its content: a run that was killed goes on with the shards that are not finished, and a
shard that joins the set leaves the others as they are. A second pass, as files get, would decompress all again.
"""

import functools
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path, PurePath

import numpy as np

from bilevel.data.archive import write_archive
from bilevel.data.audio import write_flac
from bilevel.data.convert import FormatConfig, features_of, samples_of
from bilevel.data.files import write_text
from bilevel.data.parallel import ordered_map
from bilevel.data.record import Utterance
from bilevel.data.scan import Probe, Verdict, judge, probe
from bilevel.data.shard import members, split

_RESULT = "result.json"


@dataclass(frozen=True)
class Job:
    """One shard: its utterances, their stored lengths by id, and the folder for what is made of them."""

    shard: str
    utterances: list[Utterance]
    stored_sec: dict[str, float]
    folder: Path


@dataclass(slots=True)
class Converted:
    """One utterance of a shard: the verdict, and if it is usable where its audio (or features) is and its lengths."""

    verdict: Verdict
    place: str = ""
    n_samples: int = 0
    n_frames: int = 0


def shard_jobs(
    rows: Sequence[Utterance], stored_sec: Mapping[str, float], folder: Path, config: FormatConfig
) -> list[Job]:
    """One job a shard, in the order in which the rows name them; their folders lie in `folder`."""
    by_shard: dict[str, list[Utterance]] = {}
    for u in rows:
        by_shard.setdefault(split(u.audio)[0], []).append(u)
    jobs = []
    for shard, utterances in by_shard.items():
        lengths_sec = {u.id: stored_sec[u.id] for u in utterances if u.id in stored_sec}
        name = f"{PurePath(shard).name.partition('.')[0]}-{_digest(shard, utterances, lengths_sec, config)}"
        jobs.append(Job(shard, utterances, lengths_sec, Path(folder) / name))
    return jobs


def run_jobs(jobs: Sequence[Job], config: FormatConfig, nj: int, progress: Callable) -> Iterator[list[Converted]]:
    """Do what is not done yet, and yield what was made of each shard, in the order of the jobs."""
    n_done = sum(job.folder.exists() for job in jobs)
    if n_done:
        print(f"{n_done} of {len(jobs)} shards are done already", flush=True)
    work = functools.partial(_run, config=config)
    done = ordered_map(work, jobs, nj, chunksize=1)
    for job, _ in zip(jobs, progress(done, total=len(jobs), label="shards"), strict=True):
        yield _load(job)


def remove_others(folder: Path, jobs: Sequence[Job]) -> None:
    """Remove what earlier runs left in `folder` and no job needs."""
    keep = {job.folder.name for job in jobs}
    for item in sorted(Path(folder).glob("*")) if Path(folder).is_dir() else []:
        if item.is_dir() and item.name not in keep:
            shutil.rmtree(item)


def _digest(shard: str, rows: Sequence[Utterance], stored_sec: Mapping[str, float], config: FormatConfig) -> str:
    status = os.stat(shard) if os.path.exists(shard) else None
    settings = asdict(replace(config, limits=replace(config.limits, max_bad_share=1.0)))  # no matter of one shard
    audio = [(u.id, u.audio, u.start_sec, u.end_sec, u.channel, u.speed, stored_sec.get(u.id)) for u in rows]
    state = [shard, status and (status.st_size, status.st_mtime_ns), settings, audio]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]


def _run(job: Job, config: FormatConfig) -> None:
    if job.folder.exists():
        return
    part = job.folder.with_name(f".{job.folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write = _write_raw if config.feats_type == "raw" else _write_fbank
    others: list[str] = []
    results = write(_decode(job, config, others), part, job.folder, config)
    rows = {c.verdict.utterance.id: (c.verdict.reason, *_plain(c)) for c in results}
    write_text(part / _RESULT, json.dumps({"rows": rows, "others": len(others)}))
    if others:
        print(f"note: {job.shard}: {len(others)} members are in no table, for instance {others[0]!r}", flush=True)
    os.rename(part, job.folder)


def _plain(c: Converted) -> tuple:
    return astuple(c.verdict.probe), c.place, c.n_samples, c.n_frames


def _load(job: Job) -> list[Converted]:
    rows = json.loads((job.folder / _RESULT).read_text(encoding="utf-8"))["rows"]
    loaded = []
    for u in job.utterances:
        reason, found, *rest = rows[u.id]
        loaded.append(Converted(Verdict(u, Probe(*found), reason), *rest))
    return loaded


def _decode(job: Job, config: FormatConfig, others: list[str]) -> Iterator[tuple[Verdict, np.ndarray | None]]:
    """Verdict and samples of each utterance, in the order of the shard; then those whose audio never came."""
    waiting: dict[str, list[Utterance]] = {}
    for u in job.utterances:
        waiting.setdefault(split(u.audio)[1], []).append(u)
    lost = ["not in the shard"]
    for key, source in _open_members(job.shard, waiting, lost):
        if source is None:  # nobody asked for it, or it came before
            others.append(key)
            continue
        found = probe(source, max_missing_share=config.limits.max_missing_share)
        for u in waiting.pop(key):
            reason = judge(u, found, config.limits, job.stored_sec.get(u.id))
            yield Verdict(u, found, reason), None if reason else samples_of(u, found, source, config)
        del source  # before the next member is read
    for u in (u for rows in waiting.values() for u in rows):
        yield Verdict(u, Probe(lost[-1]), lost[-1]), None


def _open_members(shard: str, waiting: Mapping, lost: list[str]) -> Iterator[tuple[str, io.BytesIO | None]]:
    """As `members`; a damaged shard ends it, and the reason goes to `lost`."""
    try:
        for key, content in members(shard, waiting):
            source = None if content is None else io.BytesIO(content)
            del content
            yield key, source
            del source
    except ValueError as error:
        lost.append(str(error))


def _write_raw(decoded: Iterator, part: Path, final: Path, config: FormatConfig) -> list[Converted]:
    results = []
    for verdict, samples in decoded:
        results.append(Converted(verdict))
        if samples is not None:
            name = f"{verdict.utterance.id}.flac"
            write_flac(part / name, samples, config.limits.rate_hz)
            results[-1] = Converted(verdict, str(final / name), len(samples))
    return results


def _write_fbank(decoded: Iterator, part: Path, final: Path, config: FormatConfig) -> list[Converted]:
    results: dict[str, Converted] = {}

    def matrices() -> Iterator[tuple[str, np.ndarray]]:
        for verdict, samples in decoded:
            key = verdict.utterance.id
            results[key] = Converted(verdict)
            if samples is not None:
                feats = features_of(samples, config)
                results[key] = Converted(verdict, "", len(samples), len(feats))
                yield key, feats

    for key, place in write_archive(part / "feats.ark", matrices(), final=final / "feats.ark").items():
        results[key].place = place
    return list(results.values())
