"""Penalty-based bilevel gradient descent in its shared-variable form (BL-JUST)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bilevel.optim.problem import Problem
from bilevel.optim.solver import BilevelSolver, report


class Solver(BilevelSolver):
    r"""Gradient of the penalised problem when both levels share their backbone.

    With theta shared, phi only in f (upper) and eta only in g (lower),

        min_{theta,phi} f(theta, phi)   s.t.  theta in argmin_{theta',eta} g(theta', eta)

    becomes, for p = g - min g and a growing weight gamma,

        G_theta = grad_theta f(batch_u) + gamma grad_theta g(batch_l)
        G_phi   = grad_phi f(batch_u)
        G_eta   = w_eta grad_eta g(batch_l),   w_eta = 1 (default) or gamma.

    `min g` is a constant, so it is never computed. The two batches are independent. One forward and one backward of
    each level; the upper graph is freed before the lower one is built, so peak memory is that of the larger level.

    Either batch may be None: the level is left out, and a lower level alone has weight 1 (exploration).

    Args:
        gamma: Weight of the lower level; set the attribute before each step to follow a ramp.
        scale: Factor on the whole gradient (see `schedule.Penalty.scale`).
        weight_lower_head: "one" trains eta with its plain gradient also while gamma is 0, as the released code does;
            "gamma" is the literal penalty objective. An Adam-type optimizer makes the two almost equal for gamma > 0.

    References:
        BL-JUST, arXiv 2401.06980 and 2412.08548 (penalty reformulation and joint update).
    Deviations:
        The published update has G_eta = gamma grad g; the default follows the released code instead (see above).
    """

    shares_variables = True
    averages = False
    penalised = True

    def __init__(self, gamma: float = 1.0, scale: float = 1.0, weight_lower_head: str = "one") -> None:
        if weight_lower_head not in ("one", "gamma"):
            raise ValueError(f"weight_lower_head {weight_lower_head!r}: expected one or gamma")
        self.gamma = gamma
        self.scale = scale
        self.weight_lower_head = weight_lower_head

    def backward(
        self,
        problem: Problem,
        upper_batch: Any | None,
        lower_batch: Any | None,
        scale_loss: Callable[[Tensor], Tensor] = lambda loss: loss,
    ) -> dict[str, float]:
        """Add the gradient to `.grad`; values stay unchanged.

        Args:
            problem: The two levels.
            upper_batch: Batch for f, or None.
            lower_batch: Batch for g, or None.
            scale_loss: Applied to a loss just before its backward pass (AMP, accumulation); never to what is reported.

        Returns:
            Every key of `REPORT`; upper_loss, lower_loss, penalty = gamma g, grad_norm_upper, grad_norm_lower (norms of
            the plain gradients of f and of g) and passes of the levels that were given.

        Raises:
            ValueError: Both batches are None.
        """
        if upper_batch is None and lower_batch is None:
            raise ValueError("a step needs an upper batch, a lower batch or both; found neither")
        joint = upper_batch is not None and lower_batch is not None
        gamma, scale = (self.gamma, self.scale) if joint else (1.0, 1.0)
        found: dict[str, float | Tensor] = {"passes": 0}
        if upper_batch is not None:
            weights = dict.fromkeys(problem.upper_params(), scale)
            loss, grad_norm = _weighted_backward(problem.upper(upper_batch), weights, scale_loss)
            found |= {"upper_loss": loss, "grad_norm_upper": grad_norm, "passes": 1}
        if lower_batch is not None:
            head_weight = gamma if self.weight_lower_head == "gamma" else 1.0
            shared = set(problem.upper_params())
            weights = {p: scale * (gamma if p in shared else head_weight) for p in problem.lower_params()}
            loss, grad_norm = _weighted_backward(problem.lower(lower_batch), weights, scale_loss)
            found |= {"lower_loss": loss, "grad_norm_lower": grad_norm, "passes": found["passes"] + 1}
            found["penalty"] = gamma * loss
        return report(**found)


def _weighted_backward(
    loss: Tensor, weights: dict[Tensor, float], scale_loss: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Backpropagate; each parameter's gradient is weighted as it arrives. Returns the loss and its plain gradient norm.

    Hooks weight the gradient before it is accumulated: nothing that `.grad` held before is touched, and one backward
    pass serves shared and own parameters alike.
    """
    squares: list[Tensor] = []

    def hook(weight: float) -> Callable[[Tensor], Tensor | None]:
        def weigh(grad: Tensor) -> Tensor | None:
            squares.append(grad.detach().float().square().sum())
            return None if weight == 1.0 else grad * weight

        return weigh

    handles = [p.register_hook(hook(weight)) for p, weight in weights.items() if p.requires_grad]
    try:
        scale_loss(loss).backward()
    finally:
        for handle in handles:
            handle.remove()
    norm = torch.stack(squares).sum().sqrt() if squares else torch.zeros(())
    return loss.detach(), norm / scale_loss(torch.ones_like(norm))
