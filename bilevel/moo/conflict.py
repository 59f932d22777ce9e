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


class ConflictMonitor:
    """Mean cosine of each pair of objectives in each layer, over every `every` steps.

    A pair counts in the steps in which both gradients were found and not zero. The records are part of the state, so a
    resumed training continues them.

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

    def observe(self, gramians: Tensor, found: Sequence[int] | None = None) -> None:
        """Take in one step.

        Args:
            gramians: (T, M, M) of all objectives, zeros for those that are absent.
            found: Indices of the tensors that they belong to; all tensors when None.
        """
        here = set(range(len(gramians)) if found is None else found)
        whole = torch.stack(
            [
                gramians[index].sum(0) if here.issuperset(index) else torch.zeros_like(gramians[0])
                for index in self.units.values()
            ]
        )
        cosines = layers.pairwise(whole)
        seen = cosines.isfinite()
        self.sums += cosines.where(seen, 0.0)
        self.counts += seen
        self.n_steps += 1
        if self.n_steps % self.every == 0:
            self._close()

    def _close(self) -> None:
        means = torch.where(self.counts > 0, self.sums / self.counts, torch.nan)
        self.records.append({"step": self.n_steps, "cosine": [[_rounded(v) for v in row] for row in means.tolist()]})
        if means.isfinite().any():
            worst = int(means.nan_to_num(nan=torch.inf).argmin())
            unit, (a, b) = list(self.units)[worst // len(self.pairs)], self.pairs[worst % len(self.pairs)]
            mean, least = float(means.nanmean()), float(means.flatten()[worst])
            log.info("step %d: mean cosine %.3f; least %.3f, %s and %s in %s", self.n_steps, mean, least, a, b, unit)
        self.sums.zero_()
        self.counts.zero_()

    def write(self, path: Path) -> None:
        """Write all records: {"objectives", "pairs", "layers", "records": [{"step", "cosine": [layer][pair]}]}.

        A cosine is null where a pair was never found together.
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
        sums = {"sums": self.sums.clone(), "counts": self.counts.clone()}
        return sums | {"n_steps": self.n_steps, "records": records}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore."""
        check_keys(self, state, ("sums", "counts", "n_steps", "records"))
        self.sums, self.counts = state["sums"].clone(), state["counts"].clone()
        self.n_steps, self.records = state["n_steps"], [dict(record) for record in state["records"]]

    def reset(self) -> None:
        """No records."""
        self.n_steps = 0
        self.records: list[dict[str, Any]] = []
        self.sums = torch.zeros(len(self.units), len(self.pairs), dtype=torch.float64)
        self.counts = torch.zeros_like(self.sums)


def _rounded(value: float) -> float | None:
    return None if value != value else round(value, 4)
