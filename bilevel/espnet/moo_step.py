"""The trainer's step on several objectives, weighed by `bilevel.moo`."""

import argparse
import dataclasses
import fnmatch
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from espnet2.train.reporter import SubReporter
from espnet2.utils.build_dataclass import build_dataclass
from espnet2.utils.nested_dict_action import NestedDictAction
from torch import Tensor

from bilevel.data.files import atomic_path, write_text
from bilevel.espnet.checkpoint import load_state, save_state
from bilevel.espnet.levels import global_mean, input_length
from bilevel.espnet.moo_data import SSL
from bilevel.espnet.moo_model import MultiObjectiveModel
from bilevel.espnet.options import BilevelTrainerOptions
from bilevel.espnet.step import Moment, Step
from bilevel.espnet.trainer import BilevelTrainer
from bilevel.moo.levels import Levels


@dataclasses.dataclass
class MultiObjectiveTrainerOptions(BilevelTrainerOptions):
    """Those of the trainer and the levels.

    Attributes:
        moo_conf: Arguments of `bilevel.moo.levels.Levels` but the parameters.
    """

    moo_conf: dict[str, Any]


_OURS = ("levels", "batches", "weighting", "weighting_conf", "normalise")


def build_levels(model: MultiObjectiveModel, moo_conf: Mapping[str, Any], max_epoch: int) -> Levels:
    """The levels of a configuration.

    Objectives may be patterns such as `asr_*`: an objective is in the level that names it in full, else in the first
    one with a pattern for it; a level without objectives is left out, with a warning. `per: training` gives a scale's
    points in shares of the training; jumps are moved to the nearest start of an epoch.

    Args:
        model: The model.
        moo_conf: Arguments of `Levels` but the parameters; `batches` (`batches_per_step`); `weighting`,
            `weighting_conf` and `normalise` put others into all levels. A new weighting takes its own default of the
            other two, for a level's were chosen for its old one.
        max_epoch: Length of the training.

    Raises:
        ValueError: What `Levels` refuses, such as an objective in no level.
    """
    names, confs = model.objectives(), [dict(level) for level in moo_conf["levels"]]
    patterns = [list(conf.pop("objectives")) for conf in confs]
    for conf, own in zip(confs, patterns, strict=True):
        fits = [
            name for name in names
            if name in own or (all(name not in p for p in patterns) and _first(name, patterns) is own)
        ]  # fmt: skip
        conf["objectives"] = sorted(fits, key=names.index)
        if "weighting" in moo_conf:
            conf |= {"weighting": moo_conf["weighting"], "weighting_conf": {}, "normalise": None}
        conf |= {key: moo_conf[key] for key in ("weighting_conf", "normalise") if key in moo_conf}
        if conf.get("per") == "training":
            points = conf.get("scale", 1.0)
            conf["per"] = "step"
            if not isinstance(points, int | float):
                conf["scale"] = _in_epochs(points, max_epoch)
    rest = {key: value for key, value in moo_conf.items() if key not in _OURS}
    used = [conf for conf in confs if conf["objectives"]]
    for conf in confs:
        if not conf["objectives"]:
            logging.warning(f"level {conf['name']}: none of {', '.join(names)} is in it; it is left out")
    return Levels(model.shared_params(), model.head_params(), used, **rest)


def _in_epochs(points: Sequence[Sequence[float]], max_epoch: int) -> list[list[float]]:
    """Shares of the training as epochs; a jump (two points at one place) is at the start of an epoch."""
    places = [x for x, _ in points]
    return [[round(x * max_epoch) if places.count(x) > 1 else x * max_epoch, y] for x, y in points]


def _first(name: str, patterns: Sequence[Sequence[str]]) -> Sequence[str] | None:
    return next((own for own in patterns if any(fnmatch.fnmatchcase(name, pattern) for pattern in own)), None)


def batches_per_step(levels: Levels, moo_conf: Mapping[str, Any]) -> dict[str, int]:
    """Objective -> its batches in each step: as many as its weighting takes, and at least `batches`.

    Those beyond what the weighting tells apart are averaged, so methods with one batch can have the cost of MoDo.
    """
    return {name: max(levels.n_batches(name), moo_conf.get("batches", 1)) for name in levels.collector.objectives}


def active(levels: Levels, epoch: int) -> list[str]:
    """Objectives that count anywhere in an epoch (from 0); a scale may leave zero within it."""
    there = {*levels.active(epoch), *levels.active(math.nextafter(epoch + 1, 0))}
    return [name for name in levels.collector.objectives if name in there]


class ObjectivesStep(Step):
    """Forward and backward for each objective in turn, then the weights and the direction of `Levels`.

    Args:
        options: Of the trainer.
        model: The model, in DDP where there are several processes; its hooks are not used, as `Levels` averages.
        autocast: Makes the context of mixed precision.
        distributed: Whether there are several processes.
    """

    def __init__(
        self,
        options: MultiObjectiveTrainerOptions,
        model: torch.nn.Module,
        autocast: Callable[[], Any],
        distributed: bool,
    ) -> None:
        self.distributed = distributed
        self.model = model.module if isinstance(model, torch.nn.parallel.DistributedDataParallel) else model
        self.levels = build_levels(self.model, options.moo_conf, options.max_epoch)
        self.autocast, self.health = autocast, options.health
        self._open, self._epoch = False, 0.0
        self._found: dict[str, list[tuple[dict[str, Any], Tensor]]] = {}
        # Batches of the open update, for weightings that want their losses again after it.
        self._again = {n: [] for lv in self.levels.levels if lv.weighting.needs == "losses" for n in lv.objectives}

    def backward(
        self, batch: dict[str, Any], moment: Moment, scale_loss: Callable[[Tensor], Tensor]
    ) -> dict[str, float]:
        """`Levels.add` for each batch; `Levels.finish` where an update follows, and its report."""
        if not self._open:
            self._epoch, self._again = moment.epoch, {name: [] for name in self._again}
            self.levels.start(
                self._epoch, {name: len(parts) // self.levels.n_batches(name) for name, parts in batch.items()}
            )
        for name, several in batch.items():
            self._found[name] = []
            if name in self._again:
                self._again[name] += several
            for i, part in enumerate(several):
                loss, stats, weight = self._loss(name, part)
                self.levels.add(name, loss.squeeze(), i % self.levels.n_batches(name), scale_loss=scale_loss)
                self._found[name].append((stats, weight))
        self._open = not moment.closes_update
        if self._open:
            return {}
        report = self.levels.finish(self._epoch)
        kept = ("grad_norm_", "weight_", "contribution_", "scale_", "cosine_", "n_deciding")
        return {k: v for k, v in report.items() if k.startswith(kept) and math.isfinite(v)}

    def register(self, batch: dict[str, Any], reporter: SubReporter, step: int) -> None:
        """Statistics of each objective, its share of the audio, and the passes of the encoder."""
        lengths = {n: sum(float(input_length(part, self.distributed)) for part in parts) for n, parts in batch.items()}
        for name, found in self._found.items():
            keys = found[0][0]
            mean = {key: sum(float(stats[key]) for stats, _ in found) / len(found) for key in keys}
            reporter.register(mean, sum(weight for _, weight in found))
            reporter.register({f"mix_{name}": lengths[name] / sum(lengths.values())})
            if name == SSL:
                self.health.check(mean, step)
        cost = {name: self.model.passes(name) for name in batch}
        reporter.register({
            "passes": sum(cost[name] * len(parts) for name, parts in batch.items()),
            "n_input": sum(cost[name] * lengths[name] for name in batch),
        })  # fmt: skip
        self._found.clear()

    @torch.no_grad()
    def updated(self, batch: dict[str, Any]) -> None:
        """For weightings that look at losses (famo): the mean over the same batches once more."""
        losses = {}
        for name, parts in self._again.items():
            if parts:
                losses[name] = sum(self._loss(name, part)[0].mean() for part in parts) / len(parts)
        if losses:
            self.levels.update(losses)

    def _loss(self, name: str, part: dict[str, Any]) -> tuple[Tensor, dict[str, Any], Tensor]:
        """ESPnet's triple for one batch of an objective, over all processes."""
        with self.autocast():
            loss, stats, weight = self.model(objective=name, **part)
        return global_mean(loss, stats, weight) if self.distributed else (loss, stats, weight)

    def save(self, output_dir: Path, epoch: int) -> None:
        """State of weightings; for the report levels.json (level -> objectives) and conflict.json."""
        save_state(self.levels.state_dict(), output_dir, epoch)
        members = {level.name: level.objectives for level in self.levels.levels}
        write_text(output_dir / "levels.json", json.dumps(members, indent=1) + "\n")
        if self.levels.monitor is not None:
            with atomic_path(output_dir / "conflict.json") as temporary:
                self.levels.monitor.write(temporary)

    def load(self, output_dir: Path, epoch: int, device: str) -> None:
        """State of weightings."""
        if epoch:
            self.levels.load_state_dict(load_state(output_dir, epoch, "cpu", "the weightings"))


class MultiObjectiveTrainer(BilevelTrainer):
    """The trainer with `ObjectivesStep`."""

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """The trainer's options, and the levels."""
        super().add_arguments(parser)
        group = parser.add_argument_group("Objectives related")
        group.add_argument("--moo_conf", action=NestedDictAction, default={}, help="bilevel.moo.levels.Levels")

    @classmethod
    def build_options(cls, args: argparse.Namespace) -> MultiObjectiveTrainerOptions:
        """Options of the training.

        Raises:
            ValueError: Options of a solver, which nobody would read.
        """
        if args.solver_conf or args.penalty_conf:
            raise ValueError("solver_conf, penalty_conf: these are for solvers of two levels; expected moo_conf alone")
        return build_dataclass(MultiObjectiveTrainerOptions, args)

    @classmethod
    def build_step(
        cls,
        options: MultiObjectiveTrainerOptions,
        model: torch.nn.Module,
        autocast: Callable[[], Any],
        distributed: bool,
    ) -> Step:
        """A step on several objectives."""
        return ObjectivesStep(options, model, autocast, distributed)
