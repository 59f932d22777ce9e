import torch

from bilevel.problems.gam import Gam
from bilevel.problems.svm import Svm


def make(start: tuple[float, float] = (-3.0, 1.0)) -> Gam:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    labels = torch.sign(features[:, 0] + 0.7 * torch.randn(60, generator=generator, dtype=torch.float64))
    return Gam(Svm(features, labels, n_train=20, n_valid=20), torch.Generator().manual_seed(1), start=start)


def loss(method: Gam) -> float:
    return float(torch.exp(1 - method.problem.valid @ method.y[0]).sum())


def test_the_gradient_agrees_with_finite_differences():
    method, eps = make(), 1e-5
    gradient = method.gradient()
    slack = (1 - method.problem.train @ method.y[0]).clamp(min=0)
    assert 0 < int((slack == 0).sum()) < 20, "some constraints are active, some are not"
    differences = []
    for i in range(20):
        ends = []
        for sign in (1, -1):
            moved = make()
            moved.log_weights[i] += sign * eps
            moved._solve()
            ends.append(loss(moved))
        differences.append((ends[0] - ends[1]) / (2 * eps))
    torch.testing.assert_close(gradient, torch.tensor(differences, dtype=torch.float64), rtol=1e-5, atol=1e-6)
    assert torch.equal(gradient[slack == 0], torch.zeros_like(gradient[slack == 0]))


def test_the_lower_level_is_solved_and_the_upper_loss_falls():
    method = make((-7.0, -6.0))
    before = loss(method)
    for number in range(1, 40):
        method.step(number)
        y = method.y[0]
        slack = (1 - method.problem.train @ y).clamp(min=0)
        pull = method.problem.train.T @ (method.log_weights.exp() * slack)
        residual = torch.cat([y[:-1], y.new_zeros(1)]) - pull
        assert residual.norm() < 1e-9
    assert loss(method) < before - 1


def test_its_slacks_as_caps_are_feasible():
    method = make()
    response = method.respond()
    found = method.problem.evaluate(response)
    assert found["violation"] < 1e-7
    assert method.problem.evaluate(method.y)["violation"] < 1e-12
    assert method.problem.y is not method.y[0]
