import pytest
import torch

from bilevel.models.frames import label_input, normalise_utterances

LENS = torch.tensor([13, 8, 1])


@pytest.fixture
def feats():
    return 2 * torch.randn(3, 13, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 5


def test_normalisation_is_per_utterance_over_valid_frames(feats):
    found = normalise_utterances(feats, LENS)
    for row, out, n in zip(feats, found, LENS.tolist(), strict=True):
        valid = row[:n]
        expected = (valid - valid.mean(0)) / (valid.var(0, unbiased=False) + 1e-5).sqrt()
        torch.testing.assert_close(out[:n], expected)
        assert not out[n:].any()


def test_stacks_are_frame_by_frame_and_filled_with_zeros(feats):
    found = label_input(feats, LENS, "utterance", 4)
    assert found.shape == (3, 4, 20)
    frames = normalise_utterances(feats, LENS)
    for k in range(3):
        assert torch.equal(found[0, k], frames[0, 4 * k : 4 * k + 4].flatten())
    assert torch.equal(found[0, 3, :5], frames[0, 12])
    assert not found[0, 3, 5:].any()


def test_layer_normalisation_is_of_each_stacked_frame(feats):
    found = label_input(feats, LENS, "layer", 4)
    row = feats[0, 4:8].flatten()
    torch.testing.assert_close(found[0, 1], (row - row.mean()) / (row.var(unbiased=False) + 1e-5).sqrt())
    torch.testing.assert_close(label_input(3 * feats, LENS, "layer", 4), found, rtol=0, atol=1e-4)


@pytest.mark.parametrize("norm", ["utterance", "layer"])
def test_what_lies_in_the_padding_does_not_matter(feats, norm):
    found = label_input(feats, LENS, norm, 4)
    noisy = torch.nn.functional.pad(feats, (0, 0, 0, 3))
    for row, n in zip(noisy, LENS.tolist(), strict=True):
        row[n:] = 1e3
    assert torch.equal(label_input(noisy, LENS, norm, 4), found)
    for i, n in enumerate(LENS.tolist()):
        alone = label_input(feats[i : i + 1, :n], LENS[i : i + 1], norm, 4)[0]
        torch.testing.assert_close(alone, found[i, : len(alone)])


def test_an_unknown_norm_is_refused(feats):
    with pytest.raises(ValueError, match="'batch': expected utterance or layer"):
        label_input(feats, LENS, "batch")
