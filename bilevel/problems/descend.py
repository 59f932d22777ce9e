"""The outer loop: projected gradient steps on x, timed, with a trace of metrics."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bilevel.optim import vector
from bilevel.optim.lagrangian import Solver as Lagrangian
from bilevel.optim.solver import BilevelSolver

Row = dict[str, float]


def descend(
    problem: Any,
    solver: BilevelSolver,
    n_steps: int,
    lr_upper: float | Callable[[int], float],
    project: Callable[[], None],
    on_step: Callable[[], Row] | None = None,
    interval: int = 1,
    stop: float = 0.0,
    batch: Any = (),
) -> list[Row]:
    r"""Projected gradient descent, x <- Proj_X(x - eta d), with the direction d that the solver writes into x.grad.

        rows = descend(problem, solver, 80, 0.01, problem.project_upper, lambda: at_responses(solver, problem.evaluate))

    Args:
        problem: What the solver asks for.
        solver: Any solver that owns its lower variable.
        n_steps: Upper steps.
        lr_upper: eta, or a function of the step's number (from 1), called after `backward`.
        project: Moves x, in place, into X.
        on_step: Metrics of the present state; see `at_responses`. Its time is not counted.
        interval: Steps between two rows; the last step always has one.
        stop: End when the generalised gradient |x_new - x| / eta falls below this.
        batch: Passed to both levels.

    Returns:
        Rows with step, seconds and passes (of all steps so far), moved (the generalised gradient), the other values of
        the solver's report, and what `on_step` returned.
    """
    upper = list(problem.upper_params())

    def step(number: int) -> Row:
        for p in upper:
            p.grad = None
        report = solver.backward(problem, batch, batch)
        lr = lr_upper(number) if callable(lr_upper) else lr_upper
        before = vector.copies(upper)
        with torch.no_grad():
            for p in upper:
                p.sub_(p.grad, alpha=lr)
        project()
        moved = vector.norm(vector.axpy(-1.0, before, vector.copies(upper)))
        return report | {"moved": float(moved) / lr}

    return record(step, n_steps, on_step, interval, stop)


def record(
    step: Callable[[int], Row],
    n_steps: int,
    on_step: Callable[[], Row] | None = None,
    interval: int = 1,
    stop: float = 0.0,
) -> list[Row]:
    """Call `step` with 1, 2, ... and keep rows; for methods that are no solvers.

    Args:
        step: One update; returns what to record, among it `passes` of this step and `moved`, which `stop` looks at.
        n_steps: Updates.
        on_step: As in `descend`; so are the others.
        interval: Steps between two rows.
        stop: Smallest `moved` to go on.
    """
    rows: list[Row] = []
    seconds = passes = 0.0
    for number in range(1, n_steps + 1):
        start = time.perf_counter()
        found = step(number)
        seconds += time.perf_counter() - start
        passes += found.pop("passes")
        done = found["moved"] < stop
        if number % interval == 0 or number == n_steps or done:
            row = {"step": number, "seconds": seconds, "passes": passes} | found
            rows.append(row | (on_step() if on_step else {}))
        if done:
            break
    return rows


def at_responses(solver: Lagrangian, evaluate: Callable[[list[Tensor]], Row]) -> Row:
    """Metrics at both responses of the lagrangian solver: keys end in _yF (penalised) and in _yg (value)."""
    return _named(evaluate(solver.penalised.y), "yF") | _named(evaluate(solver.value.y), "yg")


def at_both(y: list[Tensor], true: list[Tensor], evaluate: Callable[[list[Tensor]], Row]) -> Row:
    """The same for a method with one response of its own (_yF), beside the lower level's true solution (_yg)."""
    return _named(evaluate(y), "yF") | _named(evaluate(true), "yg")


def _named(row: Row, suffix: str) -> Row:
    return {f"{key}_{suffix}": value for key, value in row.items()}
