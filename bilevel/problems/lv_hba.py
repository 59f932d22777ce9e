"""LV-HBA: proximal Lagrangian value function, Hessian-free; a baseline for affine constraints."""

from typing import Any

import torch
from torch import Tensor

from bilevel.optim import vector
from bilevel.problems.qp import QuadraticProgram


class LvHba:
    r"""One-loop bilevel gradient descent whose pairs (x, y) stay feasible by projection on the coupled set.

        v(x, y, z) = min_theta max_{lambda >= 0, nu}  g(x, theta) + <lambda, c(x, theta)> + <nu, e(x, theta)>
                                                      + |theta - y|^2 / (2 gamma1) - |(lambda, nu) - z|^2 / (2 gamma2)

        min_{(x, y) in C, z}  f(x, y)   subject to   g(x, y) - v(x, y, z) <= 0,   C = {c <= 0, e = 0, bounds}

    One step, k = 1, 2, ..., with the weight p_k = 1 / (c_0 k^q) of the upper loss:

        theta  <- Proj_Y(theta - eta [grad_y (g + <lambda, c> + <nu, e>)(x, theta) + (theta - y) / gamma1])
        lambda <- max(0, lambda + eta [c(x, theta_old) - (lambda - z) / gamma2]),    likewise nu without the maximum
        d_x = p_k d_x f(x, y) + d_x g(x, y) - d_x (g + <lambda, c> + <nu, e>)(x, theta)
        d_y = p_k d_y f(x, y) + d_y g(x, y) - (y - theta) / gamma1
        (x, y) <- Proj_C((x, y) - alpha (d_x, d_y)),     z <- Proj_Z(z - beta (z - (lambda, nu)) / gamma2)

    Proj_C is a quadratic program in all variables at once, which is what the method costs. x moves by its gradient as
    well as by the projection. The pair is kept in the problem's own parameters.

        method = LvHba(problem, *problem.bounds())
        rows = record(method.step, 200, lambda: at_both(method.y, problem.respond(), problem.evaluate))

    Args:
        problem: A `bilevel.optim.problem.ConstrainedProblem` whose constraints are affine in (x, y) jointly.
        low: Least values of (x, y), flattened; -inf where free.
        high: Largest ones.
        gamma1: Proximal parameter of theta.
        gamma2: Proximal parameter of the multipliers.
        alpha: Step of (x, y).
        eta: Step of (theta, lambda, nu).
        beta: Step of z; None: alpha.
        c_0: Scale of the penalty.
        c_power: q, below 1/2 in theory.
        z_max: Z is the box [0, z_max] (for equations [-z_max, z_max]).

    Raises:
        ValueError: The constraints are not affine.

    References:
        Yao et al., Constrained bi-level optimization: proximal Lagrangian value function approach and Hessian-free
        algorithm, arXiv 2401.16164, Algorithm 1.
    Deviations:
        Equations are kept as such. The released adaptation to SVM drops the gradient step of x; here x makes it.
    """

    def __init__(
        self,
        problem: Any,
        low: Tensor,
        high: Tensor,
        gamma1: float = 0.1,
        gamma2: float = 0.1,
        alpha: float = 0.01,
        eta: float = 0.001,
        beta: float | None = None,
        c_0: float = 1.0,
        c_power: float = 0.5,
        z_max: float = 1e3,
    ) -> None:
        if min(gamma1, gamma2, alpha, eta, c_0) <= 0:
            raise ValueError(f"gamma {gamma1}, {gamma2}, alpha {alpha}, eta {eta}, c_0 {c_0}: expected values above 0")
        self.problem = problem
        self.gamma1, self.gamma2, self.alpha, self.eta = gamma1, gamma2, alpha, eta
        self.beta = alpha if beta is None else beta
        self.c_0, self.c_power, self.z_max = c_0, c_power, z_max
        self._x, self.y = list(problem.upper_params()), list(problem.lower_params())
        self._project = JointProjection(problem, low, high)
        self.theta = vector.copies(self.y)
        c, e = (part.detach() for part in problem.constraints(()))
        self.multipliers, self.z = torch.zeros_like(torch.cat([c, e])), torch.zeros_like(torch.cat([c, e]))
        self._least = torch.cat([torch.zeros_like(c), torch.full_like(e, -torch.inf)])

    def step(self, number: int) -> dict[str, float]:
        """Step number 1, 2, ...; returns upper_loss, moved (the step of x over alpha) and passes."""
        problem, weight = self.problem, number**-self.c_power / self.c_0
        with vector.at(self.y, self.theta):
            values = torch.cat(problem.constraints(()))
            lagrangian = problem.lower(()) + self.multipliers @ values
            slope = vector.grad(lagrangian, self.y)
        theta = [
            t - self.eta * (d + (t - y.detach()) / self.gamma1)
            for t, d, y in zip(self.theta, slope, self.y, strict=True)
        ]
        rise = values.detach() - (self.multipliers - self.z) / self.gamma2
        self.multipliers = torch.maximum(self.multipliers + self.eta * rise, self._least)
        with vector.at(self.y, theta):
            problem.project_lower()
            value = problem.lower(()) + self.multipliers @ torch.cat(problem.constraints(()))
            d_x = vector.grad(value, self._x)
        self.theta = theta
        upper = problem.upper(())
        slopes = vector.grad(weight * upper + problem.lower(()), [*self._x, *self.y])
        d_x = vector.axpy(-1.0, d_x, slopes[: len(self._x)])
        pull = [(y.detach() - t) / self.gamma1 for y, t in zip(self.y, theta, strict=True)]
        d_y = vector.axpy(-1.0, pull, slopes[len(self._x) :])
        before = vector.copies(self._x)
        with torch.no_grad():
            for p, d in zip([*self._x, *self.y], [*d_x, *d_y], strict=True):
                p.sub_(d, alpha=self.alpha)
            self._project()
        z = self.z - self.beta * (self.z - self.multipliers) / self.gamma2
        self.z = torch.maximum(z, self._least).clamp(-self.z_max, self.z_max)
        moved = vector.norm(vector.axpy(-1.0, before, vector.copies(self._x)))
        return {"upper_loss": float(upper.detach()), "moved": float(moved) / self.alpha, "passes": 4}


class JointProjection:
    """Moves x and y of a problem, in place, to the nearest pair that keeps affine constraints and bounds.

    Args:
        problem: Gives parameters and constraints; the coefficients are read off once, by differentiation.
        low: Least values of (x, y), flattened.
        high: Largest ones.

    Raises:
        ValueError: The constraints are not affine in (x, y).
    """

    def __init__(self, problem: Any, low: Tensor, high: Tensor) -> None:
        self._params = [*problem.upper_params(), *problem.lower_params()]
        here = vector.flatten(vector.copies(self._params))
        n_inequalities = len(problem.constraints(())[0])
        rows, values = self._linearise(problem)
        elsewhere = [p + 0.5 + torch.arange(p.numel(), dtype=p.dtype).view_as(p) / here.numel() for p in self._params]
        with vector.at(self._params, [p.detach() for p in elsewhere]):
            found, there = torch.cat(problem.constraints(())).detach(), vector.flatten(vector.copies(self._params))
        if not torch.allclose(found, values + rows @ (there - here), rtol=1e-6, atol=1e-6):
            raise ValueError("constraints are not affine in (x, y); expected that, a projection is solved as a QP")
        limits = rows @ here - values
        eye = torch.eye(len(here), dtype=here.dtype)
        at_most, at_least = torch.isfinite(high), torch.isfinite(low)
        inequality = torch.cat([rows[:n_inequalities], eye[at_most], -eye[at_least]])
        self._right = torch.cat([limits[:n_inequalities], high[at_most], -low[at_least]])
        self._equal = limits[n_inequalities:]
        self._program = QuadraticProgram(eye, rows[n_inequalities:], inequality)

    def _linearise(self, problem: Any) -> tuple[Tensor, Tensor]:
        """Jacobian (m, n) and values (m,) of all constraints."""
        values = torch.cat(problem.constraints(()))
        eye = torch.eye(len(values), dtype=values.dtype)
        parts = torch.autograd.grad(values, self._params, eye, is_grads_batched=True, allow_unused=True)
        filled = [
            p.new_zeros(len(values), p.numel()) if part is None else part.reshape(len(values), -1)
            for part, p in zip(parts, self._params, strict=True)
        ]
        return torch.cat(filled, 1).detach(), values.detach()

    def __call__(self) -> None:
        """Project."""
        nearest = self._program.solve(-vector.flatten(vector.copies(self._params)), self._equal, self._right)
        with torch.no_grad():
            for p, part in zip(self._params, nearest.split([p.numel() for p in self._params]), strict=True):
                p.copy_(part.view_as(p))
