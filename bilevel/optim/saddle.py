"""Primal-dual loops for a minimum under constraints: a max-min problem with a warm start."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bilevel.optim import vector
from bilevel.optim.problem import ConstrainedProblem
from bilevel.optim.solver import check_keys, clones


@dataclass(frozen=True)
class Solved:
    """What one `Saddle.solve` reports.

    Attributes:
        residual: Generalised primal gradient of the last step.
        violation: Largest violation of a constraint at the end.
        passes: Gradients taken.
    """

    residual: float
    violation: float
    passes: int


class Saddle:
    r"""One max-min problem, max_{mu >= 0, nu} min_{y in Y} l(y) + <mu, c(x, y)> + <nu, e(x, y)>, and its warm start.

    One iteration (arXiv 2406.10148, Algorithm 2; l is g or f + gamma g):

        n_primal times: y <- Proj_Y(y - eta_y grad_y [l + <mu_h, c> + <nu_h, e>])
        mu_{t+1} = max(0, mu_b + eta_mu c(x, y)),   nu_{t+1} = nu_b + eta_mu e(x, y)

    where, for nu likewise,

        plain:         mu_h = mu_b = mu_t
        accelerated:   mu_h = mu_b = mu_t + (t - 1) / (t + 2) (mu_t - mu_{t-1})
        extrapolated:  mu_h = mu_t + (mu_t - mu_{t-1}),   mu_b = mu_t       (Chambolle and Pock, Algorithm 1)

    Only Y and mu >= 0 are projected on, never the coupled set. Where l is linear in a part of y, plain steps circle
    around the saddle; extrapolated ones converge for eta_y eta_mu |Jacobian of (c, e)|^2 <= 1. Iterations end early
    when the generalised primal gradient |y_new - y_old| / eta_y and that of the multipliers are below `tolerance`.

    Attributes:
        y: The primal variable, or None before the first solve.
        mu: (m,) multipliers of the inequalities.
        nu: (p,) multipliers of the equations, of free sign.
    """

    def __init__(
        self,
        n_iter: int,
        n_primal: int,
        lr_y: float,
        lr_mu: float,
        accelerated: bool = False,
        extrapolated: bool = False,
        tolerance: float = 0.0,
    ) -> None:
        if min(n_iter, n_primal) < 1 or min(lr_y, lr_mu) <= 0:
            raise ValueError(
                f"n_iter {n_iter}, n_primal {n_primal}, lr_y {lr_y}, lr_mu {lr_mu}: expected counts >= 1, steps > 0"
            )
        if accelerated and extrapolated:
            raise ValueError("accelerated and extrapolated: expected at most one of them")
        self.n_iter, self.n_primal = n_iter, n_primal
        self.lr_y, self.lr_mu = lr_y, lr_mu
        self.accelerated, self.extrapolated, self.tolerance = accelerated, extrapolated, tolerance
        self.y: list[Tensor] | None = None
        self.mu: Tensor | None = None
        self.nu: Tensor | None = None

    def solve(self, problem: ConstrainedProblem, batch: Any, loss: Callable[[], Tensor], n_passes: int) -> Solved:
        """Improve y, mu, nu; the problem's own y is as before afterwards.

        Args:
            problem: Gives y, the constraints and the projection on Y.
            batch: For the constraints.
            loss: Value of l at the problem's current parameters.
            n_passes: Passes that one gradient of l takes.
        """
        params = list(problem.lower_params())
        if self.y is None:
            self.y = vector.copies(params)
        n_done, slope = 0, float("nan")
        with vector.at(params, self.y):  # in-place steps reach self.y
            values = problem.constraints(batch)
            if self.mu is None or self.nu is None:
                self.mu, self.nu = (torch.zeros_like(value.detach()) for value in values)
            before = (self.mu, self.nu)
            for t in range(self.n_iter):
                ahead, base = self._multipliers(t, before)
                before = (self.mu, self.nu)
                look = t == self.n_iter - 1 or self.tolerance > 0  # norms cost as much as a small step
                for k in range(self.n_primal):
                    old = vector.copies(params) if look and k == self.n_primal - 1 else None
                    lagrangian = loss() + sum(inner(m, value) for m, value in zip(ahead, values, strict=True))
                    with torch.no_grad():
                        for p, d in zip(params, vector.grad(lagrangian, params), strict=True):
                            p.sub_(d, alpha=self.lr_y)
                    problem.project_lower()
                    values = problem.constraints(batch)  # for the dual step, and with its graph for the next primal one
                    n_done += 1
                mu, nu = (m + self.lr_mu * value.detach() for m, value in zip(base, values, strict=True))
                self.mu, self.nu = mu.clamp(min=0), nu
                if look:
                    slope = float(vector.norm(vector.axpy(-1.0, old, [p.detach() for p in params]))) / self.lr_y
                    moved = float(vector.norm([self.mu - before[0], self.nu - before[1]])) / self.lr_mu
                    if max(slope, moved) < self.tolerance:
                        break
            violation = max_violation(*values)
        return Solved(slope, violation, n_done * n_passes)

    def _multipliers(self, t: int, before: tuple[Tensor, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Those that the primal steps see, and those that the dual step starts from."""
        now = [self.mu, self.nu]
        momentum = 1.0 if self.extrapolated else max(t - 1, 0) / (t + 2) if self.accelerated else 0.0
        ahead = [m + momentum * (m - old) for m, old in zip(now, before, strict=True)] if momentum else now
        return ahead, now if self.extrapolated else ahead

    def state_dict(self) -> dict[str, Any]:
        """Primal and multipliers."""
        return {"y": clones(self.y), "mu": _clone(self.mu), "nu": _clone(self.nu)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore."""
        check_keys(self, state, ("y", "mu", "nu"))
        self.y, self.mu, self.nu = clones(state["y"]), _clone(state["mu"]), _clone(state["nu"])


def max_violation(inequality: Tensor, equality: Tensor) -> float:
    """Largest of max(0, c) and |e|; 0 without constraints."""
    parts = torch.cat([inequality.detach().clamp(min=0).reshape(-1), equality.detach().abs().reshape(-1)])
    return float(parts.max()) if parts.numel() else 0.0


def inner(multipliers: Tensor, values: Tensor) -> Tensor:
    """The term <multipliers, values> of a Lagrangian."""
    return (multipliers * values).sum()


def _clone(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.detach().clone()
