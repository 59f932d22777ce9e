import pytest
import torch

from bilevel.optim import penalty
from bilevel.optim.joint_sum import Solver
from bilevel.testing.check_solver import check_solver, step
from bilevel.testing.quadratic import Quadratic, SharedQuadratic


def test_contract():
    check_solver(Solver, processes=False)


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_the_gradient_is_that_of_the_sum(weight):
    problem = Quadratic()
    report = step(Solver(weight), problem)
    f, g = problem.upper(problem.upper_batch), problem.lower(problem.lower_batch)
    for p, expected in zip(
        (problem.x, problem.y), torch.autograd.grad(f + weight * g, (problem.x, problem.y)), strict=True
    ):
        torch.testing.assert_close(p.grad, expected)
    assert report["penalty"] == pytest.approx(weight * g.item())
    assert report["passes"] == 2


def test_with_a_shared_backbone_it_is_the_penalty_method_at_constant_gamma():
    found = []
    for solver in (Solver(2.5), penalty.Solver(gamma=2.5, weight_lower_head="gamma")):
        problem = SharedQuadratic()
        solver.backward(problem, (), ())
        found.append([p.grad for p in (problem.theta, problem.phi, problem.eta)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_one_level_alone_has_weight_one():
    problem = Quadratic()
    Solver(5.0).backward(problem, None, problem.lower_batch)
    torch.testing.assert_close(
        problem.y.grad, torch.autograd.grad(problem.lower(problem.lower_batch), problem.y)[0], rtol=0, atol=0
    )
    problem.x.grad = None
    Solver(5.0).backward(problem, problem.upper_batch, None)
    torch.testing.assert_close(problem.x.grad, problem.rho * problem.x.detach())


def test_refusals():
    with pytest.raises(ValueError, match="found neither"):
        Solver().backward(Quadratic(), None, None)
    with pytest.raises(ValueError, match="weight -1"):
        Solver(weight=-1)
