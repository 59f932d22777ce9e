"""MoCo: the weights of MoDo from one batch, and gradients that are followed by a moving mean."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bilevel.moo import simplex
from bilevel.moo.weighting import FLOAT, ObjectiveWeighting, check_keys

Rows = list[Tensor | None]


class Weighting(ObjectiveWeighting):
    r"""y_m <- y_m - beta (y_m - g_m);  lam <- Proj(lam - gamma (Y Y^T + rho I) lam);  d = Y^T lam.

    The moving mean takes the noise out of the gradients, and so the bias out of the weights, at the price of one copy
    of the shared parameters for each objective, in memory and in the checkpoint. `modo` needs none.

    Args:
        n_objectives: M.
        beta: Share of the new gradient, in (0, 1].
        gamma: Step size of the weights, see `modo`.
        rho: Regularisation.

    References:
        Fernando et al., Mitigating gradient bias in multi-objective learning, ICLR 2023, Algorithm 1 (Eq. 7 to 9).
    Deviations:
        y_m starts at the first gradient instead of zero, and is not projected on a ball; beta and gamma are constant.
    """

    needs = "rows"
    scale_sensitive = True

    def __init__(self, n_objectives: int, beta: float = 0.5, gamma: float = 0.1, rho: float = 0.0) -> None:
        super().__init__(n_objectives)
        if not 0 < beta <= 1 or gamma <= 0 or rho < 0:
            raise ValueError(f"beta {beta}, gamma {gamma}, rho {rho}: expected 0 < beta <= 1, gamma > 0 and rho >= 0")
        self.beta, self.gamma, self.rho = beta, gamma, rho
        Weighting.reset(self)

    def track(self, rows: Mapping[int, Rows]) -> dict[int, Rows]:
        """Move the means of the objectives that are given, and return them."""
        for m, new in rows.items():
            old = self.means.get(m)
            device = next((g.device for g in new if g is not None), None)  # a restored mean may lie elsewhere
            self.means[m] = list(new) if old is None else [
                self._mixed(None if y is None else y.to(device), g) for y, g in zip(old, new, strict=True)
            ]  # fmt: skip
        return {m: self.means[m] for m in rows}

    def _mixed(self, y: Tensor | None, g: Tensor | None) -> Tensor | None:
        if y is None or g is None:
            return self.beta * g if g is not None else (1 - self.beta) * y if y is not None else None
        return y.lerp(g, self.beta)

    def _weights(self, gramian: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        return simplex.descend(self.lam, present, gramian, self.gamma, self.rho)

    def state_dict(self) -> dict[str, Any]:
        """The weights lam (M,) and the means, objective -> one tensor for each parameter."""
        return {"lam": self.lam.clone(), "means": _copied(self.means)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore."""
        check_keys(self, state, ("lam", "means"))
        self.lam, self.means = state["lam"].clone(), _copied(state["means"])

    def reset(self) -> None:
        """Equal weights, no means."""
        self.lam = torch.full((self.n_objectives,), 1 / self.n_objectives, dtype=FLOAT)
        self.means: dict[int, Rows] = {}


def _copied(means: Mapping[int, Rows]) -> dict[int, Rows]:
    return {m: [None if y is None else y.clone() for y in rows] for m, rows in means.items()}
