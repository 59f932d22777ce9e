"""A solver inside ESPnet's training: by name, on the training's schedules, with its state beside the checkpoint."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from bilevel.data.files import atomic_path
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

    def save(self, output_dir: Path, epoch: int) -> None:
        """Write the state after an epoch, and keep those of two epochs before: a resume may fall back to them."""
        state = self.solver.state_dict()
        if not state:
            return
        folder = output_dir / "solver"
        folder.mkdir(exist_ok=True)
        with atomic_path(folder / f"{epoch}epoch.pth") as temporary:
            torch.save(state, temporary)
        for file in folder.glob("*epoch.pth"):
            if int(file.name.removesuffix("epoch.pth")) < epoch - 2:
                file.unlink()

    def load(self, output_dir: Path, epoch: int, device: str) -> None:
        """Restore the state that belongs to the end of an epoch; epoch 0 is the start.

        Raises:
            ValueError: It is not there although the solver has one.
        """
        if epoch == 0 or not self.solver.state_dict():
            return
        file = output_dir / "solver" / f"{epoch}epoch.pth"
        if not file.exists():
            raise ValueError(
                f"{file}: the state of solver {self.name} after epoch {epoch} is missing, so the run cannot go on as "
                f"it began; restore the file, or delete {output_dir} to train from the start"
            )
        self.solver.load_state_dict(torch.load(file, map_location=device, weights_only=True))
