import pytest
import torch

from bilevel.models.quantizer import RandomProjectionQuantizer


@pytest.fixture
def x():
    return torch.randn(3, 40, 12, generator=torch.Generator().manual_seed(1))


def test_labels_are_the_nearest_normalised_codes(x):
    quantizer = RandomProjectionQuantizer(12, codebook_dim=5, codebook_size=37)
    projected = x @ quantizer.projection
    projected = projected / projected.norm(dim=-1, keepdim=True)
    codes = quantizer.codebook / quantizer.codebook.norm(dim=-1, keepdim=True)
    distance = (projected.unsqueeze(-2) - codes).norm(dim=-1)  # (3, 40, 37), the textbook form
    labels = quantizer(x)
    assert labels.dtype == torch.int64
    assert torch.equal(labels, distance.argmin(dim=-1))
    assert len(labels.unique()) > 10


def test_a_restart_has_the_same_labels_and_another_seed_has_not(x):
    first = RandomProjectionQuantizer(12, 5, 37, seed=4)(x)
    torch.manual_seed(99)
    torch.randn(5)
    assert torch.equal(RandomProjectionQuantizer(12, 5, 37, seed=4)(x), first)
    assert not torch.equal(RandomProjectionQuantizer(12, 5, 37, seed=5)(x), first)


def test_construction_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    RandomProjectionQuantizer(12)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("chunk_rows", [1, 7, 120, 1024])
def test_the_chunk_size_does_not_matter(x, chunk_rows):
    expected = RandomProjectionQuantizer(12, 5, 37)(x)
    assert torch.equal(RandomProjectionQuantizer(12, 5, 37, chunk_rows=chunk_rows)(x), expected)


def test_nothing_is_learned_but_everything_is_saved(x):
    quantizer = RandomProjectionQuantizer(12, 5, 37)
    assert list(quantizer.parameters()) == []
    assert {name for name, _ in quantizer.named_buffers()} == {"projection", "codebook"}
    assert set(quantizer.state_dict()) == {"projection", "codebook"}
    torch.testing.assert_close(quantizer.codebook.norm(dim=-1), torch.ones(37))


def test_labels_do_not_depend_on_loudness_or_autocast(x):
    quantizer = RandomProjectionQuantizer(12, 5, 37)
    assert torch.equal(quantizer(3 * x), quantizer(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(quantizer(x), RandomProjectionQuantizer(12, 5, 37)(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = quantizer(x)
    assert torch.equal(under, quantizer(x))


def test_several_codebooks_are_as_many_quantizers(x):
    several = RandomProjectionQuantizer(12, 5, 37, seed=3, n_codebooks=4)
    labels = several(x)
    assert labels.shape == (3, 40, 4)
    for c in range(4):
        one = RandomProjectionQuantizer(12, 5, 37)
        one.projection, one.codebook = several.projection[:, 5 * c : 5 * c + 5], several.codebook[37 * c : 37 * c + 37]
        assert torch.equal(labels[..., c], one(x))
        torch.testing.assert_close(several.scores(x)[..., c, :], one.scores(x))
    assert len({tuple(labels[..., c].flatten().tolist()) for c in range(4)}) == 4


def test_one_codebook_of_a_seed_is_what_it_always_was():
    # Checkpoints hold heads that predict these labels, and a head is of no use with others.
    generator = torch.Generator().manual_seed(4)
    projection = (2 * torch.rand(12, 5, generator=generator) - 1) * (6 / 17) ** 0.5
    codebook = torch.nn.functional.normalize(torch.randn(37, 5, generator=generator), dim=-1)
    quantizer = RandomProjectionQuantizer(12, 5, 37, seed=4)
    assert torch.equal(quantizer.projection, projection)
    assert torch.equal(quantizer.codebook, codebook)


def test_scores_are_cosines_and_the_label_has_the_largest(x):
    quantizer = RandomProjectionQuantizer(12, 5, 37)
    scores = quantizer.scores(x)
    expected = torch.nn.functional.cosine_similarity(
        (x @ quantizer.projection).unsqueeze(-2), quantizer.codebook, dim=-1
    )
    torch.testing.assert_close(scores, expected)
    assert torch.equal(scores.argmax(-1), quantizer(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(quantizer.scores(x), scores)


def test_scores_have_the_gradient_of_finite_differences():
    quantizer = RandomProjectionQuantizer(6, 3, 7).double()
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(quantizer.scores, x)


def test_quantizers_can_share_their_codes(x):
    first = RandomProjectionQuantizer(12, 5, 37, seed=1)
    second = RandomProjectionQuantizer(12, 5, 37, seed=2, codebook=first.codebook)
    assert torch.equal(second.codebook, first.codebook)
    assert torch.equal(second.projection, RandomProjectionQuantizer(12, 5, 37, seed=2).projection)


def test_nothing_gives_no_labels():
    quantizer = RandomProjectionQuantizer(12, 5, 37)
    assert quantizer(torch.empty(0, 12)).shape == (0,)
    assert quantizer.scores(torch.empty(0, 12)).shape == (0, 37)
