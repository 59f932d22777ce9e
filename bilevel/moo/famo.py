"""FAMO: equal rates of fall for all losses, from the losses alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bilevel.moo.weighting import FLOAT, ObjectiveWeighting, check_keys, checked_losses

_EPS = 1e-8


class Weighting(ObjectiveWeighting):
    r"""lam_m = k z_m / (l_m - b), z = softmax(w), k such that lam sums to one; w follows the losses after the step.

    `update` takes the losses l' of the same batches after the step: delta_m = log(l_m - b) - log(l'_m - b), and w
    takes a step of Adam along (diag(z) - z z^T) delta, so that objectives that fell less count more. One more forward
    pass for each objective, no Gramian.

    Args:
        n_objectives: M.
        lr: Step size of w.
        weight_decay: Of w, added to its gradient; keeps the weights near 1 / M.
        bound: b, below every loss.

    References:
        Liu et al., FAMO, arXiv 2306.03792, Algorithm 2 (Eq. 7 and 8).
    """

    needs = "losses"

    def __init__(self, n_objectives: int, lr: float = 0.025, weight_decay: float = 1e-3, bound: float = 0.0) -> None:
        super().__init__(n_objectives)
        if lr < 0 or weight_decay < 0:
            raise ValueError(f"lr {lr}, weight_decay {weight_decay}: expected values >= 0")
        self.lr, self.weight_decay, self.bound = lr, weight_decay, bound
        Weighting.reset(self)

    def _logs(self, losses: Tensor) -> Tensor:
        if not bool((losses > self.bound).all()):
            raise ValueError(f"losses {losses.tolist()}: expected values above bound {self.bound}; lower the bound")
        return (losses - self.bound + _EPS).log()

    def _weights(self, gramian: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        if self.waits:
            raise ValueError("two steps without `update` between them: the weights cannot follow the losses")
        logs = self._logs(losses)
        self.before[present], self.waits = logs, True
        return torch.softmax(self.logits[present] - logs, 0)

    def update(self, losses: Tensor | Sequence[float], present: Sequence[int] | None = None) -> None:
        """Move w; does nothing when no weights were asked for since the last call, as after a step that was left out.

        Args:
            losses: (m,), of the batches of the last step, after it.
            present: Their indices; all when None.

        Raises:
            ValueError: A loss is not above the bound.
        """
        if not self.waits:
            return
        index = torch.arange(self.n_objectives) if present is None else torch.as_tensor(list(present), dtype=torch.long)
        delta = self.before[index] - self._logs(checked_losses(losses, len(index)))
        z = torch.softmax(self.logits[index], 0)
        slope = z * (delta - z @ delta) + self.weight_decay * self.logits[index]
        n_steps = self.n_steps[index] + 1
        first = self.first[index].lerp(slope, 1 - 0.9)
        second = self.second[index].lerp(slope**2, 1 - 0.999)
        step = first / (1 - 0.9**n_steps) / ((second / (1 - 0.999**n_steps)).sqrt() + _EPS)
        self.n_steps[index], self.first[index], self.second[index] = n_steps, first, second
        self.logits[index] -= self.lr * step
        self.waits = False

    def state_dict(self) -> dict[str, Any]:
        """Logits w, losses before the step, and Adam's moments, (M,) each."""
        return {name: getattr(self, name).clone() for name in _TENSORS} | {"waits": self.waits}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore."""
        check_keys(self, state, (*_TENSORS, "waits"))
        for name in _TENSORS:
            setattr(self, name, state[name].clone())
        self.waits = state["waits"]

    def reset(self) -> None:
        """Equal logits, no moments."""
        self.logits, self.before, self.first, self.second, self.n_steps = torch.zeros(
            5, self.n_objectives, dtype=FLOAT
        ).unbind()
        self.waits = False


_TENSORS = ("logits", "before", "first", "second", "n_steps")
