"""GradVac: gradients are turned towards each other, up to the cosine that they usually have."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bilevel.moo.surgery import Surgery
from bilevel.moo.weighting import FLOAT, check_keys


class Weighting(Surgery):
    r"""PCGrad with a goal: the cosine of g'_i and g_j shall be at least phi_ij, a moving mean of those found.

    For each i, over j != i in random order, with c = cos(g'_i, g_j): where c < phi_ij,

        g'_i += |g'_i| (phi_ij sqrt(1 - c^2) - c sqrt(1 - phi_ij^2)) / (|g_j| sqrt(1 - phi_ij^2)) g_j

    after which their cosine is phi_ij; then phi_ij <- (1 - beta) phi_ij + beta c. phi starts at zero, where the
    method is PCGrad. Made for many languages.

    Args:
        n_objectives: M.
        beta: Share of the new cosine in the moving mean.
        seed: Of the generator that draws the orders.

    References:
        Wang et al., Gradient vaccine, arXiv 2010.05874, Eq. 2 and Algorithm 1.
    Deviations:
        The mean of the g'_i instead of their sum. Goals are kept below 1 - 1e-6, where the formula has a pole.
    """

    def __init__(self, n_objectives: int, beta: float = 0.01, seed: int = 0) -> None:
        super().__init__(n_objectives, seed)
        if not 0 <= beta <= 1:
            raise ValueError(f"beta {beta}: expected a number from 0 to 1")
        self.beta = beta
        self.goals = torch.zeros(n_objectives, n_objectives, dtype=FLOAT)

    def _mend(self, row: Tensor, i: int, j: int, gramian: Tensor, present: Tensor) -> None:
        own, other = (row @ gramian @ row).clamp(min=0).sqrt(), gramian[j, j].sqrt()
        if own == 0:
            return
        cosine = ((row @ gramian[:, j]) / (own * other)).clamp(-1, 1)
        place = present[i], present[j]
        goal = self.goals[place].clamp(max=1 - 1e-6)
        if cosine < goal:
            height, sine = (1 - goal**2).sqrt(), (1 - cosine**2).sqrt()
            row[j] += own * (goal * sine - cosine * height) / (other * height)
        self.goals[place] = (1 - self.beta) * self.goals[place] + self.beta * cosine

    def state_dict(self) -> dict[str, Any]:
        """State of the generator, and the goals phi (M, M)."""
        return super().state_dict() | {"goals": self.goals.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore."""
        check_keys(self, state, ("generator", "goals"))
        super().load_state_dict({"generator": state["generator"]})
        self.goals = state["goals"].clone()

    def reset(self) -> None:
        """The generator starts anew, goals are zero."""
        super().reset()
        self.goals.zero_()
