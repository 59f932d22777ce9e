import functools
import math

import pytest
import torch
from torch.nn import Parameter

from bilevel.optim.local import Solver
from bilevel.testing.check_solver import check_solver


class Wells:
    """g = 1/2 sum a (theta - b)^2 and f = 1/2 sum (theta - c)^2 + theta x for batches {"a", "b", "c"}."""

    def __init__(self, n: int = 3) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.theta, self.x = Parameter(self.normal(n)), Parameter(self.normal(n))
        self.draws: list[torch.Tensor] = []

    def normal(self, n: int = 3):
        return torch.randn(n, generator=self.generator, dtype=torch.float64)

    def batch(self):
        return {"a": self.normal().exp(), "b": self.normal(), "c": self.normal()}

    def lower(self, batch):
        self.draws.append(torch.rand(5))  # what a mask would be made of
        return 0.5 * (batch["a"] * (self.theta - batch["b"]).square()).sum()

    def upper(self, batch):
        return 0.5 * (self.theta - batch["c"]).square().sum() + self.theta @ self.x

    def upper_params(self):
        return [self.x]

    def lower_params(self):
        return [self.theta]

    def gradient(self, solver, upper=None, lower=None):
        self.theta.grad = self.x.grad = None
        self.report = solver.backward(self, upper, lower)
        return self.theta.grad.clone()


@pytest.fixture
def problem():
    return Wells()


@pytest.fixture
def batches(problem):
    return [problem.batch() for _ in range(3)]


SGD = {"inner": "sgd", "lr": 0.1}
OPTIONS = [{}, SGD | {"n_inner": 3}, {"moments": "fresh", "n_inner": 2}, SGD | {"direction": "reptile"}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_contract(options):
    check_solver(functools.partial(Solver, **options), processes=False)


@pytest.mark.parametrize("options", [{"lr": 0.0, "n_inner": 3}, {"n_inner": 0}, SGD | {"lr": 0.0}], ids=str)
def test_without_local_steps_it_is_the_plain_gradient_step(problem, batches, options):
    found = problem.gradient(Solver(**options), lower=batches)
    plain = torch.autograd.grad(sum(problem.lower(b) for b in batches) / 3, problem.theta)[0]
    torch.testing.assert_close(found, plain)
    assert problem.x.grad is None


@pytest.mark.parametrize("n_inner", [1, 2, 5])
def test_the_closed_form_of_ptloc_on_quadratics(problem, batches, n_inner):
    found = problem.gradient(Solver(n_inner=n_inner, **SGD), lower=batches)
    theta, alpha = problem.theta.detach(), SGD["lr"]
    parts = [b["a"] * (1 - alpha * b["a"]) ** n_inner * (theta - b["b"]) for b in batches]
    torch.testing.assert_close(found, sum(parts) / 3)
    assert problem.report["passes"] == 3 * (n_inner + 1)
    assert problem.report["gap"] > 0
    assert problem.report["lower_loss"] == pytest.approx(sum(problem.lower(b).item() for b in batches) / 3)


@pytest.mark.parametrize("n_inner", [1, 3])
def test_the_closed_form_of_first_order_maml(problem, batches, n_inner):
    found = problem.gradient(Solver(n_inner=n_inner, **SGD), upper=batches, lower=batches)
    theta, x = problem.theta.detach(), problem.x.detach()
    phi = [b["b"] + (1 - SGD["lr"] * b["a"]) ** n_inner * (theta - b["b"]) for b in batches]
    torch.testing.assert_close(found, sum(p - b["c"] + x for p, b in zip(phi, batches, strict=True)) / 3)
    torch.testing.assert_close(problem.x.grad, sum(phi) / 3)
    values = [0.5 * (p - b["c"]).square().sum() + p @ x for p, b in zip(phi, batches, strict=True)]
    assert problem.report["upper_loss"] == pytest.approx(float(sum(values)) / 3)


@pytest.mark.parametrize("n_inner", [0, 1, 4])
def test_reptile_is_the_sum_of_all_local_gradients(problem, batches, n_inner):
    solver = Solver(n_inner=n_inner, direction="reptile", **SGD)
    found = problem.gradient(solver, lower=batches)
    theta, alpha = problem.theta.detach(), SGD["lr"]
    parts = [b["a"] * (1 - alpha * b["a"]) ** k * (theta - b["b"]) for b in batches for k in range(n_inner)]
    torch.testing.assert_close(found, sum(parts, torch.zeros_like(theta)) / 3)
    assert problem.report["passes"] == 3 * n_inner
    torch.testing.assert_close(problem.gradient(solver, batches, batches), found)
    assert (problem.x.grad is not None) == (problem.report["passes"] == 3 * (n_inner + 1))


@pytest.mark.parametrize("options", [*OPTIONS, {"n_inner": 3, "weight_decay": 0.1}], ids=str)
def test_equal_sources_are_one_source(problem, batches, options):
    many, one = Solver(**options), Solver(**options)
    for batch in batches:
        found = problem.gradient(many, lower=[batch] * 4)
        torch.testing.assert_close(found, problem.gradient(one, lower=[batch]), rtol=1e-12, atol=0)


def test_one_batch_is_one_source_and_a_tuple_holds_sources(problem, batches):
    alone = problem.gradient(Solver(), lower=batches[0])
    assert torch.equal(alone, problem.gradient(Solver(), lower=batches[:1]))
    both = problem.gradient(Solver(), lower=tuple(batches))
    assert torch.equal(both, problem.gradient(Solver(), lower=batches))
    assert not torch.equal(alone, both)


@pytest.mark.parametrize("moments", ["persistent", "fresh"])
def test_local_steps_are_those_of_torch_adamw_with_moments_of_their_own(problem, batches, moments):
    options = {"lr": 0.1, "weight_decay": 0.3}
    solver = Solver(n_inner=2, moments=moments, **options)
    twins = [Parameter(problem.theta.detach().clone()) for _ in batches]
    optimizers = [torch.optim.AdamW([twin], **options) for twin in twins]
    for _ in range(3):
        found = problem.gradient(solver, lower=batches)
        adapted = []
        for i, batch in enumerate(batches):
            twins[i].data.copy_(problem.theta)
            if moments == "fresh":
                optimizers[i] = torch.optim.AdamW([twins[i]], **options)
            for _ in range(2):
                twins[i].grad = batch["a"] * (twins[i].detach() - batch["b"])
                optimizers[i].step()
            adapted.append(batch["a"] * (twins[i].detach() - batch["b"]))
        torch.testing.assert_close(found, sum(adapted) / 3)
        problem.theta.data -= 0.1 * found
    assert (solver.moments[0] is None) == (moments == "fresh")


def test_fresh_moments_make_the_first_step_a_sign(problem, batches):
    solver = Solver(lr=0.1, moments="fresh", direction="reptile")
    found = problem.gradient(solver, lower=batches[0])
    torch.testing.assert_close(found, (problem.theta - batches[0]["b"]).detach().sign(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"direction": "reptile"}], ids=str)
def test_passes_of_a_source_share_their_masks(problem, batches, options):
    for resample in (False, True):
        problem.draws.clear()
        solver = Solver(n_inner=2, resample=resample, **options)
        for _ in range(2):
            problem.gradient(solver, lower=batches[:2])
        n_passes = 2 if options else 3
        distinct = {tuple(d.tolist()) for d in problem.draws}
        assert len(problem.draws) == 4 * n_passes
        assert len(distinct) == (4 * n_passes if resample else 4)
        if not resample:
            assert all(torch.equal(problem.draws[i], problem.draws[i - i % n_passes]) for i in range(4 * n_passes))


def test_one_bad_batch_does_not_spoil_the_moments(problem, batches):
    solver = Solver()
    problem.gradient(solver, lower=batches)
    kept = solver.state_dict()
    problem.gradient(solver, lower=[{**b, "b": b["b"] * math.nan} for b in batches])
    assert torch.equal(solver.moments[1]["first"][0], kept["moments"][1]["first"][0])


def test_refusals(problem, batches):
    with pytest.raises(ValueError, match="no lower batch"):
        problem.gradient(Solver(), upper=batches)
    with pytest.raises(ValueError, match="2 upper batches for 3 sources"):
        problem.gradient(Solver(), upper=batches[:2], lower=batches)
    with pytest.raises(ValueError, match="divides by lr"):
        problem.gradient(Solver(lr=0.0, direction="reptile"), lower=batches)
    with pytest.raises(ValueError, match="inner 'adam': expected adamw or sgd"):
        Solver(inner="adam")
    with pytest.raises(ValueError, match="n_inner -1"):
        Solver(n_inner=-1)
