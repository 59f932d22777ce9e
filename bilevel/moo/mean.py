"""Equal weights: the baseline of every comparison."""

import torch
from torch import Tensor

from bilevel.moo.weighting import ObjectiveWeighting


class Weighting(ObjectiveWeighting):
    """lam_m = 1 / m for the m objectives that are present.

    Args:
        n_objectives: M.
    """

    needs = "nothing"

    def _weights(self, gramian: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        return torch.full_like(losses, 1 / len(present))
