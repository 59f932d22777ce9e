"""Reading, resampling, speed, pipes."""

import sys
from fractions import Fraction

import numpy as np
import pytest
import soundfile

from bilevel.data.audio import change_rate, change_speed, open_source, read_audio, resample, write_flac


def tone(hz, n_samples=16000, rate_hz=16000):
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(n_samples) / rate_hz)).astype(np.float32)


def peak_hz(samples, rate_hz=16000):
    return np.argmax(np.abs(np.fft.rfft(samples * np.hanning(len(samples))))) * rate_hz / len(samples)


@pytest.mark.parametrize("factor", [0.9, 1.1, 0.5, 2.0])
def test_speed_scales_length_and_pitch(factor):
    changed = change_speed(tone(1000), factor)
    assert len(changed) == pytest.approx(16000 / factor, abs=1)
    assert peak_hz(changed) == pytest.approx(1000 * factor, abs=2)
    assert np.abs(changed[200:-200]).max() == pytest.approx(0.5, abs=0.01)


def test_rate_keeps_pitch_and_length_in_seconds():
    changed = change_rate(tone(1000, 44100, 44100), 44100, 16000)
    assert len(changed) == 16000
    assert peak_hz(changed) == pytest.approx(1000, abs=2)


def test_nothing_to_do_is_the_identity():
    samples = tone(300)
    assert resample(samples, Fraction(1)) is samples
    assert change_speed(samples, 1.0) is samples


def test_16_bit_samples_survive_flac_exactly(tmp_path):
    whole = np.random.randint(-32768, 32768, 4000).astype(np.int16)
    write_flac(tmp_path / "a" / "x.flac", whole / np.float32(32768), 16000)
    assert np.array_equal(soundfile.read(tmp_path / "a" / "x.flac", dtype="int16")[0], whole)
    write_flac(tmp_path / "x.flac", np.array([2.0, -2.0, 0.0]), 16000)
    assert soundfile.read(tmp_path / "x.flac", dtype="int16")[0].tolist() == [32767, -32768, 0]


def test_segment_and_channel(tmp_path):
    stereo = np.stack([np.arange(100) / 200, -np.arange(100) / 200], axis=1)
    soundfile.write(tmp_path / "x.wav", stereo, 1000, subtype="FLOAT")
    samples, rate_hz = read_audio(str(tmp_path / "x.wav"), 0.01, 0.03, channel=1)
    assert rate_hz == 1000
    assert np.allclose(samples, -np.arange(10, 30) / 200)
    with pytest.raises(ValueError, match=r"x\.wav: 2 channels, expected 1.*--channel 0"):
        read_audio(str(tmp_path / "x.wav"))
    with pytest.raises(ValueError, match="channel 2 asked for, but it has 2"):
        read_audio(str(tmp_path / "x.wav"), channel=2)


def test_decode_errors_name_the_file(tmp_path):
    path = tmp_path / "x.flac"
    soundfile.write(path, np.random.uniform(-1, 1, 40000), 16000)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = b"\x55" * 4000
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.flac: cannot be read"):
        read_audio(str(path))


@pytest.mark.parametrize(
    "name", ["a b.wav", "a'b.wav", 'a"b.wav', "a;touch PWNED.wav", "$(touch PWNED).wav", "-rf", "ü漢.wav"]
)
def test_odd_names_are_only_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    soundfile.write(tmp_path / name, tone(100), 16000, format="WAV")
    assert len(read_audio(name)[0]) == 16000
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_pipes_are_refused_unless_allowed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    soundfile.write("x y.wav", tone(100), 16000)
    with pytest.raises(ValueError, match="a command instead of a file"):
        read_audio("touch PWNED |")
    assert not (tmp_path / "PWNED").exists()
    assert len(read_audio("cat 'x y.wav' | cat |", allow_pipes=True)[0]) == 16000
    for shell in ("cat x; touch PWNED |", "cat $(touch PWNED) |", "cat `touch PWNED` |", "cat x > PWNED |", "a || b |"):
        with pytest.raises(ValueError, match="needs a shell"):
            open_source(shell, allow_pipes=True)
    with pytest.raises(ValueError, match="ended with code 3"):
        open_source(f"{sys.executable} -c 'raise SystemExit(3)' |", allow_pipes=True)
    with pytest.raises(ValueError, match="did not start"):
        open_source("no-such-program x |", allow_pipes=True)
    assert not (tmp_path / "PWNED").exists()
