"""What every self-supervised objective is given, and what it returns."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Encode(Protocol):
    """The shared encoder, as an objective sees it."""

    def __call__(
        self, feats: Tensor, lens: Tensor, n_layers: int | None = None, dropout: bool = True
    ) -> tuple[Tensor, Tensor]:
        """States of features.

        Args:
            feats: (B, T, F).
            lens: (B,) valid frames.
            n_layers: None for the whole encoder with its final norm; k for the states after block k, without the final
                norm and without computing block k + 1 and those above.
            dropout: False switches everything random off for this pass, whatever mode the encoder is in.

        Returns:
            (B, T', D) states and (B,) their lengths.
        """
        ...


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
