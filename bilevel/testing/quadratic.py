"""Bilevel problems whose solutions, responses and hypergradients are known in closed form."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter


class SharedQuadratic:
    r"""Two quadratics over a shared theta, with a head each.

        f(theta, phi) = 1/2 |theta - t|^2 + 1/2 |phi - P theta|^2
        g(theta, eta) = 1/2 |A theta - b|^2 + 1/2 |eta - Q theta|^2

    A has full row rank and fewer rows than columns, so the lower level leaves an affine set {theta: A theta = b} to
    choose from, and the bilevel solution is the point of it that is nearest to t. All singular values of A lie in
    [1, 2], which bounds the distance of the penalised solution from it by |A t - b| / gamma.

    It is a `bilevel.optim.problem.Problem`; batches are ignored.

    Args:
        dim: Size of theta.
        rank: Rows of A; less than `dim`.
        head_dim: Size of phi and of eta.
        seed: Seed of t, b, A, P, Q; parameters start at random values, too.
    """

    def __init__(self, dim: int = 6, rank: int = 3, head_dim: int = 2, seed: int = 0) -> None:
        if not 0 < rank < dim:
            raise ValueError(f"rank {rank}, dim {dim}: expected 0 < rank < dim")
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        left, right = torch.linalg.qr(normal(rank, rank))[0], torch.linalg.qr(normal(dim, dim))[0]
        self.a = left @ torch.linspace(1, 2, rank, dtype=torch.float64).diag() @ right[:rank]
        self.t, self.b = normal(dim), normal(rank)
        self.p, self.q = normal(head_dim, dim), normal(head_dim, dim)
        self.theta = Parameter(normal(dim))
        self.phi, self.eta = Parameter(normal(head_dim)), Parameter(normal(head_dim))

    def upper(self, batch: Any) -> Tensor:
        """The loss f."""
        return _half_square(self.theta - self.t) + _half_square(self.phi - self.p @ self.theta)

    def lower(self, batch: Any) -> Tensor:
        """The loss g; its minimum is 0."""
        return _half_square(self.a @ self.theta - self.b) + _half_square(self.eta - self.q @ self.theta)

    def upper_params(self) -> list[Parameter]:
        """Theta and phi."""
        return [self.theta, self.phi]

    def lower_params(self) -> list[Parameter]:
        """Theta and eta."""
        return [self.theta, self.eta]

    def penalised(self, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
        """(theta, phi, eta) that minimise f + gamma g: (I + gamma A'A) theta = t + gamma A'b, and heads that fit."""
        eye = torch.eye(len(self.t), dtype=self.t.dtype)
        theta = torch.linalg.solve(eye + gamma * self.a.T @ self.a, self.t + gamma * self.a.T @ self.b)
        return theta, self.p @ theta, self.q @ theta

    def bilevel(self) -> tuple[Tensor, Tensor, Tensor]:
        """(theta, phi, eta) that minimise f over the minimisers of g: the projection of t onto {A theta = b}."""
        residual = self.a @ self.t - self.b
        theta = self.t - self.a.T @ torch.linalg.solve(self.a @ self.a.T, residual)
        return theta, self.p @ theta, self.q @ theta


class Quadratic:
    r"""A quadratic lower level that follows x, and an upper level that wants the response somewhere else.

        g(x, y) = 1/2 (y - A x - c)' H (y - A x - c),   c = mean of the lower batch
        f(x, y) = 1/2 |y - t - b|^2 + rho/2 |x|^2,      b = mean of the upper batch

    The response is y*(x) = A x + c and the hypergradient A' (y* - t - b) + rho x. The spectrum of H lies in [1, 4], so
    the value-function penalty errs by O(1 / gamma), conjugate gradients are exact after n steps, and K gradient steps
    of size eta on g contract by 1 - eta or better. Batches are (B, n) offsets; all gradients are linear in their mean,
    so two halves of a batch on two processes make the whole.

    It is a `bilevel.optim.problem.ConstrainedProblem`, too: with `constrained`, the response must keep

        c(x, y) = w' y - v' x - s <= 0, e(x, y) = z' (y - A x) = 0

    for which `kkt` solves the optimality conditions as one linear system.

    Args:
        n_upper: Size m of x.
        n_lower: Size n of y.
        seed: Seed of all constants and start values.
        dtype: Of everything.
        coupled: False cuts the lower level off x (A = 0): the hypergradient is the direct rho x.
        slack: s of the inequality; a large one makes it inactive.
        constrained: Whether `constraints` returns anything.
    """

    def __init__(
        self,
        n_upper: int = 4,
        n_lower: int = 6,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        coupled: bool = True,
        slack: float = -1.0,
        constrained: bool = False,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        basis = torch.linalg.qr(normal(n_lower, n_lower).double())[0].to(dtype)
        self.h = basis @ torch.linspace(1, 4, n_lower, dtype=dtype).diag() @ basis.T
        self.a, self.t = normal(n_lower, n_upper) * float(coupled), normal(n_lower)
        self.w, self.v, self.z = normal(n_lower), normal(n_upper), normal(n_lower)
        self.rho, self.slack, self.constrained = 0.1, slack, constrained
        self.x, self.y = Parameter(normal(n_upper)), Parameter(normal(n_lower))
        self.upper_batch, self.lower_batch = normal(8, n_lower), normal(8, n_lower)

    def upper(self, batch: Tensor) -> Tensor:
        """The loss f."""
        return 0.5 * (self.y - self.t - batch.mean(0)).square().sum() + 0.5 * self.rho * self.x.square().sum()

    def lower(self, batch: Tensor) -> Tensor:
        """The loss g; its minimum is 0."""
        miss = self.y - self.a @ self.x - batch.mean(0)
        return 0.5 * miss @ self.h @ miss

    def upper_params(self) -> list[Parameter]:
        """The variable x."""
        return [self.x]

    def lower_params(self) -> list[Parameter]:
        """The variable y."""
        return [self.y]

    def constraints(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The inequality (1,) and the equation (1,); nothing unless `constrained`."""
        if not self.constrained:
            return self.y.new_zeros(0), self.y.new_zeros(0)
        inequality = self.w @ self.y - self.v @ self.x - self.slack
        return inequality[None], (self.z @ (self.y - self.a @ self.x))[None]

    def project_lower(self) -> None:
        """Y is the whole space."""

    def response(self) -> Tensor:
        """The unconstrained y*(x): (n,)."""
        return (self.a @ self.x + self.lower_batch.mean(0)).detach()

    def hypergradient(self) -> Tensor:
        """Of f(x, y*(x)), unconstrained: (m,)."""
        return (self.a.T @ (self.response() - self.t - self.upper_batch.mean(0)) + self.rho * self.x).detach()

    def penalised_response(self, gamma: float) -> Tensor:
        """The minimiser y of f + gamma g: (I + gamma H) y = t + b + gamma H y*."""
        eye = torch.eye(len(self.t), dtype=self.t.dtype)
        right = self.t + self.upper_batch.mean(0) + gamma * self.h @ self.response()
        return torch.linalg.solve(eye + gamma * self.h, right)

    def kkt(self, gamma: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(y, mu, nu) of the constrained lower level; with `gamma`, of f + gamma g under the same constraints.

        The inequality is first taken as active; a negative multiplier means that it is not, and it is left out.
        """
        n = len(self.t)
        hessian, pull = self.h, self.h @ self.response()
        if gamma is not None:
            hessian = torch.eye(n, dtype=self.t.dtype) + gamma * self.h
            pull = self.t + self.upper_batch.mean(0) + gamma * pull
        x = self.x.detach()
        for active in (True, False):
            rows = torch.stack([self.w, self.z] if active else [self.z])
            values = [self.z @ (self.a @ x)]
            if active:
                values = [self.v @ x + self.slack, *values]
            corner = rows.new_zeros(len(rows), len(rows))
            system = torch.cat([torch.cat([hessian, rows.T], 1), torch.cat([rows, corner], 1)])
            solution = torch.linalg.solve(system, torch.cat([pull, torch.stack(values)]))
            y, multipliers = solution[:n], solution[n:]
            if active and multipliers[0] >= 0:
                return y, multipliers[:1], multipliers[1:]
        return y, multipliers.new_zeros(1), multipliers

    def half(self, part: int, of: int = 2) -> tuple[Tensor, Tensor]:
        """The share of both batches that process number `part` of `of` gets."""
        return self.upper_batch.chunk(of)[part], self.lower_batch.chunk(of)[part]


class Coupled:
    """min_y (y - 2x)^2 subject to y <= x, x > 0: y* = x, multiplier 2x, v = x^2, v' = 2x (arXiv 2406.10148, Fig. 1).

    The gradient of g alone at (x, y*) is 4x: wrong by exactly the multiplier term 2x. f(x, y) = (y - 1)^2.
    """

    def __init__(self, x: float = 0.7) -> None:
        self.x = Parameter(torch.tensor([x], dtype=torch.float64))
        self.y = Parameter(torch.zeros(1, dtype=torch.float64))

    def upper(self, batch: Sequence) -> Tensor:
        """The loss f."""
        return (self.y - 1).square().sum()

    def lower(self, batch: Sequence) -> Tensor:
        """The loss g."""
        return (self.y - 2 * self.x).square().sum()

    def upper_params(self) -> list[Parameter]:
        """The variable x."""
        return [self.x]

    def lower_params(self) -> list[Parameter]:
        """The variable y."""
        return [self.y]

    def constraints(self, batch: Sequence) -> tuple[Tensor, Tensor]:
        """Y - x <= 0."""
        return self.y - self.x, self.y.new_zeros(0)

    def project_lower(self) -> None:
        """Y is the whole line."""


def _half_square(x: Tensor) -> Tensor:
    return 0.5 * x.square().sum()
