"""Bilevel problems whose levels own a backbone each, tied by a proximal term (BiSSL)."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from bilevel.optim import hessian, linear_solve, vector
from bilevel.optim.problem import Problem
from bilevel.optim.solver import BilevelSolver, refuse_shared, report


class Solver(BilevelSolver):
    r"""BiSSL: the lower backbone is pulled to the upper one, and the upper level looks through that pull.

    Let x = (theta_x, phi) and y = (theta_y, eta), the backbones theta paired tensor by tensor; f(theta, phi) depends on
    x alone and g(theta, eta) on y alone. Then

        min_{theta_x, phi} f(theta*(theta_x), phi) + c f(theta_x, phi)
        (theta*, eta*) = argmin_{theta, eta} g(theta, eta) + lam/2 |theta - theta_x|^2

    and, since d theta*/d theta_x = (I + H/lam)^{-1} with H the block of d^2 g in theta,

        theta_x.grad += (I + H/(lam + kappa))^{-1} d_theta f(theta_y, phi) + c d_theta f(theta_x, phi)
        phi.grad     += d_phi f(theta_y, phi) + c d_phi f(theta_x, phi)
        theta_y.grad += d_theta g(theta_y, eta) + lam (theta_y - theta_x)
        eta.grad     += d_eta g(theta_y, eta)

    f(theta_y, .) is the upper loss with the values of theta_y in place of those of theta_x. The caller's optimizers
    alternate: lower steps with `upper_batch` None, then upper steps, for which one lower batch may be kept. Both
    gradients are written when both batches are given.

    Args:
        lam: Strength of the pull, lambda.
        kappa: Damping of the solve alone. H/(lam + kappa) is small unless H has eigenvalues of about kappa: the larger,
            the nearer to the identity, whose limit needs no H at all (`linear_solver: identity`).
        c: Weight of the direct term; 0 leaves out its pass.
        n_pairs: So many leading tensors of both `upper_params` and `lower_params` are the backbone. None: as many as
            agree in shape, which counts in a head that happens to agree, too.
        linear_solver: cg, neumann (with steps of 1, as the matrix is I + ...; converges for |H| < lam + kappa) or
            identity.
        n_terms: Products of H in a solve.
        tolerance: Relative residual at which a solve ends early.
        layerwise: CG with steps of each tensor's own, as released.
        hvp: exact, finite_difference or forward_difference (see `hessian`).
        fd_step: Length of the displacement; None: by precision.

    References:
        BiSSL, arXiv 2410.02387, and both released code versions, which give lambda, kappa, c and the CG.
    Deviations:
        CG is over all tensors at once (released: layer-wise, which solves another system if H has blocks between
        layers), checks the curvature, and may stop by its residual; the released one has no test. A non-finite product
        ends the solve instead of becoming 0. The published Jacobian is the case kappa = 0; kappa follows the released
        code. Averages of H over several batches, and pulls of theta_x towards theta_y every 100 rounds (first released
        version only), are left out.
    """

    second_order = True

    def __init__(
        self,
        lam: float = 0.001,
        kappa: float = 10.0,
        c: float = 1.0,
        n_pairs: int | None = None,
        linear_solver: str = "cg",
        n_terms: int = 5,
        tolerance: float = 0.0,
        layerwise: bool = False,
        hvp: str = "exact",
        fd_step: float | None = None,
    ) -> None:
        linear_solve.check_conf(linear_solver, n_terms, 1.0, kappa, tolerance)
        hessian.check_conf(hvp, fd_step)
        if lam <= 0 or c < 0:
            raise ValueError(f"lam {lam}, c {c}: expected lam > 0 (no pull, no hypergradient) and c >= 0")
        self.lam, self.kappa, self.c, self.n_pairs = lam, kappa, c, n_pairs
        self.linear_solver, self.n_terms, self.tolerance = linear_solver, n_terms, tolerance
        self.layerwise, self.hvp, self.fd_step = layerwise, hvp, fd_step
        self.second_order = hvp == "exact" and linear_solver != "identity"
        self.negative_curvature = False

    def backward(
        self,
        problem: Problem,
        upper_batch: Any | None,
        lower_batch: Any | None,
        scale_loss: Callable[[Tensor], Tensor] = lambda loss: loss,
    ) -> dict[str, float]:
        """Add the gradients of the class docstring to x.grad and y.grad; see `BilevelSolver.backward`.

        Returns:
            upper_loss f(theta_y, phi), lower_loss g, penalty lam/2 |theta_y - theta_x|^2, residual of the linear solve
            (nan for identity and layer-wise CG), norms of the gradients of f at theta_y and of g, and passes: 1 for g,
            1 or 2 (c > 0) for f, and 2 (forward: 1) for each product.

        Raises:
            ValueError: No lower batch, a parameter in both levels, or backbones that do not match.
        """
        if lower_batch is None:
            raise ValueError("no lower batch: the second derivatives of the lower loss are taken on it")
        refuse_shared(self, problem)
        upper, lower = list(problem.upper_params()), list(problem.lower_params())
        n = self._count_pairs(upper, lower)
        found: dict[str, float | Tensor] = {"passes": 0}
        through, direct = [], []
        if upper_batch is not None:
            through, direct = self._upper(problem, upper_batch, upper, lower[:n], found)
        slope, solution = self._lower(problem, lower_batch, lower, through[:n], found)
        scale = scale_loss(torch.ones((), device=slope[0].device))
        if upper_batch is not None:
            vector.add_to_grad(upper, [*solution, *through[n:]], scale)
        if direct:
            vector.add_to_grad(upper, direct, self.c * scale)
        apart = [y.detach() - x.detach() for x, y in zip(upper[:n], lower[:n], strict=True)]
        vector.add_to_grad(lower, [*vector.axpy(self.lam, apart, slope[:n]), *slope[n:]], scale)
        return report(**found, penalty=0.5 * self.lam * float(vector.norm(apart)) ** 2)

    def _upper(
        self,
        problem: Problem,
        batch: Any,
        upper: Sequence[Parameter],
        backbone: Sequence[Parameter],
        found: dict[str, float | Tensor],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Gradients in x of f(theta_y, phi) and of f(theta_x, phi), the latter empty if c is 0. Adds to `found`."""
        with vector.at(upper[: len(backbone)], [p.detach() for p in backbone]):
            f = problem.upper(batch)
            through = vector.grad(f, upper)
        direct = vector.grad(problem.upper(batch), upper) if self.c > 0 else []
        found |= {"upper_loss": f.detach(), "grad_norm_upper": vector.norm(through)}
        found["passes"] += 2 if direct else 1
        return through, direct

    def _lower(
        self,
        problem: Problem,
        batch: Any,
        lower: Sequence[Parameter],
        v: list[Tensor],
        found: dict[str, float | Tensor],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """(d_y g, (I + H/s)^{-1} v) for s = lam + kappa; v is empty in a lower step. Adds to `found`."""
        if not v or self.linear_solver == "identity":
            g = problem.lower(batch)
            slope = vector.grad(g, lower)
            found |= {"lower_loss": g.detach(), "grad_norm_lower": vector.norm(slope)}
            found["passes"] += 1
            return slope, v
        size = self.lam + self.kappa
        curvature = hessian.curvature(self.hvp, lambda: problem.lower(batch), [], lower, self.fd_step)
        heads = [torch.zeros_like(p) for p in lower[len(v) :]]
        solution = linear_solve.solve(
            self.linear_solver,
            lambda p: [h / size for h in curvature.product([*p, *heads])[: len(v)]],
            v,
            self.n_terms,
            damping=1.0,
            tolerance=self.tolerance,
            step=1.0,
            layerwise=self.layerwise,
        )
        self.negative_curvature = solution.negative_curvature
        found |= {"lower_loss": curvature.loss, "grad_norm_lower": vector.norm(curvature.gradient)}
        found["residual"] = solution.residual
        found["passes"] += 1 + curvature.passes * solution.n_products
        return curvature.gradient, solution.w

    def _count_pairs(self, upper: Sequence[Parameter], lower: Sequence[Parameter]) -> int:
        """How many leading tensors are the backbone."""
        fits = [x.shape == y.shape for x, y in zip(upper, lower, strict=False)]
        n = [*fits, False].index(False) if self.n_pairs is None else self.n_pairs
        if not (0 <= n <= len(fits) and all(fits[:n])):
            raise ValueError(
                f"n_pairs {n}: the first {n} tensors of upper_params ({len(upper)} in all) and of lower_params "
                f"({len(lower)}) must have equal shapes; list both backbones first and in the same order"
            )
        if n == 0 and self.n_pairs is None:
            warnings.warn("no leading tensors of x and y agree in shape: nothing ties the levels", stacklevel=3)
        return n
