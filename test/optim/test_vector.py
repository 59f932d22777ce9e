import pytest
import torch

from bilevel.optim import vector


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 4), (5,), (2, 1, 3), ())
    return tuple([torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes] for _ in range(2))


def test_algebra_is_that_of_the_flat_vectors(pair):
    xs, ys = pair
    x, y = (torch.cat([v.reshape(-1) for v in vs]) for vs in pair)
    assert torch.equal(vector.flatten(xs), x)
    torch.testing.assert_close(vector.dot(xs, ys), x @ y)
    torch.testing.assert_close(vector.norm(xs), (x @ x).sqrt())
    combined = vector.axpy(-2.5, xs, ys)
    torch.testing.assert_close(vector.flatten(combined), -2.5 * x + y)
    assert [c.shape for c in combined] == [v.shape for v in xs]


def test_axpy_leaves_its_arguments_alone(pair):
    before = [[v.clone() for v in vs] for vs in pair]
    vector.axpy(3.0, *pair)
    assert all(torch.equal(a, b) for vs, olds in zip(pair, before, strict=True) for a, b in zip(vs, olds, strict=True))


def test_norm_counts_none_as_zero(pair):
    xs, _ = pair
    torch.testing.assert_close(vector.norm([None, *xs, None]), vector.norm(xs))
    assert vector.norm([None, None]) == 0
    assert vector.norm([]) == 0


def test_lists_of_different_length_are_refused(pair):
    xs, ys = pair
    with pytest.raises(ValueError, match="shorter"):
        vector.dot(xs, ys[:-1])
    with pytest.raises(ValueError, match="shorter"):
        vector.axpy(1.0, xs, ys[:-1])


def test_gradients_are_copies_with_zeros_where_there_is_none():
    a, b = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    (3 * a).sum().backward()
    found = vector.gradients([a, b])
    assert torch.equal(found[0], torch.tensor([3.0, 3.0]))
    assert torch.equal(found[1], torch.zeros(2))
    a.grad.zero_()
    assert torch.equal(found[0], torch.tensor([3.0, 3.0]))
