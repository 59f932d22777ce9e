"""Log-mel filterbank features, computed as Kaldi does."""

import numpy as np


def fbank(waveform: np.ndarray, rate_hz: int, n_mels: int = 80) -> np.ndarray:
    """Log-mel energies of 25 ms windows every 10 ms, without dither (so the same input gives the same bytes).

    Args:
        waveform: (S,) float within [-1, 1]; scaled to the 16-bit range first, as Kaldi expects.
        rate_hz: Sampling rate.
        n_mels: Number of filters.

    Returns:
        (T, n_mels) float32 with T = 1 + (S - 0.025 rate_hz) // (0.01 rate_hz).

    Raises:
        ValueError: The waveform is no vector, or shorter than one window.
    """
    if waveform.ndim != 1 or len(waveform) < int(0.025 * rate_hz):
        raise ValueError(f"waveform of shape {waveform.shape}: expected (S,) of at least 25 ms at {rate_hz} Hz")
    import torch
    import torchaudio.compliance.kaldi

    with torch.inference_mode():
        samples = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))[None] * 32768
        feats = torchaudio.compliance.kaldi.fbank(samples, num_mel_bins=n_mels, sample_frequency=rate_hz, dither=0.0)
    return feats.numpy()
