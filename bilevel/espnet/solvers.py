"""A solver inside ESPnet's training: by name, on the training's schedules."""

import dataclasses
from typing import Any

from bilevel.optim.schedule import Penalty
from bilevel.optim.solver import build


class ScheduledSolver:
    """A solver of `bilevel.optim` whose penalty follows its ramp and whose step sizes follow the learning rate.

    Args:
        name: Module of `bilevel.optim`.
        conf: Arguments of the solver.
        penalty_conf: Arguments of `optim.schedule.Penalty`; `weight_lower_head` among them is the solver's.

    Raises:
        ValueError: Unknown solver or argument.
    """

    def __init__(self, name: str, conf: dict[str, Any], penalty_conf: dict[str, Any]) -> None:
        ramp = {key: value for key, value in penalty_conf.items() if key != "weight_lower_head"}
        known = {field.name for field in dataclasses.fields(Penalty)}
        if set(ramp) - known:
            unknown, names = ", ".join(sorted(set(ramp) - known)), ", ".join(sorted(known))
            raise ValueError(f"penalty_conf {unknown}: expected weight_lower_head or some of {names}")
        head = {key: value for key, value in penalty_conf.items() if key == "weight_lower_head"}
        self.name = name
        self.solver = build(name, conf | head)
        self.penalty = Penalty(**ramp)
        self._bases = {attribute: getattr(self.solver, attribute) for attribute in self.solver.anneals}

    def schedule(self, progress: float, rate: float) -> None:
        """Set the solver for a step.

        Args:
            progress: Progress of the stage in (0, 1].
            rate: The optimizer's learning rate over its initial one.
        """
        if self.solver.penalised:
            self.solver.gamma = self.penalty.gamma(progress)
            self.solver.scale = self.penalty.scale(self.solver.gamma)
        for attribute, base in self._bases.items():
            setattr(self.solver, attribute, base * rate)
