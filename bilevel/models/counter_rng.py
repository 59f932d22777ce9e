"""Random numbers as a pure function of (seed, position).

A generator hands out numbers in the order of the calls, so the mask of an utterance would depend on its batch mates,
on padding, on the rank and on what ran before. Counter-based numbers depend on the utterance's seed alone, which is
what makes masks invariant to batching, identical between one and many processes, and exact after a resume.
"""

import math

import torch
from torch import Tensor


def _signed(word: int) -> int:
    return word - (1 << 64) if word >= 1 << 63 else word


_GOLDEN, _MIX1, _MIX2 = (_signed(w) for w in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _shift_right(x: Tensor, n: int) -> Tensor:
    """Logical shift; torch's >> on int64 is arithmetic."""
    return (x >> n) & ((1 << (64 - n)) - 1)


def uniform(seeds: Tensor, n: int, stream: int = 0) -> Tensor:
    """Uniform numbers in [0, 1) by the SplitMix64 finaliser.

    Args:
        seeds: (B,) int64.
        n: Numbers per seed.
        stream: Different streams of one seed are independent.

    Returns:
        (B, n) float32; a row depends on its seed, and its first k numbers do not depend on n.

    References:
        Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    counter = torch.arange(1, n + 1, device=seeds.device, dtype=torch.int64)
    offset = _signed(stream * _MIX1 % (1 << 64))
    state = (seeds.unsqueeze(1) + offset) * _MIX2 + counter * _GOLDEN
    for shift, factor in ((30, _MIX1), (27, _MIX2)):
        state = (state ^ _shift_right(state, shift)) * factor
    state = state ^ _shift_right(state, 31)
    return _shift_right(state, 40).float() / (1 << 24)


def normal(seeds: Tensor, n: int, stream: int = 0) -> Tensor:
    """Standard normal numbers (B, n) by the Box-Muller transform of two uniform streams."""
    radius = (-2 * torch.log1p(-uniform(seeds, n, 2 * stream + 101))).sqrt()
    return radius * torch.cos(2 * math.pi * uniform(seeds, n, 2 * stream + 102))
