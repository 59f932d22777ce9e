"""Theorems and closed forms of single weightings."""

import math

import pytest
import torch

from bilevel.moo import build, cone
from bilevel.moo.simplex import project
from bilevel.testing.check_weighting import call, gradients, special_gradients

PAIR = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)  # |g| squared 18 and 38, product -22
# (1 + 22 / 18) / 2 of the first and (1 + 22 / 38) / 2 of the second: each without the part against the other
MENDED = [-2 * (1 + 22 / 18) + 3 * (1 + 22 / 38), *[0.5 * (2 + 22 / 18 + 22 / 38)] * 2]


def direction(name, rows, **conf):
    return call(build(name, len(rows), conf), rows) @ rows


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mean", [1.0, 1.0, 1.0]),
        ("static", [2.0, 2.0, 2.0]),
        ("mgda", [0.0, 1.0, 1.0]),  # the hull is a segment through (0, 1, 1)
        ("pcgrad", MENDED),
        ("upgrad", MENDED),
    ],
)
def test_known_values_of_two_by_three(name, expected):
    torch.testing.assert_close(direction(name, PAIR), torch.tensor(expected, dtype=torch.float64), atol=1e-8, rtol=1e-8)


def test_projection_on_the_simplex_is_the_nearest_point():
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-3, 1.0, 1e3, 1e18):
        values = scale * torch.randn(5, generator=generator, dtype=torch.float64)
        found = project(values, total=2.0)
        assert float(found.sum()) == pytest.approx(2.0)
        assert bool((found >= 0).all())
        inside = found > 0  # of the nearest point: one common shift inside, at least as much outside
        shift = (values - found)[inside]
        assert (shift - shift[0]).abs().max() <= 1e-12 * max(scale, 1.0)
        assert bool((values[~inside] <= shift[0]).all())


@pytest.mark.parametrize("seed", range(4))
def test_upgrad_projects_each_gradient_on_the_dual_cone(seed):
    """Conditions of the projection p of g: J p >= 0, p - g in the cone of J, (p - g) p = 0."""
    rows = gradients(5, seed)
    gramian = rows @ rows.T
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    for i in range(5):
        z = cone.minimise(gramian, gramian[i])
        projected = rows[i] + z @ rows
        assert bool((rows @ projected >= -1e-8).all())
        assert abs((z @ rows) @ projected) < 1e-8
        total += projected / 5
    torch.testing.assert_close(direction("upgrad", rows), total)


@pytest.mark.parametrize("name", ["upgrad", "mgda"])
def test_a_common_descent_is_found_where_one_exists(name):
    for seed in range(5):
        rows = gradients(4, seed)
        rows[:, 0] = rows[:, 0].abs() + 0.5  # the first axis serves all
        assert bool((rows @ direction(name, rows) > -1e-9).all())
        assert direction(name, rows).norm() > 0.1


def test_opposite_gradients_cancel():
    rows = special_gradients()["opposite"]
    for name in ("mean", "mgda", "upgrad", "pcgrad", "imtl_g"):
        assert direction(name, rows).norm() < 1e-7, name


def test_modo_is_unbiased_and_one_batch_is_not():
    """Losses 1/2 |theta - b_m|^2 with noise on each gradient: the mean step is that of the true gradients."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.5, 0.5]], dtype=torch.float64)
    true = torch.tensor([1.0, -0.5], dtype=torch.float64) - centres
    start = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)

    def move(gramian):
        weighting = build("modo", 3, {"gamma": 1e-3})  # so small a step stays inside the simplex, where it is linear
        weighting.load_state_dict({"lam": start})
        return weighting.weights(gramian) - start

    draws = true + torch.randn(2, 3000, 3, 2, generator=generator, dtype=torch.float64)
    pairs = zip(draws[0], draws[1], strict=True)
    two, one = torch.stack([torch.stack([move(a @ b.T), move(a @ a.T)]) for a, b in pairs]).mean(0)
    exact = move(true @ true.T)
    bias = -1e-3 * 2 * (start - 1 / 3)  # one batch: E[J J^T] has the noise's variance, 2, on its diagonal
    assert (two - exact).norm() < 0.25 * bias.norm()
    assert (one - exact - bias).norm() < 0.25 * bias.norm()


def test_modo_comes_to_the_weights_of_mgda():
    rows = gradients(3, 1)[:, :4] / torch.tensor([[10.0], [1.0], [1.0]])
    weighting = build("modo", 3, {"gamma": 0.02})
    for _ in range(5000):
        found = weighting.weights(rows @ rows.T)
    torch.testing.assert_close(found, build("mgda", 3).weights(rows @ rows.T), atol=1e-4, rtol=0)


def test_modo_goes_from_equal_weights_to_a_vertex_as_its_step_grows():
    rows = torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64))
    near, far = (build("modo", 2, {"gamma": gamma}).weights(rows @ rows.T) for gamma in (1e-9, 1e3))
    torch.testing.assert_close(near, torch.full((2,), 0.5, dtype=torch.float64), atol=1e-6, rtol=0)
    assert far.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("name", ["modo", "moco"])
def test_weights_of_absent_objectives_wait(name):
    weighting = build(name, 4, {"gamma": 1e-3})
    call(weighting, gradients(4))
    before = weighting.lam.clone()
    found = call(weighting, gradients(4, 1)[[0, 2]], present=[0, 2])
    assert weighting.lam[[1, 3]].tolist() == before[[1, 3]].tolist()
    assert weighting.lam[0] != before[0]
    assert float(weighting.lam.sum()) == pytest.approx(1.0)
    assert float(found.sum()) == pytest.approx(1.0)


def test_moco_follows_the_mean_gradient_under_noise():
    generator = torch.Generator().manual_seed(0)
    true = gradients(2, 3)
    weighting = build("moco", 2, {"beta": 0.01, "gamma": 1e-4})
    for _ in range(2000):
        noisy = true + torch.randn(true.shape, generator=generator, dtype=torch.float64)
        tracked = weighting.track({i: [noisy[i]] for i in range(2)})
    errors = [(tracked[i][0] - true[i]).norm() for i in range(2)]
    # Variance of the moving mean: beta / (2 - beta) of that of a draw, 8 numbers each.
    expected = math.sqrt(8 * 0.01 / 1.99)
    assert all(0.3 * expected < e < 2 * expected for e in errors)


def test_moco_takes_missing_gradients_for_zeros():
    weighting = build("moco", 1, {"beta": 0.25})
    one = torch.ones(2)
    assert weighting.track({0: [None, one]})[0][0] is None
    second = weighting.track({0: [one, None]})[0]
    assert [y.tolist() for y in second] == [[0.25, 0.25], [0.75, 0.75]]


@pytest.mark.parametrize("seed", range(3))
def test_pcgrad_leaves_no_conflict_between_two(seed):
    rows = gradients(2, seed)
    mended = direction("pcgrad", rows)
    assert bool((rows @ mended >= -1e-9).all())


def test_gradvac_turns_a_pair_to_the_cosine_that_it_remembers():
    rows = torch.tensor([[1.0, 0.0], [-0.6, 0.8]], dtype=torch.float64)
    weighting = build("gradvac", 2, {"beta": 0.0})
    goal = 0.3
    weighting.goals.fill_(goal)
    row = torch.tensor([1.0, 0.0], dtype=torch.float64)
    weighting._mend(row, 0, 1, rows @ rows.T, torch.arange(2))
    turned = row @ rows
    assert float(turned @ rows[1] / turned.norm()) == pytest.approx(goal)


def test_gradvac_remembers_cosines_and_starts_as_pcgrad():
    rows = gradients(2)
    weighting = build("gradvac", 2, {"beta": 0.5})
    torch.testing.assert_close(call(weighting, rows), call(build("pcgrad", 2), rows))
    cosine = float(rows[0] @ rows[1] / rows[0].norm() / rows[1].norm())
    assert float(weighting.goals[0, 1]) == pytest.approx(0.5 * cosine)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("c", [0.2, 0.8])
def test_cagrad_meets_the_conditions_of_its_maximum(seed, c):
    """Weak duality: min_m <g_m, d> for d in the ball is at most <g_w, g_0> + c |g_0| |g_w|. Equal: both optimal."""
    rows = gradients(4, seed)
    weighting = build("cagrad", 4, {"c": c})
    lam = weighting.weights(rows @ rows.T)
    d, mean = lam @ rows, rows.mean(0)
    radius = c * mean.norm()
    assert (d - mean).norm() <= radius * (1 + 1e-6)
    extra = lam - 0.25
    assert bool((extra >= -1e-12).all())
    w = extra / extra.sum()
    bound = (w @ rows) @ mean + radius * (w @ rows).norm()
    assert float((rows @ d).min()) == pytest.approx(float(bound), rel=1e-5)


def test_cagrad_makes_no_step_where_no_direction_helps():
    rows = torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    assert call(build("cagrad", 3, {"c": 0.5}), rows).abs().max() == 0


def test_cagrad_inside_a_hull_around_zero_shortens_the_mean():
    """There <g_w, g_0> + c |g_0| |g_w| is least for g_w against g_0, so d = (1 - c) g_0."""
    around = torch.tensor([[1.3, 0.0], [-0.5, 0.8], [-0.5, -0.8]], dtype=torch.float64)
    torch.testing.assert_close(direction("cagrad", around, c=0.4), 0.6 * around.mean(0), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_imtl_g_projects_equally_on_all(seed):
    rows = gradients(4, seed)
    found = call(build("imtl_g", 4), rows)
    projections = rows @ (found @ rows) / rows.norm(dim=1)
    assert float(found.sum()) == pytest.approx(1.0)
    torch.testing.assert_close(projections, projections[:1].expand(4), rtol=1e-5, atol=1e-7)


def test_imtl_g_of_opposite_gradients_weighs_by_their_length():
    rows = torch.tensor([[1.0, 0.0], [-3.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(call(build("imtl_g", 2), rows), torch.tensor([0.75, 0.25], dtype=torch.float64))


def test_famo_gives_more_to_what_falls_less():
    weighting = build("famo", 2)
    for _ in range(50):
        found = weighting.weights(torch.eye(2), [1.0, 1.0])
        weighting.update([0.5, 0.9])
    assert found[1] > 0.6
    fresh = build("famo", 2).weights(torch.eye(2), [1.0, 4.0])
    torch.testing.assert_close(fresh, torch.tensor([0.8, 0.2], dtype=torch.float64), rtol=1e-6, atol=1e-8)


def test_famo_is_told_when_it_cannot_follow():
    weighting = build("famo", 2)
    weighting.weights(torch.eye(2), [1.0, 1.0])
    with pytest.raises(ValueError, match="two steps without `update`"):
        weighting.weights(torch.eye(2), [1.0, 1.0])
    with pytest.raises(ValueError, match=r"above bound 0.0; lower the bound"):
        build("famo", 2).weights(torch.eye(2), [1.0, -1.0])
    with pytest.raises(ValueError, match="no losses"):
        build("famo", 2).weights(torch.eye(2))


def test_static_weights_are_as_given():
    found = build("static", 3, {"weights": [1, 0.5, 0]}).weights(torch.eye(2), present=[1, 2])
    assert found.tolist() == [0.5, 0.0]


def test_torchjd_names_what_it_has():
    with pytest.raises(ValueError, match="unknown method of torchjd 'MoDo'"):  # it remembers steps
        build("torchjd", 2, {"method": "MoDo"})
    with pytest.raises(ValueError, match="unknown argument of torchjd's CAGrad: 'radius'"):
        build("torchjd", 2, {"method": "CAGrad", "radius": 1})
    torch.testing.assert_close(
        build("torchjd", 2, {"method": "CAGrad", "c": 0.5}).weights(PAIR @ PAIR.T),
        build("cagrad", 2, {"c": 0.5}).weights(PAIR @ PAIR.T),
        rtol=1e-3,
        atol=1e-4,
    )


def test_means_that_were_restored_elsewhere_move_to_the_gradients():
    """A state is read to main memory, gradients are where the model is; "meta" stands for any other device."""
    moco = build("moco", 1)
    moco.track({0: [torch.ones(3), None, torch.ones(2)]})
    other = build("moco", 1)
    other.load_state_dict(moco.state_dict())
    found = other.track({0: [torch.empty(3, device="meta"), torch.empty(2, device="meta"), None]})[0]
    assert [row.device.type for row in found] == ["meta"] * 3
