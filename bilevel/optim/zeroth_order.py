"""Two-point estimates of the upper gradient from values alone, for objectives that cannot be differentiated."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from bilevel.optim import rng, vector
from bilevel.optim.problem import Problem
from bilevel.optim.solver import BilevelSolver, check_keys, refuse_shared, report


class Solver(BilevelSolver):
    r"""Central differences of a black box F(x) = problem.upper(upper_batch), with common random numbers.

        D(u) = (F(x + delta u) - F(x - delta u)) / (2 delta)
        kind "directional":  x.grad += (1 / n_directions) sum_j c D(u_j) u_j
        kind "coordinate":   x.grad += sum_j D(e_j) e_j,   j = 1..m, for m entries of x

    u is Gaussian N(0, I) with c = 1, or uniform on the unit sphere with c = m, so that E[c u u'] = I: the estimate is
    unbiased where central differences are exact (F quadratic), elsewhere its bias is O(delta^2). Its error falls like
    n_directions^(-1/2). Both values of a pair see torch's global generators seeded alike, with a number from the
    solver's own generator, so that noise which F draws from them cancels; afterwards they are as they were. Python's
    and numpy's generators are left alone.

    F runs under no_grad and may return a float or a tensor. x.grad estimates what F does with x: if F evaluates f(x, y)
    at the present y, this is d_x f; if F also answers to x (by re-solving the lower level on a copy of y, or by
    sampling from a tuned model), it is the hypergradient. y.grad receives d_y g if a lower batch is given.

    2 n_directions or 2 m evaluations of F, no graph, one copy of x. Without an upper batch only d_y g is added.

    Args:
        kind: "directional" or "coordinate"; the latter for few entries (up to some ten).
        n_directions: Directions of a call.
        delta: Half the distance of the two points, in units of x: large enough that F's rounding and noise drown.
        distribution: "gaussian" or "sphere" (same mean, slightly smaller variance).
        seed: Of the solver's generator.

    References:
        Spall, IEEE TAC 37 (1992) (two-point random directions). Duchi et al., arXiv 1312.2139; Nesterov and Spokoiny,
        FoCM 17 (2017) (rates). Generative bilevel: arXiv 2502.08808 (noise schedule, delta 0.01).
    Deviations:
        The code released with 2502.08808 draws one direction and no common random numbers.
    """

    def __init__(
        self,
        kind: str = "directional",
        n_directions: int = 4,
        delta: float = 0.01,
        distribution: str = "gaussian",
        seed: int = 0,
    ) -> None:
        for name, value, choices in (
            ("kind", kind, ("directional", "coordinate")),
            ("distribution", distribution, ("gaussian", "sphere")),
        ):
            if value not in choices:
                raise ValueError(f"{name} {value!r}: expected {' or '.join(choices)}")
        if n_directions < 1 or delta <= 0:
            raise ValueError(f"n_directions {n_directions}, delta {delta}: expected at least 1, and a step above 0")
        self.kind, self.n_directions, self.delta, self.distribution = kind, n_directions, delta, distribution
        self.seed = seed
        self.reset()

    def backward(
        self,
        problem: Problem,
        upper_batch: Any | None,
        lower_batch: Any | None,
        scale_loss: Callable[[Tensor], Tensor] = lambda loss: loss,
    ) -> dict[str, float]:
        """Add the estimate to x.grad, and d_y g to y.grad; see `BilevelSolver.backward`.

        Returns:
            upper_loss: mean of F over all probes, F(x) + O(delta^2); lower_loss; norms of the estimate and of d_y g;
            passes: evaluations of F (forward alone) plus one for g.

        Raises:
            ValueError: No batch, a parameter in both levels, or an F that is not finite: the estimate would be nan, and
                to leave the probe out would bias it.
        """
        if upper_batch is None and lower_batch is None:
            raise ValueError("a step needs an upper batch, a lower batch or both; found neither")
        refuse_shared(self, problem)
        found: dict[str, float | Tensor] = {"passes": 0}
        if upper_batch is not None:
            found = self._estimate(problem, upper_batch, scale_loss)
        if lower_batch is not None:
            lower = list(problem.lower_params())
            g = problem.lower(lower_batch)
            step = vector.grad(g, lower)
            vector.add_to_grad(lower, step, scale_loss(torch.ones((), device=g.device)))
            found |= {"lower_loss": g.detach(), "grad_norm_lower": vector.norm(step), "passes": found["passes"] + 1}
        return report(**found)

    def _estimate(
        self, problem: Problem, batch: Any, scale_loss: Callable[[Tensor], Tensor]
    ) -> dict[str, float | Tensor]:
        """Probe F along all directions and add the mean to x.grad. Returns what to report."""
        upper = [p for p in problem.upper_params() if p.requires_grad]
        everything = [*problem.upper_params(), *problem.lower_params()]
        total = [torch.zeros_like(p) for p in upper]
        values: list[float] = []
        for direction, weight in self._directions(upper):
            noise = int(torch.randint(2**62, (), generator=self.generator))
            pair = []
            for sign in (1.0, -1.0):
                point = [
                    torch.add(p.detach(), d, alpha=sign * self.delta) for p, d in zip(upper, direction, strict=True)
                ]
                with vector.at(upper, point), rng.seeded(noise, everything), torch.no_grad():
                    pair.append(float(problem.upper(batch)))
            # All processes must see the same pair, so that all raise or none does.
            pair = vector.mean_over_processes([torch.tensor(pair, dtype=torch.float64, device=upper[0].device)])[
                0
            ].tolist()
            if not all(math.isfinite(value) for value in pair):
                raise ValueError(
                    f"upper objective is {pair[0]} and {pair[1]} at x + delta u and x - delta u, delta {self.delta}: "
                    "expected finite values; use a smaller delta, or an objective that is finite around x"
                )
            values += pair
            slope = (pair[0] - pair[1]) / (2 * self.delta)
            total = vector.axpy(weight * slope, direction, total)
        vector.add_to_grad(upper, total, scale_loss(torch.ones((), device=upper[0].device)))
        mean = math.fsum(values) / len(values)
        return {"upper_loss": mean, "grad_norm_upper": vector.norm(total), "passes": len(values)}

    def _directions(self, upper: list[Parameter]) -> Iterator[tuple[list[Tensor], float]]:
        """Directions in the shape of x, each with its weight in the estimate."""
        sizes = [p.numel() for p in upper]
        m = sum(sizes)
        for j in range(m if self.kind == "coordinate" else self.n_directions):
            weight = 1.0
            # Drawn on the CPU in float64: the same numbers for every device and precision.
            if self.kind == "coordinate":
                flat = torch.zeros(m, dtype=torch.float64)
                flat[j] = 1.0
            else:
                flat = torch.randn(m, dtype=torch.float64, generator=self.generator)
                weight = 1.0 / self.n_directions
                if self.distribution == "sphere":
                    flat, weight = flat / flat.norm(), m / self.n_directions
            parts = flat.split(sizes)
            yield [part.view_as(p).to(p) for part, p in zip(parts, upper, strict=True)], weight

    def state_dict(self) -> dict[str, Any]:
        """The seed and where its generator stands."""
        return {"seed": self.seed, "generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore."""
        check_keys(self, state, ("seed", "generator"))
        self.seed = int(state["seed"])
        self.generator.set_state(state["generator"].cpu())

    def reset(self) -> None:
        """Draw from the start again."""
        self.generator = torch.Generator().manual_seed(self.seed)
