import pytest
import torch

from bilevel.models.bestrq import Objective as BestRQ
from bilevel.models.hubert import Objective as HuBERT

F, D, V = 4, 3, 7
LENS = torch.tensor([61, 40, 53])
SEEDS = torch.tensor([7, 8, 9])
MASKS = {"p_mask": 0.05, "mask_span_frames": 8}


@pytest.fixture
def feats():
    return torch.randn(3, 61, F, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.fixture
def encoder(make_encoder):
    return make_encoder(F, D, 4)


@pytest.fixture
def targets():
    """One label a state, padded."""
    labels = torch.randint(V, (3, 15), generator=torch.Generator().manual_seed(3))
    return labels.masked_fill(torch.arange(15) >= (LENS // 4).unsqueeze(1), -1)


def build(**conf):
    torch.manual_seed(0)
    return HuBERT(F, D, codebook_size=V, **(MASKS | conf)).double()


def mask(hubert):
    return hubert.masking.masks(SEEDS, LENS, 61)[1][:, :15] & (torch.arange(15) < (LENS // 4).unsqueeze(1))


def test_loss_equals_its_definition(feats, encoder, targets):
    hubert = build(w_unmasked=0.25)
    masked = mask(hubert)
    states = encoder(hubert.masking.hide(feats, LENS, SEEDS)[0], LENS)[0]
    log_q = (states @ hubert.head.weight.T + hubert.head.bias).log_softmax(-1)
    terms = -log_q.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    unmasked = ~masked & (targets >= 0)
    output = hubert(feats, LENS, SEEDS, encoder, targets)
    assert masked.sum() > 5
    assert unmasked.sum() > 5
    torch.testing.assert_close(output.loss, terms[masked].mean() + 0.25 * terms[unmasked].mean())
    assert int(output.weight) == int(masked.sum())
    torch.testing.assert_close(build()(feats, LENS, SEEDS, encoder, targets).loss, terms[masked].mean())


def test_with_the_labels_of_bestrq_it_is_bestrq(feats, encoder):
    bestrq = BestRQ(F, D, codebook_size=V, codebook_dim=4, **MASKS).double()
    hubert = build()
    hubert.head.load_state_dict(bestrq.head.state_dict())
    labels = bestrq.labels(feats, LENS)[:, :15]
    labels = labels.masked_fill(torch.arange(15) >= (LENS // 4).unsqueeze(1), -1)
    found, expected = hubert(feats, LENS, SEEDS, encoder, labels), bestrq(feats, LENS, SEEDS, encoder)
    torch.testing.assert_close(found.loss, expected.loss)
    assert {k: float(v) for k, v in found.stats.items()} == {k: float(v) for k, v in expected.stats.items()}


def test_one_label_more_or_fewer_than_states_is_no_matter(feats, encoder, targets):
    hubert = build()
    plain = hubert(feats, LENS, SEEDS, encoder, targets)
    longer = torch.nn.functional.pad(targets, (0, 1), value=-1)
    for row, n in zip(longer, (LENS // 4).tolist(), strict=True):
        row[n] = 3
    assert torch.equal(hubert(feats, LENS, SEEDS, encoder, longer).loss, plain.loss)
    # A state without a label does not count.
    shorter = targets[:, :14].clone()
    shorter[1, 9] = shorter[2, 12] = -1
    last = torch.arange(15) == (LENS // 4 - 1).unsqueeze(1)
    n_lost = int((mask(hubert) & last).sum())
    assert int(hubert(feats, LENS, SEEDS, encoder, shorter).weight) == int(plain.weight) - n_lost


def test_targets_that_do_not_fit_are_refused(feats, encoder, targets):
    hubert = build()
    words = r"targets \(3, 30\) for states \(3, 15, 3\); utterance 1 of the batch has 30 labels for 10 encoder states"
    with pytest.raises(ValueError, match=words):
        hubert(feats, LENS, SEEDS, encoder, targets.clamp(min=0).repeat_interleave(2, dim=1))
    short = targets.clone()
    short[2, 5:] = -1
    with pytest.raises(ValueError, match="utterance 2 of the batch has 5 labels for 13 encoder states"):
        hubert(feats, LENS, SEEDS, encoder, short)
    with pytest.raises(
        ValueError, match=r"targets \(2, 15\) for states \(3, 15, 3\): expected one row of labels for each utterance"
    ):
        hubert(feats, LENS, SEEDS, encoder, targets[:2])
    with pytest.raises(ValueError, match=r"labels -1..7: expected 0..6 \(codebook_size\)"):
        hubert(feats, LENS, SEEDS, encoder, targets.where(targets != targets.max(), V))
    with pytest.raises(ValueError, match="no targets"):
        hubert(feats, LENS, SEEDS, encoder)
