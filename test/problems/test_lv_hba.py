import pytest
import torch
from torch.nn import Parameter

from bilevel.optim import vector
from bilevel.problems.lv_hba import JointProjection, LvHba
from bilevel.problems.svm import Svm


class Coupled:
    """g = (y - 2 x)^2 and y <= x, so y* = x; f = (y - 1)^2 + 1/2 (x - 2)^2, least at x = 4/3 on y = x, at (2, 1) else.

    With `equal`, y = x is an equation instead.
    """

    def __init__(self, equal: bool = False) -> None:
        self.x, self.y = (Parameter(torch.tensor([v], dtype=torch.float64)) for v in (0.5, 0.0))
        self.equal = equal

    def upper(self, batch):
        return ((self.y - 1).square() + 0.5 * (self.x - 2).square()).sum()

    def lower(self, batch):
        return (self.y - 2 * self.x).square().sum()

    def constraints(self, batch):
        value, none = self.y - self.x, self.y.new_zeros(0)
        return (none, value) if self.equal else (value, none)

    def upper_params(self):
        return [self.x]

    def lower_params(self):
        return [self.y]

    def project_lower(self):
        pass


LOW, HIGH = torch.tensor([0.0, -torch.inf]).double(), torch.tensor([3.0, torch.inf]).double()
SETTINGS = {"gamma1": 1.0, "gamma2": 1.0, "alpha": 0.1, "eta": 0.2, "c_0": 1.0, "c_power": 0.0}


@pytest.mark.parametrize("equal", [False, True])
def test_it_finds_the_bilevel_solution_and_not_the_best_feasible_pair(equal):
    problem = Coupled(equal)
    method = LvHba(problem, LOW, HIGH, **SETTINGS)
    for number in range(1, 300):
        method.step(number)
        assert float((problem.y - problem.x).detach()) < 1e-6
    assert problem.x.item() == pytest.approx(4 / 3, abs=0.02)
    assert problem.y.item() == pytest.approx(4 / 3, abs=0.02)


def test_x_moves_by_its_gradient_where_no_constraint_is_active():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 2, generator=generator, dtype=torch.float64)
    problem = Svm(features, torch.sign(features[:, 0]), caps=(20.0, 30.0), n_train=20, n_valid=20)
    before = problem.c.detach().clone()
    LvHba(problem, *problem.bounds(), alpha=0.01).step(1)
    torch.testing.assert_close(problem.c.detach(), before - 0.01 * before / before.norm(), rtol=0, atol=1e-6)


def test_the_joint_projection_is_nearest():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 2, generator=generator, dtype=torch.float64)
    labels = torch.sign(torch.randn(60, generator=generator, dtype=torch.float64))
    problem = Svm(features, labels, n_train=20, n_valid=20)
    project = JointProjection(problem, *problem.bounds())
    params = [problem.c, problem.y]
    with torch.no_grad():
        problem.c.copy_(torch.randn(20, generator=generator, dtype=torch.float64))
        problem.y.copy_(torch.randn(3, generator=generator, dtype=torch.float64))
    outside = vector.flatten(vector.copies(params))
    project()
    nearest = vector.flatten(vector.copies(params))
    assert problem.constraints()[0].max() < 1e-7
    assert problem.c.min() > problem.floor - 1e-7
    assert (outside - nearest).norm() > 1
    for _ in range(50):  # <outside - nearest, inside - nearest> <= 0 for every feasible point
        y = torch.randn(3, generator=generator, dtype=torch.float64)
        c = problem.loose([y]) + torch.rand(20, generator=generator, dtype=torch.float64)
        assert (outside - nearest) @ (torch.cat([c, y]) - nearest) <= 1e-6
    project()
    torch.testing.assert_close(vector.flatten(vector.copies(params)), nearest, rtol=0, atol=1e-5)


def test_constraints_that_are_not_affine_are_refused():
    problem = Coupled()
    problem.constraints = lambda batch: (problem.y.square() - problem.x, problem.y.new_zeros(0))
    with pytest.raises(ValueError, match="not affine"):
        LvHba(problem, LOW, HIGH)
    with pytest.raises(ValueError, match="alpha 0"):
        LvHba(Coupled(), LOW, HIGH, alpha=0)
