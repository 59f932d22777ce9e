"""Which stage a training step belongs to, and how large the penalty is there.

Everything is a pure function of the step number. So a resumed run needs no state: penalty, stage and both data
positions follow from how many steps were taken.
"""

from dataclasses import dataclass
from typing import Literal

Stage = Literal["explore", "joint", "finetune"]
STAGES: tuple[Stage, ...] = ("explore", "joint", "finetune")


@dataclass(frozen=True)
class Penalty:
    """Penalty weight over the joint stage, as a function of its progress r in [0, 1].

    linear:   gamma(r) = gamma_start + (gamma_max - gamma_start) r   (specs: reaches gamma_max, unlike released code)
    constant: gamma(r) = gamma_max                                     (the weighted-sum baseline)

    With `normalise`, the whole joint gradient is divided by max(1, gamma), which keeps the step size times the
    smoothness constant L_gamma bounded for gamma > 1 (public PBGD code; no effect for gamma <= 1).

    Raises:
        ValueError: A negative weight, or an unknown ramp.
    """

    gamma_max: float = 1.0
    gamma_start: float = 0.0
    ramp: Literal["linear", "constant"] = "linear"
    normalise: bool = True

    def __post_init__(self) -> None:
        if self.gamma_max < 0 or self.gamma_start < 0:
            raise ValueError(f"gamma_start {self.gamma_start}, gamma_max {self.gamma_max}: expected values >= 0")
        if self.ramp not in ("linear", "constant"):
            raise ValueError(f"ramp {self.ramp!r}: expected linear or constant")

    def gamma(self, progress: float) -> float:
        """Weight of the lower-level gradient at a progress in [0, 1]."""
        if self.ramp == "constant":
            return self.gamma_max
        return self.gamma_start + (self.gamma_max - self.gamma_start) * progress

    def scale(self, gamma: float) -> float:
        """Factor on the whole joint gradient."""
        return 1.0 / max(1.0, gamma) if self.normalise else 1.0


@dataclass(frozen=True)
class StageRate:
    """Factor on the learning rate: one per stage, times a tri-stage shape that starts anew with every stage.

    A stage begins with a new loss, and fine-tuning with a fresh head, so each warms up, holds and decays by itself.
    With factors of 1 the mean rate over all steps is the same for every split into stages: one budget for all methods.

        shape(r) = r / warmup for r < warmup;  1;  falling to `final` over the last `decay`, r in (0, 1]:
        1 - (1 - final) s  or  final^s  with s from 0 to 1 ("linear", "exponential")

    "x 1/sqrt(2) each epoch" over the last 20 epochs is exponential with final = 2^-10.

    Attributes:
        explore: Factor in stage A (rho of the paper's box, over the base rate).
        joint: Factor in stage B (alpha).
        finetune: Factor in stage C (tau).
        warmup: Share of a stage to warm up in.
        decay: Share of a stage to decay in.
        final: Shape at the end of a stage.
        decay_shape: "linear" or "exponential".

    Raises:
        ValueError: A negative factor, warm-up and decay that overlap, or an unknown shape.
    """

    explore: float = 1.0
    joint: float = 1.0
    finetune: float = 1.0
    warmup: float = 0.0
    decay: float = 0.0
    final: float = 0.01
    decay_shape: Literal["linear", "exponential"] = "linear"

    def __post_init__(self) -> None:
        if min(self.explore, self.joint, self.finetune, self.warmup, self.decay, self.final) < 0:
            raise ValueError(f"{self}: expected values >= 0")
        if self.warmup + self.decay > 1:
            raise ValueError(f"warmup {self.warmup} + decay {self.decay}: expected at most 1 together")
        if self.decay_shape not in ("linear", "exponential"):
            raise ValueError(f"decay_shape {self.decay_shape!r}: expected linear or exponential")

    def factor(self, stage: Stage, progress: float) -> float:
        """Factor at a progress in (0, 1] of a stage."""
        height = {"explore": self.explore, "joint": self.joint, "finetune": self.finetune}[stage]
        if progress < self.warmup:
            return height * progress / self.warmup
        if progress > 1 - self.decay:
            fallen = (progress - 1 + self.decay) / self.decay
            return height * (self.final**fallen if self.decay_shape == "exponential" else 1 - (1 - self.final) * fallen)
        return height


@dataclass(frozen=True)
class Plan:
    """Stages A (explore), B (joint), C (finetune) over `n_steps` steps.

    Attributes:
        n_steps: All steps of the training.
        explore: Share of steps that take the lower level alone.
        joint: Share of steps that take both levels; the rest, stage C, takes the upper level alone.
        explore_when: "once": all of A comes first. "every_epoch": each epoch of A and B starts with its share of A.
        n_steps_per_epoch: Steps of an epoch; needed for "every_epoch".

    Raises:
        ValueError: Shares outside [0, 1] or above 1 together, or an unknown `explore_when`.
    """

    n_steps: int
    explore: float = 0.0
    joint: float = 0.0
    explore_when: Literal["once", "every_epoch"] = "once"
    n_steps_per_epoch: int | None = None

    def __post_init__(self) -> None:
        if min(self.explore, self.joint) < 0 or self.explore + self.joint > 1 + 1e-9:
            raise ValueError(
                f"explore {self.explore} + joint {self.joint}: expected shares >= 0 of together at most 1; "
                "the rest is the final fine-tuning"
            )
        if self.explore_when not in ("once", "every_epoch"):
            raise ValueError(f"explore_when {self.explore_when!r}: expected once or every_epoch")
        if self.explore_when == "every_epoch" and not self.n_steps_per_epoch:
            raise ValueError("explore_when every_epoch: expected n_steps_per_epoch")

    @property
    def n_explore(self) -> int:
        """Steps of stage A in all."""
        return round(self.explore * self.n_steps)

    @property
    def n_joint(self) -> int:
        """Steps of stage B in all."""
        return round((self.explore + self.joint) * self.n_steps) - self.n_explore

    def taken(self, step: int) -> tuple[int, int, int]:
        """How many steps of A, B, C lie before step number `step` (from 0)."""
        n_before_c = self.n_explore + self.n_joint
        inside = min(step, n_before_c)
        n_a = min(inside, self.n_explore) if self.explore_when == "once" else self._explored_by_epoch(inside)
        return n_a, inside - n_a, step - inside

    def _explored_by_epoch(self, inside: int) -> int:
        """Steps of A before `inside` when every epoch opens with its share of them (rounded so that they add up)."""
        n_before_c, length = self.n_explore + self.n_joint, self.n_steps_per_epoch
        epoch, offset = divmod(inside, length)

        def through(n_epochs: int) -> int:
            return round(self.n_explore * min(n_epochs * length, n_before_c) / max(n_before_c, 1))

        before = through(epoch)
        return before + min(offset, through(epoch + 1) - before)

    def stage(self, step: int) -> Stage:
        """The stage that step number `step` (from 0) belongs to."""
        now, after = self.taken(step), self.taken(step + 1)
        return STAGES[next(i for i in range(3) if after[i] > now[i])]

    def progress(self, step: int) -> float:
        """Progress of the step's own stage in (0, 1]: 1 at its last step, so that gamma_max is reached."""
        stage = STAGES.index(self.stage(step))
        n_stage = (self.n_explore, self.n_joint, self.n_steps - self.n_explore - self.n_joint)[stage]
        return (self.taken(step)[stage] + 1) / n_stage

    def positions(self, step: int) -> tuple[int, int]:
        """How many labelled and unlabelled batches were used before `step`: A takes 0 and 1, B 1 and 1, C 1 and 0."""
        n_a, n_b, n_c = self.taken(step)
        return n_b + n_c, n_a + n_b
