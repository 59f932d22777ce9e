"""BLOCC and its baselines on transport network design, by name."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bilevel.optim.lagrangian import Solver
from bilevel.problems.descend import Row, at_both, at_responses, descend, record
from bilevel.problems.lv_hba import LvHba
from bilevel.problems.network import Network
from bilevel.problems.transport import Transport

METRICS = ("utility", "violation")
# What `Transport` is scaled for; the steps of the penalised saddle follow by gamma.
SOLVER = {"n_iter": 10, "n_primal": 1, "lr_y": 1.0, "lr_mu": 1.0, "extrapolated": True}
# Steps, proximal parameters and weights of the released LV-HBA for three nodes.
LV_HBA = {"gamma1": 5.0, "gamma2": 5.0, "alpha": 0.01, "eta": 0.01, "beta": 0.02, "c_0": 0.1, "c_power": 0.4}


def merge(base: Mapping[str, Any], delta: Mapping[str, Any]) -> dict[str, Any]:
    """`base` overlaid with `delta`; mappings in both merge key by key."""
    both = {key: {**base[key], **delta[key]} for key in base.keys() & delta.keys() if isinstance(base[key], Mapping)}
    return {**base, **delta, **both}


class Design:
    """A run's outcome.

    Attributes:
        problem: Holds the capacities found.
        response: y_g at these capacities.
        rows: Trace.
        metrics: At the capacities found; keys end in _yF and _yg.
    """

    def __init__(self, problem: Transport, response: Sequence[Tensor], rows: list[Row], metrics: Row) -> None:
        self.problem, self.response, self.rows, self.metrics = problem, response, rows, metrics

    def plain(self) -> dict[str, Any]:
        """Links with capacity and trips, pairs with share; stations count from 0."""
        net, problem = self.problem.network, self.problem
        columns = {
            "tail": net.tail,
            "head": net.head,
            "capacity": problem.x.detach(),
            "trips": problem.trips(self.response).sum(0),
            "origin": net.origin,
            "destination": net.destination,
            "share": problem.shares(self.response),
        }
        places = None if net.places is None else net.places.tolist()
        return {"metrics": self.metrics, "places": places} | {key: column.tolist() for key, column in columns.items()}

    def signature(self, seed: int) -> str:
        """What changes the values."""
        problem = self.problem
        return f"seed:{seed}|flows:{problem.commodities}|floor:{problem.floor:g}|eps:{problem.eps:g}"

    def n_variables(self) -> int:
        """Upper and lower variables together."""
        return sum(p.numel() for p in (*self.problem.upper_params(), *self.problem.lower_params()))


def run(network: Network, method: str, gamma: float, seed: int, settings: Mapping[str, Any]) -> Design:
    """Design a network from a random start.

    Args:
        network: What `read_network` returns.
        method: One of `METHODS`.
        gamma: Penalty weight (not used by lv_hba).
        seed: Of the start.
        settings: `start`, the least and greatest start of a capacity, `problem_conf` for `Transport`, the keyword
            arguments of the method's function, and `per_method`: for each method such settings that yield to those.

    Raises:
        ValueError: Unknown method or settings.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    settings = dict(settings)
    settings = merge(settings.pop("per_method", {}).get(method, {}), settings)
    low, high = settings.pop("start", (0.3, 1.0))
    problem_conf = settings.pop("problem_conf", {})
    draw = torch.rand(len(network.tail), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    try:
        return METHODS[method](network, low + (high - low) * draw, gamma, problem_conf, **settings)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise ValueError(f"settings of {method}: {error}") from None


def _blocc(
    network: Network,
    capacity: Tensor,
    gamma: float,
    problem_conf: Mapping[str, Any],
    n_steps: int = 200,
    lr_upper: float = 0.04,
    lr_final: float | None = None,
    n_final: int = 2000,
    interval: int = 10,
    solver_conf: Mapping[str, Any] | None = None,
    multiplier_terms: bool = True,
) -> Design:
    """BLOCC; steps of x fall geometrically from `lr_upper` to `lr_final`, and `n_final` iterations measure the end."""
    problem = Transport(network, capacity, **problem_conf)
    solver = Solver(gamma, multiplier_terms=multiplier_terms, **SOLVER | dict(solver_conf or {}))
    fall = 1.0 if lr_final is None else lr_final / lr_upper

    def lr(number: int) -> float:
        return lr_upper * fall ** (number / n_steps)

    def measure() -> Row:
        return at_responses(solver, problem.evaluate)

    rows = descend(problem, solver, n_steps, lr, problem.project_upper, measure, interval)
    for saddle in (solver.value, solver.penalised):
        saddle.n_iter, saddle.tolerance = n_final, 1e-7
    solver.backward(problem, (), ())
    return Design(problem, solver.value.y, rows, measure())


def _no_multipliers(*args: Any, **kwargs: Any) -> Design:
    """The value-function penalty without multiplier terms: x, which enters constraints only, just loses its cost."""
    return _blocc(*args, **kwargs, multiplier_terms=False)


def _lv_hba(
    network: Network,
    capacity: Tensor,
    gamma: float,
    problem_conf: Mapping[str, Any],
    n_steps: int = 8000,
    interval: int = 400,
    lv_hba_conf: Mapping[str, Any] | None = None,
) -> Design:
    """LV-HBA; needs the plain variables. Its own pair is reported at y_F, the lower level's solution at y_g."""
    problem = Transport(network, capacity, **{"eps": 0.01} | dict(problem_conf) | {"scaled": False})
    method = LvHba(problem, *problem.bounds(), **LV_HBA | dict(lv_hba_conf or {}))
    rows = record(method.step, n_steps, lambda: at_both(method.y, problem.respond(), problem.evaluate), interval)
    response = problem.respond()
    return Design(problem, response, rows, at_both(method.y, response, problem.evaluate))


METHODS = {"blocc": _blocc, "no_multipliers": _no_multipliers, "lv_hba": _lv_hba}
