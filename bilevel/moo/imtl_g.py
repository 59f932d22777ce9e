"""IMTL-G: the combination whose projections on all gradients are equally long."""

import torch
from torch import Tensor

from bilevel.moo import cone
from bilevel.moo.weighting import ObjectiveWeighting


class Weighting(ObjectiveWeighting):
    r"""sum lam_m = 1 such that <d, g_m / |g_m|> is the same for all m.

    G lam = k S 1 with S = diag(|g_m|), so lam = S^-1 C^-1 1 / (1^T S^-1 C^-1 1) with the cosine matrix C. Weights may
    be negative. Eigenvalues of C are kept above a floor, which gives dependent gradients a solution.

    Args:
        n_objectives: M.

    References:
        Liu et al., Towards impartial multi-task learning, ICLR 2021, Eq. 4 to 6.
    Deviations:
        Zero gradients get weight 0. Where the sum of S^-1 C^-1 1 is not above zero (the common projection would have to
        be negative), weights are 1 / |g_m|, normalised.
    """

    convex = False

    def _weights(self, gramian: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        moving = (gramian.diagonal() > 0).nonzero().squeeze(1)
        lam = torch.zeros_like(losses)
        if not len(moving):
            return torch.full_like(losses, 1 / len(present))
        matrix, lengths = cone.cosines(gramian[moving][:, moving], cone.FLOOR)
        shares = lengths.min() / lengths
        found = shares * torch.linalg.solve(matrix, torch.ones_like(lengths))
        lam[moving] = found / found.sum() if found.sum() > 0 else shares / shares.sum()
        return lam
