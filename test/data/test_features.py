"""Log-mel features against a direct computation of the definition."""

import numpy as np
import pytest

from bilevel.data.features import fbank


def oracle(waveform, rate_hz, n_mels):
    """Kaldi's definition in numpy: DC removal, pre-emphasis, Povey window, power, mel triangles, log."""
    width, shift = int(0.025 * rate_hz), int(0.01 * rate_hz)
    n_fft = 1 << (width - 1).bit_length()
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(width) / (width - 1))) ** 0.85

    def mel(hz):
        return 1127 * np.log(1 + hz / 700)

    edges = np.linspace(mel(20), mel(rate_hz / 2), n_mels + 2)
    bins = mel(np.arange(n_fft // 2) * rate_hz / n_fft)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0, np.minimum(rise, fall))
    rows = []
    for start in range(0, len(waveform) - width + 1, shift):
        frame = waveform[start : start + width] * 32768
        frame = frame - frame.mean()
        frame = np.append(frame[0] * (1 - 0.97), frame[1:] - 0.97 * frame[:-1]) * window
        power = np.abs(np.fft.rfft(frame, n_fft)[:-1]) ** 2
        rows.append(np.log(np.maximum(triangles @ power, np.finfo(np.float32).eps)))
    return np.array(rows)


@pytest.mark.parametrize(("rate_hz", "n_mels"), [(16000, 80), (8000, 40)])
def test_equals_the_definition(rate_hz, n_mels):
    waveform = np.random.uniform(-0.5, 0.5, rate_hz // 2).astype(np.float32)
    feats = fbank(waveform, rate_hz, n_mels)
    assert feats.shape == (1 + (len(waveform) - int(0.025 * rate_hz)) // int(0.01 * rate_hz), n_mels)
    assert feats.dtype == np.float32
    assert np.allclose(feats, oracle(waveform.astype(np.float64), rate_hz, n_mels), atol=2e-3)


def test_no_dither_and_gain_shifts_by_its_logarithm():
    waveform = np.random.uniform(-0.1, 0.1, 8000).astype(np.float32)
    assert np.array_equal(fbank(waveform, 16000), fbank(waveform, 16000))
    assert np.allclose(fbank(2 * waveform, 16000) - fbank(waveform, 16000), np.log(4), atol=1e-3)


@pytest.mark.parametrize("shape", [(399,), (2, 1000)])
def test_refuses_what_is_no_waveform(shape):
    with pytest.raises(ValueError, match="at least 25 ms"):
        fbank(np.zeros(shape, np.float32), 16000)
