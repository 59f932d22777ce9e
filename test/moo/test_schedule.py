import pytest

from bilevel.moo.schedule import Schedule


def test_the_ramp_of_the_paper():
    """From 0 by 0.02 an epoch, at most 1.5 (epoch 75)."""
    ramp = Schedule([[0, 0], [75, 1.5]])
    for epoch in (0, 1, 10, 74, 75, 200):
        assert ramp.value(epoch) == pytest.approx(min(1.5, 0.02 * epoch))
        assert ramp.value(epoch + 0.9) == ramp.value(epoch)
    assert Schedule([[0, 0], [75, 1.5]], per="step").value(10.5) == pytest.approx(0.21)


def test_jumps_and_constants():
    jump = Schedule([[0, 1], [5, 1], [5, 0]])
    assert [jump.value(e) for e in (0, 4, 4.99, 5, 6)] == [1, 1, 1, 0, 0]
    assert Schedule(0.3).value(100) == 0.3
    assert Schedule([[3, 2.0]]).value(0) == 2.0


@pytest.mark.parametrize("points", [[[1, 0], [0, 1]], [[0, -1]], -1.0, []])
def test_refusals(points):
    with pytest.raises(ValueError, match="expected a number >= 0 or pairs"):
        Schedule(points)
    with pytest.raises(ValueError, match="per 'batch'"):
        Schedule(1.0, per="batch")
