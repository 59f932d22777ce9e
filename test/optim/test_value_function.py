import functools
import math

import pytest
import torch

from bilevel.optim.schedule import Penalty
from bilevel.optim.value_function import Solver
from bilevel.testing.check_solver import check_solver, settle, step
from bilevel.testing.quadratic import Quadratic

FAST = {"lr": 0.3, "n_inner": 2}


@pytest.mark.parametrize("options", [FAST, {"lr": 0.2, "momentum": 0.3}])
def test_contract(options):
    check_solver(functools.partial(Solver, gamma=1e4, **options), tolerance=1e-3, processes=False)


def test_the_error_of_the_hypergradient_falls_like_one_over_gamma():
    gammas = torch.tensor([10.0, 100.0, 1000.0], dtype=torch.float64)
    errors = []
    for gamma in gammas.tolist():
        problem = Quadratic()
        errors.append((settle(Solver(gamma, **FAST), problem) - problem.hypergradient()).norm())
    x, y = gammas.log(), torch.stack(errors).log()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert -1.1 < slope < -0.9


def test_settled_the_gradient_is_that_of_f_gamma_in_closed_form():
    problem, gamma = Quadratic(), 7.0
    solver = Solver(gamma, **FAST)
    found = settle(solver, problem)
    response, penalised = problem.response(), problem.penalised_response(gamma)
    torch.testing.assert_close(problem.y.detach(), penalised, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(solver.z[0], response, rtol=1e-8, atol=1e-8)
    miss = problem.h @ (penalised - response)
    expected = (problem.rho * problem.x - gamma * problem.a.T @ miss).detach()
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
    report = step(solver, problem)
    gap = 0.5 * float((penalised - response) @ miss)
    assert report["gap"] == pytest.approx(gap)
    assert report["penalty"] == pytest.approx(gamma * gap)
    assert report["residual"] < 1e-8


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_copy_starts_at_y_and_takes_the_steps_of_sgd(momentum):
    problem, twin = Quadratic(), Quadratic()
    solver = Solver(n_inner=3, lr=0.05, momentum=momentum)
    optimizer = torch.optim.SGD([twin.y], lr=0.05, momentum=momentum)
    for _ in range(2):
        step(solver, problem)
        for _ in range(3):
            twin.y.grad = torch.autograd.grad(twin.lower(twin.lower_batch), twin.y)[0]
            optimizer.step()
        torch.testing.assert_close(solver.z[0], twin.y.detach())
    assert torch.equal(problem.y, Quadratic().y)
    solver.reset()
    assert solver.state_dict() == {"z": None, "velocity": None}


def test_inner_steps_contract_as_theory_says():
    problem, lr, n_inner = Quadratic(), 0.2, 5
    solver = Solver(n_inner=n_inner, lr=lr)
    step(solver, problem)
    eye = torch.eye(len(problem.h), dtype=torch.float64)
    rate = torch.linalg.matrix_power(eye - lr * problem.h, n_inner)
    start = problem.y.detach() - problem.response()
    torch.testing.assert_close(solver.z[0] - problem.response(), rate @ start)
    assert torch.linalg.matrix_norm(rate, 2) == pytest.approx((1 - lr) ** n_inner)  # the spectrum of H is [1, 4]


@pytest.mark.parametrize("n_inner", [1, 4])
def test_reported_passes_are_the_evaluations_made(n_inner):
    problem, calls = Quadratic(), []
    for level in ("upper", "lower"):
        plain = getattr(problem, level)
        setattr(problem, level, lambda batch, level=level, plain=plain: calls.append(level) or plain(batch))
    report = step(Solver(n_inner=n_inner), problem)
    assert calls.count("upper") == 1
    assert calls.count("lower") == n_inner + 1
    assert report["passes"] == len(calls)


def test_a_schedule_drives_gamma_and_scale():
    problem, schedule = Quadratic(), Penalty(gamma_max=8.0)
    solver = Solver(lr=0.1)
    step(solver, problem)  # z moves off y
    kept = solver.state_dict()
    parts = []
    for gamma, scale in ((0.0, 1.0), (1.0, 1.0), (schedule.gamma(0.5), schedule.scale(schedule.gamma(0.5)))):
        solver.load_state_dict(kept)
        solver.gamma, solver.scale = gamma, scale
        step(solver, problem)
        parts.append([problem.x.grad.clone(), problem.y.grad.clone()])
    assert solver.gamma == 4.0
    for direct, one, found in zip(*parts, strict=True):
        torch.testing.assert_close(found, (direct + 4.0 * (one - direct)) / 4.0)
    torch.testing.assert_close(parts[0][0], problem.rho * problem.x.detach())


class Noisy(Quadratic):
    """Its lower level drops entries at random, as masks and dropout do."""

    def lower(self, batch):
        keep = torch.bernoulli(torch.full_like(self.y, 0.5))
        return (keep * (self.y - self.a @ self.x - batch.mean(0))).square().sum()


def test_passes_over_the_lower_level_share_their_noise():
    problem, solver = Noisy(), Solver(gamma=100.0, n_inner=1)
    step(solver, problem)
    # At the first call the pass over z is made at y: with equal noise the difference is exactly zero.
    torch.testing.assert_close(problem.x.grad, problem.rho * problem.x.detach(), rtol=1e-12, atol=0)
    first = problem.y.grad.clone()
    solver.reset()
    step(solver, problem)
    assert not torch.equal(first, problem.y.grad), "the next call must draw new noise"


def test_a_lower_batch_alone_is_exploration():
    problem, solver = Quadratic(), Solver(gamma=5.0, scale=0.1)
    report = solver.backward(problem, None, problem.lower_batch)
    assert problem.x.grad is None
    torch.testing.assert_close(
        problem.y.grad, torch.autograd.grad(problem.lower(problem.lower_batch), problem.y)[0], rtol=0, atol=0
    )
    assert solver.z is None
    assert report["passes"] == 1
    assert math.isnan(report["gap"])


def test_one_bad_batch_does_not_spoil_the_copy():
    problem, solver = Quadratic(), Solver(n_inner=2, momentum=0.5)
    step(solver, problem)
    kept = solver.state_dict()
    solver.backward(problem, problem.upper_batch, problem.lower_batch * math.nan)
    for key, value in solver.state_dict().items():
        assert torch.equal(value[0], kept[key][0])


def test_refusals():
    problem = Quadratic()
    with pytest.raises(ValueError, match="no lower batch"):
        Solver().backward(problem, problem.upper_batch, None)
    problem.lower_params = problem.upper_params
    with pytest.raises(ValueError, match="in both levels"):
        step(Solver(), problem)
    for bad in ({"gamma": -1.0}, {"n_inner": 0}, {"lr": 0.0}, {"momentum": 1.0}):
        with pytest.raises(ValueError, match="expected gamma >= 0"):
            Solver(**bad)
