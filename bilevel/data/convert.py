"""What the dump holds of one utterance: samples cut, of one channel, at one rate and speed; or features."""

import contextlib
import io
from dataclasses import dataclass, field, replace

import numpy as np

from bilevel.data.audio import change_rate, change_speed, read_audio
from bilevel.data.features import fbank
from bilevel.data.record import Utterance
from bilevel.data.scan import Limits, Probe


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


def samples_of(u: Utterance, found: Probe, source: str | io.BytesIO, config: FormatConfig) -> np.ndarray:
    """Samples (S,) of an utterance, out of its file or that file's content, which `found` describes."""
    limits = config.limits
    channel = u.channel if found.n_channels > 1 else 0
    samples, file_hz = read_audio(source, u.start_sec, u.end_sec, channel=channel, allow_pipes=limits.allow_pipes)
    if file_hz == limits.rate_hz and u.speed == 1.0:
        return samples
    with _one_thread():
        return change_speed(change_rate(samples, file_hz, limits.rate_hz), u.speed)


def features_of(samples: np.ndarray, config: FormatConfig) -> np.ndarray:
    """Log-mel features (T, F) of samples (S,)."""
    with _one_thread():
        return fbank(samples, config.limits.rate_hz, config.n_mels)


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
