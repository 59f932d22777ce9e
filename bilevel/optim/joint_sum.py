"""Baseline: the weighted sum of both losses, on all parameters."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bilevel.optim import vector
from bilevel.optim.problem import Problem
from bilevel.optim.solver import BilevelSolver, report


class Solver(BilevelSolver):
    r"""One level instead of two: the gradient of f + weight g for x and y alike.

        x.grad += d_x f + weight d_x g,   y.grad += d_y f + weight d_y g

    What it ignores: that y should solve the lower level, so y also pleases f, and x also pleases g. Unlike the penalty
    solvers it subtracts no value function; a growing weight ends at the minimiser of g over x and y together. For
    levels that share all their parameters this is the penalty solver at a constant gamma.

    Two passes, one graph at a time. One batch may be None: the other level is taken alone, with weight 1.

    Args:
        weight: Of the lower level.

    References:
        Multi-task training with a static weight; nothing bilevel.
    """

    shares_variables = True

    def __init__(self, weight: float = 1.0) -> None:
        if weight < 0:
            raise ValueError(f"weight {weight}: expected a weight >= 0")
        self.weight = weight

    def backward(
        self,
        problem: Problem,
        upper_batch: Any | None,
        lower_batch: Any | None,
        scale_loss: Callable[[Tensor], Tensor] = lambda loss: loss,
    ) -> dict[str, float]:
        """Add the gradient of the sum to `.grad`; see `BilevelSolver.backward`.

        Returns:
            upper_loss, lower_loss, penalty weight g, norms of both gradients over all parameters, passes.

        Raises:
            ValueError: Both batches are None.
        """
        if upper_batch is None and lower_batch is None:
            raise ValueError("a step needs an upper batch, a lower batch or both; found neither")
        params = list(dict.fromkeys([*problem.upper_params(), *problem.lower_params()]))
        factor = scale_loss(torch.ones((), device=params[0].device))
        found: dict[str, float | Tensor] = {"passes": 0}
        if upper_batch is not None:
            f = problem.upper(upper_batch)
            grad_f = vector.grad(f, params)
            vector.add_to_grad(params, grad_f, factor)
            found |= {"upper_loss": f.detach(), "grad_norm_upper": vector.norm(grad_f), "passes": 1}
        if lower_batch is not None:
            weight = self.weight if upper_batch is not None else 1.0
            g = problem.lower(lower_batch)
            grad_g = vector.grad(g, params)
            vector.add_to_grad(params, grad_g, weight * factor)
            found |= {"lower_loss": g.detach(), "grad_norm_lower": vector.norm(grad_g), "passes": found["passes"] + 1}
            found["penalty"] = weight * g.detach()
        return report(**found)
