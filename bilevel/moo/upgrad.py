"""UPGrad: the mean of the gradients, each first projected on the directions that harm no objective."""

import torch
from torch import Tensor

from bilevel.moo import cone
from bilevel.moo.weighting import ObjectiveWeighting


class Weighting(ObjectiveWeighting):
    r"""d = (1 / m) sum_i pi(g_i), pi the projection on the dual cone {d : J d >= 0}.

    pi(J^T u) = J^T v with v = argmin over v >= u of v^T G v (Proposition 1), here v = u + z, z >= 0. Without
    conflicts the mean of the gradients. Steep objectives keep their length, so none is preferred for being flat.

    Args:
        n_objectives: M.

    References:
        Quinton and Rey, Jacobian descent, arXiv 2406.16232, Eq. 3, 4 and Proposition 1.
    """

    convex = False
    non_conflicting = True

    def _weights(self, gramian: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        m = len(present)
        if bool((gramian >= 0).all()):
            return torch.full_like(losses, 1 / m)
        lam = torch.full_like(losses, 1 / m)
        for i in range(m):
            lam = lam + cone.minimise(gramian, gramian[:, i] / m)
        return lam
