import functools

import pytest
import torch

from bilevel.optim.lagrangian import Solver
from bilevel.testing.check_solver import check_solver, step
from bilevel.testing.quadratic import Coupled, Quadratic

ACCURATE = {"n_iter": 4000, "n_primal": 1, "lr_y": 0.1, "lr_mu": 0.1, "tolerance": 1e-12}


def test_contract_without_constraints():
    make = functools.partial(Solver, gamma=1e4, n_iter=4, n_primal=1, lr_y=0.3, lr_mu=0.1)
    check_solver(make, tolerance=1e-3, processes=False)


@pytest.mark.parametrize("momentum", ["none", "accelerated", "extrapolated"])
@pytest.mark.parametrize("slack", [-3.0, 20.0])
def test_both_saddles_reach_the_closed_form_of_the_kkt_conditions(slack, momentum):
    problem, gamma = Quadratic(slack=slack, constrained=True), 3.0
    # Momentum on the dual wants the primal nearly solved; without it one primal step is enough (affine constraints).
    options = ACCURATE | ({} if momentum == "none" else {momentum: True})
    if momentum == "accelerated":
        options |= {"n_primal": 5, "n_iter": 400}
    solver = Solver(gamma, **options)
    report = step(solver, problem)
    atol = (
        1e-5 if momentum == "accelerated" else 1e-8
    )  # momentum's error falls like 1 / t^2, plain steps' geometrically
    for saddle, weight in ((solver.value, None), (solver.penalised, gamma)):
        y, mu, nu = problem.kkt(weight)
        torch.testing.assert_close(saddle.y[0], y, rtol=0, atol=atol)
        torch.testing.assert_close(saddle.mu, mu, rtol=0, atol=atol)
        torch.testing.assert_close(saddle.nu, nu, rtol=0, atol=atol)
    assert (solver.value.mu.item() > 0.1) == (slack < 0)
    if slack > 0:
        assert solver.value.mu.item() == 0.0
    assert report["max_violation"] < atol
    assert solver.violations["y_F"] < atol


def objective(problem: Quadratic, gamma: float) -> torch.Tensor:
    """F_gamma(x) from the closed forms: f + gamma (g(y_F) - g(y_g)); the constraint terms vanish at a saddle."""
    y_g, y_f = problem.kkt()[0], problem.kkt(gamma)[0]
    with torch.no_grad():
        problem.y.copy_(y_g)
        v = problem.lower(problem.lower_batch)
        problem.y.copy_(y_f)
        return problem.upper(problem.upper_batch) + gamma * (problem.lower(problem.lower_batch) - v)


@pytest.mark.parametrize("slack", [-3.0, 20.0])
@pytest.mark.parametrize("gamma", [2.0, 20.0])
def test_the_gradient_of_f_gamma_agrees_with_finite_differences(gamma, slack):
    problem = Quadratic(slack=slack, constrained=True)
    step(Solver(gamma, **ACCURATE), problem)
    found, eps = problem.x.grad.clone(), 1e-5
    differences = []
    for i in range(len(problem.x)):
        values = []
        for sign in (1, -1):
            moved = Quadratic(slack=slack, constrained=True)
            with torch.no_grad():
                moved.x[i] += sign * eps
            values.append(objective(moved, gamma))
        differences.append((values[0] - values[1]) / (2 * eps))
    torch.testing.assert_close(found, torch.stack(differences), rtol=1e-5, atol=1e-6)


def test_without_multiplier_terms_the_gradient_is_wrong_by_gamma_times_2x():
    problem, gamma = Coupled(x=0.7), 5.0
    gradients = []
    for multiplier_terms in (True, False):
        problem.x.grad = None
        solver = Solver(gamma, multiplier_terms=multiplier_terms, **ACCURATE)
        solver.backward(problem, (), ())
        assert solver.value.y[0].item() == pytest.approx(0.7, abs=1e-9)
        assert solver.value.mu.item() == pytest.approx(2 * 0.7, abs=1e-9)
        gradients.append(problem.x.grad.item())
    # y_F = y_g = x here, so the true derivative is f'(x) = 2 (x - 1); objective-only gradients cancel to 0.
    assert gradients[0] == pytest.approx(2 * (0.7 - 1), abs=1e-8)
    assert gradients[1] == pytest.approx(0.0, abs=1e-8)


def test_minus_the_multiplier_is_the_slope_of_the_value_function_in_the_slack():
    values, eps = [], 1e-5
    for change in (eps, -eps):
        problem = Quadratic(slack=-3.0 + change, constrained=True)
        with torch.no_grad():
            problem.y.copy_(problem.kkt()[0])
            values.append(problem.lower(problem.lower_batch).item())
    problem = Quadratic(slack=-3.0, constrained=True)
    solver = Solver(2.0, **ACCURATE)
    step(solver, problem)
    assert (values[0] - values[1]) / (2 * eps) == pytest.approx(-solver.value.mu.item(), rel=1e-5)


def test_a_warm_start_needs_fewer_passes():
    problem = Quadratic(slack=-3.0, constrained=True)
    solver = Solver(2.0, **ACCURATE | {"tolerance": 1e-8})
    first, second = step(solver, problem)["passes"], step(solver, problem)["passes"]
    assert second < first / 20


def test_shared_parameters_and_senseless_settings_are_refused():
    problem = Quadratic()
    problem.lower_params = problem.upper_params
    with pytest.raises(ValueError, match="in both levels"):
        step(Solver(), problem)
    with pytest.raises(ValueError, match="no lower batch"):
        Solver().backward(Quadratic(), (), None)
    with pytest.raises(ValueError, match="gamma 0"):
        Solver(gamma=0)
    with pytest.raises(ValueError, match="at most one"):
        Solver(accelerated=True, extrapolated=True)
    with pytest.raises(ValueError, match="n_iter 0"):
        Solver(n_iter=0)


class Flow:
    """min_y <q, y> over y >= 0 with sum(y) = x: linear, so the cheapest way takes all, y* = (x, 0, 0), nu = -q_1."""

    def __init__(self) -> None:
        self.q = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
        self.x = torch.nn.Parameter(torch.tensor([1.5], dtype=torch.float64))
        self.y = torch.nn.Parameter(torch.full((3,), 0.5, dtype=torch.float64))

    def upper(self, batch):
        return 0.0 * self.y.sum()

    def lower(self, batch):
        return self.q @ self.y

    def upper_params(self):
        return [self.x]

    def lower_params(self):
        return [self.y]

    def constraints(self, batch):
        return self.y.new_zeros(0), (self.y.sum() - self.x) / 3**0.5

    def project_lower(self):
        with torch.no_grad():
            self.y.clamp_(min=0)


def test_extrapolation_converges_where_the_lower_level_is_linear_and_plain_steps_circle():
    errors = {}
    for extrapolated in (False, True):
        problem = Flow()
        solver = Solver(1.0, n_iter=300, n_primal=1, lr_y=0.9, lr_mu=0.9, extrapolated=extrapolated, tolerance=1e-12)
        step_report = solver.backward(problem, (), ())
        errors[extrapolated] = abs(solver.value.y[0] - torch.tensor([1.5, 0.0, 0.0])).max().item()
    assert errors[True] < 1e-10
    assert step_report["residual"] < 1e-10  # although the gradient itself is not 0 at the border of Y
    assert solver.value.nu.item() / 3**0.5 == pytest.approx(-1.0, abs=1e-9)
    assert errors[False] > 1e-2
