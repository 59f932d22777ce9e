import functools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from bilevel.optim import hessian, vector
from bilevel.optim.implicit import Solver
from bilevel.testing.check_solver import check_solver, step
from bilevel.testing.quadratic import Quadratic

ACCURATE = {"n_terms": 6, "tolerance": 0.0}


@pytest.mark.parametrize(("hvp", "tolerance"), [("exact", 1e-9), ("finite_difference", None)])
def test_contract(hvp, tolerance):
    check_solver(functools.partial(Solver, hvp=hvp, **ACCURATE), tolerance=tolerance, processes=False)


def settled(**options) -> Quadratic:
    problem = Quadratic(**options)
    with torch.no_grad():
        problem.y.copy_(problem.response())
    return problem


def error(problem: Quadratic, **options) -> float:
    step(Solver(**options), problem)
    return float((problem.x.grad - problem.hypergradient()).norm())


def test_the_hypergradient_is_the_closed_form_after_n_steps_of_cg_and_not_before():
    errors = [error(settled(), n_terms=k, tolerance=0.0) for k in range(7)]
    assert errors[6] < 1e-12
    assert errors[5] > 1e-5
    assert error(settled(), hvp="finite_difference", **ACCURATE) < 1e-7
    # |A'H (w - w*)| <= |A'H^(1/2)| times the error in the energy norm, which falls at least like 2 / 3^k.
    problem = settled()
    root = torch.linalg.cholesky(problem.h)
    v = problem.y.detach() - problem.t - problem.upper_batch.mean(0)
    bound = float(torch.linalg.matrix_norm(problem.a.T @ root, 2) * torch.linalg.solve(root, v).norm())
    assert all(e <= 2 * bound / 3**k for k, e in enumerate(errors[:6]))


def test_the_residual_falls_and_a_tolerance_ends_the_solve():
    problem = settled()
    found = [step(Solver(n_terms=k, tolerance=0.0), problem)["residual"] for k in range(7)]
    assert found == sorted(found, reverse=True)
    report = step(Solver(n_terms=6, tolerance=(found[2] + found[3]) / 2), problem)
    assert (report["residual"], report["passes"]) == (found[3], 2 + 2 * 3 + 2)


def test_away_from_the_response_the_error_is_a_transposed_times_the_distance():
    problem = Quadratic()
    step(Solver(**ACCURATE), problem)
    expected = problem.hypergradient() + problem.a.T @ (problem.y.detach() - problem.response())
    torch.testing.assert_close(problem.x.grad, expected)


def test_the_error_of_neumann_is_geometric_and_equals_that_of_unrolled_steps():
    lr, options = 0.2, {"linear_solver": "neumann", "tolerance": 0.0}
    errors = {k: error(settled(), n_terms=k, neumann_step=lr, **options) for k in (3, 30, 60)}
    assert math.log(errors[60] / errors[30]) / 30 == pytest.approx(math.log(1 - lr), rel=5e-3)
    problem = settled()
    step(Solver(n_terms=3, neumann_step=lr, **options), problem)
    y = problem.y.detach()
    for _ in range(4):  # n_terms + 1 steps that start at the response
        y = y - lr * problem.h @ (y - problem.a @ problem.x - problem.lower_batch.mean(0))
    f = 0.5 * (y - problem.t - problem.upper_batch.mean(0)).square().sum() + 0.05 * problem.x.square().sum()
    torch.testing.assert_close(problem.x.grad, torch.autograd.grad(f, problem.x)[0])


def test_damping_biases_the_hypergradient_as_the_closed_form_says():
    for damping in (0.3, 3.0):
        problem = settled()
        step(Solver(damping=damping, **ACCURATE), problem)
        v = problem.y.detach() - problem.t - problem.upper_batch.mean(0)
        w = torch.linalg.solve(problem.h + damping * torch.eye(6, dtype=torch.float64), v)
        expected = problem.rho * problem.x.detach() + problem.a.T @ problem.h @ w
        torch.testing.assert_close(problem.x.grad, expected)
    errors = [error(settled(), damping=d, **ACCURATE) for d in (1e-4, 1e-3)]
    assert math.log10(errors[1] / errors[0]) == pytest.approx(1.0, abs=0.01)


def test_identity_is_exact_for_a_lower_hessian_of_one_and_takes_no_product():
    problem = settled()
    problem.h = torch.eye(6, dtype=torch.float64)
    report = step(Solver("identity"), problem)
    torch.testing.assert_close(problem.x.grad, problem.hypergradient())
    assert report["passes"] == 4
    assert math.isnan(report["residual"])


def test_an_indefinite_lower_hessian_is_reported_and_damping_mends_it():
    problem = settled()
    problem.h = problem.h - 1.5 * torch.eye(6, dtype=torch.float64)
    solver = Solver(n_terms=20, tolerance=1e-12)
    assert step(solver, problem)["residual"] > 1e-3
    assert solver.negative_curvature
    solver = Solver(n_terms=20, tolerance=1e-12, damping=1.0)
    assert step(solver, problem)["residual"] < 1e-12
    assert not solver.negative_curvature


class Cleaning:
    """Weights of training examples (x) for a small network (y); records what its dropout kept."""

    def __init__(self, p_dropout: float = 0.0, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(0)
        inputs, labels = torch.randn(96, 12, generator=generator), torch.randint(0, 5, (96,), generator=generator)
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(12, 32), nn.Tanh()).to(dtype)
        self.head = nn.Linear(32, 5).to(dtype)
        self.weights = nn.Parameter(torch.zeros(64, dtype=dtype))
        self.p_dropout, self.masks, self.calls = p_dropout, [], 0
        self.train, self.valid = (inputs[:64].to(dtype), labels[:64]), (inputs[64:].to(dtype), labels[64:])

    def logits(self, inputs):
        self.calls += 1
        hidden = self.body(inputs)
        mask = functional.dropout(torch.ones_like(hidden), self.p_dropout)
        self.masks.append(mask)
        return self.head(hidden * mask)

    def upper(self, batch):
        return functional.cross_entropy(self.logits(self.valid[0]), self.valid[1])

    def lower(self, batch):
        losses = functional.cross_entropy(self.logits(self.train[0]), self.train[1], reduction="none")
        return (self.weights.sigmoid() * losses).mean() + 0.01 * vector.dot(self.lower_params(), self.lower_params())

    def upper_params(self):
        return [self.weights]

    def lower_params(self):
        return [*self.body.parameters(), *self.head.parameters()]


def hypergradient(problem, hvp, **options):
    """(x.grad without the direct term, which is 0 here; report) from a fixed random state."""
    problem.weights.grad, problem.masks, problem.calls = None, [], 0
    torch.manual_seed(7)
    report = Solver(hvp=hvp, damping=0.3, tolerance=0.0, **options).backward(problem, (), ())
    return problem.weights.grad.double(), report


def cosine(a, b):
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


@pytest.mark.parametrize("p_dropout", [0.0, 0.3])
@pytest.mark.parametrize(("solver", "n_terms"), [("cg", 5), ("neumann", 5), ("identity", 0)])
def test_finite_differences_agree_with_double_backward_in_float32(solver, n_terms, p_dropout):
    problem = Cleaning(p_dropout)
    options = {"linear_solver": solver, "n_terms": n_terms}
    exact, by_exact = hypergradient(problem, "exact", **options)
    for hvp, n_gradients in (("finite_difference", 2), ("forward_difference", 1)):
        found, report = hypergradient(problem, hvp, **options)
        assert cosine(found, exact) > 0.9999
        assert float(found.norm() / exact.norm()) == pytest.approx(1.0, abs=0.01)
        assert report["passes"] == problem.calls == 2 + n_gradients * (n_terms + 1)
    assert by_exact["passes"] == 2 + 2 * (n_terms + 1)


def test_exact_products_count_as_two_gradients(monkeypatch):
    problem, inner, taken = Cleaning(), torch.autograd.grad, []
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: taken.append(0) or inner(*a, **k))
    report = hypergradient(problem, "exact", n_terms=4)[1]
    assert problem.calls == 2  # one forward pass of each level: the graph is built once
    assert report["passes"] == 2 + 2 * (len(taken) - 2) == 2 + 2 * (4 + 1)


def test_dropout_is_frozen_within_a_call_and_new_in_the_next():
    problem = Cleaning(p_dropout=0.5)
    solver = Solver(hvp="finite_difference", damping=0.1)
    kept = []
    for _ in range(2):
        problem.masks = []
        solver.backward(problem, (), ())
        assert len(problem.masks) > 4
        assert all(torch.equal(m, problem.masks[1]) for m in problem.masks[2:])
        kept.append(problem.masks)
    assert not torch.equal(kept[0][1], kept[1][1])
    assert not torch.equal(kept[0][0], kept[1][0])


@pytest.mark.parametrize("hvp", hessian.HVP)
def test_the_random_state_moves_on_by_one_evaluation_of_each_level(hvp):
    problem = Cleaning(p_dropout=0.5)
    hypergradient(problem, hvp)
    after = torch.get_rng_state()
    torch.manual_seed(7)
    problem.upper(()), problem.lower(())
    assert torch.equal(after, torch.get_rng_state())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_dropout_is_frozen_on_a_gpu():
    problem = Cleaning(p_dropout=0.5)
    problem.body.cuda(), problem.head.cuda()
    problem.train, problem.valid = ([t.cuda() for t in part] for part in (problem.train, problem.valid))
    problem.weights = nn.Parameter(problem.weights.detach().cuda())
    exact, _ = hypergradient(problem, "exact")
    found, _ = hypergradient(problem, "finite_difference")
    assert all(torch.equal(m, problem.masks[1]) for m in problem.masks[2:])
    assert cosine(found, exact) > 0.999


def test_products_agree_with_the_dense_second_derivatives():
    problem = Cleaning(dtype=torch.float64)
    lower, upper = problem.lower_params(), problem.upper_params()
    generator = torch.Generator().manual_seed(1)
    p = [torch.randn(y.shape, generator=generator, dtype=y.dtype) for y in lower]
    slope = torch.autograd.grad(problem.lower(()), lower, create_graph=True)
    inner = vector.dot(slope, p)
    by_hand = [torch.autograd.grad(inner, params, retain_graph=True) for params in (lower, upper)]
    for hvp, rtol in (("exact", 1e-10), ("finite_difference", 1e-6), ("forward_difference", 1e-5)):
        found = hessian.curvature(hvp, lambda: problem.lower(()), upper, lower)
        torch.testing.assert_close(found.gradient, [s.detach() for s in slope])
        for ours, theirs in zip((found.product(p), found.cross(p)), by_hand, strict=True):
            ours, theirs = vector.flatten(ours), vector.flatten(theirs)
            assert float((ours - theirs).norm() / theirs.norm()) < rtol


def test_parameters_that_the_loss_ignores_or_that_are_frozen_have_zero_products():
    problem = Cleaning()
    unused = nn.Parameter(torch.ones(3))
    problem.body[0].bias.requires_grad_(False)
    lower = [*problem.lower_params(), unused]
    for hvp in hessian.HVP:
        found = hessian.curvature(hvp, lambda: problem.lower(()), [unused], lower)
        product = found.product([torch.zeros_like(y) if y is lower[1] else torch.ones_like(y) for y in lower])
        assert vector.norm([product[1], product[-1], *found.cross(product)]) == 0
        assert all(torch.isfinite(x).all() for x in product)


def test_attention_has_exact_products():
    class Attention(Quadratic):
        def lower(self, batch):
            q = (self.y[:, None] * self.y)[None, None]
            return functional.scaled_dot_product_attention(q, q, q).square().sum() + (self.x.sum() * self.y).sum()

    reports = []
    for hvp in ("exact", "finite_difference"):
        problem = Attention()
        reports.append(step(Solver(hvp=hvp, n_terms=2, damping=20.0), problem))
        reports[-1]["x"] = problem.x.grad
    torch.testing.assert_close(reports[0]["x"], reports[1]["x"], rtol=1e-6, atol=0)


def test_a_lower_step_alone_writes_the_lower_gradient_alone():
    problem, expected = Quadratic(), Quadratic()
    report = Solver().backward(problem, None, problem.lower_batch)
    expected.lower(expected.lower_batch).backward()
    assert problem.x.grad is None
    torch.testing.assert_close(problem.y.grad, expected.y.grad)
    assert report["passes"] == 1
    assert math.isnan(report["upper_loss"])


def test_finite_differences_need_no_double_backward():
    assert Solver().second_order
    assert not Solver(hvp="finite_difference").second_order


def test_shared_parameters_and_senseless_settings_are_refused():
    problem = Quadratic()
    problem.lower_params = problem.upper_params
    with pytest.raises(ValueError, match="in both levels"):
        step(Solver(), problem)
    with pytest.raises(ValueError, match="no lower batch"):
        Solver().backward(Quadratic(), (), None)
    with pytest.raises(ValueError, match="hvp 'hessian': expected exact, finite_difference"):
        Solver(hvp="hessian")
    with pytest.raises(ValueError, match="fd_step"):
        Solver(fd_step=0.0)
    with pytest.raises(ValueError, match="linear_solver"):
        Solver("lu")
