"""What every weighting keeps, and that ours agree with the library torchjd."""

import functools

import pytest
import torch
from torchjd import aggregation, scalarization

from bilevel.moo import build, names
from bilevel.testing.check_weighting import call, check_weighting, gradients

OPTIONS = [(name, {}) for name in names()] + [
    ("static", {"weights": None}),
    ("modo", {"gamma": 1e-3, "rho": 0.1}),
    ("moco", {"beta": 1.0, "gamma": 1e-3}),
    ("gradvac", {"beta": 0.5, "seed": 3}),
    ("cagrad", {"c": 0.0}),
    ("cagrad", {"c": 0.9}),
    ("torchjd", {"method": "UPGrad"}),
    ("torchjd", {"method": "PCGrad"}),
]


@pytest.mark.parametrize(("name", "conf"), OPTIONS, ids=str)
def test_contract(name, conf):
    check_weighting(functools.partial(build, name, conf=conf))


def exact_projector():
    from torchjd.linalg import QuadprogProjector

    return QuadprogProjector(norm_eps=0.0, reg_eps=1e-11)


# scales as in torchjd's own tests; its thresholds `norm_eps` are absolute, so they are switched off where they exist
@pytest.mark.parametrize("scale", [1.0, 1e5, 1e10, 1e15])
@pytest.mark.parametrize("m", [2, 3, 6])
def test_agreement_with_torchjd_on_random_gramians(m, scale):
    for seed in range(4):
        rows = scale * gradients(m, seed, n=12)
        gramian = rows @ rows.T
        theirs = {
            "mean": aggregation.MeanWeighting()(gramian),
            "upgrad": aggregation.UPGradWeighting(projector=exact_projector())(gramian),
            "imtl_g": aggregation.IMTLGWeighting()(gramian / scale**2),  # its own threshold makes zeros of 1e15
            "cagrad": aggregation.CAGradWeighting(c=0.4, norm_eps=1e-12)(gramian),
        }
        for name, expected in theirs.items():
            weighting = build(name, m, {"c": 0.4} if name == "cagrad" else {})
            found = weighting.weights(gramian)
            lengths = rows.norm(dim=1)
            # Weights count by the length of what they multiply; iterative solvers are the less exact side.
            tolerance = {"mgda": 2e-3, "cagrad": 1e-4}.get(name, 1e-6) * float((expected.abs() * lengths).max())
            torch.testing.assert_close(found * lengths, expected * lengths, rtol=0, atol=tolerance, msg=name)
            by_steps = aggregation.MGDAWeighting(epsilon=1e-6, max_iters=100)(gramian)
            exact = build("mgda", m).weights(gramian)
            assert 0.9 < (exact @ gramian @ exact) / (by_steps @ gramian @ by_steps) < 1 + 1e-9


@pytest.mark.parametrize("m", [2, 3, 6])
def test_surgery_agrees_with_torchjd_when_the_orders_are_the_same(m):
    gramian = gradients(m) @ gradients(m).T
    torch.manual_seed(7)
    expected = aggregation.PCGradWeighting()(gramian) / m
    torch.testing.assert_close(build("pcgrad", m, {"seed": 7}).weights(gramian), expected)
    if m == 2:  # with more, the other side draws its orders differently
        ours, theirs = build("gradvac", 2, {"beta": 0.5}), aggregation.GradVacWeighting(beta=0.5)
        for seed in range(5):
            rows = gradients(2, seed)
            torch.testing.assert_close(ours.weights(rows @ rows.T), theirs(rows @ rows.T) / 2, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("rho", [0.0, 0.01])
def test_modo_agrees_with_torchjd_over_many_steps(rho):
    ours, theirs = build("modo", 4, {"gamma": 0.01, "rho": rho}), aggregation.MoDoWeighting(gamma=0.01, rho=rho)
    for seed in range(20):
        cross = gradients(4, seed) @ gradients(4, seed + 100).T  # two batches: not symmetric
        torch.testing.assert_close(ours.weights(cross), theirs(cross))


def test_famo_agrees_with_torchjd_over_many_steps():
    ours, theirs = build("famo", 3), scalarization.FAMO(3)
    theirs.double()
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        before, after = (torch.rand(2, 3, generator=generator, dtype=torch.float64) + 0.1).unbind()
        values = before.clone().requires_grad_()
        theirs(values).backward()
        torch.testing.assert_close(ours.weights(torch.eye(3), before), values.grad, rtol=1e-6, atol=1e-8)
        theirs.update(after)
        ours.update(after)


@pytest.mark.parametrize("name", [n for n in names() if n not in ("mean", "static", "famo", "moco", "modo")])
def test_weights_do_not_depend_on_the_unit(name):
    for scale in (1e-3, 1e6):
        weights = [call(build(name, 4), factor * gradients(4)) for factor in (1.0, scale)]
        torch.testing.assert_close(weights[1], weights[0], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["imtl_g", "pcgrad", "gradvac", "upgrad"])
def test_one_long_gradient_does_not_silence_the_others(name):
    """Of two perpendicular objectives, the one with gradients 1,000 times as long."""
    rows = torch.diag(torch.tensor([1000.0, 1.0], dtype=torch.float64))
    weights = call(build(name, 2), rows)
    if name == "imtl_g":
        assert weights[0] * 1000 == pytest.approx(float(weights[1]))
    else:
        torch.testing.assert_close(weights, torch.full_like(weights, 0.5))


def test_without_conflicts_weights_sum_to_one():
    rows = gradients(4).abs()
    for name in ("mean", "upgrad", "pcgrad", "gradvac", "mgda", "imtl_g", "modo", "moco", "famo"):
        assert float(call(build(name, 4), rows).sum()) == pytest.approx(1.0), name


def test_names_and_arguments_that_are_unknown_are_refused_with_the_nearest():
    assert {"mean", "static", "mgda", "modo", "moco", "pcgrad", "cagrad", "gradvac", "imtl_g", "upgrad", "famo"} <= set(
        names()
    )
    with pytest.raises(ValueError, match="unknown weighting 'mgd'; the nearest one is 'mgda', all: cagrad, "):
        build("mgd", 2)
    with pytest.raises(ValueError, match="unknown argument of weighting modo: 'gama'; the nearest one is 'gamma'"):
        build("modo", 2, {"gama": 1})
    with pytest.raises(ValueError, match="unknown argument of weighting mean: 'n_objectives'; expected none"):
        build("mean", 2, {"n_objectives": 3})


@pytest.mark.parametrize(
    ("name", "conf", "message"),
    [
        ("modo", {"gamma": 0.0}, "gamma 0.0, rho 0.0: expected gamma above 0"),
        ("moco", {"beta": 0.0}, "beta 0.0"),
        ("cagrad", {"c": 1.0}, "c 1.0: expected a number in"),
        ("gradvac", {"beta": 2}, "beta 2: expected a number from 0 to 1"),
        ("famo", {"lr": -1}, "lr -1"),
        ("static", {"weights": [1, 2, 3]}, "expected 2 finite numbers"),
        ("static", {"weights": [1, -2]}, "expected 2 finite numbers"),
    ],
)
def test_settings_that_cannot_be_are_refused(name, conf, message):
    with pytest.raises(ValueError, match=message):
        build(name, 2, conf)
