import itertools
import math

import pytest
import torch

from bilevel.optim import vector
from bilevel.optim.linear_solve import check_conf, conjugate_gradient, identity, neumann, solve

SHAPES = ((2, 2), (3,), ())
N = 8


def split(x):
    return [part.reshape(shape) for part, shape in zip(x.split([4, 3, 1]), SHAPES, strict=True)]


class System:
    """A dense symmetric matrix of given eigenvalues, acting on lists of tensors, and a right-hand side."""

    def __init__(self, eigenvalues):
        generator = torch.Generator().manual_seed(0)
        self.basis = torch.linalg.qr(torch.randn(N, N, generator=generator, dtype=torch.float64))[0]
        self.eigenvalues = torch.as_tensor(eigenvalues, dtype=torch.float64)
        self.matrix = self.basis @ self.eigenvalues.diag() @ self.basis.T
        self.right = torch.randn(N, generator=generator, dtype=torch.float64)
        self.v = split(self.right)
        self.n_products = 0

    def product(self, p):
        self.n_products += 1
        return split(self.matrix @ vector.flatten(p))

    def dense(self, damping=0.0):
        return torch.linalg.solve(self.matrix + damping * torch.eye(N, dtype=torch.float64), self.right)

    def error(self, solution, damping=0.0):
        return vector.flatten(solution.w) - self.dense(damping)

    def residual(self, solution, damping=0.0):
        w = vector.flatten(solution.w)
        return float((self.matrix @ w + damping * w - self.right).norm() / self.right.norm())


SPREAD = torch.linspace(1, 4, N)


def test_cg_is_exact_after_n_steps_and_not_before():
    system = System(SPREAD)
    errors = [system.error(conjugate_gradient(system.product, system.v, k)) for k in range(N + 1)]
    norms = [float(e.norm()) for e in errors]
    energies = [float(e @ system.matrix @ e) for e in errors]
    assert norms[N] < 1e-13
    assert norms[N - 1] > 1e-6
    assert all(b < a for a, b in itertools.pairwise(norms))
    bounds = [2 * ((2 - 1) / (2 + 1)) ** k * energies[0] ** 0.5 for k in range(N)]  # condition number 4
    assert all(e**0.5 <= bound for e, bound in zip(energies[:-1], bounds, strict=True))


def test_cg_needs_as_many_steps_as_there_are_distinct_eigenvalues():
    system = System([1.0] * 3 + [2.0] * 3 + [5.0] * 2)
    assert float(system.error(conjugate_gradient(system.product, system.v, 3)).norm()) < 1e-13
    assert float(system.error(conjugate_gradient(system.product, system.v, 2)).norm()) > 1e-3


def test_the_residual_of_cg_is_the_true_one_and_falls():
    system = System(SPREAD)
    solutions = [conjugate_gradient(system.product, system.v, k) for k in range(N)]
    for k, solution in enumerate(solutions):
        assert solution.residual == pytest.approx(system.residual(solution), rel=1e-8)
        assert solution.n_products == k
    assert all(b.residual < a.residual for a, b in itertools.pairwise(solutions))


@pytest.mark.parametrize("name", ["cg", "neumann"])
def test_a_tolerance_ends_the_solve_as_soon_as_it_is_met(name):
    system = System(SPREAD)
    solution = solve(name, system.product, system.v, 200, tolerance=1e-3, step=0.4)
    assert solution.residual <= 1e-3
    assert solution.n_products == system.n_products < 30
    before = solve(name, system.product, system.v, solution.n_products - 1, step=0.4)
    assert before.residual > 1e-3
    assert system.residual(solution) <= 1e-3


def test_an_indefinite_matrix_is_caught_and_the_best_iterate_kept():
    system = System([-0.3, *torch.linspace(1, 4, N - 1)])
    solution = conjugate_gradient(system.product, system.v, 50)
    assert solution.negative_curvature
    assert 1 < solution.n_products <= N

    def model(w):
        return float(0.5 * w @ system.matrix @ w - system.right @ w)

    iterates = [conjugate_gradient(system.product, system.v, k) for k in range(solution.n_products)]
    assert not any(i.negative_curvature for i in iterates)
    values = [model(vector.flatten(i.w)) for i in iterates]
    assert values == sorted(values, reverse=True)
    assert torch.equal(vector.flatten(solution.w), vector.flatten(iterates[-1].w))
    assert solution.residual == pytest.approx(system.residual(solution), rel=1e-8)


def test_enough_damping_makes_it_definite():
    system = System([-0.3, *torch.linspace(1, 4, N - 1)])
    solution = conjugate_gradient(system.product, system.v, N, damping=0.5)
    assert not solution.negative_curvature
    assert float(system.error(solution, 0.5).norm()) < 1e-12


@pytest.mark.parametrize("value", [-1.0, 0.0, math.nan])
def test_a_matrix_without_positive_curvature_gives_zero_and_says_so(value):
    v = [torch.ones(3), torch.ones(2)]
    solution = conjugate_gradient(lambda p: [value * x for x in p], v)
    assert solution.negative_curvature
    assert solution.residual == 1.0
    assert solution.n_products == 1
    assert vector.norm(solution.w) == 0
    assert neumann(lambda p: [value * x for x in p], v).negative_curvature


@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_the_error_of_neumann_is_geometric(damping):
    system, step = System(SPREAD), 0.2
    solutions = {k: neumann(system.product, system.v, k, step, damping) for k in (0, 1, 7, 8, 30, 60)}
    norms = {k: float(system.error(s, damping).norm()) for k, s in solutions.items()}
    # Error after k terms: (I - step A)^(k + 1) w*; its slowest part belongs to the smallest eigenvalue.
    rate = 1 - step * (1 + damping)
    assert math.log(norms[60] / norms[30]) / 30 == pytest.approx(math.log(rate), rel=1e-3)
    shrunk = 1 - step * (system.eigenvalues + damping)
    for k in (0, 1, 7):
        exact = -system.basis @ (shrunk ** (k + 1) * (system.basis.T @ system.dense(damping)))
        torch.testing.assert_close(system.error(solutions[k], damping), exact)
        assert solutions[k].n_products == k
    assert solutions[8].residual == pytest.approx(system.residual(solutions[7], damping))  # of the sum without its last


def test_neumann_with_too_large_a_step_shows_in_the_residual():
    system = System(SPREAD)
    assert neumann(system.product, system.v, 30, step=0.6).residual > 10
    assert neumann(system.product, system.v, 30, step=0.49).residual < 1


def test_the_law_of_damping():
    system = System(SPREAD)
    small = [1e-3, 1e-2]
    errors = [float(system.error(conjugate_gradient(system.product, system.v, N, d)).norm()) for d in small]
    assert math.log10(errors[1] / errors[0]) == pytest.approx(1.0, abs=0.02)
    large = []
    for d in (1e3, 1e4):
        w = vector.flatten(solve("cg", system.product, system.v, N, damping=d).w)
        large.append(float((d * w - system.right).norm()))
    assert math.log10(large[1] / large[0]) == pytest.approx(-1.0, abs=0.02)


def test_layerwise_cg_is_exact_for_blocks_of_tensors_and_only_then():
    system = System(SPREAD)
    blocks = torch.zeros(N, N, dtype=torch.float64)
    for part in (slice(0, 4), slice(4, 7), slice(7, 8)):
        blocks[part, part] = system.matrix[part, part]
    coupled, system.matrix = system.matrix, blocks
    solution = conjugate_gradient(system.product, system.v, 4, layerwise=True)  # the largest block has size 4
    assert float(system.error(solution).norm()) < 1e-13
    assert math.isnan(solution.residual)
    assert not solution.negative_curvature
    assert float(system.error(conjugate_gradient(system.product, system.v, 4)).norm()) > 1e-4
    system.matrix = coupled
    assert float(system.error(conjugate_gradient(system.product, system.v, 4 * N, layerwise=True)).norm()) > 1e-3


def test_layerwise_cg_holds_a_tensor_of_negative_curvature_and_goes_on_with_the_others():
    v = [torch.ones(2), torch.ones(3)]
    solution = conjugate_gradient(lambda p: [-p[0], 2 * p[1]], v, 5, layerwise=True)
    assert solution.negative_curvature
    assert torch.equal(solution.w[0], torch.zeros(2))
    torch.testing.assert_close(solution.w[1], torch.full((3,), 0.5))


def test_identity_takes_no_product_and_knows_no_residual():
    v = [torch.ones(2)]
    found = identity(v)
    assert found.w is v
    assert math.isnan(found.residual)
    assert found.n_products == 0


@pytest.mark.parametrize("name", ["cg", "neumann"])
def test_a_right_side_of_zero_takes_no_product(name):
    system = System(SPREAD)
    solution = solve(name, system.product, [torch.zeros_like(x) for x in system.v], 5)
    assert vector.norm(solution.w) == 0
    assert (solution.residual, solution.n_products, system.n_products) == (0.0, 0, 0)


def test_senseless_settings_are_refused():
    with pytest.raises(ValueError, match="'gauss': expected cg, neumann or identity"):
        check_conf("gauss", 1, 1.0, 0.0, 0.0)
    for bad in ((-1, 1.0, 0.0, 0.0), (1, 0.0, 0.0, 0.0), (1, 1.0, -1.0, 0.0), (1, 1.0, 0.0, -1.0)):
        with pytest.raises(ValueError, match="step > 0"):
            check_conf("cg", *bad)
