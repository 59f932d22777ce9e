"""The dump of tar shards: exact samples, one pass a shard, resuming after a kill, memory of one member."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from bilevel.data.archive import read_archive
from bilevel.data.datadir import read_datadir, write_datadir
from bilevel.data.features import fbank
from bilevel.data.format import FormatConfig, format_datadir
from bilevel.data.record import Utterance
from bilevel.data.scan import Limits
from bilevel.data.shard import entry
from bilevel.data.tables import read_scp
from bilevel.data.validate import validate
from bilevel.testing.yodas_tree import wav, write_shard

RATE_HZ = 16000


def ramp(start, n=RATE_HZ):
    """Samples that tell their own position."""
    return ((np.arange(n) + start) / 32768).astype(np.float32)


def make(tmp_path, n_shards=3, n_clips=2):
    """`n_shards` of `n_clips` whole clips and one recording of two segments each."""
    rows = []
    for shard in range(n_shards):
        files = {f"c{shard}-{n}.wav": wav(ramp(1000 * shard + 100 * n)) for n in range(n_clips)}
        path = tmp_path / "src" / f"{shard:08d}.tar.gz"
        write_shard(path, files | {f"rec{shard}.flac.wav": wav(ramp(shard))})
        for n in range(n_clips):
            rows.append(Utterance(f"c{shard}-{n}", entry(path, f"c{shard}-{n}"), "x", duration_sec=1.0))
        for n in range(2):
            times = 0.25 * n, 0.25 * n + 0.3
            rows.append(Utterance(f"r{shard}-{n}", entry(path, f"rec{shard}.flac"), "x", "", f"rec{shard}", *times))
    write_datadir(tmp_path / "data", rows)
    return rows


def tree(path):
    """Bytes of every file of a dump but its stamps, its own place taken out."""
    return {
        str(f.relative_to(path)): f.read_bytes().replace(str(path).encode(), b"")
        for f in path.rglob("*")
        if f.is_file() and ".done" not in f.parts and f.name != ".lock"
    }


def test_samples_are_those_of_the_members(tmp_path):
    rows, dst = make(tmp_path), tmp_path / "dump"
    assert validate(tmp_path / "data") == []
    assert format_datadir(tmp_path / "data", dst, FormatConfig())
    assert not format_datadir(tmp_path / "data", dst, FormatConfig())
    assert validate(dst) == []
    audio = {u.id: u.audio for u in read_datadir(dst)}
    assert audio.keys() == {u.id for u in rows}
    for key, path in audio.items():
        shard, n = int(key[1]), int(key[3])
        first = 1000 * shard + 100 * n if key[0] == "c" else shard + 4000 * n
        expected = list(range(first, first + (RATE_HZ if key[0] == "c" else 4800)))
        assert soundfile.read(path, dtype="int16")[0].tolist() == expected
        assert int(read_scp(dst / "utt2num_samples")[key]) == len(expected)


def test_the_same_for_any_number_of_processes_and_beside_files(tmp_path):
    rows = make(tmp_path)
    soundfile.write(tmp_path / "plain.wav", ramp(7), RATE_HZ)
    write_datadir(tmp_path / "data", [*rows, Utterance("plain", str(tmp_path / "plain.wav"), "x", "", "p", 0.1, 0.9)])
    dumps = []
    for nj in (1, 2):
        format_datadir(tmp_path / "data", tmp_path / str(nj) / "dump", FormatConfig(), nj=nj)
        dumps.append(tree(tmp_path / str(nj) / "dump"))
    assert dumps[0] == dumps[1]
    assert "audio/plain/plain.flac" in dumps[0]
    assert sum(name.startswith("shards/") and name.endswith(".flac") for name in dumps[0]) == 12


def test_features(tmp_path):
    make(tmp_path, n_shards=2)
    format_datadir(tmp_path / "data", tmp_path / "dump", FormatConfig(feats_type="fbank", n_mels=23))
    feats = dict(read_archive(tmp_path / "dump/feats.scp"))
    assert len(feats) == 8
    assert np.array_equal(feats["c1-1"], fbank(ramp(1100), RATE_HZ, 23))
    assert np.array_equal(feats["r1-1"], fbank(ramp(4001, 4800), RATE_HZ, 23))
    assert read_scp(tmp_path / "dump/utt2num_frames") == {key: str(len(value)) for key, value in feats.items()}


# Formats a directory; says which shards it opened, and how much memory it took at most, in KiB. With a third argument
# it is killed for good when it is about to put down the result of that many shards.
CHILD = """
import os, resource, signal, sys
opened, results = [], []
def watch(name, args):
    if name == "open" and str(args[0]).endswith(".tar.gz"):
        opened.append(os.path.basename(args[0]))
    if name == "tempfile.mkstemp" and "result.json" in str(args[0]):
        results.append(args[0])
        if len(results) == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
from bilevel.bin.format import main
main(["--in_dir", sys.argv[1], "--out_dir", sys.argv[2]])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, *opened)
"""


def run_child(src, dst, kill_at=0):
    return subprocess.run([sys.executable, "-c", CHILD, src, dst, str(kill_at)], capture_output=True, text=True)


def test_a_killed_run_goes_on_after_the_last_finished_shard(tmp_path):
    make(tmp_path, n_shards=3)
    format_datadir(tmp_path / "data", tmp_path / "whole" / "dump", FormatConfig())
    dst = tmp_path / "killed" / "dump"
    assert run_child(tmp_path / "data", dst, kill_at=2).returncode == -signal.SIGKILL
    assert not (dst / "wav.scp").exists()
    done = run_child(tmp_path / "data", dst)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split()[1:] == ["00000001.tar.gz", "00000002.tar.gz"]
    assert "1 of 3 shards are done already" in done.stdout
    assert tree(dst) == tree(tmp_path / "whole" / "dump")


def test_a_new_shard_leaves_the_others_alone_and_a_changed_one_is_done_again(tmp_path, capsys):
    make(tmp_path, n_shards=2)
    dst = tmp_path / "dump"
    format_datadir(tmp_path / "data", dst, FormatConfig())
    before = {p: p.stat().st_mtime_ns for p in dst.glob("shards/*/*.flac")}
    make(tmp_path / "more", n_shards=3)
    shutil.copy(tmp_path / "more/src/00000002.tar.gz", tmp_path / "src")
    rows = make_rows_here(tmp_path, 3)
    write_datadir(tmp_path / "data", rows)
    capsys.readouterr()
    format_datadir(tmp_path / "data", dst, FormatConfig())
    assert "2 of 3 shards are done already" in capsys.readouterr().out
    assert before.items() <= {p: p.stat().st_mtime_ns for p in dst.glob("shards/*/*.flac")}.items()
    write_shard(tmp_path / "src/00000000.tar.gz", {f"{k}.wav": wav(ramp(5)) for k in ("c0-0", "c0-1", "rec0.flac")})
    format_datadir(tmp_path / "data", dst, FormatConfig())
    assert len(list(dst.glob("shards/*-*"))) == 3, "what is replaced goes"
    assert soundfile.read(read_scp(dst / "wav.scp")["c0-1"], dtype="int16")[0][0] == 5


def make_rows_here(tmp_path, n_shards):
    """The rows of `make(tmp_path / "more")`, in the shards of `tmp_path`."""
    table = json.dumps([u.audio for u in read_datadir(tmp_path / "more/data")])
    assert table.count("more/src") == 4 * n_shards
    return [
        Utterance(u.id, u.audio.replace("more/src", "src"), u.text, "", u.recording, u.start_sec, u.end_sec,
                  duration_sec=None if u.recording else 1.0)
        for u in read_datadir(tmp_path / "more/data")
    ]  # fmt: skip


def test_losses_are_named_and_too_many_stop_at_the_first_shard_that_decides(tmp_path, capsys):
    rows = make(tmp_path, n_shards=3)
    path = tmp_path / "src/00000001.tar.gz"
    write_shard(path, {"c1-0.wav": wav(ramp(0)), "rec1.flac.wav": wav(ramp(0))})
    rows.append(Utterance("gone", entry(tmp_path / "src/9.tar.gz", "x"), "x", duration_sec=1.0))
    write_datadir(tmp_path / "data", rows)
    dst = tmp_path / "dump"
    with pytest.raises(ValueError, match=r"1 of 8 utterances are unusable.*c1-1 .*not in the shard"):
        format_datadir(tmp_path / "data", dst, FormatConfig())
    assert not (dst / "wav.scp").exists()
    assert "00000002" not in str(list(dst.glob("shards/*"))), "it would be refused anyway"
    capsys.readouterr()
    format_datadir(tmp_path / "data", dst, FormatConfig(Limits(max_bad_share=0.2)))
    assert "2 of 4 shards are done already" in capsys.readouterr().out
    lines = (dst / "quarantine.tsv").read_text().splitlines()
    assert {line.split("\t")[0]: line.split("\t")[2] for line in lines} == {
        "c1-1": "not in the shard",
        "gone": "no such file",
    }


def test_a_truncated_shard_keeps_what_came_before(tmp_path):
    rng = np.random.default_rng(0)
    files = {f"c{n}.wav": wav(rng.uniform(-0.5, 0.5, RATE_HZ)) for n in range(10)}
    path = tmp_path / "0.tar.gz"
    write_shard(path, files)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    write_datadir(tmp_path / "data", [Utterance(f"c{n}", entry(path, f"c{n}"), duration_sec=1.0) for n in range(10)])
    format_datadir(tmp_path / "data", tmp_path / "dump", FormatConfig(Limits(max_bad_share=0.7)))
    kept = read_scp(tmp_path / "dump/wav.scp")
    assert sorted(kept) == [f"c{n}" for n in range(len(kept))]
    assert len(kept) == 4  # noise does not compress: the fifth is the one that breaks
    reasons = (tmp_path / "dump/quarantine.tsv").read_text().splitlines()
    assert all("damaged or truncated shard" in line for line in reasons)
    assert len(reasons) == 10 - len(kept)


def test_a_duration_file_betrays_a_cut_member(tmp_path):
    write_shard(tmp_path / "0.tar.gz", {"a.wav": wav(ramp(0)), "b.wav": wav(ramp(0)), "c.wav": wav(ramp(0))[:20000]})
    lengths_sec = {"a": 1.0, "b": 2.0, "c": 1.0}
    rows = [Utterance(k, entry(tmp_path / "0.tar.gz", k), duration_sec=s) for k, s in lengths_sec.items()]
    write_datadir(tmp_path / "data", rows)
    format_datadir(tmp_path / "data", tmp_path / "dump", FormatConfig(Limits(max_bad_share=0.7)))
    lines = (tmp_path / "dump/quarantine.tsv").read_text()
    assert "truncated: 1.000 s, utt2dur promises 2.000 s" in lines
    assert "truncated: 20000 bytes, but its header promises 32044" in lines
    assert list(read_scp(tmp_path / "dump/wav.scp")) == ["a"]


def test_memory_does_not_grow_with_the_shard(tmp_path):
    peaks_kib = []
    minute = wav(np.resize(ramp(0), 60 * RATE_HZ))  # 1.8 MiB
    for n in (2, 20):
        folder = tmp_path / str(n)
        write_shard(folder / "0.tar.gz", {f"c{i}.wav": minute for i in range(n)})
        rows = [Utterance(f"u{i}", entry(folder / "0.tar.gz", f"c{i}"), None, "", f"c{i}", 1, 2) for i in range(n)]
        write_datadir(folder / "data", rows)
        done = run_child(folder / "data", folder / "dump")
        assert done.returncode == 0, done.stderr
        peaks_kib.append(int(done.stdout.splitlines()[-1].split()[0]))
    assert peaks_kib[1] < peaks_kib[0] + 6 * 1024, f"18 more members of 1.8 MiB each: {peaks_kib}"


def test_two_runs_at_once_are_refused(tmp_path):
    make(tmp_path, n_shards=1)
    (tmp_path / "dump/shards").mkdir(parents=True)
    code = "import sys; from bilevel.data.lock import lock; from pathlib import Path\n"
    code += "with lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", code, tmp_path / "dump/shards"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)  # fmt: skip
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="is in use by process"):
            format_datadir(tmp_path / "data", tmp_path / "dump", FormatConfig())
    finally:
        holder.communicate("")
    assert format_datadir(tmp_path / "data", tmp_path / "dump", FormatConfig())
    assert os.listdir(tmp_path / "dump/shards")
