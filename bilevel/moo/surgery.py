"""Methods that mend one pair of gradients after the other, in an order drawn anew in every step."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from bilevel.moo.weighting import FLOAT, ObjectiveWeighting, check_keys


class Surgery(ObjectiveWeighting):
    """d = (1 / m) sum_i g'_i, where g'_i is g_i with multiples of other gradients added to it.

    The coefficients of g'_i are a row of C, so <g'_i, g_j> = (C G)_ij: the Gramian is all that is needed.

    Args:
        n_objectives: M.
        seed: Of the generator that draws the order in which each gradient meets the others.
    """

    convex = False
    random = True

    def __init__(self, n_objectives: int, seed: int = 0) -> None:
        super().__init__(n_objectives)
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)

    def _weights(self, gramian: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        coefficients = torch.eye(len(present), dtype=FLOAT)
        for i in range(len(present)):
            for j in self._order(i, len(present)):
                if gramian[j, j] > 0:
                    self._mend(coefficients[i], i, j, gramian, present)
        return coefficients.mean(0)

    def _order(self, i: int, m: int) -> Iterator[int]:
        """All objectives but i."""
        return (j for j in torch.randperm(m, generator=self.generator).tolist() if j != i)

    @abstractmethod
    def _mend(self, row: Tensor, i: int, j: int, gramian: Tensor, present: Tensor) -> None:
        """Change row (m,), the coefficients of g'_i, in place with regard to g_j."""

    def state_dict(self) -> dict[str, Any]:
        """State of the generator."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore."""
        check_keys(self, state, ("generator",))
        self.generator.set_state(state["generator"])

    def reset(self) -> None:
        """The generator starts anew."""
        self.generator.manual_seed(self.seed)
