"""Multiple-gradient descent: the shortest vector among all convex combinations of the gradients."""

from torch import Tensor

from bilevel.moo import cone
from bilevel.moo.weighting import ObjectiveWeighting


class Weighting(ObjectiveWeighting):
    r"""lam = argmin over the simplex of 1/2 lam^T G lam.

    For d = J^T lam, <g_m, d> >= |d|^2 for all m, with equality where lam_m > 0 (the conditions of optimality): every
    objective falls, or d = 0 and the point is Pareto stationary. Two objectives: lam_1 = clip((G_22 - G_12) /
    (G_11 + G_22 - 2 G_12), 0, 1).

    The shortest vector lies near the shortest gradient: with CTC and cross-entropy at their start the weights are (0,
    1). So normalise the gradients. With stochastic gradients lam is biased (`modo` is not).

    Args:
        n_objectives: M.

    References:
        Desideri, C. R. Acad. Sci. Paris 350, 2012. Sener and Koltun, arXiv 1810.04650, Eq. 3 and 5.
    Deviations:
        Solved exactly instead of by Frank-Wolfe steps. A zero gradient gets weight 0; strictly it would get all the
        weight, and one batch without a usable utterance would stop the step of all objectives.
    """

    scale_sensitive = True
    non_conflicting = True

    def _weights(self, gramian: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        return cone.nearest_to_zero(gramian)
