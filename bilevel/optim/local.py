"""Local steps on each source, gradient at the adapted point: PTLOC, first-order MAML, Reptile."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from bilevel.optim import rng, vector
from bilevel.optim.problem import Problem
from bilevel.optim.solver import BilevelSolver, check_keys, report

Moments = dict[str, Any]  # first and second moments, one tensor each for a parameter, and the number of steps


class Solver(BilevelSolver):
    r"""Moves the start point theta (the lower parameters) along gradients at points that local steps reach from it.

    For the sources i = 1..M of one call, g_i = g on the batch of source i (arXiv 2508.19990, Eq. 5 and 10):

        phi_i^0 = theta,   phi_i^k = phi_i^{k-1} - lr P_i grad g_i(phi_i^{k-1}),   k = 1..n_inner
        PTLOC, no upper batch:            theta.grad += (1 / M) sum_i grad g_i(phi_i^K)
        first-order MAML, upper batches:  theta.grad += (1 / M) sum_i d_theta f_i(phi_i^K), and x.grad likewise
        direction "reptile":              theta.grad += (1 / M) sum_i (theta - phi_i^K) / lr

    P_i is AdamW's preconditioner with moments of source i, or the identity ("sgd"). Derivatives of phi_i^K by theta
    are taken as the identity (first order): no second derivative, no graph through the steps. The first form is the
    gradient step of plain training when lr = 0 or n_inner = 0. "reptile" divides by lr, so for SGD it is the sum of the
    local gradients; parameters of the upper level alone still get d f_i at phi_i^K if there are upper batches.

    **Sources.** A list or tuple is a sequence of batches, one for each source; anything else (a tensor, a dict) is one
    batch of one source. So a batch that is itself a tuple goes into a list of one. Upper batches come in the same form
    and number. Each source counts 1 / M, whatever the size of its batch; source i keeps its place in the list, because
    its moments do.

    n_inner + 1 passes for a source, one graph and one copy of theta at a time, plus two copies for the moments of
    every source. All passes of one source draw the same mask and dropout (torch's global generators are put back
    between them) unless `resample`. Under torch.distributed each process passes its share of the batch of *every*
    source; all are averaged in each local step.

    Args:
        lr: alpha, the local step size; set the attribute to anneal it with the optimizer's.
        n_inner: K, local steps of a source.
        inner: "adamw" or "sgd".
        moments: "persistent" keeps them for each source from call to call; "fresh" starts at zero in each call, which
            makes the first step that of the sign.
        betas: Of AdamW.
        eps: Of AdamW.
        weight_decay: Of AdamW, decoupled.
        direction: "gradient" or "reptile".
        resample: New random numbers in each pass: dropout, and masks that the problem draws itself (not those that a
            batch brings with it).

    References:
        PTLOC, arXiv 2508.19990, Algorithm 1. Finn et al., arXiv 1703.03400 (MAML). Nichol et al., arXiv 1803.02999
        (Reptile).
    Deviations:
        Eq. 5 is plain descent, while the text says AdamW everywhere and the values of alpha are Adam's: hence "adamw"
        by default; "sgd" is Eq. 5. Moments, masks and weight decay are unknown and therefore options.
    """

    shares_variables = True
    anneals = ("lr",)

    def __init__(
        self,
        lr: float = 1e-4,
        n_inner: int = 1,
        inner: str = "adamw",
        moments: str = "persistent",
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        direction: str = "gradient",
        resample: bool = False,
    ) -> None:
        for name, value, choices in (
            ("inner", inner, ("adamw", "sgd")),
            ("moments", moments, ("persistent", "fresh")),
            ("direction", direction, ("gradient", "reptile")),
        ):
            if value not in choices:
                raise ValueError(f"{name} {value!r}: expected {' or '.join(choices)}")
        if lr < 0 or n_inner < 0:
            raise ValueError(f"lr {lr}, n_inner {n_inner}: expected values >= 0")
        self.lr, self.n_inner, self.inner, self.direction = lr, n_inner, inner, direction
        self.keep_moments, self.resample = moments == "persistent", resample
        self.betas, self.eps, self.weight_decay = tuple(betas), eps, weight_decay
        self.moments: list[Moments | None] = []

    def backward(
        self,
        problem: Problem,
        upper_batch: Any | None,
        lower_batch: Any | None,
        scale_loss: Callable[[Tensor], Tensor] = lambda loss: loss,
    ) -> dict[str, float]:
        """Add the mean direction over sources to `.grad`; see `BilevelSolver.backward`.

        Returns:
            Means over sources of lower_loss g_i(theta) (nan if never evaluated), upper_loss f_i(phi_i^K) and gap
            g_i(theta) - g_i(phi_i^K) (nan with upper batches); residual: largest last local gradient norm;
            grad_norm_lower, grad_norm_upper: norm of the direction without and with upper batches; passes.

        Raises:
            ValueError: No lower batch, another number of upper batches, or "reptile" with lr 0.
        """
        lowers, uppers = _sources(lower_batch), _sources(upper_batch)
        if not lowers:
            raise ValueError("no lower batch: local steps need one batch for each source")
        if uppers and len(uppers) != len(lowers):
            raise ValueError(f"{len(uppers)} upper batches for {len(lowers)} sources: expected one for each")
        if self.direction == "reptile" and self.lr == 0:
            raise ValueError("direction reptile divides by lr: expected lr above 0, found 0")
        theta = [p for p in problem.lower_params() if p.requires_grad]
        held = [*theta, *problem.upper_params()] if uppers else theta
        params = list(dict.fromkeys(held))
        self.moments += [None] * (len(lowers) - len(self.moments))
        total: list[Tensor] | None = None
        found: list[dict[str, float]] = []
        for i, lower in enumerate(lowers):
            direction, values = self._one_source(problem, i, lower, uppers[i] if uppers else None, theta, params)
            total = direction if total is None else vector.axpy(1.0, direction, total)
            found.append(values)
        factor = scale_loss(torch.ones((), device=params[0].device)) / len(lowers)
        vector.add_to_grad(params, total, factor)
        size = vector.norm(total) / len(lowers)
        means = {k: math.fsum(v[k] for v in found) / len(found) for k in ("upper_loss", "lower_loss", "gap")}
        return report(
            **means,
            **{"grad_norm_upper" if uppers else "grad_norm_lower": size},
            residual=max(v["residual"] for v in found),
            passes=sum(v["passes"] for v in found),
        )

    def _one_source(
        self, problem: Problem, i: int, lower: Any, upper: Any | None, theta: list[Parameter], params: list[Parameter]
    ) -> tuple[list[Tensor], dict[str, float]]:
        """Local steps of source i from theta. Returns the direction for `params` and what to report."""
        phi = vector.copies(theta)
        moments = self.moments[i] if self.keep_moments else None
        losses: list[float] = []
        slope = math.nan
        ends_with_pass = upper is not None or self.direction == "gradient"
        with vector.at(theta, phi):
            for k in range(self.n_inner):
                last = k == self.n_inner - 1 and not ends_with_pass
                with rng.replay(theta, enabled=not self.resample and not last):
                    loss = problem.lower(lower)
                    step = vector.grad(loss, theta)
                losses.append(float(loss.detach()))
                slope = float(vector.norm(step))
                moments = self._step(phi, step, moments)
            values = {"upper_loss": math.nan, "gap": math.nan, "residual": slope, "passes": len(losses)}
            direction = [torch.zeros_like(p) for p in params]
            if ends_with_pass:
                loss = problem.lower(lower) if upper is None else problem.upper(upper)
                direction = vector.grad(loss, params)
                values["passes"] += 1
                if upper is None:
                    losses.append(float(loss.detach()))
                    values["gap"] = losses[0] - losses[-1]
                else:
                    values["upper_loss"] = float(loss.detach())
        if self.direction == "reptile":
            moved = [(p.detach() - value) / self.lr for p, value in zip(theta, phi, strict=True)]
            direction = [*moved, *direction[len(theta) :]]
        values["lower_loss"] = losses[0] if losses else math.nan
        # Moments that hold nan would spoil every later step of this source.
        if self.keep_moments and self.n_inner and math.isfinite(slope):
            self.moments[i] = moments
        return direction, values

    @torch.no_grad()
    def _step(self, phi: list[Tensor], step: list[Tensor], old: Moments | None) -> Moments | None:
        """One local step, in place on phi. Returns new moments."""
        if self.inner == "sgd":
            for value, d in zip(phi, step, strict=True):
                value.sub_(d, alpha=self.lr)
            return None
        old = old or {"first": [torch.zeros_like(d) for d in step], "second": [torch.zeros_like(d) for d in step]}
        (beta1, beta2), n_steps = self.betas, old.get("n_steps", 0) + 1
        first = [m.lerp(d, 1 - beta1) for m, d in zip(old["first"], step, strict=True)]
        second = [v.mul(beta2).addcmul_(d, d, value=1 - beta2) for v, d in zip(old["second"], step, strict=True)]
        for value, m, v in zip(phi, first, second, strict=True):
            value.mul_(1 - self.lr * self.weight_decay)
            scale = (v / (1 - beta2**n_steps)).sqrt_().add_(self.eps)
            value.addcdiv_(m, scale, value=-self.lr / (1 - beta1**n_steps))
        return {"first": first, "second": second, "n_steps": n_steps}

    def state_dict(self) -> dict[str, Any]:
        """Moments of each source; None for one that has made no step."""
        return {"moments": [_copy(m) for m in self.moments]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore."""
        check_keys(self, state, ("moments",))
        self.moments = [_copy(m) for m in state["moments"]]

    def reset(self) -> None:
        """All moments zero."""
        self.moments = []


def _sources(batch: Any | None) -> list[Any]:
    """A list or tuple holds one batch for each source; anything else is one batch."""
    if batch is None:
        return []
    return list(batch) if isinstance(batch, list | tuple) else [batch]


def _copy(moments: Moments | None) -> Moments | None:
    if moments is None:
        return None
    return {key: value if key == "n_steps" else vector.copies(value) for key, value in moments.items()}
