"""Penalty method for a lower level with coupled constraints, solved by primal-dual loops (BLOCC)."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from bilevel.optim import vector
from bilevel.optim.problem import ConstrainedProblem
from bilevel.optim.saddle import Saddle, inner
from bilevel.optim.solver import BilevelSolver, check_keys, refuse_shared, report, require_both


class Solver(BilevelSolver):
    r"""BLOCC: gradient of the penalised value-function problem when the lower level has coupled constraints.

        v(x)       = max_{mu >= 0} min_{y in Y} g + <mu, c> + <nu, e>                            -> y_g, mu_g, nu_g
        F_gamma(x) = max_{mu >= 0} min_{y in Y} f + gamma (g - v(x)) + <mu, c> + <nu, e>         -> y_F, mu_F, nu_F

        grad v       = d_x g(x, y_g) + <mu_g, d_x c(x, y_g)> + <nu_g, d_x e(x, y_g)>
        grad F_gamma = d_x f(x, y_F) + gamma [d_x g(x, y_F) - grad v] + <mu_F, d_x c(x, y_F)> + <nu_F, d_x e(x, y_F)>

    Both saddles are solved by `Saddle`, each from where it ended the last time. x.grad receives grad F_gamma; y.grad
    receives nothing: the responses are `value.y` (y_g, what a user of x gets) and `penalised.y` (y_F, which has seen f
    and, for finite gamma, is not the lower level's solution).

    Args:
        gamma: Penalty weight.
        n_iter: T, iterations of each saddle.
        n_primal: T_y, primal steps of an iteration; 1 is enough for constraints affine in y.
        lr_y: Primal step of the value saddle.
        lr_mu: Dual step of the value saddle.
        lr_y_penalised: Primal step of the penalised saddle; None: lr_y / gamma, as its curvature grows with gamma.
        lr_mu_penalised: Dual step of it; None: gamma lr_mu, as its multipliers do.
        accelerated: Nesterov's momentum on the multipliers.
        extrapolated: Primal steps see extrapolated multipliers (see `Saddle`).
        tolerance: End of a saddle's iterations.
        multiplier_terms: False drops <mu, d_x c> and <nu, d_x e>: the plain value-function penalty, a baseline that is
            wrong when constraints move with x.

    References:
        Jiang et al., A primal-dual-assisted penalty approach to bilevel optimization with coupled constraints,
        arXiv 2406.10148. Extrapolation: Chambolle and Pock, A first-order primal-dual algorithm for convex problems, J.
        Math. Imaging Vis. 40 (2011), Algorithm 1; with gradient steps on a smooth part: Condat (2013), Vu (2013).
    Deviations:
        Step sizes of the penalised saddle are scaled by gamma unless given. The released code has no momentum, the
        paper no extrapolation.
    """

    accepts_constraints = True

    def __init__(
        self,
        gamma: float = 12.0,
        n_iter: int = 20,
        n_primal: int = 20,
        lr_y: float = 1e-3,
        lr_mu: float = 1e-4,
        lr_y_penalised: float | None = None,
        lr_mu_penalised: float | None = None,
        accelerated: bool = False,
        extrapolated: bool = False,
        tolerance: float = 0.0,
        multiplier_terms: bool = True,
    ) -> None:
        if gamma <= 0:
            raise ValueError(f"gamma {gamma}: expected a penalty weight above 0")
        self.gamma = gamma
        self.multiplier_terms = multiplier_terms
        self.value = Saddle(n_iter, n_primal, lr_y, lr_mu, accelerated, extrapolated, tolerance)
        self.penalised = Saddle(
            n_iter,
            n_primal,
            lr_y / gamma if lr_y_penalised is None else lr_y_penalised,
            lr_mu * gamma if lr_mu_penalised is None else lr_mu_penalised,
            accelerated,
            extrapolated,
            tolerance,
        )

    def backward(
        self,
        problem: ConstrainedProblem,
        upper_batch: Any | None,
        lower_batch: Any | None,
        scale_loss: Callable[[Tensor], Tensor] = lambda loss: loss,
    ) -> dict[str, float]:
        """Add grad F_gamma to x.grad; see `BilevelSolver.backward`.

        Returns:
            upper_loss f(x, y_F), lower_loss g(x, y_F), gap g(x, y_F) - g(x, y_g), penalty gamma gap, residual: the
            larger primal residual of both saddles, max_violation at y_g (the attribute `violations` holds both), norms
            of d_x f and of the change of the lower Lagrangian between y_g and y_F.
        """
        require_both(upper_batch, lower_batch)
        upper, lower = list(problem.upper_params()), list(problem.lower_params())
        refuse_shared(self, problem)
        value = self.value.solve(problem, lower_batch, lambda: problem.lower(lower_batch), 1)
        penalised = self.penalised.solve(
            problem,
            lower_batch,
            lambda: problem.upper(upper_batch) + self.gamma * problem.lower(lower_batch),
            2,
        )
        with vector.at(lower, self.value.y):
            g_value = problem.lower(lower_batch)
            grad_v = vector.grad(g_value + self._multipliers(problem, lower_batch, self.value), upper)
        with vector.at(lower, self.penalised.y):
            f, g = problem.upper(upper_batch), problem.lower(lower_batch)
            grad_f = vector.grad(f, upper)
            grad_g = vector.grad(g + self._multipliers(problem, lower_batch, self.penalised) / self.gamma, upper)
        total = [a + self.gamma * (b - c) for a, b, c in zip(grad_f, grad_g, grad_v, strict=True)]
        vector.add_to_grad(upper, total, scale_loss(torch.ones((), device=f.device)))
        self.violations = {"y_g": value.violation, "y_F": penalised.violation}
        gap = float(g.detach()) - float(g_value.detach())
        return report(
            upper_loss=f.detach(),
            lower_loss=g.detach(),
            gap=gap,
            penalty=self.gamma * gap,
            residual=max(value.residual, penalised.residual),
            max_violation=value.violation,
            grad_norm_upper=vector.norm(grad_f),
            grad_norm_lower=vector.norm(vector.axpy(-1.0, grad_v, grad_g)),
            passes=value.passes + penalised.passes + 3,
        )

    def _multipliers(self, problem: ConstrainedProblem, batch: Any, saddle: Saddle) -> Tensor:
        """The terms <mu, c> + <nu, e>."""
        inequality, equality = problem.constraints(batch)
        terms = inner(saddle.mu, inequality) + inner(saddle.nu, equality)
        return terms if self.multiplier_terms else terms.detach()

    def state_dict(self) -> dict[str, Any]:
        """Both responses with their multipliers."""
        return {"value": self.value.state_dict(), "penalised": self.penalised.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore."""
        check_keys(self, state, ("value", "penalised"))
        self.value.load_state_dict(state["value"])
        self.penalised.load_state_dict(state["penalised"])

    def reset(self) -> None:
        """Start both saddles from the problem's y and multipliers 0."""
        for saddle in (self.value, self.penalised):
            saddle.y = saddle.mu = saddle.nu = None
