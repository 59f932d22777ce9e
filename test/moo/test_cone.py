"""Programs over z >= 0 and MGDA: conditions of optimality, closed forms, and an independent solver."""

import itertools

import pytest
import torch

from bilevel.moo import build, cone
from bilevel.testing.check_weighting import gradients, special_gradients

ROWS = {f"seed {seed}": gradients(m, seed, n) for seed, (m, n) in enumerate([(2, 3), (3, 8), (5, 3), (7, 30), (9, 4)])}
ALL = ROWS | special_gradients()


def best_by_enumeration(gramian, linear):
    """The least value over all sets of variables that are not zero."""
    m, best = len(linear), 0.0
    for n in range(1, m + 1):
        for index in itertools.combinations(range(m), n):
            inner = gramian[list(index)][:, list(index)]
            z = torch.linalg.lstsq(inner, -linear[list(index)], driver="gelsd").solution
            if bool((z >= -1e-12).all()):
                best = min(best, float(0.5 * z @ inner @ z + linear[list(index)] @ z))
    return best


@pytest.mark.parametrize("name", ROWS)
def test_programs_against_enumeration(name):
    rows = ROWS[name]
    gramian = rows @ rows.T
    for i in range(len(rows)):
        linear = gramian[i] - 0.3 * gramian[0]  # in the range of G, so the value is bounded
        z = cone.minimise(gramian, linear)
        value = float(0.5 * z @ gramian @ z + linear @ z)
        assert bool((z >= 0).all())
        assert value == pytest.approx(best_by_enumeration(gramian, linear), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", ALL)
def test_mgda_meets_its_conditions_of_optimality(name):
    rows = ALL[name]
    if name == "one zero":
        rows = rows[[0, 2]]
    lam = cone.nearest_to_zero(rows @ rows.T)
    direction = lam @ rows
    products, square = rows @ direction, direction @ direction
    unit = float(rows.norm(dim=1).max().square()) or 1.0
    assert float(lam.sum()) == pytest.approx(1.0)
    assert bool((lam >= 0).all())
    assert bool((products >= square - 1e-7 * unit).all())
    assert (products - square)[lam > 1e-9].abs().max() < 1e-7 * unit


@pytest.mark.parametrize("seed", range(5))
def test_mgda_of_two_in_closed_form(seed):
    rows = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    g = rows @ rows.T
    first = ((g[1, 1] - g[0, 1]) / (g[0, 0] + g[1, 1] - 2 * g[0, 1])).clamp(0, 1)
    torch.testing.assert_close(build("mgda", 2).weights(g), torch.stack([first, 1 - first]))


def test_mgda_is_zero_exactly_where_no_common_descent_exists():
    around = torch.tensor([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]], dtype=torch.float64)
    lam = build("mgda", 3).weights(around @ around.T)
    assert (lam @ around).norm() < 1e-6
    beside = around + torch.tensor([1.0, 0.0])
    lam = build("mgda", 3).weights(beside @ beside.T)
    assert bool((beside @ (lam @ beside) > 0.1).all())


def test_a_zero_gradient_does_not_stop_the_others_and_very_long_ones_are_exact():
    rows = torch.tensor([[1e8, 1.0], [0.0, 0.0], [-1.0, 1e-8]], dtype=torch.float64)
    lam = build("mgda", 3).weights(rows @ rows.T)
    assert lam[1] == 0
    assert lam[0] == pytest.approx(1e-8, rel=1e-6)
    same = torch.tensor([[3.0, 1.0]] * 4, dtype=torch.float64)
    torch.testing.assert_close(
        build("mgda", 4).weights(same @ same.T), torch.full((4,), 0.25, dtype=torch.float64), atol=1e-5, rtol=0
    )
