"""What makes the gradients of a step, as the trainer sees it; and the one by solvers of two levels."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from espnet2.train.reporter import SubReporter
from torch import Tensor

from bilevel.espnet.checkpoint import load_state, save_state
from bilevel.espnet.levels import Levels
from bilevel.espnet.options import BilevelTrainerOptions
from bilevel.espnet.solvers import ScheduledSolver


@dataclass(frozen=True)
class Moment:
    """Where in the training a step is.

    Attributes:
        step: Number of the step, from 0; with accumulation there are several steps an update.
        epoch: The same in epochs.
        progress: Progress of the stage in (0, 1].
        rate: Learning rate over its initial value.
        closes_update: Whether an update of the parameters follows.
    """

    step: int
    epoch: float
    progress: float
    rate: float
    closes_update: bool


class Step(ABC):
    """Fills `.grad`; clipping, the optimizer's step and the schedule are the trainer's. Lives for one epoch."""

    @abstractmethod
    def backward(
        self, batch: dict[str, Any], moment: Moment, scale_loss: Callable[[Tensor], Tensor]
    ) -> dict[str, float]:
        """Gradients of a step; returns what is logged with the update that it closes."""

    @abstractmethod
    def register(self, batch: dict[str, Any], reporter: SubReporter, step: int) -> None:
        """Statistics and cost of the step, and the alarm for collapsed self-supervision."""

    @abstractmethod
    def updated(self, batch: dict[str, Any]) -> None:
        """After an update of the parameters, on the last batch of it."""

    @abstractmethod
    def save(self, output_dir: Path, epoch: int) -> None:
        """Write the state after an epoch."""

    @abstractmethod
    def load(self, output_dir: Path, epoch: int, device: str) -> None:
        """Restore the state after an epoch; epoch 0 is the start."""


class SolverStep(Step):
    """A solver of `bilevel.optim` on the batches of two levels.

    Args:
        options: Of the trainer.
        model: The model, in DDP where there are several processes.
        autocast: Makes the context of mixed precision.
        distributed: Whether there are several processes.
    """

    def __init__(
        self,
        options: BilevelTrainerOptions,
        model: torch.nn.Module,
        autocast: Callable[[], Any],
        distributed: bool,
    ) -> None:
        self.scheduled = ScheduledSolver(options.solver, options.solver_conf, options.penalty_conf)
        self.solver, self.accum_grad, self.health = self.scheduled.solver, options.accum_grad, options.health
        # A solver that averages gradients over processes needs no DDP, whose hooks its inner steps would set off.
        seen = model.module if distributed and self.solver.averages else model
        self.levels = Levels(seen, autocast, distributed)

    def backward(
        self, batch: dict[str, Any], moment: Moment, scale_loss: Callable[[Tensor], Tensor]
    ) -> dict[str, float]:
        """The solver's; a level that the step leaves out has no gradient norm."""
        self.scheduled.schedule(moment.progress, moment.rate)
        report = self.solver.backward(
            self.levels, batch.get("upper"), batch.get("lower"), lambda loss: scale_loss(loss) / self.accum_grad
        )
        return {k: report[k] for k in ("grad_norm_upper", "grad_norm_lower") if not math.isnan(report[k])}

    def register(self, batch: dict[str, Any], reporter: SubReporter, step: int) -> None:
        """Both levels' own; gamma is a mean over joint steps."""
        for stats, weight, by_source in self.levels.take_stats(batch):
            reporter.register(stats, weight)
            for source, row in by_source.items():  # their mean would hide a source that has collapsed
                self.health.check(row, step, source)
        gamma = {"gamma": self.solver.gamma} if self.solver.penalised and len(batch) == 2 else {}
        reporter.register(self.levels.take_cost() | gamma)

    def updated(self, batch: dict[str, Any]) -> None:
        """Nothing: solvers look at the gradients alone."""

    def save(self, output_dir: Path, epoch: int) -> None:
        """The solver's state, where it has one."""
        save_state(self.solver.state_dict(), output_dir, epoch)

    def load(self, output_dir: Path, epoch: int, device: str) -> None:
        """The solver's state, where it has one."""
        if epoch and self.solver.state_dict():
            self.solver.load_state_dict(load_state(output_dir, epoch, device, f"solver {self.scheduled.name}"))
