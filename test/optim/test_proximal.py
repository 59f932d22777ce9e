import functools
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from bilevel.optim.proximal import Solver
from bilevel.testing.check_solver import check_solver


@pytest.mark.parametrize("options", [{}, {"linear_solver": "identity", "c": 0.0}])
def test_contract(options):
    check_solver(functools.partial(Solver, n_pairs=0, **options), processes=False)


class Prox:
    """f = 1/2 |D (theta_x - t)|^2 + 1/2 |phi - P theta_x|^2, g = 1/2 (theta_y - a)'H(theta_y - a) + 1/2 |eta - q|^2.

    Both backbones are in two tensors, of 2 and of 3 entries; H couples them.
    """

    def __init__(self, smallest: float = 0.5) -> None:
        generator = torch.Generator().manual_seed(0)

        def normal(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        basis = torch.linalg.qr(normal(5, 5))[0]
        self.h = basis @ torch.linspace(smallest, 3.0, 5, dtype=torch.float64).diag() @ basis.T
        self.d, self.p, self.t, self.a, self.q = normal(5, 5), normal(2, 5), normal(5), normal(5), normal(4)
        self.x = [nn.Parameter(normal(2)), nn.Parameter(normal(3))]
        self.phi = nn.Parameter(normal(2))
        self.y = [nn.Parameter(normal(2)), nn.Parameter(normal(3))]
        self.eta = nn.Parameter(normal(4))
        self.calls = 0

    def upper_at(self, theta, phi):
        return 0.5 * (self.d @ (theta - self.t)).square().sum() + 0.5 * (phi - self.p @ theta).square().sum()

    def upper(self, batch):
        self.calls += 1
        return self.upper_at(torch.cat(list(self.x)), self.phi)

    def lower(self, batch):
        self.calls += 1
        miss = torch.cat(list(self.y)) - self.a
        return 0.5 * miss @ self.h @ miss + 0.5 * (self.eta - self.q).square().sum()

    def upper_params(self):
        return [*self.x, self.phi]

    def lower_params(self):
        return [*self.y, self.eta]

    def response(self, theta_x, lam):
        """The theta that minimises g + lam/2 |theta - theta_x|^2: (H + lam) theta = H a + lam theta_x."""
        return torch.linalg.solve(self.h + lam * torch.eye(5, dtype=torch.float64), self.h @ self.a + lam * theta_x)

    def settle(self, lam):
        with torch.no_grad():
            theta = self.response(torch.cat(list(self.x)), lam)
            for p, value in zip(self.y, theta.split([2, 3]), strict=True):
                p.copy_(value)
            self.eta.copy_(self.q)


def backbone_grad(problem):
    return torch.cat([p.grad for p in problem.x])


def upper_slope(problem, theta):
    """(d_theta f, d_phi f) at a backbone."""
    theta, phi = theta.detach().requires_grad_(), problem.phi.detach().requires_grad_()
    return torch.autograd.grad(problem.upper_at(theta, phi), (theta, phi))


@pytest.mark.parametrize("c", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("hvp", ["exact", "finite_difference"])
def test_at_the_response_it_is_the_gradient_of_the_bilevel_objective(hvp, c):
    problem, lam = Prox(), 0.4
    problem.settle(lam)
    report = Solver(lam, kappa=0.0, c=c, n_terms=5, hvp=hvp).backward(problem, (), ())
    theta, phi = torch.cat(list(problem.x)).detach().requires_grad_(), problem.phi.detach().requires_grad_()
    through = problem.upper_at(problem.response(theta, lam), phi)
    expected = torch.autograd.grad(through + c * problem.upper_at(theta, phi), (theta, phi))
    torch.testing.assert_close(backbone_grad(problem), expected[0], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(problem.phi.grad, expected[1])
    assert report["residual"] < 1e-6
    assert report["upper_loss"] == pytest.approx(float(through.detach()))
    for p in (*problem.y, problem.eta):  # and the lower level rests there
        torch.testing.assert_close(p.grad, torch.zeros_like(p), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("lam", "kappa"), [(0.001, 10.0), (0.3, 0.0), (0.1, 1.0)])
def test_the_solve_agrees_with_a_dense_one(lam, kappa):
    problem = Prox()
    Solver(lam, kappa, c=0.0, n_terms=5).backward(problem, (), ())
    v = upper_slope(problem, torch.cat(list(problem.y)))[0]
    torch.testing.assert_close(
        backbone_grad(problem), torch.linalg.solve(torch.eye(5) + problem.h / (lam + kappa), v), rtol=0, atol=1e-9
    )


def test_the_lower_gradient_is_that_of_g_with_the_pull_on_the_backbone_alone():
    problem, lam = Prox(), 0.7
    report = Solver(lam).backward(problem, None, ())
    assert all(p.grad is None for p in problem.upper_params())
    found = [p.grad for p in problem.lower_params()]
    pull = 0.5 * lam * sum((y - x.detach()).square().sum() for x, y in zip(problem.x, problem.y, strict=True))
    expected = torch.autograd.grad(problem.lower(()) + pull, problem.lower_params())
    torch.testing.assert_close(found, list(expected))
    assert report["penalty"] == pytest.approx(float(pull.detach()))
    assert report["passes"] == 1
    assert math.isnan(report["upper_loss"])
    both = Prox()
    Solver(lam).backward(both, (), ())
    torch.testing.assert_close([p.grad for p in both.lower_params()], found)


def test_a_large_kappa_leads_to_the_identity_at_rate_one():
    limit = Prox()
    passes = Solver(linear_solver="identity").backward(limit, (), ())["passes"]
    assert passes == limit.calls == 3
    through, direct = (upper_slope(limit, torch.cat(list(part))) for part in (limit.y, limit.x))
    torch.testing.assert_close(backbone_grad(limit), through[0] + direct[0])
    torch.testing.assert_close(limit.phi.grad, through[1] + direct[1])
    errors = []
    for kappa in (1e3, 1e4):
        problem = Prox()
        Solver(kappa=kappa).backward(problem, (), ())
        errors.append(float((backbone_grad(problem) - backbone_grad(limit)).norm()))
    assert math.log10(errors[1] / errors[0]) == pytest.approx(-1.0, abs=0.01)


def test_neumann_converges_if_h_is_below_lam_plus_kappa():
    errors = []
    for n_terms in (10, 30):
        problem = Prox()
        Solver(1.0, 5.0, c=0.0, linear_solver="neumann", n_terms=n_terms).backward(problem, (), ())
        v = upper_slope(problem, torch.cat(list(problem.y)))[0]
        expected = torch.linalg.solve(torch.eye(5) + problem.h / 6.0, v)
        errors.append(float((backbone_grad(problem) - expected).norm()))
    assert math.log(errors[1] / errors[0]) / 20 == pytest.approx(math.log(3.0 / 6.0), rel=0.01)


@pytest.mark.parametrize(("options", "expected"), [({}, 3 + 10), ({"c": 0.0}, 2 + 10), ({"n_terms": 2}, 3 + 4)])
def test_reported_passes_are_the_gradients_that_were_taken(options, expected):
    problem = Prox()
    report = Solver(hvp="finite_difference", **options).backward(problem, (), ())
    assert report["passes"] == problem.calls == expected
    problem = Prox()
    assert Solver(**options).backward(problem, (), ())["passes"] == expected
    assert problem.calls == (3 if options.get("c", 1.0) else 2)


def test_indefiniteness_is_reported_and_kappa_mends_it():
    for kappa, indefinite in ((0.0, True), (10.0, False)):
        problem = Prox(smallest=-2.0)
        solver = Solver(kappa=kappa)
        solver.backward(problem, (), ())
        assert solver.negative_curvature == indefinite


def test_layerwise_steps_solve_another_system_where_layers_are_coupled():
    problem, joint = Prox(), Prox()
    Solver(0.3, 0.0, n_terms=50, layerwise=True).backward(problem, (), ())
    Solver(0.3, 0.0, n_terms=5).backward(joint, (), ())
    assert float((backbone_grad(problem) - backbone_grad(joint)).norm()) > 1e-3
    for p in (problem, joint):
        p.h[:2, 2:] = p.h[2:, :2] = 0.0
        for q in p.upper_params():
            q.grad = None
    Solver(0.3, 0.0, n_terms=3, layerwise=True).backward(problem, (), ())
    Solver(0.3, 0.0, n_terms=5).backward(joint, (), ())
    torch.testing.assert_close(backbone_grad(problem), backbone_grad(joint))


def test_training_reaches_the_bilevel_solution():
    problem, lam = Prox(), 1.0
    solver = Solver(lam, kappa=0.0, n_terms=5)
    upper = torch.optim.SGD(problem.upper_params(), 0.05)
    lower = torch.optim.SGD(problem.lower_params(), 0.4)
    for _ in range(150):
        for optimizer, batches in ((lower, (None, ())), (lower, (None, ())), (upper, ((), ()))):
            upper.zero_grad(), lower.zero_grad()
            solver.backward(problem, *batches)
            optimizer.step()
    theta, phi = torch.cat(list(problem.x)).detach().requires_grad_(), problem.phi.detach().requires_grad_()
    objective = problem.upper_at(problem.response(theta, lam), phi) + problem.upper_at(theta, phi)
    slope = torch.cat(torch.autograd.grad(objective, (theta, phi)))
    assert float(slope.norm()) < 0.02 * float(upper_slope(Prox(), torch.cat(list(Prox().x)))[0].norm())


class Networks(Prox):
    """Two float32 networks with heads that differ in size, on random data."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.nets = [nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, k)) for k in (3, 6)]
        self.nets[0].load_state_dict({k: v for k, v in self.nets[1].state_dict().items() if k[0] == "0"}, strict=False)
        self.data = [(torch.randn(40, 8), torch.randint(0, k, (40,))) for k in (3, 6)]

    def upper(self, batch):
        return functional.cross_entropy(self.nets[0](self.data[0][0]), self.data[0][1])

    def lower(self, batch):
        return functional.cross_entropy(self.nets[1](self.data[1][0]), self.data[1][1])

    def upper_params(self):
        return list(self.nets[0].parameters())

    def lower_params(self):
        return list(self.nets[1].parameters())


def test_finite_differences_agree_with_double_backward_on_networks():
    found = []
    for hvp in ("exact", "finite_difference"):
        problem = Networks()
        Solver(lam=0.001, kappa=0.5, c=0.0, hvp=hvp).backward(problem, (), ())
        found.append(torch.cat([p.grad.reshape(-1) for p in problem.upper_params()[:2]]).double())
    assert float(functional.cosine_similarity(*found, dim=0)) > 0.9999


def test_backbones_are_the_leading_tensors_of_equal_shape_unless_counted():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problem, counted = Networks(), Networks()
        reports = [s.backward(p, (), ()) for s, p in ((Solver(), problem), (Solver(n_pairs=2), counted))]
    assert reports[0] == reports[1]
    with pytest.raises(ValueError, match="n_pairs 3"):
        Solver(n_pairs=3).backward(problem, (), ())
    problem.upper_params = lambda: list(problem.nets[0].parameters())[2:]
    with pytest.warns(UserWarning, match="nothing ties the levels"):
        Solver().backward(problem, (), ())


def test_second_derivatives_are_needed_for_exact_products_only():
    assert Solver().second_order
    assert not Solver(linear_solver="identity").second_order
    assert not Solver(hvp="finite_difference").second_order


def test_shared_parameters_and_senseless_settings_are_refused():
    problem = Prox()
    with pytest.raises(ValueError, match="no lower batch"):
        Solver().backward(problem, (), None)
    problem.lower_params = problem.upper_params
    with pytest.raises(ValueError, match="in both levels"):
        Solver().backward(problem, (), ())
    for bad in ({"lam": 0.0}, {"c": -1.0}):
        with pytest.raises(ValueError, match="expected lam > 0"):
            Solver(**bad)
    with pytest.raises(ValueError, match="hvp 'fd'"):
        Solver(hvp="fd")
