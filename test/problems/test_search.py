import pytest
import torch

from bilevel.problems.search import Search, random_caps, shared_caps, soft_margin
from bilevel.problems.svm import Svm


def make() -> Svm:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(150, 2, generator=generator, dtype=torch.float64)
    labels = torch.sign(features[:, 0] + 0.7 * torch.randn(150, generator=generator, dtype=torch.float64))
    return Svm(features, labels, n_train=80, n_valid=40)


@pytest.mark.parametrize("constant", [0.01, 1.0])
def test_caps_of_the_soft_margin_machine_give_that_machine_back(constant):
    problem = make()
    caps = next(soft_margin(problem, [constant]))
    with torch.no_grad():
        problem.c.copy_(caps)
    y = problem.respond()[0]
    # Optimality of 1/2 |y|^2 + C sum of hinges: y = sum mu_i a_i with mu_i = C inside, 0 outside the margin.
    margins = problem.train @ y
    inside, on = margins < 1 - 1e-3, (margins - 1).abs() <= 1e-3
    rest = y - constant * problem.train[inside].sum(0)
    mu = torch.linalg.lstsq(problem.train[on].T, rest[:, None]).solution[:, 0] if on.any() else rest[:0]
    torch.testing.assert_close(problem.train[on].T @ mu, rest, rtol=0, atol=1e-5)
    assert ((mu > -1e-4) & (mu < constant + 1e-4)).all()


def test_one_cap_for_all_is_either_trivial_or_infeasible():
    problem = make()
    search = Search(problem, shared_caps(problem, [0.5, 0.99, 1.0, 3.0]))
    losses = [search.step(number)["upper_loss"] for number in range(1, 5)]
    assert losses[:2] == [float("inf")] * 2
    assert search.n_infeasible == 2
    assert losses[2] == pytest.approx(torch.e, abs=1e-4)
    assert search.y[0].norm() < 1e-5


def test_the_best_candidate_stays():
    problem = make()
    candidates = list(soft_margin(problem, [1e-4, 0.1, 1e-3]))
    search = Search(problem, iter(candidates))
    losses = [search.step(number)["upper_loss"] for number in range(1, 4)]
    assert losses[1] < losses[0]
    assert losses[2] == losses[1]
    torch.testing.assert_close(problem.c.detach(), candidates[1])
    assert problem.evaluate(search.y)["val_loss"] == losses[1]


def test_random_caps_follow_their_generator():
    problem = make()
    runs = []
    for _ in range(2):
        caps = random_caps(problem, torch.Generator().manual_seed(5))
        runs.append(torch.stack([next(caps) for _ in range(200)]))
    assert torch.equal(*runs)
    share = (runs[0] < 1).double().mean(1)
    assert 1 / 160 < share.mean() < 0.5
    assert runs[0].max() < 5
