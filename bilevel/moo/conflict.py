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
_SUMS = ("sums", "counts", "signal")  # of the record that is under way


class ConflictMonitor:
    """Mean cosine of each pair of objectives in each layer, over every `every` steps.

    A pair counts in the steps in which both gradients were found and not zero. The records are part of the state, so a
    resumed training continues them.

    Noise of small batches draws cosines to zero and hides conflict as well as agreement. Where a step has two
    independent batches of an objective, with gradients g^1 and g^2, a record has the share that is signal, too:

        signal_a = sum_t <g_a^1, g_a^2> / sum_t |(g_a^1 + g_a^2) / 2|^2

    The product is an unbiased estimate of the squared length of the expected gradient; it may fall below zero. Where
    objectives have batches of their own, cosine_ab / sqrt(signal_a signal_b) is the cosine between the expected
    gradients: Spearman's correction for attenuation. With one batch for both, their noise is not independent.

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
        self.reset()

    def observe(self, gramians: Tensor, found: Sequence[int] | None = None, shared: Tensor | None = None) -> None:
        """Take in one step.

        Args:
            gramians: (T, M, M) of all objectives, zeros for those that are absent.
            found: Indices of the tensors that they belong to; all tensors when None.
            shared: (T, M) <g^1, g^2> of each objective's two independent batches, zeros for those with one.
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
        if shared is not None:
            signal = of_units(shared)
            self.signal += torch.stack([signal, whole.diagonal(dim1=-2, dim2=-1) * (signal != 0)])
        self.n_steps += 1
        if self.n_steps % self.every == 0:
            self._close()

    def _close(self) -> None:
        means = torch.where(self.counts > 0, self.sums / self.counts, torch.nan)
        record: dict[str, Any] = {"step": self.n_steps, "cosine": _rounded(means)}
        if self.signal.any():
            record["signal_share"] = _rounded(self.signal[0] / self.signal[1])  # 0 / 0 is nan: unknown
        self.records.append(record)
        if means.isfinite().any():
            worst = int(means.nan_to_num(nan=torch.inf).argmin())
            unit, (a, b) = list(self.units)[worst // len(self.pairs)], self.pairs[worst % len(self.pairs)]
            mean, least = float(means.nanmean()), float(means.flatten()[worst])
            log.info("step %d: mean cosine %.3f; least %.3f, %s and %s in %s", self.n_steps, mean, least, a, b, unit)
        for name in _SUMS:
            getattr(self, name).zero_()

    def write(self, path: Path) -> None:
        """Write all records: {"objectives", "pairs", "layers", "records": [{"step", "cosine": [layer][pair]}]}.

        With two batches a record has "signal_share": [layer][objective], too. A cosine is null where a pair was never
        found together, a share where the objective had one batch.
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
        self.signal = torch.zeros(2, len(self.units), len(self.objectives), dtype=torch.float64)


def _rounded(values: Tensor) -> list[list[float | None]]:
    """Rows with four digits; None for nan."""
    return [[None if v != v else round(v, 4) for v in row] for row in values.tolist()]
