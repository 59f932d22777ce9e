"""The frames of a batch that a loss is about, chosen so that the host never waits for a GPU."""

from typing import NamedTuple

import torch
from torch import Tensor


class Rows(NamedTuple):
    """N frames (or encoder states) of a batch (B, T).

    Attributes:
        utterances: (N,) int64.
        frames: (N,) int64.
        seeds: (N,) int64, one for each row, by the utterance's seed and the frame alone.
        weight: (N,) float32: 1, or 0 for a row of the padding. All are 1 where the host can read the lengths.
    """

    utterances: Tensor
    frames: Tensor
    seeds: Tensor
    weight: Tensor

    @property
    def count(self) -> Tensor:
        """How many rows count, int64."""
        return self.weight.sum().long()

    def pick(self, values: Tensor) -> Tensor:
        """Rows of values (B, T or more, ...): (N, ...)."""
        return values[self.utterances, self.frames]

    def mean(self, values: Tensor) -> Tensor:
        """Mean of (N,) values over the rows that count; 0 with a gradient when there is none."""
        return (self.weight * values).sum() / self.weight.sum().clamp(min=1)


def choose(mask: Tensor, valid: Tensor, seeds: Tensor) -> Rows:
    """Rows where both masks are True.

    How many rows there are is the shape of all that follows, so the host must know it. It does when it holds the seeds,
    from which `mask` is made. What is `valid` it cannot see then without waiting for the GPU to have come so far: rows
    of the padding are chosen too, with weight 0.

    Args:
        mask: (B, T) bool, on the device of `seeds`.
        valid: (B, T) bool, on the device of the batch.
        seeds: (B,) int64.
    """
    if mask.device == valid.device:
        mask = mask & valid
    utterances, frames = mask.nonzero(as_tuple=True)
    numbers = seeds[utterances] * (1 << 20) + frames
    utterances, frames, numbers = (_send(x, valid.device) for x in (utterances, frames, numbers))
    return Rows(utterances, frames, numbers, valid[utterances, frames].float())


def _send(x: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()  # from other memory the copy would wait for the GPU
    return x.to(device, non_blocking=True)
