"""An ordered list of levels, each with named objectives, its own weighting and a scale that may grow over training."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from bilevel.moo.collector import Collector, over_processes
from bilevel.moo.conflict import ConflictMonitor
from bilevel.moo.layers import Selection, pairwise
from bilevel.moo.normalise import Normaliser
from bilevel.moo.schedule import Schedule
from bilevel.moo.weighting import FLOAT, ObjectiveWeighting, build, check_keys, check_known


class Level:
    """Some objectives that are weighed against each other.

    Args:
        name: Of the level, for logs and state.
        objectives: Names, in the order of the weights.
        weighting: Name of a weighting.
        weighting_conf: Its arguments.
        scale: eta, a number or points of a `Schedule`.
        per: "epoch" or "step", of the schedule.
        normalise: See `Normaliser`; None is "running" for weightings that are `scale_sensitive`, "none" for the others.

    Raises:
        ValueError: No objective or one twice, or arguments that the parts refuse.
    """

    def __init__(
        self,
        name: str,
        objectives: Sequence[str],
        weighting: str = "mean",
        weighting_conf: Mapping[str, Any] | None = None,
        scale: float | Sequence[Sequence[float]] = 1.0,
        per: str = "epoch",
        normalise: str | None = None,
    ) -> None:
        if isinstance(objectives, str) or not objectives or len(set(objectives)) < len(objectives):
            raise ValueError(f"level {name}: objectives {objectives}; expected a list of at least one name, each once")
        self.name, self.objectives = name, list(objectives)
        self.weighting: ObjectiveWeighting = build(weighting, len(self.objectives), weighting_conf)
        by = normalise or ("running" if self.weighting.scale_sensitive else "none")
        self.normaliser = Normaliser(len(self.objectives), by)
        self.schedule = Schedule(scale, per)
        self.lam = torch.full((len(self.objectives),), 1 / len(self.objectives), dtype=FLOAT)
        self.last = list(range(len(self.objectives)))  # places of the objectives that were in the last step

    def weights(self, gramian: Tensor, cross: Tensor, losses: Tensor, local: list[int]) -> Tensor:
        """What each gradient counts: (m,). Gramians (m, m) of the objectives `local` that are present."""
        present = torch.tensor(local)
        norms = gramian.diagonal().clamp(min=0).sqrt()
        scales = self.normaliser.scales(norms, losses, present)
        seen = (cross if self.weighting.n_batches == 2 else gramian) / scales[:, None] / scales
        found = self.normaliser.weights(self.weighting.weights(seen, losses, local), scales)
        self.lam[local], self.last = found, list(local)
        return found

    def ahead(self, local: list[int]) -> Tensor:
        """Weights (m,) before any gradient of the step is known: those of the last step.

        Weightings that need nothing have theirs already. Otherwise, where other objectives are present than in the
        last step, the weights that each of them had last (1 / M where it had none) are scaled to the sum of the last
        step's; negative ones count as zero then, and all are equal where none is left.
        """
        m = len(local)
        if self.weighting.needs == "nothing" and self.normaliser.by == "none":
            return self.weighting.weights(torch.zeros(m, m), None, local)
        if local == self.last:
            return self.lam[local]
        total, found = self.lam[self.last].sum(), self.lam[local].clamp(min=0)
        return found * (total / found.sum()) if found.sum() > 0 else torch.full_like(found, float(total) / m)

    def state_dict(self) -> dict[str, Any]:
        """State of the weighting and of the normaliser, and the last weights."""
        parts = {"weighting": self.weighting.state_dict(), "normaliser": self.normaliser.state_dict()}
        return parts | {"lam": self.lam.clone(), "last": list(self.last)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore."""
        check_keys(self, state, ("weighting", "normaliser", "lam", "last"))
        self.weighting.load_state_dict(state["weighting"])
        self.normaliser.load_state_dict(state["normaliser"])
        self.lam, self.last = state["lam"].to("cpu", copy=True), list(state["last"])


class Levels:
    r"""theta.grad += sum_k eta_k sum_m lam_km g_km, heads get their own plain gradient; one optimizer step follows.

    Levels are in the order given and none is implied: VS-MSP, VC-MSP, VM-MSP, a hierarchy of languages, M2ASR, the
    plain sum and two-stage training are lists of levels (doc/moo.md). There is no inner loop: a lower level is a
    penalty, whose constant minimum has no gradient.

        levels.start(epoch)
        for name, batch in batches: levels.add(name, loss_of(name, batch))    # forward, backward, free
        report = levels.finish(epoch)                                         # weights, .grad
        optimizer.step()

    or `backward`, which does all of it. With two batches an objective (`n_batches`), `add` takes `batch=0` and
    `batch=1`.

    **Delayed weights** (`selection: {delayed: true}`, see `layers.Selection`). Between detections lam is that of the
    step before, so that a gradient is weighed when it is found and its graph is freed; eta is of now. The weighting
    sees the rows of the chosen tensors and makes the lam of the next step. Weightings that need nothing (mean, static)
    are not late, and famo, whose weights follow the losses, is by one step like the others. A step of which all rows
    are held, such as a detection, has weights of its own.

    Args:
        shared: Parameters of the encoder by name.
        heads: Objective -> parameters of its head; its keys are all objectives.
        levels: Arguments of `Level`, one mapping each; every objective is in exactly one.
        nested: eta_k is the product of the scales of levels 1 to k (a penalty within a penalty) instead of its own.
        selection: Arguments of `layers.Selection`; None takes all tensors in every step.
        monitor: Arguments of `ConflictMonitor`; None keeps no record.

    References:
        Objective Soups, arXiv 2508.09228; M2ASR, Interspeech 2024.
    Deviations:
        One state of MoDo for each level; how the paper groups the weights of its two supervised levels is not known.

    Raises:
        ValueError: An objective in no level, in two, or without a head's entry; an unknown argument; a selection
            together with a weighting that needs rows.
    """

    def __init__(
        self,
        shared: Mapping[str, Parameter],
        heads: Mapping[str, Sequence[Parameter]],
        levels: Sequence[Mapping[str, Any]],
        nested: bool = False,
        selection: Mapping[str, Any] | None = None,
        monitor: Mapping[str, Any] | None = None,
    ) -> None:
        for conf in levels:
            check_known("argument of a level:", conf, inspect.signature(Level).parameters)
        self.levels, self.nested = [Level(**conf) for conf in levels], nested
        self.collector = Collector(shared, heads)
        names = [name for level in self.levels for name in level.objectives]
        check_known("objective", names, self.collector.objectives)
        once = sorted(names) == sorted(self.collector.objectives)
        if not once or len({level.name for level in self.levels}) < len(self.levels):
            raise ValueError(
                f"levels {[level.name for level in self.levels]} with objectives {names}: expected each of "
                f"{self.collector.objectives} once, in levels of different names"
            )
        self.selection = None if selection is None else Selection(self.collector.names, **selection)
        objectives = self.collector.objectives
        self.monitor = None if monitor is None else ConflictMonitor(objectives, self.collector.names, **monitor)
        if selection is not None and any(level.weighting.needs == "rows" for level in self.levels):
            raise ValueError("selection of layers with a weighting that follows whole gradients (moco): expected modo")
        self._batches = {objectives.index(n): lv.weighting.n_batches for lv in self.levels for n in lv.objectives}
        self._present: list[int] = []
        self._ahead: dict[int, float] | None = None  # weights that the step began with; None when they are its own
        self._scales: dict[str, float] = {}

    def n_batches(self, objective: str) -> int:
        """How many independent batches an objective takes in each step."""
        return self._batches[self.collector.objectives.index(objective)]

    def scales(self, epoch: float) -> dict[str, float]:
        """Eta of each level."""
        found, product = {}, 1.0
        for level in self.levels:
            own = level.schedule.value(epoch)
            product = product * own
            found[level.name] = product if self.nested else own
        return found

    def active(self, epoch: float) -> list[str]:
        """Objectives of levels with eta above zero. The others move their heads only, if they are given at all."""
        scales = self.scales(epoch)
        return [name for level in self.levels if scales[level.name] > 0 for name in level.objectives]

    def start(self, epoch: float = 0.0, counts: Mapping[str, int] | None = None) -> None:
        """Begin a step.

        Args:
            epoch: As for `finish`; matters for delayed weights alone, as does the next.
            counts: Objective -> number of `add` that will follow for each of its batches in this process; leave out
                those that are absent. None: as many of each objective as of any other.
        """
        c, selection, self._ahead = self.collector, self.selection, None
        c.clear()
        if selection is None or selection.due:
            return
        if selection.delayed and len(selection.tensors()) < len(c.shared):
            self._commit(epoch, dict.fromkeys(c.objectives, 1) if counts is None else counts)
        else:
            c.choose(selection.tensors())

    def _commit(self, epoch: float, counts: Mapping[str, int]) -> None:
        """Weights of the objectives that will come, before they come."""
        c = self.collector
        check_known("objective", counts, c.objectives)
        together = over_processes([counts.get(name, 0) for name in c.objectives], c.shared[0].device)
        self._present = [m for m, n in enumerate(together) if n]
        self._ahead, self._scales = {}, self.scales(epoch)
        for level in self.levels:
            local, here = self._of(level)
            if here:
                lam = self._scales[level.name] * level.ahead(local)
                self._ahead |= dict(zip(here, lam.tolist(), strict=True))
        c.commit(self.selection.tensors(), self._ahead, dict(enumerate(together)), self._batches)

    def add(self, objective: str, loss: Tensor, batch: int = 0, **options: Any) -> None:
        """One loss; see `Collector.add`."""
        self.collector.add(objective, loss, batch, **options)

    def backward(
        self,
        losses: Mapping[str, Callable[[Any], Tensor]],
        batches: Mapping[str, Sequence[Any]],
        epoch: float = 0.0,
        scale_loss: Callable[[Tensor], Tensor] = lambda loss: loss,
    ) -> dict[str, float]:
        """A whole step for objectives that each have a forward pass of their own.

        Args:
            losses: Objective -> function of a batch.
            batches: Objective -> its `n_batches` independent batches; leave out those that are absent.
            epoch: See `finish`.
            scale_loss: See `Collector.add`.

        Returns:
            See `finish`.
        """
        self.start(epoch, {name: int(len(several) > 0) for name, several in batches.items()})
        for name, several in batches.items():
            for i, batch in enumerate(several):
                self.add(name, losses[name](batch), i, scale_loss=scale_loss)
        return self.finish(epoch)

    def finish(self, epoch: float = 0.0) -> dict[str, float]:
        """Weigh the objectives and add the direction to `.grad`; values of parameters stay.

        Where a gradient is not finite (an overflow in mixed precision), weightings and moving means stay as they are,
        and the infinities go to `.grad`, where the loss scaler or the trainer finds them.

        Args:
            epoch: For the schedules; fractions count with `per: step`.

        Returns:
            For each objective that is present: loss_, grad_norm_ (on the tensors that decide), weight_ (eta lam, as
            applied) and contribution_ (their product). For each level: scale_ (eta) and, with two objectives or more,
            cosine_ (mean over pairs). passes (backward passes), n_deciding (tensors), finite (1 or 0).

        Raises:
            ValueError: No objective was added; or, with delayed weights, another epoch or other counts than `start`
                had.
        """
        c = self.collector
        if self._ahead is not None and self.scales(epoch) != self._scales:
            raise ValueError(
                f"scales {self.scales(epoch)} at epoch {epoch}, but the step began with {self._scales}: expected the "
                "same epoch in `start` as in `finish`, for delayed weights are applied in between"
            )
        c.reduce(self._batches)
        self._present = c.present()
        if not self._present:
            raise ValueError("no objective has data in this step: expected at least one `add`")
        gramians = c.gramians()
        finite = bool(gramians.isfinite().all())
        if finite and self._track():
            gramians = c.gramians()
        products = c.gramians(cross=True) if 2 in self._batches.values() else gramians
        if finite:
            self._watch(gramians, products)
        deciding = set(c.held if self.selection is None else self.selection.tensors())
        index = [i for i, t in enumerate(c.held) if t in deciding]
        gramian = gramians[index].sum(0)
        cross = products[index].sum(0)
        finite = finite and bool(cross.isfinite().all())
        found: dict[str, float] = {}
        weights = dict.fromkeys(self._present, 0.0)
        for level, eta in zip(self.levels, self.scales(epoch).values(), strict=True):
            local, here = self._of(level)
            found[f"scale_{level.name}"] = eta
            if not here:
                continue
            losses = torch.tensor([c.means[m] for m in here], dtype=torch.float64)
            lam = torch.full_like(losses, 1 / len(here))
            if finite:
                lam = level.weights(gramian[here][:, here], cross[here][:, here], losses, local)
            weights |= dict(zip(here, (eta * lam).tolist(), strict=True))
            if len(here) > 1:
                found[f"cosine_{level.name}"] = float(pairwise(gramian[here][:, here]).nanmean())
        weights = weights if self._ahead is None else self._ahead
        c.combine(torch.tensor([weights[m] for m in self._present], dtype=torch.float64))
        for m in self._present:
            name, norm = c.objectives[m], math.sqrt(max(float(gramian[m, m]), 0.0)) if finite else math.nan
            found |= {f"loss_{name}": c.means[m], f"grad_norm_{name}": norm, f"weight_{name}": weights[m]}
            found[f"contribution_{name}"] = weights[m] * norm
        found |= {"passes": float(c.n_passes), "n_deciding": float(len(index)), "finite": float(finite)}
        c.clear()
        return found

    def _of(self, level: Level) -> tuple[list[int], list[int]]:
        """Objectives of a level that are present: their places in the level, and among all."""
        places = {name: i for i, name in enumerate(self.collector.objectives)}
        pairs = [(i, places[name]) for i, name in enumerate(level.objectives) if places[name] in self._present]
        return [i for i, _ in pairs], [m for _, m in pairs]

    def _track(self) -> bool:
        """Let weightings that need rows replace them; whether any did."""
        tracking = [level for level in self.levels if level.weighting.needs == "rows"]
        for level in tracking:
            local, here = self._of(level)
            tracked = level.weighting.track({i: self.collector.row(m) for i, m in zip(local, here, strict=True)})
            for i, m in zip(local, here, strict=True):
                self.collector.replace(m, tracked[i])
        return bool(tracking)

    def _watch(self, gramians: Tensor, cross: Tensor) -> None:
        """Hand the products of the held tensors to the monitor and to the selection."""
        c = self.collector
        if self.monitor is not None:
            whole, shared = (gramians.new_zeros(len(c.shared), *p.shape[1:]) for p in (gramians, gramians[:, 0]))
            twice = torch.tensor([c.n_batches.get(m) == 2 for m in range(len(c.objectives))])
            whole[c.held], shared[c.held] = gramians, cross.diagonal(dim1=1, dim2=2) * twice
            self.monitor.observe(whole, c.held, shared)
        if self.selection is not None:
            self.selection.step(gramians)

    def update(self, losses: Mapping[str, Tensor | float]) -> None:
        """After the optimizer's step, for weightings that need "losses" (famo): the same batches' losses again.

        Args:
            losses: Objective -> loss, of those that were in the step.
        """
        for level in self.levels:
            if level.weighting.needs == "losses":
                local, here = self._of(level)
                values = torch.tensor([float(losses[self.collector.objectives[m]]) for m in here], dtype=torch.float64)
                if torch.distributed.is_initialized():
                    torch.distributed.all_reduce(values)
                    values /= torch.distributed.get_world_size()
                level.weighting.update(values, local)

    def state_dict(self) -> dict[str, Any]:
        """State of all levels, of the selection and of the monitor."""
        levels = {level.name: level.state_dict() for level in self.levels}
        parts = {"selection": self.selection, "monitor": self.monitor}
        return {"levels": levels} | {k: None if part is None else part.state_dict() for k, part in parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore.

        Raises:
            ValueError: The state belongs to other levels or options.
        """
        check_keys(self, state, ("levels", "selection", "monitor"))
        check_keys(self, state["levels"], [level.name for level in self.levels])
        for level in self.levels:
            level.load_state_dict(state["levels"][level.name])
        for name, part in (("selection", self.selection), ("monitor", self.monitor)):
            if (part is None) != (state[name] is None):
                raise ValueError(
                    f"state: {name} is {'on' if part is None else 'off'} there, but not here; set it alike"
                )
            if part is not None:
                part.load_state_dict(state[name])
