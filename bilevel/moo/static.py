"""Constant weights, 1 each by default: the plain sum."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bilevel.moo.weighting import FLOAT, ObjectiveWeighting


class Weighting(ObjectiveWeighting):
    """lam_m = w_m, as given; they need not sum to one, and absent objectives leave the others' weights as they are.

    Args:
        n_objectives: M.
        weights: w, M numbers >= 0 in the order of the objectives; ones (the plain sum) when None.

    Raises:
        ValueError: Another number of weights, or one that is negative or not finite.
    """

    needs = "nothing"
    convex = False

    def __init__(self, n_objectives: int, weights: Sequence[float] | None = None) -> None:
        super().__init__(n_objectives)
        self.constant = [1.0] * n_objectives if weights is None else [float(w) for w in weights]
        if len(self.constant) != n_objectives or not all(w >= 0 and math.isfinite(w) for w in self.constant):
            raise ValueError(f"weights {self.constant}: expected {n_objectives} finite numbers >= 0, one an objective")

    def _weights(self, gramian: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        return torch.tensor(self.constant, dtype=FLOAT)[present]
