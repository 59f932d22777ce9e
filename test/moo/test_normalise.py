import pytest
import torch

from bilevel.moo import build
from bilevel.moo.normalise import Normaliser
from bilevel.testing.check_weighting import gradients

ALL = torch.arange(2)


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("by", ["none", "norm", "running", "loss"])
def test_scales_of_the_first_step(by):
    found = Normaliser(2, by).scales(vector(3, 4), vector(5, 6), ALL)
    assert found.tolist() == {"none": [1, 1], "norm": [3, 4], "running": [3, 4], "loss": [5, 6]}[by]


def test_running_scales_are_those_of_earlier_steps():
    normaliser = Normaliser(2, "running", decay=0.5)
    normaliser.scales(vector(1, 1), vector(1, 1), ALL)
    assert normaliser.scales(vector(3, 100), vector(1, 1), ALL).tolist() == [1, 1]
    assert normaliser.scales(vector(7, 0), vector(1, 1), ALL).tolist() == [2, 50.5]
    assert normaliser.means.tolist() == [4.5, 50.5]  # a zero gradient says nothing
    normaliser.scales(vector(9), vector(1), ALL[:1])
    assert normaliser.means[1] == 50.5
    other = Normaliser(2, "running", decay=0.5)
    other.load_state_dict(normaliser.state_dict())
    assert torch.equal(other.means, normaliser.means)
    normaliser.reset()
    assert not normaliser.means.any()


def test_mgda_ignores_the_long_gradient_unless_normalised():
    """CTC and cross-entropy at their start: lengths 100 and 1, nearly perpendicular."""
    rows = torch.tensor([[100.0, 1.0, 0.0], [0.0, 0.1, 1.0]], dtype=torch.float64)
    gramian, mgda = rows @ rows.T, build("mgda", 2)
    assert mgda.weights(gramian)[0] * 100 < 0.02
    scales = gramian.diagonal().sqrt()
    weights = Normaliser.weights(mgda.weights(gramian / scales[:, None] / scales), scales)
    lengths = weights * scales
    assert lengths[0] == pytest.approx(float(lengths[1]), rel=1e-3)


@pytest.mark.parametrize("by", ["norm", "running"])
def test_no_objective_rises_also_with_normalised_gradients(by):
    for seed in range(5):
        rows = gradients(4, seed)
        gramian = rows @ rows.T
        scales = Normaliser(4, by).scales(rows.norm(dim=1), rows[:, 0], torch.arange(4))
        weights = Normaliser.weights(build("mgda", 4).weights(gramian / scales[:, None] / scales), scales)
        direction = weights @ rows
        assert bool((rows @ direction >= -1e-8 * rows.norm(dim=1)).all())


def test_weights_keep_the_length_where_gradients_agree():
    rows = vector(2, 6)[:, None] * torch.ones(1, 3, dtype=torch.float64)
    scales = rows.norm(dim=1)
    lam = vector(0.25, 0.75)
    torch.testing.assert_close((Normaliser.weights(lam, scales) @ rows).norm(), (lam @ rows).norm())


def test_refusals():
    with pytest.raises(ValueError, match=r"by 'l2', decay 0.9: expected one of none, norm, running, loss"):
        Normaliser(2, "l2")
    with pytest.raises(ValueError, match="decay 1"):
        Normaliser(2, decay=1)
    with pytest.raises(ValueError, match="found keys"):
        Normaliser(2).load_state_dict({})
