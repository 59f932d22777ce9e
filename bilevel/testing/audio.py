"""Sound made on the spot, so that tests commit no audio."""

from pathlib import Path

import numpy as np

CHAR_SEC = 0.06
_EDGE_SEC = 0.1


def tones(text: str, rate_hz: int = 16000, pitch: float = 1.0) -> np.ndarray:
    """A sound that spells a text: one tone of 60 ms a letter, silence for all else, a little fixed noise.

    Args:
        text: What to spell; case does not matter.
        rate_hz: Sampling rate.
        pitch: Factor on all frequencies: another voice.

    Returns:
        float32 samples in (-1, 1), with 0.1 s of near-silence at both ends.
    """
    time = np.arange(int(CHAR_SEC * rate_hz)) / rate_hz
    parts = [np.zeros(int(_EDGE_SEC * rate_hz))]
    for char in text.lower():
        amplitude = 0.3 if char.isalpha() else 0.0
        parts.append(amplitude * np.sin(2 * np.pi * pitch * (300 + 90 * (ord(char) % 32)) * time))
    parts.append(np.zeros(int(_EDGE_SEC * rate_hz)))
    samples = np.concatenate(parts)
    return (samples + 0.003 * np.random.default_rng(len(samples)).standard_normal(len(samples))).astype(np.float32)


def write_sphere(path: Path, samples: np.ndarray, rate_hz: int = 16000) -> None:
    """Write a mono 16-bit NIST SPHERE file: a header of 1024 bytes, then little-endian samples."""
    pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2")
    fields = {
        "channel_count -i": 1,
        "sample_rate -i": rate_hz,
        "sample_n_bytes -i": 2,
        "sample_byte_format -s2": "01",
        "sample_sig_bits -i": 16,
        "sample_coding -s3": "pcm",
        "sample_count -i": len(pcm),
    }
    header = "NIST_1A\n   1024\n" + "".join(f"{k} {v}\n" for k, v in fields.items()) + "end_head\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.encode("ascii").ljust(1024, b"\n") + pcm.tobytes())
