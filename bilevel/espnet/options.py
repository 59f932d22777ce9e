"""Options of the trainer."""

import dataclasses
from typing import Any

from espnet2.train.trainer import TrainerOptions

from bilevel.espnet.health import Health


@dataclasses.dataclass
class BilevelTrainerOptions(TrainerOptions):
    """ESPnet's options and the method.

    Attributes:
        num_iters_per_epoch: Steps of an epoch.
        plan_conf: Arguments of `optim.schedule.Plan`.
        solver: Module of `bilevel.optim`: penalty (BL-JUST and its baselines), local (PTLOC; no steps: plain training).
        solver_conf: Arguments of the solver.
        penalty_conf: Arguments of `optim.schedule.Penalty`, for solvers with a growing penalty.
        stage_lr_conf: Arguments of `optim.schedule.StageRate`; it multiplies ESPnet's scheduler, if there is one.
        max_skipped_steps: Stop after this many non-finite steps in a row.
        health_conf: Arguments of `health.Health`.
    """

    num_iters_per_epoch: int
    plan_conf: dict[str, Any]
    solver: str
    solver_conf: dict[str, Any]
    penalty_conf: dict[str, Any]
    stage_lr_conf: dict[str, float]
    max_skipped_steps: int
    health_conf: dict[str, Any]

    def __post_init__(self) -> None:
        self.health = Health(**self.health_conf)  # lives as long as the run: a window may be longer than an epoch
