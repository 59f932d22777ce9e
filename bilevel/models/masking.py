"""Span masks and noise fill for masked prediction."""

import torch
from torch import Tensor

from bilevel.models.counter_rng import normal, uniform


def valid_mask(lens: Tensor, n_frames: int) -> Tensor:
    """(B, T) bool, True at the frames before each length."""
    return torch.arange(n_frames, device=lens.device) < lens.unsqueeze(1)


def span_mask(seeds: Tensor, lens: Tensor, n_frames: int, p_start: float, span_frames: int) -> Tensor:
    """Every frame starts a masked span with probability `p_start`; spans may overlap.

    The share of masked frames far from the start is 1 - (1 - p_start)^span_frames: about 33 % for the original's
    0.01 and 40 frames of 10 ms.

    Args:
        seeds: (B,) int64, one per utterance; the mask of an utterance depends on its seed and length alone.
        lens: (B,) int64, valid frames.
        n_frames: T of the padded batch.
        p_start: Probability of a start, in [0, 1].
        span_frames: Length of a span.

    Returns:
        (B, T) bool, True at masked frames; never True at or after the utterance's length.

    References:
        BEST-RQ, arXiv 2202.01855, section 3.
    """
    starts = uniform(seeds, n_frames) < p_start
    counts = torch.cumsum(starts.long(), dim=1)
    before = torch.nn.functional.pad(counts, (span_frames, 0))[:, :n_frames]
    return (counts > before) & valid_mask(lens, n_frames)


def fill_with_noise(feats: Tensor, mask: Tensor, seeds: Tensor, noise_std: float) -> Tensor:
    """Replace masked frames by Gaussian noise of mean 0.

    Args:
        feats: (B, T, F).
        mask: (B, T) bool, True at frames to replace.
        seeds: (B,) int64.
        noise_std: Standard deviation of the noise (0.1 in BEST-RQ).
    """
    utterances, frames = mask.nonzero(as_tuple=True)
    # One seed a masked frame: noise is drawn where it is needed only, and stays a function of seed and position.
    rows = normal(seeds[utterances] * (1 << 20) + frames, feats.size(2))
    filled = feats.clone()
    filled[utterances, frames] = (noise_std * rows).to(feats)
    return filled
