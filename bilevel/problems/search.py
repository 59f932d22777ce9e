"""Search without gradients for the caps of an SVM: candidates are tried, the least validation loss wins."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bilevel.problems.qp import Infeasible, QuadraticProgram
from bilevel.problems.svm import Svm

CONSTANTS = tuple(10.0**k for k in (-3, -2.5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2))


class Search:
    """Tries one candidate a step; the problem's caps and `y` are those of the best so far.

    Args:
        problem: Its caps are overwritten.
        candidates: Caps (n,), one after the other. Each is judged at the lower level's exact solution.
    """

    def __init__(self, problem: Svm, candidates: Iterator[Tensor]) -> None:
        self._problem, self._candidates = problem, candidates
        self.y: list[Tensor] | None = None
        self.best = float("inf")
        self.n_infeasible = 0

    def step(self, number: int) -> dict[str, float]:
        """Try the next candidate; returns the best mean validation loss, moved and passes (one exact solve)."""
        problem, kept = self._problem, self._problem.c.detach().clone()
        with torch.no_grad():
            problem.c.copy_(next(self._candidates))
        try:
            y = problem.respond()
            loss = problem.evaluate(y)["val_loss"]
        except Infeasible:
            self.n_infeasible += 1
            loss = float("inf")
        if loss < self.best:
            self.best, self.y = loss, y
        else:
            with torch.no_grad():
                problem.c.copy_(kept)
        return {"upper_loss": self.best, "n_infeasible": self.n_infeasible, "moved": float("inf"), "passes": 1}


def shared_caps(problem: Svm, caps: Sequence[float]) -> Iterator[Tensor]:
    """One value for all samples. At 1 or more the lower solution is 0, below 1 it exists only for separable samples."""
    for value in caps:
        yield torch.full_like(problem.c, value).detach()


def soft_margin(problem: Svm, constants: Sequence[float] = CONSTANTS) -> Iterator[Tensor]:
    r"""Caps that an ordinary soft-margin machine needs, for each of its constants.

        min 1/2 |w|^2 + r/2 b^2 + C sum_i xi_i,   xi_i >= max(0, 1 - a_i' y)

    With c = xi the capped machine is the same one, for its optimality conditions hold with the same multipliers. This
    is the search that users of an SVM do, a family of one parameter.
    """
    n, n_lower = problem.train.shape
    eye, zeros = torch.eye(n, dtype=problem.train.dtype), problem.train.new_zeros(n, n_lower)
    p = problem.train.new_zeros(n_lower + n, n_lower + n)
    p[range(n_lower), range(n_lower)] = 1.0
    p[n_lower - 1, n_lower - 1] = problem.ridge_b
    rows = torch.cat([torch.cat([-problem.train, -eye], 1), torch.cat([zeros, -eye], 1)])
    program = QuadraticProgram(p, rows[:0], rows)
    right = torch.cat([-torch.ones(n, dtype=p.dtype), torch.zeros(n, dtype=p.dtype)])
    for constant in constants:
        q = torch.cat([torch.zeros(n_lower, dtype=p.dtype), torch.full((n,), constant, dtype=p.dtype)])
        yield problem.loose([program.solve(q, q[:0], right)[:n_lower]])


def random_caps(problem: Svm, generator: torch.Generator, low: float = 1.0, high: float = 5.0) -> Iterator[Tensor]:
    """Caps from U(low, high), but for a random share of the samples from U(0, 1).

    The share is drawn from 1 / n to 1/2, evenly on a logarithmic scale: too many small caps leave nothing feasible,
    without any the lower solution is 0.
    """
    n = len(problem.c)
    while True:
        caps, small, which = (torch.rand(n, generator=generator, dtype=problem.c.dtype) for _ in range(3))
        share = (2.0 / n) ** float(torch.rand(1, generator=generator)) / 2
        yield torch.where(which < share, small, low + (high - low) * caps)
