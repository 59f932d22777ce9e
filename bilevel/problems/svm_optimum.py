"""The SVM problem's global optimum, from an equivalent convex problem with one level."""

import torch
from torch import Tensor

from bilevel.problems.svm import Svm


class Optimum:
    r"""min_y f_valid(y) + R(c(y)),   c(y) = max(floor, 1 - A y), the smallest caps that y keeps, A = rows l (z, 1).

    Every feasible pair of the bilevel problem has c >= c(y), and R grows with c, so this is a lower bound. It is
    attained: at the caps c(y) no direction d with A d >= 0 is left unless a plane separates the samples, hence y is the
    only feasible machine, and the lower solution. The lower loss 1/2 |w|^2 has then no say at all.

    Two consequences. The optimum fits the validation samples with all its parameters, held back by R alone. And it
    lies where the feasible set is a single point: Slater's condition fails, multipliers are unbounded, and any smaller
    cap leaves nothing feasible.

    Args:
        problem: Its regulariser must not be "none", which would leave the caps free. Caps are overwritten.
    """

    def __init__(self, problem: Svm) -> None:
        if problem.regulariser == "none":
            raise ValueError("regulariser none: the optimum needs a penalty on caps; expected norm or half_square")
        self._problem = problem
        self._y = torch.zeros_like(problem.y.detach(), requires_grad=True)
        settings = {"max_iter": 20, "line_search_fn": "strong_wolfe", "tolerance_grad": 1e-9, "tolerance_change": 1e-14}
        self._optimizer = torch.optim.LBFGS([self._y], history_size=30, **settings)

    @property
    def y(self) -> list[Tensor]:
        """The present point."""
        return [self._y.detach()]

    def step(self, number: int) -> dict[str, float]:
        """At most 20 steps of L-BFGS; returns upper_loss, moved and passes."""
        n_done, before = 0, self._y.detach().clone()

        def closure() -> Tensor:
            nonlocal n_done
            n_done += 1
            self._optimizer.zero_grad()
            loss = self._loss()
            loss.backward()
            return loss

        self._optimizer.step(closure)
        with torch.no_grad():
            self._problem.c.copy_(self._problem.loose(self.y))
            moved = float((self._y - before).norm())
            return {"upper_loss": float(self._loss()), "moved": moved, "passes": n_done}

    def _loss(self) -> Tensor:
        problem = self._problem
        caps = (1 - problem.train @ self._y).clamp(min=problem.floor)
        size = torch.linalg.vector_norm(caps) if problem.regulariser == "norm" else 0.5 * caps.square().sum()
        return torch.exp(1 - problem.valid @ self._y).sum() + problem.weight * size
