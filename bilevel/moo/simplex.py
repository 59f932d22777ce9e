"""Points of the simplex {lam >= 0, sum lam = 1}: projection, and the remembered weights of MoDo and MoCo."""

import torch
from torch import Tensor


def project(values: Tensor, total: float = 1.0) -> Tensor:
    """Nearest point of {x >= 0, sum x = total} to values (m,), by sorting.

    References:
        Duchi et al., Efficient projections onto the l1-ball, ICML 2008, Figure 1.
    """
    values = values - values.max()  # changes nothing in exact numbers; long vectors would lose `total` to rounding
    falling = values.sort(descending=True).values
    excess = (falling.cumsum(0) - total) / torch.arange(1, len(values) + 1, dtype=values.dtype)
    n_positive = int((falling > excess).sum())
    shift = excess[max(n_positive, 1) - 1]
    return (values - shift).clamp(min=0)


def share(weights: Tensor) -> Tensor:
    """Weights (m,) >= 0 divided by their sum; equal ones where all are zero."""
    total = weights.sum()
    return weights / total if total > 0 else torch.full_like(weights, 1 / len(weights))


def descend(lam: Tensor, present: Tensor, gramian: Tensor, gamma: float, rho: float) -> Tensor:
    r"""One step of projected descent on 1/2 lam^T (G + rho I) lam, for the objectives that are present.

    lam <- Proj(lam - gamma (G lam + rho lam)). The present ones keep the sum that they have together, so the others
    need not move and all still sum to one; but G is applied to their shares, which are the weights of this step.

    Args:
        lam: (M,), changed in place.
        present: (m,) indices.
        gramian: (m, m).
        gamma: Step size.
        rho: Regularisation, which pulls towards equal weights.

    Returns:
        (m,), weights of this step, on the simplex.
    """
    total = float(lam[present].sum())
    old = share(lam[present])
    new = project(old - gamma * (gramian @ old + rho * old))
    if total > 0:
        lam[present] = total * new
    return new
