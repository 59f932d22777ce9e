"""What happens to clean synthetic speech on its way to a recording: vocal tract, noise, band, level."""

import math
from dataclasses import dataclass

import numpy as np

# Lengths are multiples of these, so that the Fourier transforms have small prime factors and are fast.
_N_IN_STEP, _N_OUT_STEP = 64, 160
_FILTER_ORDER = 8
_RUMBLE_HZ = 50.0  # every recording loses what lies below, some synthetic voices have a large offset


@dataclass(frozen=True, slots=True)
class Channel:
    """One recording condition.

    Attributes:
        noise: "white" (flat spectrum) or "pink" (power falls as 1/f).
        snr_db: Power of the speech over its own duration, relative to the noise, after the band limit.
        low_hz: High-pass edge.
        high_hz: Low-pass edge.
        peak_db: Largest sample relative to full scale.
        lead_sec: Noise without speech before the utterance.
        tail_sec: Noise without speech after it, at least.
    """

    noise: str
    snr_db: float
    low_hz: float
    high_hz: float
    peak_db: float
    lead_sec: float
    tail_sec: float


def draw(rng: np.random.RandomState) -> Channel:
    """Draw a recording condition: three in four wide band, one in six dull, the rest a telephone line."""
    band = rng.random_sample()
    if band < 3 / 4:
        low_hz, high_hz = _RUMBLE_HZ, 8000.0
    elif band < 11 / 12:
        low_hz, high_hz = _RUMBLE_HZ, rng.uniform(3000, 6000)
    else:
        low_hz, high_hz = 300.0, 3400.0
    return Channel(
        noise=("white", "pink")[rng.randint(2)],
        snr_db=rng.uniform(15, 35),
        low_hz=low_hz,
        high_hz=high_hz,
        peak_db=rng.uniform(-18, -1),
        lead_sec=rng.uniform(0.1, 0.25),
        tail_sec=rng.uniform(0.1, 0.25),
    )


def transmit(
    speech: np.ndarray, speech_hz: int, warp: float, channel: Channel, rate_hz: int, rng: np.random.RandomState
) -> np.ndarray:
    """Warp, resample, band-limit, add noise and scale, with one Fourier transform each way.

    The speech is played `warp` times faster, which multiplies its formants and its pitch by `warp` as a shorter vocal
    tract does; the caller asks the synthesiser for slower speech to keep the duration. Resampling is the cut of the
    spectrum at the new Nyquist frequency.

    Args:
        speech: Clean speech, shape (S,), int16.
        speech_hz: Its sampling rate.
        warp: Frequency factor, met within 0.2 %.
        channel: The recording condition.
        rate_hz: Sampling rate of the result.
        rng: Source of the noise.

    Returns:
        Shape (S',), int16, little endian.
    """
    source_hz = speech_hz * warp
    n_spoken = len(speech) * rate_hz / source_hz
    n_out = math.ceil((n_spoken + (channel.lead_sec + channel.tail_sec) * rate_hz) / _N_OUT_STEP) * _N_OUT_STEP
    n_in = round(n_out * source_hz / rate_hz / _N_IN_STEP) * _N_IN_STEP
    padded = np.zeros(n_in)
    lead = round(channel.lead_sec * source_hz)
    padded[lead : lead + len(speech)] = speech

    n_bins = n_out // 2 + 1
    freq_hz = np.arange(n_bins) * (rate_hz / n_out)
    spoken = np.zeros(n_bins, dtype=complex)
    kept = np.fft.rfft(padded)[:n_bins]
    spoken[: len(kept)] = kept
    noise = rng.standard_normal(n_bins) + 1j * rng.standard_normal(n_bins)
    if channel.noise == "pink":
        noise /= np.sqrt(np.maximum(freq_hz, _RUMBLE_HZ))
    passed = _band_pass(freq_hz, channel)
    spoken *= passed
    noise *= passed
    # Both are sums over the whole recording; the speech fills only n_spoken of its n_out samples.
    speech_power = np.sum(np.abs(spoken) ** 2) / n_spoken
    noise_power = np.sum(np.abs(noise) ** 2) / n_out
    noise *= np.sqrt(speech_power / noise_power / 10 ** (channel.snr_db / 10))
    mixed = np.fft.irfft(spoken + noise, n_out)
    mixed *= 32767 * 10 ** (channel.peak_db / 20) / np.abs(mixed).max()
    return np.rint(mixed).astype("<i2")


def _band_pass(freq_hz: np.ndarray, channel: Channel) -> np.ndarray:
    """Zero-phase Butterworth magnitudes; nothing at 0 Hz."""
    low = (np.maximum(freq_hz, 1e-3) / channel.low_hz) ** _FILTER_ORDER
    high = (freq_hz / channel.high_hz) ** _FILTER_ORDER
    return np.where(freq_hz > 0, low / np.sqrt(1 + low**2) / np.sqrt(1 + high**2), 0.0)
