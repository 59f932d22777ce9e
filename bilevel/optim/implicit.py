"""Implicit differentiation: the hypergradient from the condition that the lower gradient is zero."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bilevel.optim import hessian, linear_solve, vector
from bilevel.optim.problem import Problem
from bilevel.optim.solver import BilevelSolver, refuse_shared, report


class Solver(BilevelSolver):
    r"""Hypergradient of f(x, y*(x)) by the implicit function theorem, at the present y.

        (H + damping I) w = d_y f(x, y),   H = d^2 g / dy^2
        x.grad += d_x f(x, y) - (d^2 g / dx dy)' w
        y.grad += d_y g(x, y)

    The caller's optimizer trains y along y.grad; `upper_batch` None is such a lower step alone. x.grad is exact where
    d_y g = 0 and H is positive definite, and otherwise errs in proportion to the distance of y from y*(x).

    H enters by products only, on one batch and with one draw of all random numbers within a call (see `hessian`).
    Afterwards `negative_curvature` says whether the last solve met a direction in which H + damping I is not positive.

    Args:
        linear_solver: cg, neumann or identity (w = d_y f, as in DARTS and T1-T2: no product, only the cross one).
        n_terms: Products of H in a solve: steps of CG, or terms of the Neumann series after the first.
        damping: Added to H; biases w towards d_y f / damping, and makes an indefinite H definite.
        tolerance: Relative residual at which a solve ends early.
        neumann_step: Step size of the Neumann series, below 2 / (largest eigenvalue of H + damping I).
        hvp: exact (double backward), finite_difference (central, two gradients a product) or forward_difference (one).
        fd_step: Length of the displacement; None: by precision (see `hessian.finite_difference`).
        layerwise: CG with steps of each tensor's own (see `linear_solve.conjugate_gradient`).

    References:
        Pedregosa, Hyperparameter optimization with approximate gradient, arXiv 1602.02355, Algorithm 1 (CG).
        Lorraine, Vicol and Duvenaud, arXiv 1911.02590, Algorithms 2 and 3 (Neumann).
        Liu, Simonyan and Yang, DARTS, arXiv 1806.09055, eq. 7 and 8 (identity, finite differences).
    Deviations:
        Solves end early by their residual; curvature is checked; a bad direction ends CG with the last good iterate.
        DARTS takes the lower gradient after one virtual step of y; here y is where the caller's optimizer left it.
    """

    second_order = True

    def __init__(
        self,
        linear_solver: str = "cg",
        n_terms: int = 5,
        damping: float = 0.0,
        tolerance: float = 1e-3,
        neumann_step: float = 0.1,
        hvp: str = "exact",
        fd_step: float | None = None,
        layerwise: bool = False,
    ) -> None:
        linear_solve.check_conf(linear_solver, n_terms, neumann_step, damping, tolerance)
        hessian.check_conf(hvp, fd_step)
        self.linear_solver, self.n_terms, self.neumann_step = linear_solver, n_terms, neumann_step
        self.damping, self.tolerance, self.layerwise = damping, tolerance, layerwise
        self.hvp, self.fd_step = hvp, fd_step
        self.second_order = hvp == "exact"
        self.negative_curvature = False

    def backward(
        self,
        problem: Problem,
        upper_batch: Any | None,
        lower_batch: Any | None,
        scale_loss: Callable[[Tensor], Tensor] = lambda loss: loss,
    ) -> dict[str, float]:
        """Add the hypergradient to x.grad and d_y g to y.grad; see `BilevelSolver.backward`.

        Returns:
            upper_loss f(x, y), lower_loss g(x, y), residual of the linear solve (nan for identity and layerwise CG),
            norms of d_x f and d_y g, and passes: 2, and for each product and the cross product 2 (forward: 1).

        Raises:
            ValueError: No lower batch, or a parameter in both levels.
        """
        if lower_batch is None:
            raise ValueError("no lower batch: the second derivatives of the lower loss are taken on it")
        refuse_shared(self, problem)
        upper, lower = list(problem.upper_params()), list(problem.lower_params())
        if upper_batch is None:
            g = problem.lower(lower_batch)
            slope = vector.grad(g, lower)
            vector.add_to_grad(lower, slope, scale_loss(torch.ones((), device=g.device)))
            return report(lower_loss=g.detach(), grad_norm_lower=vector.norm(slope), passes=1)
        f = problem.upper(upper_batch)
        grads = vector.grad(f, [*upper, *lower])
        direct, v = grads[: len(upper)], grads[len(upper) :]
        curvature = hessian.curvature(self.hvp, lambda: problem.lower(lower_batch), upper, lower, self.fd_step)
        solution = linear_solve.solve(
            self.linear_solver,
            curvature.product,
            v,
            self.n_terms,
            damping=self.damping,
            tolerance=self.tolerance,
            step=self.neumann_step,
            layerwise=self.layerwise,
        )
        self.negative_curvature = solution.negative_curvature
        hypergradient = vector.axpy(-1.0, curvature.cross(solution.w), direct)
        scale = scale_loss(torch.ones((), device=f.device))
        vector.add_to_grad(upper, hypergradient, scale)
        vector.add_to_grad(lower, curvature.gradient, scale)
        return report(
            upper_loss=f.detach(),
            lower_loss=curvature.loss,
            residual=solution.residual,
            grad_norm_upper=vector.norm(direct),
            grad_norm_lower=vector.norm(curvature.gradient),
            passes=2 + curvature.passes * (solution.n_products + 1),
        )
