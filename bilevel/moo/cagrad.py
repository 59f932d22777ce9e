"""CAGrad: near the mean gradient, the direction that serves the worst-off objective best."""

import torch
from torch import Tensor

from bilevel.moo import cone
from bilevel.moo.weighting import ObjectiveWeighting


class Weighting(ObjectiveWeighting):
    r"""d = argmax min_m <g_m, d> subject to |d - g_0| <= c |g_0|, g_0 the mean gradient.

    The dual: d = g_0 + c |g_0| g_w / |g_w|, g_w = J^T w, with the w of the simplex that minimises
    <g_w, g_0> + c |g_0| |g_w|. For t = |g_w| / (c |g_0|) at the solution, w is also the shortest vector in the hull of
    the rows g_m + t g_0 (|g_w| is min over s of (|g_w|^2 / s + s) / 2, and what remains is a complete square). So a
    search for t, whose sign changes once, over problems that MGDA has. Weights: 1 / m + c |g_0| / |g_w| w.

    c = 0 is the mean. Without conflicts the step is up to 1 + c times as long as the mean gradient. Where the best
    that any direction can do is nothing (g_w = 0, Pareto stationary), weights are zero.

    Args:
        n_objectives: M.
        c: Radius of the ball around the mean, in [0, 1).

    References:
        Liu et al., Conflict-averse gradient descent, arXiv 2110.14048, Eq. 3 and 5, Algorithm 1.
    Deviations:
        The dual is solved to rounding, by the search above; no general solver is needed.
    """

    convex = False

    def __init__(self, n_objectives: int, c: float = 0.5) -> None:
        super().__init__(n_objectives)
        if not 0 <= c < 1:
            raise ValueError(f"c {c}: expected a number in [0, 1); from 1 on the ball holds 0 and convergence is lost")
        self.c = c

    def _weights(self, gramian: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        m = len(present)
        mean = torch.full_like(losses, 1 / m)
        unit = gramian.diagonal().mean()
        if self.c == 0 or unit == 0:
            return mean
        gramian = gramian / unit
        to_mean = gramian @ mean
        radius = self.c * _length(gramian, mean)
        if radius < 1e-8:
            return mean

        def shortest(t: float) -> Tensor:
            shifted = gramian + t * (to_mean[:, None] + to_mean) + t * t * (mean @ to_mean)
            return cone.nearest_to_zero(shifted)

        lengths = gramian.diagonal().sqrt()
        low, high = 0.0, float(lengths.max() / radius)
        for _ in range(60):
            t = (low + high) / 2
            w = shortest(t)
            length = _length(gramian, w)
            if abs(length - t * radius) <= 1e-12 * length:
                break
            low, high = (t, high) if length > t * radius else (low, t)
        stationary = length <= 1e-6 * lengths[lengths > 0].min()
        return torch.zeros_like(mean) if stationary else mean + radius / length * w


def _length(gramian: Tensor, weights: Tensor) -> Tensor:
    return (weights @ gramian @ weights).clamp(min=0).sqrt()
