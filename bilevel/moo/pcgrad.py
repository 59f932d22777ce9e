"""PCGrad: from each gradient the part that runs against another one is taken away."""

from torch import Tensor

from bilevel.moo.surgery import Surgery


class Weighting(Surgery):
    r"""For each i, over j != i in random order: where <g'_i, g_j> < 0, g'_i -= <g'_i, g_j> / |g_j|^2 g_j.

    Two objectives: no conflict is left. With three or more, mending one pair may spoil another.

    Args:
        n_objectives: M.
        seed: Of the generator that draws the orders.

    References:
        Yu et al., Gradient surgery for multi-task learning, arXiv 2001.06782, Algorithm 1.
    Deviations:
        The mean of the g'_i instead of their sum, see `ObjectiveWeighting`.
    """

    def _mend(self, row: Tensor, i: int, j: int, gramian: Tensor, present: Tensor) -> None:
        product = row @ gramian[:, j]
        if product < 0:
            row[j] -= product / gramian[j, j]
