"""A bilevel problem with a shared variable whose solutions are known in closed form."""

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


def _half_square(x: Tensor) -> Tensor:
    return 0.5 * x.square().sum()
