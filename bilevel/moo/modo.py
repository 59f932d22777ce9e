"""MoDo: weights that take one unbiased step of descent per training step, from two independent batches."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bilevel.moo import simplex
from bilevel.moo.weighting import FLOAT, ObjectiveWeighting, check_keys


class Weighting(ObjectiveWeighting):
    r"""lam <- Proj(lam - gamma (J_1 J_2^T lam + rho lam)), started at 1 / M and carried from step to step.

    J_1, J_2 are gradients on independent batches, so that E[J_1 J_2^T lam] = E[J] E[J]^T lam, the gradient of
    1/2 |E[J]^T lam|^2; with one batch, E[J J^T] would hold the variance of the gradients, too. The direction is made
    of the new weights and the mean of both batches' gradients.

    gamma has the unit of 1 / |g|^2: gamma -> 0 gives equal weights, a large gamma one objective alone. rho pulls
    towards equal weights (rho (lam - 1 / M) is the same after the projection).

    Args:
        n_objectives: M.
        gamma: Step size of the weights.
        rho: Regularisation.

    References:
        Chen et al., Three-way trade-off in multi-objective learning, arXiv 2305.20057, Algorithm 1 (MoDo). Objective
        Soups, arXiv 2508.09228, takes it for all three recipes.
    Deviations:
        The mean of two batches instead of a third one makes the direction, as in the code of M2ASR.
    """

    n_batches = 2
    scale_sensitive = True

    def __init__(self, n_objectives: int, gamma: float = 0.1, rho: float = 0.0) -> None:
        super().__init__(n_objectives)
        if gamma <= 0 or rho < 0:
            raise ValueError(f"gamma {gamma}, rho {rho}: expected gamma above 0 and rho >= 0")
        self.gamma, self.rho = gamma, rho
        Weighting.reset(self)

    def _weights(self, gramian: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        return simplex.descend(self.lam, present, gramian, self.gamma, self.rho)

    def state_dict(self) -> dict[str, Any]:
        """The weights lam (M,)."""
        return {"lam": self.lam.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore."""
        check_keys(self, state, ("lam",))
        self.lam = state["lam"].clone()

    def reset(self) -> None:
        """Equal weights."""
        self.lam = torch.full((self.n_objectives,), 1 / self.n_objectives, dtype=FLOAT)
