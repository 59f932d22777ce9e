"""Rows chosen without a look at the lengths, as the host must where these are on a GPU, against rows chosen with it."""

import pytest
import torch

from bilevel.models import masked_prediction, masking
from bilevel.models.bestrq import Objective as BestRQ
from bilevel.models.birq import Objective as BiRQ
from bilevel.models.hubert import Objective as HuBERT
from bilevel.models.masking import Masking, valid_mask
from bilevel.models.rows import choose

F, D, V, BLOCKS = 4, 3, 7, 4
LENS = torch.tensor([61, 33, 50])
SEEDS = torch.tensor([7, 8, 9])
SIZES = {"codebook_size": V, "p_mask": 0.1, "mask_span_frames": 8}


def test_a_row_has_place_seed_and_weight():
    mask, valid = torch.ones(2, 3, dtype=torch.bool), valid_mask(torch.tensor([3, 1]), 3)
    mask[0, 1] = False
    rows = choose(mask, valid, torch.tensor([5, 6]))
    assert list(zip(rows.utterances.tolist(), rows.frames.tolist(), strict=True)) == [(0, 0), (0, 2), (1, 0)]
    assert rows.seeds.tolist() == [5 << 20, (5 << 20) + 2, 6 << 20]
    assert rows.weight.tolist() == [1, 1, 1]
    assert int(rows.count) == 3
    values = torch.arange(6.0).view(2, 3)
    assert rows.pick(values).tolist() == [0, 2, 3]
    half = rows._replace(weight=torch.tensor([1.0, 0.0, 1.0]))
    assert (int(half.count), float(half.mean(half.pick(values)))) == (2, 1.5)


@pytest.fixture
def blind(monkeypatch):
    """From the call on, lengths count as those of another device."""

    def choose_blind(mask, valid, seeds):
        rows = choose(mask, torch.ones_like(mask), seeds)
        return rows._replace(weight=valid[rows.utterances, rows.frames].float())

    def masks_blind(self, seeds, lens, n_frames, own=Masking.masks):
        return own(self, seeds, torch.full_like(seeds, n_frames), n_frames)

    def switch():
        for module in (masking, masked_prediction):
            monkeypatch.setattr(module, "choose", choose_blind)
        monkeypatch.setattr(Masking, "masks", masks_blind)

    return switch


@pytest.mark.parametrize("on_grid", [True, False])
@pytest.mark.parametrize(
    ("cls", "conf"),
    [
        (BestRQ, {}),
        (BestRQ, {"n_codebooks": 2}),
        (BiRQ, {"label_layer": 2, "logit_scale": 3.0}),
        (BiRQ, {"label_layer": 2, "separate_head": True, "gumbel": False}),
        (HuBERT, {"w_unmasked": 0.5}),
    ],
)
def test_loss_gradient_and_statistics_are_the_same(make_blocks, blind, cls, conf, on_grid):
    torch.manual_seed(0)
    encoder = make_blocks(F, D, 4, BLOCKS)
    objective = cls(F, D, BLOCKS, mask_on_grid=on_grid, **(SIZES | conf)).double()
    feats = torch.randn(3, 61, F, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    feats = feats * valid_mask(LENS, 61).unsqueeze(-1)

    targets = torch.randint(V, (3, 15), generator=torch.Generator().manual_seed(3))
    targets = targets.where(valid_mask(LENS // 4, 15), -1)
    targets[0, 14] = -1  # a state without a label

    def step():
        hidden, states = objective.masking.hide(feats, LENS, SEEDS)
        output = objective(feats, LENS, SEEDS, encoder, targets)
        params = [*encoder.parameters(), *objective.parameters()]
        return hidden, states, output, torch.autograd.grad(output.loss, params, allow_unused=True)

    hidden, states, output, grads = step()
    blind()
    hidden_blind, states_blind, output_blind, grads_blind = step()
    assert states_blind.sum() > states.sum() > 0  # the padding is among what was chosen
    assert torch.equal(hidden_blind, hidden)
    torch.testing.assert_close(output_blind.loss, output.loss)
    assert int(output_blind.weight) == int(output.weight)
    assert output_blind.stats.keys() == output.stats.keys()
    for name, value in output.stats.items():
        torch.testing.assert_close(output_blind.stats[name], value, msg=lambda m, name=name: f"{name}: {m}")
    for one, other in zip(grads, grads_blind, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(other, one)
