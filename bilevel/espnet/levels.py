"""A model of ESPnet as the solvers see it: two levels, their losses and parameters."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from espnet2.torch_utils.recursive_op import recursive_average
from torch import Tensor

Batch = dict[str, Any]


def global_mean(loss: Tensor, stats: dict[str, Any], weight: Tensor) -> tuple[Tensor, dict[str, Any], Tensor]:
    """ESPnet's triple of this process's batch -> that of the batch of all processes.

    The loss is this process's share of the weighted mean, times the number of processes, because their gradients are
    averaged afterwards.
    """
    share = weight.to(loss.dtype)
    stats, weight = recursive_average(stats, weight, True)
    total = weight.to(loss.dtype).clamp(min=1)
    return (loss * share).sum() / total * torch.distributed.get_world_size(), stats, weight


def input_length(batch: Batch, distributed: bool) -> Tensor:
    """Samples (or frames) of a batch, over all processes."""
    length = batch["speech_lengths"].sum()
    if distributed:
        torch.distributed.all_reduce(length)
    return length


class Levels:
    """`bilevel.optim.problem.Problem` of a model with `upper_params`, `lower_params`, `ssl` and `forward(level=...)`.

    Keeps the statistics of the first evaluation of every batch, which is the one at the parameters' own values: a
    solver may evaluate the same batch again at copies. Every evaluation counts as cost; what a solver takes from a
    graph that it keeps (exact products with second derivatives) does not.

    Args:
        model: The model, in DDP where there are several processes and the solver leaves averaging to DDP.
        autocast: Makes the context of mixed precision.
        distributed: Whether there are several processes.
    """

    def __init__(self, model: torch.nn.Module, autocast: Callable[[], Any], distributed: bool) -> None:
        self.model = model
        self.core = model.module if isinstance(model, torch.nn.parallel.DistributedDataParallel) else model
        self.autocast = autocast
        self.distributed = distributed
        self._found: dict[int, tuple[dict[str, Tensor], Tensor, Tensor]] = {}  # statistics, weight, length
        self._evaluated: list[tuple[float, Tensor]] = []  # passes, and length of the input

    def upper_params(self) -> list[torch.nn.Parameter]:
        """Parameters of the upper level."""
        return self.core.upper_params()

    def lower_params(self) -> list[torch.nn.Parameter]:
        """Parameters of the lower level."""
        return self.core.lower_params()

    def upper(self, batch: Batch) -> Tensor:
        """Upper loss on a batch."""
        return self._level("upper", batch)

    def lower(self, batch: Batch) -> Tensor:
        """Lower loss on a batch."""
        return self._level("lower", batch)

    def _level(self, level: str, batch: Batch) -> Tensor:
        inputs = {name: value for name, value in batch.items() if name != "source"}
        seen = self._found.get(id(batch))
        length = seen[2] if seen else input_length(batch, self.distributed)
        self._evaluated.append((self.core.ssl.passes if level == "lower" else 1.0, length))
        with self.autocast():
            loss, stats, weight = self.model(level=level, **inputs)
        stats = {name: value for name, value in stats.items() if value is not None}
        if self.distributed:
            loss, stats, weight = global_mean(loss, stats, weight)
        self._found.setdefault(id(batch), (stats, weight, length))
        return loss.squeeze()

    def take_cost(self) -> dict[str, float]:
        """Passes of the encoder since the last call, and samples (or frames) that went through it; starts anew."""
        evaluated, self._evaluated = self._evaluated, []
        return {
            "passes": sum(passes for passes, _ in evaluated),
            "n_input": sum(passes * float(length) for passes, length in evaluated),
        }

    def take_stats(
        self, batch: Mapping[str, Batch | list[Batch]]
    ) -> Iterator[tuple[dict[str, Any], Tensor | None, dict[str, dict[str, Any]]]]:
        """Statistics of the step on `batch`, their weights, and the statistics of each source; then forget them.

        A level with one batch has the weight of its loss, and its source is "". With one batch for each source, a
        statistic is the plain mean over sources, as the objective is; every source's `ssl_loss` and share of the step's
        audio (`mix`) follow under its name.
        """
        for level in batch.values():
            parts = level if isinstance(level, list) else [level]
            rows = [self._found[id(part)] for part in parts]
            if len(rows) == 1:
                stats, weight, _ = rows[0]
                yield stats, weight, {"": stats}
                continue
            total = sum(float(length) for *_, length in rows)
            mean: dict[str, Any] = {name: sum(stats[name] for stats, *_ in rows) / len(rows) for name in rows[0][0]}
            for part, (stats, _, length) in zip(parts, rows, strict=True):
                mean |= {
                    f"ssl_loss_{part['source']}": stats["ssl_loss"],
                    f"mix_{part['source']}": float(length) / total,
                }
            yield mean, None, {part["source"]: stats for part, (stats, *_) in zip(parts, rows, strict=True)}
        self._found.clear()
