import math

import pytest
import torch

from bilevel.optim.alternating import Solver
from bilevel.testing.check_solver import check_solver, step
from bilevel.testing.quadratic import Quadratic


def test_contract():
    check_solver(Solver, processes=False)


def levels(solver, problem, n_calls):
    reports = [step(solver, problem) for _ in range(n_calls)]
    return "".join("l" if math.isnan(r["upper_loss"]) else "u" for r in reports)


@pytest.mark.parametrize(("n_lower", "expected"), [(1, "ululul"), (2, "ullull")])
def test_levels_take_turns_also_after_a_restart(n_lower, expected):
    problem, solver = Quadratic(), Solver(n_lower)
    assert levels(solver, problem, 2) == expected[:2]
    resumed = Solver(n_lower)
    resumed.load_state_dict(solver.state_dict())
    assert levels(resumed, problem, 4) == expected[2:]
    resumed.reset()
    assert levels(resumed, problem, 1) == "u"


def test_each_call_writes_the_gradient_of_its_level_alone():
    problem, solver = Quadratic(), Solver()
    step(solver, problem)
    torch.testing.assert_close(problem.x.grad, problem.rho * problem.x.detach())
    assert problem.y.grad is None
    report = step(solver, problem)
    assert problem.x.grad is None
    expected = torch.autograd.grad(problem.lower(problem.lower_batch), problem.y)[0]
    assert torch.equal(problem.y.grad, expected)
    assert report["grad_norm_lower"] == pytest.approx(float(expected.norm()))
    assert report["passes"] == 1


def test_x_does_not_move_where_f_depends_on_it_through_y_alone():
    problem, solver = Quadratic(), Solver()
    problem.rho = 0.0
    assert problem.hypergradient().norm() > 0.1
    step(solver, problem)
    assert not problem.x.grad.any()


def test_a_single_batch_takes_its_level_out_of_turn():
    problem, solver = Quadratic(), Solver()
    for _ in range(2):
        assert math.isnan(solver.backward(problem, None, problem.lower_batch)["upper_loss"])
        assert math.isnan(solver.backward(problem, problem.upper_batch, None)["lower_loss"])
    assert solver.n_calls == 0


def test_refusals():
    with pytest.raises(ValueError, match="found neither"):
        Solver().backward(Quadratic(), None, None)
    with pytest.raises(ValueError, match="n_lower 0"):
        Solver(n_lower=0)
