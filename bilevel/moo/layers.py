"""In which layers objectives conflict, and the choice of those whose gradients decide the weights."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bilevel.moo.weighting import check_keys


def block_of(name: str) -> str:
    """Block of a parameter's name: up to its first number, else all but the last part.

    "encoder.layers.3.norm.weight" belongs to "encoder.layers.3", "encoder.embed.bias" to "encoder.embed".
    """
    numbered = re.match(r"(?:[^.]+\.)*?\d+(?=\.|$)", name)
    return numbered.group() if numbered else name.rpartition(".")[0] or name


def group(names: Sequence[str], granularity: str) -> dict[str, list[int]]:
    """Unit -> indices of its tensors: each tensor by itself, or all those of a block together.

    Raises:
        ValueError: Another granularity.
    """
    if granularity not in ("tensor", "block"):
        raise ValueError(f"granularity {granularity!r}: expected tensor or block")
    units: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        units.setdefault(name if granularity == "tensor" else block_of(name), []).append(i)
    return units


def pairwise(gramians: Tensor) -> Tensor:
    """Cosines of all pairs (..., M (M - 1) / 2), in the order (0, 1), (0, 2), ..., for Gramians (..., M, M).

    nan where a gradient is zero.
    """
    m = gramians.shape[-1]
    first, second = torch.triu_indices(m, m, 1)
    squares = gramians.diagonal(dim1=-2, dim2=-1)
    lengths = squares.clamp(min=0).sqrt()
    product = lengths[..., first] * lengths[..., second]
    return torch.where(product > 0, gramians[..., first, second] / product, torch.nan)


class Selection:
    """The tensors whose gradients decide the weights; all tensors are trained all the same.

    Every `every` steps all gradients are found, and the cosine of each pair of objectives in each unit; a unit is
    chosen when the mean over pairs is below the threshold. Until the next such step, gradients of single objectives
    are held for the chosen tensors alone. Where nothing conflicts, all tensors decide.

    How the other tensors get their share of the direction in between:

    * `delayed` false: passes for single objectives end at the earliest chosen tensor, and one weighted backward pass
      does the rest, through the graphs of all objectives, which are kept for it. Units late in the model save time;
      the pass to early ones runs through all later layers anyway.
    * `delayed` true: each objective has one whole backward pass, weighted by the lam of the step before, and its graph
      is freed. That is the cost of training on the sum, and the memory of it but for the rows of the chosen tensors.

    Args:
        names: Names of the shared tensors.
        threshold: Of the mean cosine.
        every: Steps from one detection to the next.
        granularity: "tensor" (released code) or "block" (the paper's "layers").
        max_share: Of the units; of more below the threshold, the ones with the lowest cosine are taken.
        delayed: Between detections, use the weights of the step before.

    References:
        Objective Soups, arXiv 2508.09228 (efficient MSP).
    Deviations:
        The released code detects in every step, which saves nothing, and gives the tensors that are not chosen no
        update at all. The text takes the chosen layers for the weights; so does this. `every` is not documented, and
        `delayed` is ours.
    """

    def __init__(
        self,
        names: Sequence[str],
        threshold: float = 0.0,
        every: int = 100,
        granularity: str = "tensor",
        max_share: float = 1.0,
        delayed: bool = False,
    ) -> None:
        if every < 1 or not 0 < max_share <= 1:
            raise ValueError(f"every {every}, max_share {max_share}: expected every >= 1 and 0 < max_share <= 1")
        self.names, self.units = list(names), group(names, granularity)
        self.threshold, self.every, self.max_share, self.delayed = threshold, every, max_share, delayed
        self.reset()

    @property
    def due(self) -> bool:
        """Whether the next step has to find all gradients."""
        return self.n_steps % self.every == 0

    def step(self, gramians: Tensor) -> None:
        """Count a step; where it was a detection, choose.

        Args:
            gramians: (T, M, M), one for each tensor; read at a detection alone.
        """
        if self.due and len(gramians):
            units = torch.stack([gramians[index].sum(0) for index in self.units.values()])
            means = pairwise(units).nanmean(-1)  # units that fewer than two objectives move have none
            below = [(float(mean), unit) for mean, unit in zip(means, self.units, strict=True) if mean < self.threshold]
            n_most = max(1, int(self.max_share * len(self.units)))
            chosen = {unit for _, unit in sorted(below)[:n_most]}
            self.chosen = [i for unit, index in self.units.items() if unit in chosen for i in index]
        self.n_steps += 1

    def tensors(self) -> list[int]:
        """Indices of the tensors that decide: the chosen ones, or all where none is."""
        return sorted(self.chosen) or list(range(len(self.names)))

    def state_dict(self) -> dict[str, Any]:
        """Steps and names of the chosen tensors."""
        return {"n_steps": self.n_steps, "chosen": [self.names[i] for i in self.chosen]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore.

        Raises:
            ValueError: The state belongs to other tensors.
        """
        check_keys(self, state, ("n_steps", "chosen"))
        unknown = sorted(set(state["chosen"]) - set(self.names))
        if unknown:
            raise ValueError(f"chosen tensors {unknown}: expected tensors of this model; the state is another model's")
        self.n_steps, self.chosen = state["n_steps"], [self.names.index(name) for name in state["chosen"]]

    def reset(self) -> None:
        """The next step is a detection."""
        self.n_steps = 0
        self.chosen: list[int] = []
