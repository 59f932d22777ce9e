import functools
import math

import pytest
import torch

from bilevel.optim.zeroth_order import Solver
from bilevel.testing.check_solver import check_solver, step
from bilevel.testing.quadratic import Quadratic

KINDS = [{}, {"distribution": "sphere"}, {"kind": "coordinate"}]


class BlackBox(Quadratic):
    """F(x) = f(x, y*(x)) as a plain float: the lower level is solved inside, nothing can be differentiated."""

    def __init__(self, noise: float = 0.0, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.noise, self.generator, self.draws = noise, generator, []

    def upper(self, batch):
        assert not torch.is_grad_enabled()
        miss = self.a @ self.x + self.lower_batch.mean(0) - self.t - batch.mean(0)
        value = 0.5 * miss.square().sum() + 0.5 * self.rho * self.x.square().sum()
        if self.noise:
            self.draws.append(torch.randn((), generator=self.generator).item())
            value = value + self.noise * self.draws[-1]
        return value.item()


def estimate(solver: Solver, problem: Quadratic) -> torch.Tensor:
    problem.x.grad = None
    solver.backward(problem, problem.upper_batch, None)
    return problem.x.grad


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_contract(options):
    check_solver(functools.partial(Solver, **options), processes=False)


@pytest.fixture(scope="module", params=["gaussian", "sphere"])
def samples(request):
    """(4096, m) estimates of one direction each, all from one generator, and the truth."""
    problem = BlackBox()
    solver = Solver(n_directions=1, distribution=request.param, delta=0.5, seed=1)
    return request.param, torch.stack([estimate(solver, problem) for _ in range(4096)]), problem.hypergradient()


def test_n_directions_are_the_mean_of_n_calls(samples):
    distribution, singles, _ = samples
    solver = Solver(n_directions=64, distribution=distribution, delta=0.5, seed=1)
    for k in range(2):
        torch.testing.assert_close(estimate(solver, BlackBox()), singles[64 * k : 64 * (k + 1)].mean(0))


def test_the_error_falls_like_one_over_the_root_of_the_directions(samples):
    _, singles, truth = samples
    counts = torch.tensor([1, 4, 16, 64, 256])
    means = [singles.view(-1, n, len(truth)).mean(1) for n in counts.tolist()]
    errors = torch.stack([(m - truth).square().sum(1).mean().sqrt() for m in means])
    x, y = counts.double().log(), errors.log()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert -0.6 < slope < -0.4


def test_the_estimate_is_unbiased_on_a_quadratic(samples):
    _, singles, truth = samples
    deviation = singles.std(0) / len(singles) ** 0.5
    assert float(((singles.mean(0) - truth) / deviation).abs().max()) < 3.0
    # The test has the power to tell a wrong scale: the sphere's factor m, or a missing 1/2, would be far outside.
    assert float((truth / deviation).abs().max()) > 20


@pytest.mark.parametrize("delta", [1e-3, 1.0])
def test_coordinates_are_exact_on_a_quadratic(delta):
    problem = BlackBox()
    solver = Solver(kind="coordinate", delta=delta)
    torch.testing.assert_close(estimate(solver, problem), problem.hypergradient(), rtol=1e-9, atol=1e-9)
    assert solver.backward(problem, problem.upper_batch, None)["passes"] == 2 * len(problem.x)


def test_the_bias_of_central_differences_falls_like_delta_squared():
    problem = Quadratic()
    problem.upper = lambda batch: problem.x.exp().sum()
    errors = []
    for delta in (0.1, 0.01):
        found = estimate(Solver(kind="coordinate", delta=delta), problem)
        errors.append(float((found - problem.x.detach().exp()).norm()))
    assert math.log10(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.01)


def test_common_random_numbers_cut_the_variance():
    errors = {}
    for name, generator in (("common", None), ("own", torch.Generator().manual_seed(0))):
        problem = BlackBox(noise=0.1, generator=generator)
        solver = Solver(kind="coordinate", delta=0.01)
        squares = [(estimate(solver, problem) - problem.hypergradient()).square().mean() for _ in range(50)]
        errors[name] = float(torch.stack(squares).mean())
        pairs = torch.tensor(problem.draws).view(-1, 2)
        assert torch.equal(pairs[:, 0], pairs[:, 1]) == (name == "common")
        assert len(set(problem.draws)) > 100, "each pair has noise of its own"
    assert errors["common"] < 1e-15
    assert errors["own"] == pytest.approx(0.1**2 / (2 * 0.01**2), rel=0.3)  # sigma^2 / (2 delta^2)


def test_the_global_generator_is_as_before():
    problem = BlackBox(noise=1.0)
    before = torch.get_rng_state()
    estimate(Solver(), problem)
    assert problem.draws
    assert torch.equal(before, torch.get_rng_state())


def test_the_lower_level_is_trained_if_it_is_given():
    problem = Quadratic()
    problem.upper = lambda batch: torch.ones(())
    slope = torch.autograd.grad(problem.lower(problem.lower_batch), problem.y)[0]
    report = step(Solver(n_directions=3), problem)
    assert torch.equal(problem.y.grad, slope)
    assert not problem.x.grad.any()
    assert report["passes"] == 7
    assert report["upper_loss"] == 1.0
    problem.x.grad = problem.y.grad = None
    estimate(Solver(), problem)
    assert problem.y.grad is None
    problem.x.grad = None
    assert Solver().backward(problem, None, problem.lower_batch)["passes"] == 1
    assert problem.x.grad is None
    assert torch.equal(problem.y.grad, slope)


def test_a_state_holds_seed_and_generator():
    problem, solver = BlackBox(), Solver(seed=5)
    estimate(solver, problem)
    resumed = Solver(seed=0)
    resumed.load_state_dict(solver.state_dict())
    assert torch.equal(estimate(solver, problem), estimate(resumed, problem))
    solver.reset()
    resumed.reset()
    assert torch.equal(estimate(solver, problem), estimate(resumed, problem))
    assert not torch.equal(estimate(Solver(seed=0), problem), estimate(Solver(seed=1), problem))


def test_several_tensors_are_one_vector():
    problem = Quadratic()
    parts = [torch.nn.Parameter(part.clone()) for part in (problem.x.detach()[:1], problem.x.detach()[1:].view(1, 3))]
    problem.upper_params = lambda: parts
    problem.upper = lambda batch: 0.5 * sum(p.square().sum() for p in parts)
    Solver(kind="coordinate").backward(problem, problem.upper_batch, None)
    for p in parts:
        torch.testing.assert_close(p.grad, p.detach())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_objective_that_is_not_finite_is_refused(value):
    problem = Quadratic()
    before = problem.x.detach().clone()
    problem.upper = lambda batch: value
    with pytest.raises(ValueError, match=f"upper objective is {value}.*smaller delta"):
        step(Solver(), problem)
    assert problem.x.grad is None
    assert torch.equal(problem.x, before)


def test_refusals():
    problem = Quadratic()
    with pytest.raises(ValueError, match="found neither"):
        Solver().backward(problem, None, None)
    with pytest.raises(ValueError, match="kind 'one': expected directional or coordinate"):
        Solver(kind="one")
    with pytest.raises(ValueError, match="distribution 'cube'"):
        Solver(distribution="cube")
    with pytest.raises(ValueError, match="delta 0"):
        Solver(delta=0)
    problem.lower_params = problem.upper_params
    with pytest.raises(ValueError, match="in both levels"):
        step(Solver(), problem)
