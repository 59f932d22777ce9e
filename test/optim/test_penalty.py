import math

import pytest
import torch
from torch import nn

from bilevel.optim.penalty import Solver
from bilevel.testing.quadratic import SharedQuadratic


def gradients(loss, params):
    return dict(zip(params, torch.autograd.grad(loss, params), strict=True))


class TwoHeads:
    """A shared layer with a head for each level."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.theta, self.phi, self.eta = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 2)
        self.upper_batch, self.lower_batch = torch.randn(7, 4), torch.randn(9, 4)

    def upper(self, batch):
        return self.phi(self.theta(batch).tanh()).square().mean()

    def lower(self, batch):
        return self.eta(self.theta(batch).tanh()).exp().mean()

    def upper_params(self):
        return [*self.theta.parameters(), *self.phi.parameters()]

    def lower_params(self):
        return [*self.theta.parameters(), *self.eta.parameters()]

    def params(self):
        return [*self.upper_params(), *self.eta.parameters()]

    def grad_upper(self):
        return gradients(self.upper(self.upper_batch), self.upper_params())

    def grad_lower(self):
        return gradients(self.lower(self.lower_batch), self.lower_params())

    def step(self, solver, **kwargs):
        return solver.backward(self, self.upper_batch, self.lower_batch, **kwargs)


@pytest.fixture
def problem():
    return TwoHeads()


def test_gamma_zero_gives_exactly_the_supervised_gradient(problem):
    Solver().backward(problem, problem.upper_batch, None)
    alone = [p.grad.clone() for p in problem.theta.parameters()]
    for p in problem.params():
        p.grad = None
    problem.step(Solver(gamma=0.0))
    assert all(torch.equal(p.grad, g) for p, g in zip(problem.theta.parameters(), alone, strict=True))
    expected = problem.grad_upper()
    assert all(torch.equal(p.grad, expected[p]) for p in problem.upper_params())


def test_each_head_hears_of_its_own_level_only(problem):
    Solver().backward(problem, None, problem.lower_batch)
    assert all(p.grad is None for p in problem.phi.parameters())
    assert all(p.grad is not None for p in problem.lower_params())
    for p in problem.params():
        p.grad = None
    Solver().backward(problem, problem.upper_batch, None)
    assert all(p.grad is None for p in problem.eta.parameters())
    assert all(p.grad is not None for p in problem.upper_params())


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("weight_lower_head", ["one", "gamma"])
def test_joint_gradient_is_grad_f_plus_gamma_grad_g(problem, gamma, weight_lower_head):
    f, g = problem.grad_upper(), problem.grad_lower()
    problem.step(Solver(gamma, scale=0.5, weight_lower_head=weight_lower_head))
    head_weight = gamma if weight_lower_head == "gamma" else 1.0
    for p in problem.theta.parameters():
        torch.testing.assert_close(p.grad, 0.5 * (f[p] + gamma * g[p]))
    for p in problem.phi.parameters():
        torch.testing.assert_close(p.grad, 0.5 * f[p])
    for p in problem.eta.parameters():
        torch.testing.assert_close(p.grad, 0.5 * head_weight * g[p])


def test_a_lower_level_alone_has_weight_one(problem):
    g = problem.grad_lower()
    report = Solver(gamma=0.0, scale=0.1, weight_lower_head="gamma").backward(problem, None, problem.lower_batch)
    assert all(torch.equal(p.grad, g[p]) for p in problem.lower_params())
    assert report["passes"] == 1
    assert math.isnan(report["upper_loss"])


def test_calls_accumulate(problem):
    solver = Solver(gamma=0.7)
    problem.step(solver)
    once = [p.grad.clone() for p in problem.params()]
    problem.step(solver)
    for p, g in zip(problem.params(), once, strict=True):
        torch.testing.assert_close(p.grad, 2 * g)


def test_values_and_hooks_stay_as_they_were(problem):
    before = [p.detach().clone() for p in problem.params()]
    problem.step(Solver(gamma=3.0))
    assert all(torch.equal(p, old) for p, old in zip(problem.params(), before, strict=True))
    # A hook left behind would weight somebody else's gradient.
    for p in problem.params():
        p.grad = None
    problem.lower(problem.lower_batch).backward()
    expected = problem.grad_lower()
    assert all(torch.equal(p.grad, expected[p]) for p in problem.lower_params())


def test_a_frozen_parameter_gets_nothing(problem):
    problem.theta.bias.requires_grad_(False)
    problem.step(Solver(gamma=3.0))
    assert problem.theta.bias.grad is None
    assert problem.theta.weight.grad is not None


def test_report_holds_plain_losses_and_gradient_norms(problem):
    f, g = problem.grad_upper(), problem.grad_lower()
    report = problem.step(Solver(gamma=0.3, scale=0.5))
    norm_f = math.sqrt(sum(float(v.square().sum()) for v in f.values()))
    norm_g = math.sqrt(sum(float(v.square().sum()) for v in g.values()))
    lower = problem.lower(problem.lower_batch).item()
    assert report == pytest.approx(
        {
            "upper_loss": problem.upper(problem.upper_batch).item(),
            "lower_loss": lower,
            "penalty": 0.3 * lower,
            "gap": math.nan,
            "residual": math.nan,
            "max_violation": math.nan,
            "grad_norm_upper": norm_f,
            "grad_norm_lower": norm_g,
            "passes": 2,
        },
        nan_ok=True,
    )


def test_scale_loss_scales_gradients_and_no_reported_loss(problem):
    plain = problem.step(Solver(gamma=0.3))
    grads = [p.grad.clone() for p in problem.params()]
    for p in problem.params():
        p.grad = None
    scaled = problem.step(Solver(gamma=0.3), scale_loss=lambda loss: 8 * loss)
    for p, g in zip(problem.params(), grads, strict=True):
        torch.testing.assert_close(p.grad, 8 * g)
    for name in ("upper_loss", "lower_loss", "penalty"):
        assert scaled[name] == plain[name]
    for name in ("grad_norm_upper", "grad_norm_lower"):
        assert scaled[name] == pytest.approx(plain[name])


def test_refusals(problem):
    with pytest.raises(ValueError, match="an upper batch, a lower batch or both; found neither"):
        Solver().backward(problem, None, None)
    with pytest.raises(ValueError, match="'two': expected one or gamma"):
        Solver(weight_lower_head="two")


def minimise(problem: SharedQuadratic, gamma: float) -> None:
    solver = Solver(gamma, weight_lower_head="gamma")
    params = [problem.theta, problem.phi, problem.eta]
    optimizer = torch.optim.LBFGS(
        params, max_iter=1000, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        report = solver.backward(problem, (), ())
        return torch.tensor(report["upper_loss"] + report["penalty"], dtype=torch.float64)

    optimizer.step(closure)


def test_descent_reaches_the_closed_form_and_nears_the_bilevel_solution_like_one_over_gamma():
    problem = SharedQuadratic()
    gammas = torch.tensor([10.0, 30.0, 100.0, 300.0, 1000.0], dtype=torch.float64)
    distances = []
    for gamma in gammas.tolist():
        minimise(problem, gamma)
        for found, expected in zip((problem.theta, problem.phi, problem.eta), problem.penalised(gamma), strict=True):
            torch.testing.assert_close(found.detach(), expected, rtol=1e-5, atol=1e-6)
        distances.append(torch.linalg.vector_norm(problem.theta.detach() - problem.bilevel()[0]))
    x, y = gammas.log(), torch.stack(distances).log()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert -1.1 < slope < -0.9


def test_the_closed_forms_are_stationary():
    problem = SharedQuadratic(seed=3)
    for param, value in zip((problem.theta, problem.phi, problem.eta), problem.penalised(7.0), strict=True):
        param.data.copy_(value)
    grads = torch.autograd.grad(problem.upper(()) + 7.0 * problem.lower(()), [problem.theta, problem.phi, problem.eta])
    assert max(float(g.abs().max()) for g in grads) < 1e-12
    # Bilevel: feasible, and t - theta is orthogonal to every feasible direction.
    theta, *_ = problem.bilevel()
    torch.testing.assert_close(problem.a @ theta, problem.b)
    null = torch.linalg.svd(problem.a)[2][len(problem.b) :]
    assert float((null @ (problem.t - theta)).abs().max()) < 1e-12


def test_a_quadratic_without_freedom_is_refused():
    with pytest.raises(ValueError, match="rank 4, dim 4"):
        SharedQuadratic(dim=4, rank=4)
