"""How objectives agree, layer by layer, over a training: as log lines and as a JSON file."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bilevel.moo import layers
from bilevel.moo.weighting import check_keys

log = logging.getLogger(__name__)
_SUMS = ("sums", "counts", "expected", "signal")  # of the record that is under way


class ConflictMonitor:
    r"""Mean cosine of each pair of objectives in each layer, over every `every` steps.

    A pair counts in the steps in which both gradients were found and not zero. The records are part of the state, so a
    resumed training continues them.

    Noise of small batches is at right angles to all else, so it draws these cosines to zero and hides conflict as well
    as agreement. With two independent batches of each objective, gradients g_a^1 and g_a^2, a record has two more:

        signal_a           = sum_t <g_a^1, g_a^2> / sum_t |(g_a^1 + g_a^2) / 2|^2
        expected cosine_ab = sum_t (<g_a^1, g_b^2> + <g_b^1, g_a^2>) / 2
                             / sqrt(sum_t <g_a^1, g_a^2> sum_t <g_b^1, g_b^2>)

    Each product is an unbiased estimate of that of the expected gradients, so the first is the part of the step's
    squared length that is not noise, and the second the cosine without noise. Both are unknown where noise leaves a sum
    of squares at zero or below.

    Args:
        objectives: Names, in the order of the Gramians.
        names: Names of the shared tensors, in the order of the Gramians.
        every: Steps that a record takes the mean of.
        granularity: "block" or "tensor".
    """

    def __init__(
        self, objectives: Sequence[str], names: Sequence[str], every: int = 100, granularity: str = "block"
    ) -> None:
        if every < 1:
            raise ValueError(f"every {every}: expected at least 1 step")
        self.objectives, self.every = list(objectives), every
        self.units = layers.group(names, granularity)
        self.pairs = [(a, b) for i, a in enumerate(self.objectives) for b in self.objectives[i + 1 :]]
        self._places = torch.triu_indices(len(self.objectives), len(self.objectives), 1)
        self.reset()

    def observe(self, gramians: Tensor, found: Sequence[int] | None = None, cross: Tensor | None = None) -> None:
        """Take in one step.

        Args:
            gramians: (T, M, M) of all objectives, zeros for those that are absent.
            found: Indices of the tensors that they belong to; all tensors when None.
            cross: (T, M, M) J_1 J_2^T of two independent batches, zeros for objectives with one.
        """
        here = set(range(len(gramians)) if found is None else found)

        def of_units(products: Tensor) -> Tensor:
            zeros = torch.zeros_like(products[0])
            return torch.stack([products[i].sum(0) if here.issuperset(i) else zeros for i in self.units.values()])

        whole = of_units(gramians)
        cosines = layers.pairwise(whole)
        seen = cosines.isfinite()
        self.sums += cosines.where(seen, 0.0)
        self.counts += seen
        if cross is not None:
            twice = of_units(cross)
            squares, (first, second) = twice.diagonal(dim1=-2, dim2=-1), self._places
            product = (twice[:, first, second] + twice[:, second, first]) / 2
            self.expected += seen * torch.stack([product, squares[:, first], squares[:, second]])
            self.signal += torch.stack([squares, whole.diagonal(dim1=-2, dim2=-1) * (squares != 0)])
        self.n_steps += 1
        if self.n_steps % self.every == 0:
            self._close()

    def _close(self) -> None:
        means = torch.where(self.counts > 0, self.sums / self.counts, torch.nan)
        record: dict[str, Any] = {"step": self.n_steps, "cosine": _rounded(means)}
        (product, left, right), (true, whole) = self.expected, self.signal
        if (whole > 0).any():
            known = (left > 0) & (right > 0)
            record["expected_cosine"] = _rounded(torch.where(known, product / (left * right).sqrt(), torch.nan))
            record["signal"] = _rounded(torch.where(true > 0, true / whole, torch.nan))
        self.records.append(record)
        if means.isfinite().any():
            worst = int(means.nan_to_num(nan=torch.inf).argmin())
            unit, (a, b) = list(self.units)[worst // len(self.pairs)], self.pairs[worst % len(self.pairs)]
            mean, least = float(means.nanmean()), float(means.flatten()[worst])
            log.info("step %d: mean cosine %.3f; least %.3f, %s and %s in %s", self.n_steps, mean, least, a, b, unit)
        for sums in (self.sums, self.counts, self.expected, self.signal):
            sums.zero_()

    def write(self, path: Path) -> None:
        """Write all records: {"objectives", "pairs", "layers", "records": [{"step", "cosine": [layer][pair]}]}.

        With two batches a record has "expected_cosine": [layer][pair] and "signal": [layer][objective], too. A cosine
        is null where a pair was never found together, and all is where it is unknown.
        """
        content = {
            "objectives": self.objectives,
            "pairs": self.pairs,
            "layers": list(self.units),
            "records": self.records,
        }
        path.write_text(json.dumps(content) + "\n", encoding="utf-8")

    def state_dict(self) -> dict[str, Any]:
        """Records, and the sums of the one that is under way."""
        records = [dict(record) for record in self.records]
        sums = {name: getattr(self, name).clone() for name in _SUMS}
        return sums | {"n_steps": self.n_steps, "records": records}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore."""
        check_keys(self, state, (*_SUMS, "n_steps", "records"))
        for name in _SUMS:
            setattr(self, name, state[name].clone())
        self.n_steps, self.records = state["n_steps"], [dict(record) for record in state["records"]]

    def reset(self) -> None:
        """No records."""
        self.n_steps = 0
        self.records: list[dict[str, Any]] = []
        self.sums = torch.zeros(len(self.units), len(self.pairs), dtype=torch.float64)
        self.counts = torch.zeros_like(self.sums)
        self.expected = torch.zeros(3, *self.sums.shape, dtype=torch.float64)  # product, both squares
        self.signal = torch.zeros(2, len(self.units), len(self.objectives), dtype=torch.float64)


def _rounded(values: Tensor) -> list[list[float | None]]:
    """Rows with four digits; None for nan."""
    return [[None if v != v else round(v, 4) for v in row] for row in values.tolist()]
