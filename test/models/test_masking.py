import math

import pytest
import torch

from bilevel.models.masking import Masking, fill_with_noise, span_mask, valid_mask
from bilevel.models.rows import choose


def test_valid_mask():
    assert valid_mask(torch.tensor([0, 2, 3]), 3).tolist() == [[False] * 3, [True, True, False], [True] * 3]


@pytest.mark.parametrize(("p", "span"), [(0.01, 40), (0.05, 10), (0.2, 1), (0.0, 5), (1.0, 3)])
def test_coverage_is_that_of_overlapping_spans(p, span):
    n_utterances, n_frames = 400, 600
    lens = torch.full((n_utterances,), n_frames)
    mask = span_mask(torch.arange(n_utterances), lens, n_frames, p, span).double()
    # Frame t lies in a span that starts at one of the min(t + 1, span) frames up to it.
    starts = torch.arange(1, n_frames + 1).clamp(max=span)
    expected = 1 - (1 - p) ** starts.double()
    shares = mask[:, span:].mean(1)
    error = float(shares.std()) / math.sqrt(n_utterances)
    assert abs(float(shares.mean()) - (1 - (1 - p) ** span)) <= 4 * error
    by_frame = (expected * (1 - expected) / n_utterances).sqrt()
    assert bool(((mask.mean(0) - expected).abs() <= 5 * by_frame + 1e-12).all())


def test_every_run_of_masked_frames_is_a_span_at_least_unless_the_end_cuts_it():
    mask = span_mask(torch.arange(50), torch.full((50,), 200), 200, 0.02, 7)
    for row in mask.tolist():
        runs, start = [], None
        for t, masked in enumerate([*row, False]):
            if masked and start is None:
                start = t
            if not masked and start is not None:
                runs.append((start, t))
                start = None
        assert all(end - start >= 7 or end == 200 for start, end in runs)


def test_nothing_is_masked_at_or_after_the_length():
    lens = torch.tensor([0, 1, 17, 40])
    mask = span_mask(torch.arange(4), lens, 40, 0.9, 5)
    assert not (mask & ~valid_mask(lens, 40)).any()
    assert mask.any()


def test_the_mask_of_an_utterance_depends_on_its_seed_and_length_alone():
    seeds, lens = torch.tensor([11, 22, 33]), torch.tensor([50, 80, 65])
    together = span_mask(seeds, lens, 80, 0.05, 8)
    for i in range(3):
        alone = span_mask(seeds[i : i + 1], lens[i : i + 1], int(lens[i]), 0.05, 8)
        assert torch.equal(together[i, : lens[i]], alone[0])
    order = torch.tensor([2, 0, 1])
    assert torch.equal(span_mask(seeds[order], lens[order], 120, 0.05, 8)[:, :80], together[order])
    assert not torch.equal(together[0, :50], span_mask(torch.tensor([12]), lens[:1], 50, 0.05, 8)[0])


def test_noise_replaces_masked_frames_only_and_has_the_standard_deviation():
    feats = torch.full((4, 300, 20), 7.0)
    mask = span_mask(torch.arange(4), torch.full((4,), 300), 300, 0.05, 10)
    filled = fill_with_noise(feats, choose(mask, mask, torch.arange(4)), 0.1)
    assert torch.equal(filled[~mask], feats[~mask])
    assert torch.equal(feats, torch.full_like(feats, 7.0))
    noise = filled[mask].double()
    n = noise.numel()
    assert abs(float(noise.mean())) < 4 * 0.1 / math.sqrt(n)
    assert abs(float(noise.std()) - 0.1) < 4 * 0.1 / math.sqrt(2 * n)
    # Every masked frame has its own noise.
    assert len({tuple(row) for row in noise.tolist()}) == len(noise)


def test_noise_does_not_depend_on_batch_mates():
    feats, seeds = torch.randn(3, 30, 4), torch.tensor([5, 6, 7])
    mask = torch.ones(3, 30, dtype=torch.bool)
    together = fill_with_noise(feats, choose(mask, mask, seeds), 1.0)
    mask[0] = False  # fewer masked frames elsewhere
    assert torch.equal(fill_with_noise(feats, choose(mask, mask, seeds), 1.0)[1:], together[1:])
    assert torch.equal(fill_with_noise(feats[2:], choose(mask[2:], mask[2:], seeds[2:]), 1.0)[0], together[2])


@pytest.mark.parametrize(
    ("variant", "coverage"),
    [
        ((4, 0.01, 40, 0.1), 1 - 0.99**40),  # the original
        ((1, 0.02, 20, 0.1), 1 - 0.98**20),  # PTLOC, stacked frames
        ((4, 1 - 0.85**0.25, 16, 0.1), 1 - 0.85**4),  # SpeechBrain
        ((4, 0.01, 10, 0.1, False), 1 - 0.99**10),  # WeNet
    ],
)
def test_the_variants_of_bestrq_have_their_coverage(variant, coverage):
    frames, states = Masking(*variant).masks(torch.arange(500), torch.full((500,), 800), 800)
    shares = frames[:, 40:].double().mean(1)
    assert abs(float(shares.mean()) - coverage) < 4 * float(shares.std()) / math.sqrt(500)
    # A state counts when all its frames are hidden.
    assert torch.equal(states, frames.view(500, -1, variant[0]).all(-1))


def test_off_the_grid_spans_start_anywhere():
    on, off = (Masking(4, 0.02, 12, 0.1, grid).masks(torch.arange(50), torch.full((50,), 203), 203) for grid in (1, 0))
    starts = [(~frames[:, :-1] & frames[:, 1:]).nonzero()[:, 1] + 1 for frames, _ in (on, off)]
    assert set((starts[0] % 4).tolist()) == {0}
    assert set((starts[1] % 4).tolist()) == {0, 1, 2, 3}
    assert on[1].shape == off[1].shape == (50, 51)
    assert not off[1][:, 50].any()  # a group that is not full never counts


def test_hidden_features_are_noise_where_the_mask_says():
    feats, seeds, lens = torch.randn(3, 61, 5), torch.tensor([1, 2, 3]), torch.tensor([61, 40, 53])
    masking = Masking(4, 0.05, 8, 0.1)
    hidden, states = masking.hide(feats, lens, seeds)
    frames, expected = masking.masks(seeds, lens, 61)
    assert torch.equal(states, expected)
    assert torch.equal((hidden != feats).all(-1), frames)


def test_spans_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="mask_span_frames 10: expected a multiple of stack 4, or mask_on_grid false"):
        Masking(4, 0.01, 10, 0.1)
    for on_grid in (True, False):
        with pytest.raises(ValueError, match="mask_span_frames 0: expected at least stack 4"):
            Masking(4, 0.01, 0, 0.1, on_grid)
