"""Truncated files that libsndfile reads without complaint."""

import numpy as np
import pytest
import soundfile

from bilevel.data.container import truncation


@pytest.mark.parametrize(
    ("suffix", "kind", "subtype"),
    [("wav", "WAV", "PCM_16"), ("wav", "WAV", "FLOAT"), ("wav", "WAVEX", "PCM_24"), ("sph", "NIST", "PCM_16"),
     ("ogg", "OGG", "VORBIS"), ("opus", "OGG", "OPUS")],
)  # fmt: skip
def test_every_cut_is_seen(tmp_path, suffix, kind, subtype):
    path = tmp_path / f"x.{suffix}"
    soundfile.write(path, np.random.uniform(-0.5, 0.5, 48000), 16000, format=kind, subtype=subtype)
    data = path.read_bytes()
    assert truncation(path) is None
    for share in (0.05, 0.3, 0.5, 0.99):
        path.write_bytes(data[: int(share * len(data))])
        assert truncation(path), share


def test_odd_chunks_and_unknown_sizes(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, np.zeros(100), 16000)
    data = path.read_bytes()
    at = data.index(b"data")
    extra = data[:at] + b"LIST" + (3).to_bytes(4, "little") + b"abc\0" + data[at:]
    path.write_bytes(extra[:4] + (len(extra) - 8).to_bytes(4, "little") + extra[8:])
    assert truncation(path) is None
    streamed = data[:4] + b"\xff" * 4 + data[8 : at + 4] + b"\xff" * 4 + data[at + 8 :]
    path.write_bytes(streamed)
    assert truncation(path) is None, "a writer to a pipe does not know the size"


def test_other_bytes_make_no_promise(tmp_path):
    for data in (b"", b"RIFF", b"<html>", b"RIFF\x10\0\0\0WAVE", b"NIST_1A\n   1024\n" + b" " * 1008):
        (tmp_path / "x").write_bytes(data)
        truncation(tmp_path / "x")
