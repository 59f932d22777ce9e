import itertools

import pytest
import torch

from bilevel.optim.lagrangian import Solver
from bilevel.problems.descend import at_both, at_responses, descend, record
from bilevel.testing.quadratic import Quadratic


def make() -> tuple[Quadratic, Solver]:
    return Quadratic(), Solver(1e3, n_iter=20, n_primal=1, lr_y=0.3, lr_mu=0.1)


def test_it_descends_to_where_the_hypergradient_vanishes_and_stops_there():
    problem, solver = make()
    batch = problem.upper_batch
    problem.lower_batch = batch
    rows = descend(problem, solver, 2000, 0.05, lambda: None, interval=50, stop=1e-3, batch=batch)
    assert rows[-1]["step"] < 2000
    assert rows[-1]["moved"] < 1e-3
    assert problem.hypergradient().norm() < 0.05
    assert [row["step"] for row in rows[:-1]] == list(range(50, int(rows[-1]["step"]), 50))
    assert all(b["seconds"] > a["seconds"] and b["passes"] > a["passes"] for a, b in itertools.pairwise(rows))


def test_steps_are_projected_and_the_rate_may_change():
    problem, solver = make()
    start = problem.x.detach().clone()

    def project() -> None:
        with torch.no_grad():
            problem.x.clamp_(start - 0.01, start + 0.01)

    seen = []

    def rate(number: int) -> float:
        seen.append(number)
        return 1.0

    descend(problem, solver, 3, rate, project, batch=problem.lower_batch)
    torch.testing.assert_close((problem.x - start).abs().max().item(), 0.01)
    assert seen == [1, 2, 3]


def test_metrics_come_from_both_responses():
    problem, solver = make()
    problem.lower_batch = problem.upper_batch
    rows = descend(
        problem, solver, 2, 0.1, lambda: None, lambda: at_responses(solver, lambda y: {"size": float(y[0].norm())}),
        batch=problem.upper_batch,
    )  # fmt: skip
    assert rows[-1]["size_yF"] == pytest.approx(float(solver.penalised.y[0].norm()))
    assert rows[-1]["size_yg"] == pytest.approx(float(solver.value.y[0].norm()))
    assert at_both([1], [2], lambda y: {"v": y[0]}) == {"v_yF": 1, "v_yg": 2}


def test_the_last_step_always_has_a_row():
    rows = record(lambda number: {"passes": 2, "moved": 1.0}, 5, interval=3)
    assert [(row["step"], row["passes"]) for row in rows] == [(3, 6), (5, 10)]
