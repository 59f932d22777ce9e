"""Penalty method on the lower level's value function, for separate variables (PBGD, F2SA)."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from bilevel.optim import rng, vector
from bilevel.optim.problem import Problem
from bilevel.optim.solver import BilevelSolver, check_keys, clones, refuse_shared, report


class Solver(BilevelSolver):
    r"""Gradient of F_gamma = f + gamma (g - v) with an auxiliary lower copy z that follows argmin g(x, .).

    With v(x) = min_y g(x, y), the problem min_x f(x, y*(x)) becomes min_{x,y} f(x, y) + gamma (g(x, y) - v(x)), and
    grad v(x) = d_x g(x, z) at a minimiser z (Danskin). One call:

        n_inner times:  u <- momentum u + d_y g(x, z);   z <- z - lr u              (plain SGD for momentum 0)
        x.grad += scale [d_x f(x, y) + gamma (d_x g(x, y) - d_x g(x, z))]
        y.grad += scale [d_y f(x, y) + gamma d_y g(x, y)]

    z starts from y at the first call and goes on from there; its last inner gradient and d_x g(x, z) come from one
    pass, that is at the point before the last step. So a call takes n_inner + 2 passes, holds one graph at a time and
    needs no second derivative. With y and z settled, x.grad differs from the hypergradient by O(1 / gamma).

    The curvature of F_gamma in (x, y) grows with gamma: set `scale` to 1 / max(1, gamma) (`schedule.Penalty.scale`), or
    divide the step size of y by gamma and take several steps of y for each of x. All passes over g draw the same mask
    and dropout, because gamma multiplies their difference.

    A lower batch alone (exploration) adds d_y g to y.grad with weight 1 and leaves x, z alone. An upper batch alone is
    refused: without g the step is not bilevel. If an inner gradient is not finite, z stays as it was.

    Args:
        gamma: Penalty weight; set the attribute before each step to follow a ramp (`schedule.Penalty.gamma`).
        scale: Factor on the whole gradient.
        n_inner: Steps on z in a call.
        lr: Step size of z; below 2 over the largest curvature of g in y.
        momentum: Of the steps on z.

    References:
        Shen and Chen, On penalty-based bilevel gradient descent method, arXiv 2302.05185 (V-PBGD).
        Kwon et al., A fully first-order method for stochastic bilevel optimization, arXiv 2301.10945 (F2SA).
    Deviations:
        Both methods step x and y by fixed step sizes; here the caller's optimizer does. F2SA has an inner loop on y,
        too; here y takes one step for each step of x.
    """

    def __init__(
        self, gamma: float = 10.0, scale: float = 1.0, n_inner: int = 1, lr: float = 0.1, momentum: float = 0.0
    ) -> None:
        if gamma < 0 or n_inner < 1 or lr <= 0 or not 0 <= momentum < 1:
            raise ValueError(
                f"gamma {gamma}, n_inner {n_inner}, lr {lr}, momentum {momentum}: expected gamma >= 0, n_inner >= 1, "
                "lr > 0 and momentum in [0, 1)"
            )
        self.gamma, self.scale = gamma, scale
        self.n_inner, self.lr, self.momentum = n_inner, lr, momentum
        self.z: list[Tensor] | None = None
        self.velocity: list[Tensor] | None = None

    def backward(
        self,
        problem: Problem,
        upper_batch: Any | None,
        lower_batch: Any | None,
        scale_loss: Callable[[Tensor], Tensor] = lambda loss: loss,
    ) -> dict[str, float]:
        """Add the gradient of the penalised objective to x.grad and y.grad; see `BilevelSolver.backward`.

        Returns:
            upper_loss f(x, y), lower_loss g(x, y), gap g(x, y) - g(x, z) (negative while z lags), penalty gamma gap,
            residual |d_y g(x, z)|, norms of grad f and of (d_x g(x, y) - d_x g(x, z), d_y g(x, y)), passes.

        Raises:
            ValueError: No lower batch, or a parameter in both levels.
        """
        if lower_batch is None:
            raise ValueError("no lower batch: the value function needs g in every step; train f alone by joint_sum")
        refuse_shared(self, problem)
        upper, lower = list(problem.upper_params()), list(problem.lower_params())
        both = [*upper, *lower]
        factor = scale_loss(torch.ones((), device=lower[0].device))
        if upper_batch is None:
            g = problem.lower(lower_batch)
            step = vector.grad(g, lower)
            vector.add_to_grad(lower, step, factor)
            return report(lower_loss=g.detach(), grad_norm_lower=vector.norm(step), passes=1)
        g_value, grad_v, residual = self._follow(problem, lower_batch, upper, lower)
        g = problem.lower(lower_batch)
        grad_g = vector.grad(g, both)
        f = problem.upper(upper_batch)
        grad_f = vector.grad(f, both)
        # d_y g(x, z) is no part of F_gamma: grad_v covers x, the rest of grad_g stays as it is.
        penalty = [*vector.axpy(-1.0, grad_v, grad_g[: len(upper)]), *grad_g[len(upper) :]]
        total = [torch.add(a, b, alpha=self.gamma) for a, b in zip(grad_f, penalty, strict=True)]
        vector.add_to_grad(both, total, self.scale * factor)
        gap = float(g.detach()) - float(g_value)
        return report(
            upper_loss=f.detach(),
            lower_loss=g.detach(),
            gap=gap,
            penalty=self.gamma * gap,
            residual=residual,
            grad_norm_upper=vector.norm(grad_f),
            grad_norm_lower=vector.norm(penalty),
            passes=self.n_inner + 2,
        )

    def _follow(self, problem: Problem, batch: Any, upper: list, lower: list) -> tuple[Tensor, list[Tensor], float]:
        """Steps on z. Returns g, d_x g and |d_y g| at the point of the last inner gradient."""
        z = vector.copies(lower) if self.z is None else self.z
        velocity = self.velocity
        for k in range(self.n_inner):
            wanted = [*upper, *lower] if k == self.n_inner - 1 else lower
            with vector.at(lower, z), rng.replay(lower):
                g = problem.lower(batch)
                found = vector.grad(g, wanted)
            down = found[-len(lower) :]
            if self.momentum:
                velocity = down if velocity is None else vector.axpy(self.momentum, velocity, down)
            step = velocity if self.momentum else down
            z = [torch.sub(value, d, alpha=self.lr) for value, d in zip(z, step, strict=True)]
        residual = float(vector.norm(down))
        if math.isfinite(residual):  # a copy that holds nan would spoil every later step
            self.z, self.velocity = z, velocity
        return g.detach(), found[: len(upper)], residual

    def state_dict(self) -> dict[str, Any]:
        """The auxiliary copy and its velocity; None before the first call."""
        return {"z": clones(self.z), "velocity": clones(self.velocity)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore."""
        check_keys(self, state, ("z", "velocity"))
        self.z, self.velocity = clones(state["z"]), clones(state["velocity"])

    def reset(self) -> None:
        """Start z from the problem's y at the next call."""
        self.z = self.velocity = None
