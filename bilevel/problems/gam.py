"""GAM: implicit gradient through the active set of the lower level's optimality conditions; a baseline for the SVM."""

import torch
from torch import Tensor

from bilevel.problems.svm import Svm


class Gam:
    r"""Log-weights of the squared slack instead of caps on it, moved by an implicit gradient.

        y(u) = argmin 1/2 |w|^2 + 1/2 sum_i e^{u_i} xi_i^2,    xi_i = max(0, 1 - a_i' y),    a_i = l_i (z_i, 1)

    With the active set I = {i: xi_i > 0} held fixed, the optimality conditions give

        H = diag(1, .., 1, 0) + sum_I e^{u_i} a_i a_i',     dy / du_i = e^{u_i} xi_i H^{-1} a_i  (i in I),  0 otherwise

        u <- u - alpha (dy / du)' grad_y f_valid(y)

    A step solves the lower level exactly (Newton's method on a piecewise quadratic ends after a few steps).

        method = Gam(problem, generator)
        rows = record(method.step, 80, lambda: at_both(method.y, method.respond(), problem.evaluate))

    Args:
        problem: Samples and the upper loss; its own lower level and R(c) are not used.
        generator: Draws the first log-weights.
        alpha: Step.
        start: Ends of the interval of the first log-weights.

    References:
        Xu and Zhu, Efficient gradient approximation method for constrained bilevel optimization, AAAI 2023; settings of
        the SVM as in the released code of arXiv 2406.10148.
    Deviations:
        The lower level is solved to machine precision, not to 2e-3 by a cone solver. Samples on the border of the
        active set are taken as inactive; the paper forms a hull of gradients there.
    """

    def __init__(
        self, problem: Svm, generator: torch.Generator, alpha: float = 0.05, start: tuple[float, float] = (-7.0, -6.0)
    ) -> None:
        self.problem, self.alpha = problem, alpha
        drawn = torch.rand(len(problem.c), generator=generator, dtype=problem.c.dtype)
        self.log_weights = start[0] + (start[1] - start[0]) * drawn
        self._rows = problem.train
        self._ridge = torch.ones(self._rows.shape[1], dtype=self._rows.dtype)
        self._ridge[-1] = 0.0  # the bias is free in this formulation
        self._y = torch.zeros_like(self._ridge)
        self._solve()

    @property
    def y(self) -> list[Tensor]:
        """The present response (w, b)."""
        return [self._y]

    def step(self, number: int) -> dict[str, float]:
        """One step of the log-weights and the response to it; returns upper_loss, moved and passes."""
        direction = self.gradient()
        self.log_weights = self.log_weights - self.alpha * direction
        n_newton = self._solve()
        upper = float(torch.exp(1 - self.problem.valid @ self._y).sum())
        return {"upper_loss": upper, "moved": float(direction.norm()), "passes": n_newton + 1}

    def gradient(self) -> Tensor:
        """Of the validation loss with respect to the log-weights: (n,)."""
        valid = self.problem.valid
        slope = -valid.T @ torch.exp(1 - valid @ self._y)
        slack, hessian = self._curvature(self._y)
        return self.log_weights.exp() * slack * (self._rows @ torch.linalg.solve(hessian, slope))

    def respond(self) -> list[Tensor]:
        """Write the slacks into the problem's caps and return its exact lower solution for them."""
        with torch.no_grad():
            self.problem.c.copy_(self.problem.loose(self.y))
        return self.problem.respond()

    def _curvature(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Slacks (n,) and the Hessian of the active set."""
        slack = (1 - self._rows @ y).clamp(min=0)
        active = self._rows[slack > 0]
        weights = self.log_weights[slack > 0].exp()
        return slack, self._ridge.diag() + active.T @ (weights[:, None] * active)

    def _loss(self, y: Tensor) -> Tensor:
        slack = (1 - self._rows @ y).clamp(min=0)
        return 0.5 * (self._ridge * y.square()).sum() + 0.5 * (self.log_weights.exp() * slack.square()).sum()

    def _solve(self, n_max: int = 100, tolerance: float = 1e-10) -> int:
        """Newton's method with halved steps, from the last response. Returns the number of steps."""
        for n_done in range(n_max):
            slack, hessian = self._curvature(self._y)
            slope = self._ridge * self._y - self._rows.T @ (self.log_weights.exp() * slack)
            if slope.norm() < tolerance:
                return n_done
            # The bias has no curvature of its own; a trace of it serves where no sample is active.
            direction = torch.linalg.solve(hessian + 1e-12 * torch.eye(len(slope), dtype=slope.dtype), slope)
            size, before = 1.0, self._loss(self._y)
            while size > 1e-8 and self._loss(self._y - size * direction) > before - 1e-4 * size * slope @ direction:
                size *= 0.5
            self._y = self._y - size * direction
        return n_max
