"""Span masks and noise for masked prediction."""

import torch
from torch import Tensor

from bilevel.models.counter_rng import normal, uniform
from bilevel.models.rows import Rows, choose


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


def fill_with_noise(feats: Tensor, rows: Rows, noise_std: float) -> Tensor:
    """Replace frames by Gaussian noise of mean 0, which is drawn for these alone.

    Args:
        feats: (B, T, F).
        rows: Frames to replace; those of weight 0 stay as they are.
        noise_std: Standard deviation of the noise (0.1 in BEST-RQ).
    """
    noise = (noise_std * normal(rows.seeds, feats.size(2))).to(feats)
    filled = feats.clone()
    filled[rows.utterances, rows.frames] = torch.where(rows.weight.bool().unsqueeze(1), noise, rows.pick(feats))
    return filled


class Masking:
    """Which feature frames are hidden, and which encoder states have to say what was there.

    Spans start on the grid of `stack` frames, one encoder state each, which keeps the frames of a label together. With
    probability p per feature frame the grid uses 1 - (1 - p)^stack, so the coverage is that of spans on single frames,
    1 - (1 - p)^span. Without the grid spans start at any frame, and a state counts when all its frames are hidden.

    | variant | p_mask | mask_span_frames | noise_std | mask_on_grid |
    |---|---|---|---|---|
    | BEST-RQ's paper, 10 ms frames, stack 4 | 0.01 | 40 | 0.1 | |
    | PTLOC, stacked 20 ms frames, stack 1 | 0.02 | 20 | 0.1 | |
    | SpeechBrain, 0.15 per group of 4 | 1 - 0.85^(1/4) = 0.0398 | 16 | 0.1 | |
    | WeNet | 0.01 | 10 | 0.1 | false |

    Args:
        stack: Feature frames per encoder state.
        p_mask: Probability that a span starts at a feature frame.
        mask_span_frames: Length of a span in feature frames.
        noise_std: Standard deviation of what replaces hidden frames.
        mask_on_grid: Whether spans start on the grid of stacked frames.

    Raises:
        ValueError: A span on the grid is no multiple of `stack`, or shorter than `stack` off it.
    """

    def __init__(
        self, stack: int, p_mask: float, mask_span_frames: int, noise_std: float, mask_on_grid: bool = True
    ) -> None:
        if mask_on_grid and mask_span_frames % stack:
            raise ValueError(
                f"mask_span_frames {mask_span_frames}: expected a multiple of stack {stack}, or mask_on_grid false"
            )
        if mask_span_frames < stack:
            raise ValueError(f"mask_span_frames {mask_span_frames}: expected at least stack {stack}")
        self.stack, self.p_mask, self.span_frames = stack, p_mask, mask_span_frames
        self.noise_std, self.on_grid = noise_std, mask_on_grid

    def masks(self, seeds: Tensor, lens: Tensor, n_frames: int) -> tuple[Tensor, Tensor]:
        """(B, T) bool of hidden feature frames and (B, ceil(T / stack)) bool of the states that count.

        They are on the device of the seeds. Lengths on another one are not looked at: the padding is then masked, too.
        """
        if lens.device != seeds.device:
            lens = torch.full_like(seeds, n_frames)
        if self.on_grid:
            p_start, span = 1 - (1 - self.p_mask) ** self.stack, self.span_frames // self.stack
            states = span_mask(seeds, -(-lens // self.stack), -(-n_frames // self.stack), p_start, span)
            frames = states.repeat_interleave(self.stack, dim=1)[:, :n_frames]
            return frames & valid_mask(lens, n_frames), states  # the last group of an utterance may not be full
        frames = span_mask(seeds, lens, n_frames, self.p_mask, self.span_frames)
        groups = torch.nn.functional.pad(frames, (0, -n_frames % self.stack)).view(len(frames), -1, self.stack)
        return frames, groups.all(dim=-1)

    def hide(self, feats: Tensor, lens: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, T, F) with noise at hidden frames, and the mask (B, ceil(T / stack)) of states that count."""
        frames, states = self.masks(seeds, lens, feats.size(1))
        rows = choose(frames, valid_mask(lens, feats.size(1)), seeds)
        return fill_with_noise(feats, rows, self.noise_std), states
