"""What every self-supervised objective returns, and what it is given."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# Encoder states of features: (B, T, F), (B,) -> (B, T', D), (B,).
Encode = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class LossOutput(NamedTuple):
    """Result of one objective on one batch.

    Attributes:
        loss: Scalar mean over the counted frames.
        stats: Scalars to log.
        weight: How many frames the mean is over; weighs batches when they are averaged over processes.
    """

    loss: Tensor
    stats: dict[str, Tensor]
    weight: Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision becomes float32, in which losses are computed; double precision stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
