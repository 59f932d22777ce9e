"""The contract of every solver, and how solvers are found: drop a module with a class `Solver` here."""

import difflib
import importlib
import inspect
import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

REPORT = (
    "upper_loss",
    "lower_loss",
    "gap",
    "penalty",
    "residual",
    "max_violation",
    "grad_norm_upper",
    "grad_norm_lower",
    "passes",
)


class BilevelSolver(ABC):
    """Computes a direction, never steps: clipping, AMP, schedules and optimizers stay with the caller.

    `backward` adds gradients to `.grad` of the upper parameters x and, where the solver trains them, of the lower
    parameters y; all values are left as they were. Auxiliary copies, multipliers, moments and random generators belong
    to the solver and travel in its `state_dict`. Under torch.distributed each process passes its share of the batch;
    gradients of inner loops are averaged over processes, so that all copies stay equal.

    Attributes:
        second_order: Needs the second derivative of the lower loss (fused kernels may lack a double backward).
        accepts_constraints: Reads `constraints` of a `ConstrainedProblem`.
        shares_variables: A parameter may be in both levels.
        averages: Averages gradients over processes itself; otherwise the problem's model is wrapped in DDP.
        penalised: Has attributes `gamma` and `scale` that a ramp sets before each step (`schedule.Penalty`).
        anneals: Attributes that are step sizes and follow the outer learning rate.
    """

    second_order: bool = False
    accepts_constraints: bool = False
    shares_variables: bool = False
    averages: bool = True
    penalised: bool = False
    anneals: tuple[str, ...] = ()

    @abstractmethod
    def backward(
        self,
        problem: Any,
        upper_batch: Any | None,
        lower_batch: Any | None,
        scale_loss: Callable[[Tensor], Tensor] = lambda loss: loss,
    ) -> dict[str, float]:
        """Add the direction to `.grad`; values stay unchanged.

        Args:
            problem: A `bilevel.optim.problem.Problem`.
            upper_batch: Batch for the upper loss f.
            lower_batch: Batch for the lower loss g.
            scale_loss: Multiplies a loss before its backward pass (AMP, accumulation); never what is reported.

        Returns:
            Every key of `REPORT`; nan where this solver has no such quantity. `passes` counts evaluations of a
            gradient (one forward and one backward pass each; a Hessian-vector product counts as two).
        """

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as plain types and tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: Keys are missing or unknown.
        """
        check_keys(self, state, ())

    def reset(self) -> None:  # noqa: B027  (nothing to forget is a valid answer)
        """Forget all state, as if newly built."""


def report(**values: float | Tensor) -> dict[str, float]:
    """All keys of `REPORT` as floats; nan for what is not given."""
    unknown = set(values) - set(REPORT)
    if unknown:
        raise ValueError(f"report of {sorted(unknown)}: expected only {', '.join(REPORT)}")
    return {key: float(values.get(key, math.nan)) for key in REPORT}


def check_keys(solver: Any, state: Mapping[str, Any], expected: tuple[str, ...]) -> None:
    """Refuse a state of another kind.

    Raises:
        ValueError: Keys are missing or unknown.
    """
    if set(state) != set(expected):
        raise ValueError(
            f"state of {type(solver).__module__}: found keys {sorted(state)}, expected {sorted(expected)}; "
            "it belongs to another solver or version"
        )


def require_both(upper_batch: Any | None, lower_batch: Any | None) -> None:
    """Refuse a step with one level.

    Raises:
        ValueError: A batch is None.
    """
    if upper_batch is None or lower_batch is None:
        missing = "upper" if upper_batch is None else "lower"
        raise ValueError(f"no {missing} batch: this solver needs both levels in every step")


def refuse_shared(solver: "BilevelSolver", problem: Any) -> None:
    """Refuse parameters in both levels, for solvers that take x and y for separate variables.

    Raises:
        ValueError: A parameter is in both.
    """
    both = {id(p) for p in problem.upper_params()} & {id(p) for p in problem.lower_params()}
    if both:
        raise ValueError(
            f"{type(solver).__module__}: {len(both)} parameters are in both levels; this solver takes separate "
            "variables. Use the penalty solver, or proximal with a copy of the backbone"
        )


def clones(values: list[Tensor] | None) -> list[Tensor] | None:
    """Copies that later steps do not change; None stays None."""
    return None if values is None else [torch.clone(v.detach()) for v in values]


def names() -> list[str]:
    """Names of all solvers in `bilevel.optim`, sorted."""
    package = importlib.import_module(__package__)
    found = (m.name for m in pkgutil.iter_modules(package.__path__))
    return sorted(n for n in found if hasattr(importlib.import_module(f"{__package__}.{n}"), "Solver"))


def build(name: str, conf: Mapping[str, Any] | None = None) -> BilevelSolver:
    """A solver by the name of its module, with its constructor's arguments.

    Raises:
        ValueError: Unknown solver or argument; the message lists the choices.
    """
    choices = names()
    if name not in choices:
        near = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown solver {name!r}; the nearest one is {near!r}, all: {', '.join(choices)}")
    cls = importlib.import_module(f"{__package__}.{name}").Solver
    known = list(inspect.signature(cls).parameters)
    unknown = sorted(set(conf or {}) - set(known))
    if unknown:
        raise ValueError(f"solver {name}: unknown argument {', '.join(unknown)}; expected some of {', '.join(known)}")
    return cls(**(conf or {}))
