"""BLOCC and its baselines on the SVM problem, by name and with the published settings as defaults."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from bilevel.optim.lagrangian import Solver
from bilevel.problems import search
from bilevel.problems.descend import Row, at_both, at_responses, descend, record
from bilevel.problems.gam import Gam
from bilevel.problems.lv_hba import LvHba
from bilevel.problems.qp import Infeasible
from bilevel.problems.svm import Svm
from bilevel.problems.svm_optimum import Optimum

Rows = list[Row]
METRICS = ("accuracy", "val_loss", "violation")
# eta1F and eta2F of the released code; the solver's own defaults would scale the value saddle's steps by gamma.
PUBLISHED = {"gamma": 12.0, "lr_y": 1e-3, "lr_mu": 1e-4, "lr_y_penalised": 1e-5, "lr_mu_penalised": 1e-4}


def run(features: Tensor, labels: Tensor, method: str, seed: int, settings: Mapping[str, Any]) -> tuple[Svm, Rows]:
    """Run one method on one split.

    Args:
        features: (N, D), expanded.
        labels: (N,).
        method: One of `METHODS`.
        seed: Of the split and of all that is random.
        settings: `problem_conf` for `Svm`, `paper_compat`, and the keyword arguments of the method's function.

    Returns:
        The problem, and rows of the trace. Metrics end in _yF (the method's own response; y_F of BLOCC), _yg (the
        lower level's exact solution at the caps of that row; absent, with feasible 0, where there is none), and for
        BLOCC in _inner (y_g as its inner loop left it).

    Raises:
        ValueError: Unknown method or settings.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    settings = dict(settings)
    problem_conf, compat = settings.pop("problem_conf", {}), settings.pop("paper_compat", False)
    if compat:
        gamma = settings.get("solver_conf", {}).get("gamma", PUBLISHED["gamma"])
        problem_conf = problem_conf | {"compat_gamma": gamma}
    problem = Svm(features, labels, seed=seed, **problem_conf)
    try:
        return problem, METHODS[method](problem, torch.Generator().manual_seed(seed + 1), **settings)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise ValueError(f"settings of {method}: {error}") from None


def _blocc(
    problem: Svm,
    generator: torch.Generator,
    n_steps: int = 80,
    lr_upper: float = 0.01,
    interval: int = 4,
    stop: float = 0.0,
    keep_feasible: bool = False,
    solver_conf: Mapping[str, Any] | None = None,
) -> Rows:
    """BLOCC.

    `keep_feasible`: besides the floor, caps are projected on those that y_F keeps, so that the lower level always has
    a solution; otherwise X is the box above the floor, as published.
    """
    solver = Solver(**PUBLISHED | dict(solver_conf or {}))

    def project() -> None:
        problem.project_upper()
        if keep_feasible:
            with torch.no_grad():
                problem.c.copy_(torch.maximum(problem.c, problem.loose(solver.penalised.y)))

    def on_step() -> Row:
        row = at_responses(solver, problem.evaluate)
        inner = {f"{key}_inner": row.pop(f"{key}_yg") for key in METRICS}
        return row | inner | _exact(problem)

    return descend(problem, solver, n_steps, lr_upper, project, on_step, interval, stop)


def _no_multipliers(
    problem: Svm, generator: torch.Generator, solver_conf: Mapping[str, Any] | None = None, **settings: Any
) -> Rows:
    """The value-function penalty without multiplier terms."""
    return _blocc(problem, generator, solver_conf=dict(solver_conf or {}) | {"multiplier_terms": False}, **settings)


def _lv_hba(
    problem: Svm, generator: torch.Generator, n_steps: int = 300, interval: int = 10, stop: float = 0.0, **conf: Any
) -> Rows:
    method = LvHba(problem, *problem.bounds(), **conf)
    return record(method.step, n_steps, lambda: _both(problem, method.y), interval, stop)


def _gam(
    problem: Svm, generator: torch.Generator, n_steps: int = 300, interval: int = 10, stop: float = 0.0, **conf: Any
) -> Rows:
    method = Gam(problem, generator, **conf)

    def on_step() -> Row:
        return at_both(method.y, method.respond(), problem.evaluate) | {"feasible": 1.0}

    return record(method.step, n_steps, on_step, interval, stop)


def _grid(
    problem: Svm,
    generator: torch.Generator,
    constants: tuple[float, ...] = search.CONSTANTS,
    shared: tuple[float, ...] = (),
) -> Rows:
    """The soft-margin machine's constants; with `shared`, these values as one cap for all samples instead."""
    candidates = search.shared_caps(problem, shared) if shared else search.soft_margin(problem, constants)
    return _search(problem, search.Search(problem, candidates), len(shared or constants), 1)


def _random(problem: Svm, generator: torch.Generator, n_steps: int = 100, **conf: Any) -> Rows:
    return _search(problem, search.Search(problem, search.random_caps(problem, generator, **conf)), n_steps, 5)


def _search(problem: Svm, found: search.Search, n_steps: int, interval: int) -> Rows:
    def on_step() -> Row:
        return {} if found.y is None else _both(problem, found.y)

    return record(found.step, n_steps, on_step, interval)


def _optimum(
    problem: Svm, generator: torch.Generator, n_steps: int = 60, interval: int = 3, stop: float = 1e-7
) -> Rows:
    """The problem's own optimum, found with one level."""
    method = Optimum(problem)
    return record(method.step, n_steps, lambda: _both(problem, method.y), interval, stop)


def _both(problem: Svm, y: list[Tensor]) -> Row:
    own = {f"{key}_yF": value for key, value in problem.evaluate(y).items()}
    return own | _exact(problem)


def _exact(problem: Svm) -> Row:
    """Metrics at the exact lower solution."""
    try:
        found = problem.evaluate(problem.respond())
    except Infeasible:
        return {"feasible": 0.0}
    return {f"{key}_yg": value for key, value in found.items()} | {"feasible": 1.0}


METHODS: dict[str, Callable[..., Rows]] = {
    "blocc": _blocc,
    "no_multipliers": _no_multipliers,
    "lv_hba": _lv_hba,
    "gam": _gam,
    "grid": _grid,
    "random": _random,
    "optimum": _optimum,
}


def results(row: Row, corpus: str, n_test: int, signature: str) -> list[dict[str, Any]]:
    """Entries of result.json from the last row of a trace; accuracies have an interval. No y_g, no entries of it."""
    entries = []
    for key in [*(f"{metric}_{response}" for response in ("yF", "yg", "inner") for metric in METRICS), "feasible"]:
        if key in row:
            low, high = wilson(row[key], n_test) if key.startswith("accuracy") else (None, None)
            entry = {"set": "test", "metric": key, "value": row[key], "low": low, "high": high}
            entries.append(entry | {"n_utts": n_test, "signature": f"{corpus}|{signature}"})
    return entries


def wilson(share: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a binomial share."""
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)
