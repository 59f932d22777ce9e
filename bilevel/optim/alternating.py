"""Baseline: the two levels in turn, each on its own parameters."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from bilevel.optim import vector
from bilevel.optim.problem import Problem
from bilevel.optim.solver import BilevelSolver, check_keys, report


class Solver(BilevelSolver):
    r"""One call takes f alone, the next `n_lower` calls take g alone.

        call 0 of each round:            x.grad += d_x f(x, y)
        calls 1 to n_lower of a round:   y.grad += d_y g(x, y)

    What it ignores: that y answers to x. x follows the direct gradient d_x f, not the hypergradient
    d_x f + (dy*/dx)' d_y f, so it comes to rest where no x is better for the *present* y. Where f depends on x through
    y* alone, x does not move at all.

    One pass. If only one batch is given, that level is taken and the round does not advance.

    Args:
        n_lower: Calls with g for each call with f.

    References:
        Block coordinate descent; multi-task training by turns.
    """

    shares_variables = True

    def __init__(self, n_lower: int = 1) -> None:
        if n_lower < 1:
            raise ValueError(f"n_lower {n_lower}: expected at least one call with the lower level in a round")
        self.n_lower = n_lower
        self.n_calls = 0

    def backward(
        self,
        problem: Problem,
        upper_batch: Any | None,
        lower_batch: Any | None,
        scale_loss: Callable[[Tensor], Tensor] = lambda loss: loss,
    ) -> dict[str, float]:
        """Add the gradient of the level whose turn it is; see `BilevelSolver.backward`.

        Returns:
            Loss and gradient norm of that level, passes; the rest is nan.

        Raises:
            ValueError: Both batches are None.
        """
        if upper_batch is None and lower_batch is None:
            raise ValueError("a step needs an upper batch, a lower batch or both; found neither")
        if upper_batch is not None and lower_batch is not None:
            level = "upper" if self.n_calls % (self.n_lower + 1) == 0 else "lower"
            self.n_calls += 1
        else:
            level = "upper" if lower_batch is None else "lower"
        if level == "upper":
            params, loss = list(problem.upper_params()), problem.upper(upper_batch)
        else:
            params, loss = list(problem.lower_params()), problem.lower(lower_batch)
        step = vector.grad(loss, params)
        vector.add_to_grad(params, step, scale_loss(torch.ones((), device=loss.device)))
        return report(**{f"{level}_loss": loss.detach(), f"grad_norm_{level}": vector.norm(step), "passes": 1})

    def state_dict(self) -> dict[str, Any]:
        """How many calls had both batches."""
        return {"n_calls": self.n_calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore."""
        check_keys(self, state, ("n_calls",))
        self.n_calls = int(state["n_calls"])

    def reset(self) -> None:
        """Start a round with the upper level."""
        self.n_calls = 0
