"""Gradients of different objectives in one unit, before a weighting that would prefer the short ones."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bilevel.moo.weighting import FLOAT, check_keys

KINDS = ("none", "norm", "running", "loss")


class Normaliser:
    r"""Divides gradient m by a scale s_m; the weighting sees G_ij / (s_i s_j).

    Its weights lam then belong to the directions g_m / s_m, so that g_m itself counts

        w_m = c lam_m / s_m,   c = sum lam_m s_m / sum lam_m,

    which keeps what the weighting promises of d = sum w_m g_m (no objective rises), and the length of the step where
    the gradients agree.

    Args:
        n_objectives: M.
        by: "none"; "norm": |g_m| of this step; "running": moving mean of |g_m| over earlier steps (of this one in the
            first), which a new batch cannot move, so that MoDo stays unbiased given the past; "loss": the loss.
        decay: Of the moving mean.

    References:
        Sener and Koltun, arXiv 1810.04650, released code ("l2", "loss").
    """

    def __init__(self, n_objectives: int, by: str = "running", decay: float = 0.9) -> None:
        if by not in KINDS or not 0 <= decay < 1:
            raise ValueError(f"by {by!r}, decay {decay}: expected one of {', '.join(KINDS)} and a decay in [0, 1)")
        self.by, self.decay = by, decay
        self.n_objectives = n_objectives
        self.reset()

    def scales(self, norms: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        """S (m,) of the objectives that are present; 1 where there is nothing to divide by.

        Args:
            norms: |g_m| (m,) float64, on all batches of the step.
            losses: (m,) float64.
            present: (m,) indices.
        """
        if self.by == "none":
            return torch.ones_like(norms)
        if self.by == "loss":
            found = losses.abs()
        elif self.by == "norm":
            found = norms
        else:
            old = self.means[present]
            found = torch.where(old > 0, old, norms)
            moved = self.decay * found + (1 - self.decay) * norms
            # A batch without usable data has no gradient; that says nothing of the usual length.
            self.means[present] = torch.where(norms > 0, moved, old)
        return torch.where(found > 0, found, 1.0)

    @staticmethod
    def weights(lam: Tensor, scales: Tensor) -> Tensor:
        """W (m,), what each gradient itself counts."""
        total = lam.sum()
        return lam / scales * ((lam @ scales) / total if total > 0 else 1.0)

    def state_dict(self) -> dict[str, Any]:
        """The moving means (M,); zero where nothing was seen yet."""
        return {"means": self.means.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore."""
        check_keys(self, state, ("means",))
        self.means = state["means"].clone()

    def reset(self) -> None:
        """Nothing seen."""
        self.means = torch.zeros(self.n_objectives, dtype=FLOAT)
